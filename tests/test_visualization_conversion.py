"""Wires between two layouts say what converting does."""

from __future__ import annotations

from itertools import product

import pytest
from figure_checks import assert_house_style

from awqdoc import visualization as vis
from awqdoc.packing import LAYOUTS, Order

AWQ, MARLIN = LAYOUTS["awq"].weight, LAYOUTS["awq_marlin"].weight


def test_moves_from_awq_to_marlin() -> None:
    assert [(str(bit), before, after) for bit, before, after in vis.moves(AWQ, MARLIN)] == [
        ("k4+", "row bits 4+", "row"),
        ("n6+", "word bits 3+", "word bits 7+"),
        ("n2", "nibble bit 1", "word bit 6"),
        ("n1", "nibble bit 0", "word bit 5"),
        ("n0", "nibble bit 2", "word bit 4"),
        ("k2", "row bit 2", "word bit 3"),
        ("k1", "row bit 1", "word bit 2"),
        ("n5", "word bit 2", "word bit 1"),
        ("n4", "word bit 1", "word bit 0"),
        ("k0", "row bit 0", "nibble bit 2"),
        ("n3", "word bit 0", "nibble bit 1"),
        ("k3", "row bit 3", "nibble bit 0"),
    ]


@pytest.mark.parametrize(("one", "other"), [*product(LAYOUTS, LAYOUTS)])
def test_moves_lead_from_a_place_to_the_place_of_the_same_code(one: str, other: str) -> None:
    source, target = LAYOUTS[one].weight, LAYOUTS[other].weight
    for k, n in ((0, 0), (37, 85), (90, 171), (255, 511)):
        old, new = source.where(k=k, n=n), dict.fromkeys(("row", "word", "nibble"), 0)
        for _, before, after in vis.moves(source, target):
            (name, place, rest), (to, to_place, _) = split(before), split(after)
            value = old[name] >> place
            new[to] |= (value if rest else value & 1) << to_place
        assert new == target.where(k=k, n=n)


def split(place: str) -> tuple[str, int, bool]:
    """``"word bits 7+"`` -> word, 7, True; ``"row"`` is all of it."""
    name, _, number = f"{place} bits 0+".split(" ")[:3]
    return name, int(number.rstrip("+")), number.endswith("+")


def test_orders_of_different_things_are_refused() -> None:
    with pytest.raises(ValueError, match="different axes"):
        vis.moves(AWQ, LAYOUTS["awq"].scales)


def test_wires_end_where_moves_say() -> None:
    figure = vis.plot_moves(AWQ, MARLIN, ("AWQ", "Marlin"), "A title")
    axes = figure.axes[0]
    left = [bit for bit, *_ in vis.moves(MARLIN, AWQ)]
    right = [bit for bit, *_ in vis.moves(AWQ, MARLIN)]
    assert len(axes.lines) == 12
    for bit, line in zip(left, axes.lines, strict=True):
        heights = list(line.get_ydata())  # type: ignore[arg-type]
        assert heights == [left.index(bit)] * 2 + [right.index(bit)] * 2
    at = {(text.get_text(), text.get_position()[1]) for text in axes.texts}
    for height, (bit, before, after) in enumerate(vis.moves(AWQ, MARLIN)):
        start = left.index(bit)
        assert {(after, height), (before, start), (str(bit), start)} <= at
    assert "n0 from nibble bit 2 to word bit 4" in figure.awqdoc_alt  # type: ignore[attr-defined]


def test_other_axes_too() -> None:
    zeros = Order("gn", row="g0+", word="n3+", nibble="n2 n1 n0")
    assert_house_style(lambda: vis.plot_moves(zeros, LAYOUTS["awq_marlin"].zeros or zeros, ("GPTQ", "Marlin"), "Zeros"))


def test_house_style() -> None:
    assert_house_style(lambda: vis.plot_moves(AWQ, MARLIN, ("AWQ", "Marlin"), "Repacking"))
