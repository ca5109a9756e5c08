"""Sixteen bits as boxes: what a pattern says as FP16 or BF16, or as four nibbles of a word."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from awqdoc.visualization.style import colour, describe, new_figure, styled

FIELDS = {
    "fp16": (("sign", 1), ("exponent", 5), ("mantissa", 10)),
    "bf16": (("sign", 1), ("exponent", 8), ("mantissa", 7)),
    "nibbles": (("nibble 3", 4), ("nibble 2", 4), ("nibble 1", 4), ("nibble 0", 4)),
}
"""What the bits of a pattern are, from the most significant, and how many."""
_HUES = {"sign": "purple", "exponent": "orange", "mantissa": "blue"}


@dataclass(frozen=True)
class Bits:
    """One row of `plot_bits`.

    Attributes
    ----------
    name : str
        What it is, as ``"x & 0x000f | 0x6400"``.
    pattern : int
        Its 16 bits.
    kind : str
        A key of `FIELDS`.
    marked : int
        Mask of the bits that are a code: they are filled.
    """

    name: str
    pattern: int
    kind: str = "fp16"
    marked: int = 0

    @property
    def value(self) -> float | None:
        """The number that the pattern is; None for nibbles."""
        if self.kind == "fp16":
            return float(struct.unpack("<e", struct.pack("<H", self.pattern))[0])
        if self.kind == "bf16":
            return float(struct.unpack("<f", struct.pack("<I", self.pattern << 16))[0])
        return None

    @property
    def fields(self) -> dict[str, int]:
        """The parts of the pattern, as ``{"sign": 0, "exponent": 25, "mantissa": 5}``."""
        parts, place = {}, 16
        for name, width in FIELDS[self.kind]:
            place -= width
            parts[name] = self.pattern >> place & ((1 << width) - 1)
        return parts


@styled
def plot_bits(rows: Sequence[Bits], title: str) -> Figure:
    """Draw patterns of 16 bits below each other, the most significant bit left, with their values at the right."""
    figure, axes = new_figure(title, height=0.75 + 0.62 * len(rows))
    told = []
    for height, row in enumerate(rows):
        first = row.kind not in [above.kind for above in rows[:height]]
        _draw(axes, row, height, named=first and row.kind != "nibbles")
        axes.text(-0.1, height - 0.12, row.name, ha="left", va="bottom", fontsize=9, family="DejaVu Sans Mono")
        said = f"0x{row.pattern:04x}" if row.value is None else f"0x{row.pattern:04x}\n= {row.value:g}"
        axes.text(16.3, height + 0.18, said, ha="left", va="center", fontsize=9)
        parts = ", ".join(f"{name} {value}" for name, value in row.fields.items())
        told.append(f"{row.name}: {said.replace(chr(10), ' ')} ({parts})")
    axes.set_xlim(-0.2, 19.2)
    axes.set_ylim(len(rows) - 0.4, -0.45)
    axes.axis("off")
    return describe(figure, f"The 16 bits of each pattern. {'; '.join(told)}.", None)


def _draw(axes: Axes, row: Bits, height: int, named: bool) -> None:
    left = 0
    for number, (field, width) in enumerate(FIELDS[row.kind]):
        hue = colour(_HUES.get(field, "muted"))
        for x in range(left, left + width):
            bit = 15 - x
            filled = row.marked >> bit & 1
            axes.add_patch(
                Rectangle(
                    (x, height - 0.08), 1, 0.5, facecolor=colour("green") if filled else "none",
                    alpha=0.35 if filled else 1, linewidth=0,
                )
            )  # fmt: skip
            axes.add_patch(Rectangle((x, height - 0.08), 1, 0.5, facecolor="none", edgecolor=hue, linewidth=1.1))
            axes.text(
                x + 0.5, height + 0.18, str(row.pattern >> bit & 1), ha="center", va="center", fontsize=9,
                color=colour("ink") if row.kind == "nibbles" else hue,
            )  # fmt: skip
        if number:  # a wider line between the parts
            axes.plot([left, left], [height - 0.06, height + 0.47], color=colour("ink"), linewidth=1.6)
        if named:
            axes.text(left + width / 2, height + 0.45, field, ha="center", va="top", fontsize=8, color=hue)
        left += width
