"""Bits drawn as boxes, on patterns whose values we know."""

import pytest
import torch
from figure_checks import assert_house_style
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from awqdoc import visualization as vis

ROWS = [
    vis.Bits("x", 0x9D35, "nibbles", marked=0x00FF),
    vis.Bits("0x6400", 0x6400),
    vis.Bits("x & 0x000f | 0x6400", 0x6405, marked=0x000F),
    vis.Bits("0x43f0", 0x43F0, "bf16", marked=0x00F0),
]


def drawn() -> Figure:
    return vis.plot_bits(ROWS, "Bits")


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize(("kind", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
@pytest.mark.parametrize("pattern", [0x6400, 0x4300, 0x43F0, 0xD480, 0x0001, 0x8000, 0x3C00])
def test_value_is_that_of_torch(kind: str, dtype: torch.dtype, pattern: int) -> None:
    signed = pattern - 0x10000 if pattern >= 0x8000 else pattern
    assert vis.Bits("", pattern, kind).value == float(torch.tensor(signed, dtype=torch.int16).view(dtype))


def test_parts_of_a_pattern() -> None:
    assert ROWS[0].value is None
    assert ROWS[0].fields == {"nibble 3": 9, "nibble 2": 13, "nibble 1": 3, "nibble 0": 5}
    assert ROWS[2].fields == {"sign": 0, "exponent": 25, "mantissa": 5}
    assert ROWS[3].fields == {"sign": 0, "exponent": 135, "mantissa": 0x70}


def test_every_bit_has_a_box() -> None:
    figure = drawn()
    bits = "".join(text for text in texts(figure) if text in ("0", "1"))
    assert bits == "".join(f"{row.pattern:016b}" for row in ROWS)


def test_marked_bits_are_filled() -> None:
    boxes = [p for p in drawn().axes[0].patches if isinstance(p, Rectangle) and p.get_facecolor()[3]]
    places = [(round(box.get_y()), 15 - int(box.get_x())) for box in boxes]
    assert places == [
        (row, bit) for row, bits in enumerate(ROWS) for bit in range(15, -1, -1) if bits.marked >> bit & 1
    ]


def test_parts_are_named_once_for_each_kind() -> None:
    found = texts(drawn())
    assert [found.count(name) for name in ("sign", "exponent", "mantissa", "nibble 0")] == [2, 2, 2, 0]


def test_alt_text_tells_patterns_values_and_parts() -> None:
    alt = drawn().awqdoc_alt  # type: ignore[attr-defined]
    assert "x: 0x9d35 (nibble 3 9, nibble 2 13, nibble 1 3, nibble 0 5)" in alt
    assert "x & 0x000f | 0x6400: 0x6405 = 1029 (sign 0, exponent 25, mantissa 5)" in alt
    assert "0x43f0: 0x43f0 = 480 (" in alt


def test_house_style() -> None:
    assert_house_style(drawn)
