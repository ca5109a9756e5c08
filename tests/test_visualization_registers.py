"""What a mask takes out of a word, and which codes share one, beside answers known from elsewhere."""

from __future__ import annotations

import pytest
from figure_checks import assert_house_style

from awqdoc import visualization as vis
from awqdoc.packing import LAYOUTS, Order

NATURAL = Order("kn", row="k0+", word="n3+", nibble="n2 n1 n0")
ORDERS = {"natural": NATURAL, "AWQ": LAYOUTS["awq"].weight}


def test_the_mask_takes_columns_four_apart_in_natural_order_and_neighbours_in_awqs() -> None:
    assert vis.register_pairs(NATURAL, "n") == [(0, 4), (1, 5), (2, 6), (3, 7)]
    assert vis.register_pairs(LAYOUTS["awq"].weight, "n") == [(0, 1), (2, 3), (4, 5), (6, 7)]
    # What the shift and the mask make of the words themselves, a code being its column.
    for word, order in ((0x76543210, NATURAL), (0x75316420, LAYOUTS["awq"].weight)):
        registers = [word >> shift & 0x000F000F for shift in (0, 4, 8, 12)]
        assert vis.register_pairs(order, "n") == [(register & 15, register >> 16) for register in registers]


def test_the_figure_of_registers_tells_the_pairs() -> None:
    figure = vis.plot_registers(ORDERS, "n", "Registers")
    assert "natural: 0 and 4 after a shift by 0, 1 and 5 after" in figure.awqdoc_alt  # type: ignore[attr-defined]
    assert "AWQ: 0 and 1 after a shift by 0, 2 and 3 after" in figure.awqdoc_alt  # type: ignore[attr-defined]
    texts = [text.get_text() for text in figure.axes[0].texts]
    # Word and registers from the least significant bits on, right to left.
    assert [text for text in texts if text.startswith("n ")][16:] == [
        *("n 0", "n 2", "n 4", "n 6", "n 1", "n 3", "n 5", "n 7"),
        *("n 0", "n 1", "n 2", "n 3", "n 4", "n 5", "n 6", "n 7"),
    ]


@pytest.mark.parametrize(
    ("format", "word", "indices"),
    [
        ("awq", 1, [(0, 8 + n) for n in (0, 2, 4, 6, 1, 3, 5, 7)]),
        ("gptq", 3, [(k, 3) for k in range(8)]),
        ("awq_gemv", 2, [(16 + k, 0) for k in range(8)]),
        ("awq_gemv_fast", 1, [(1, 0), (9, 0), (17, 0), (25, 0)]),
    ],
)
def test_the_codes_of_a_word(format: str, word: int, indices: list[tuple[int, int]]) -> None:
    assert vis.words_held(LAYOUTS[format], word + 1)[word] == indices


def test_the_figure_of_words_has_a_panel_for_each_format() -> None:
    figure = vis.plot_word_shapes({name: LAYOUTS[name] for name in ("awq", "gptq", "marlin")}, "Words")
    assert [panel.get_title() for panel in figure.axes] == ["awq", "gptq", "marlin"]
    awq, gptq, marlin = (
        {(patch.get_y(), patch.get_x()) for patch in panel.patches}  # type: ignore[attr-defined]
        for panel in figure.axes
    )
    assert awq == {(0, n) for n in range(32)}
    assert gptq == {(k, n) for k in range(8) for n in range(4)}
    assert marlin == {(k, n) for k in (0, 1, 8, 9) for n in (0, 8, 16, 24)}, "beyond the panel nothing is drawn"
    assert "gptq: word 0 (0, 0) (1, 0)" in figure.awqdoc_alt  # type: ignore[attr-defined]


def test_figures_have_the_style_of_the_house() -> None:
    assert_house_style(lambda: vis.plot_registers(ORDERS, "n", "Registers"))
    assert_house_style(lambda: vis.plot_word_shapes({"awq": LAYOUTS["awq"], "gptq": LAYOUTS["gptq"]}, "Words"))
