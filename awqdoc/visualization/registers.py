"""What one mask takes out of a word of eight nibbles, by the order in which the nibbles lie."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from awqdoc.packing import Order
from awqdoc.visualization.style import colour, describe, new_figure, styled

_HUES = ("blue", "orange", "green", "purple")


def register_pairs(order: Order, axis: str) -> list[tuple[int, int]]:
    """Return which two values of the first word the mask 0x000f000f takes out after a shift by 0, 4, 8 and 12.

    Parameters
    ----------
    axis : str
        The letter of the index that tells the values of a word apart.

    Returns
    -------
    list of (int, int)
        Index of the value in the lower and in the upper 16 bits, shift by shift.
    """
    low, high = ([order.at(0, 0, shift + half)[axis] for shift in range(4)] for half in (0, 4))
    return list(zip(low, high, strict=True))


@styled
def plot_registers(orders: Mapping[str, Order], axis: str, title: str) -> Figure:
    """Draw the first word of each order, and below it the registers that a mask and shifts make of it.

    Nibbles that come out together share a colour. All is written with the most significant bits left.

    Parameters
    ----------
    orders : dict
        Name -> order with eight nibbles in a word.
    axis : str
        The letter of the index that tells the values of a word apart.
    """
    figure, axes = new_figure(title, height=0.7 + 1.35 * len(orders))
    told = []
    for number, (name, order) in enumerate(orders.items()):
        top = 3 * number
        pairs = register_pairs(order, axis)
        axes.text(0, top - 0.1, name, ha="left", va="bottom", fontsize=9)
        for nibble in range(8):
            value = pairs[nibble % 4][nibble // 4]
            _box(axes, 7 - nibble, top, f"{axis} {value}", _HUES[nibble % 4])
        axes.plot([4, 4], [top - 0.1, top + 0.9], color=colour("ink"), linewidth=1.6)
        for shift, (low, high) in enumerate(pairs):
            for half, value in enumerate((low, high)):
                _box(axes, 6.85 - 2 * shift - 0.7 * half + 0.3, top + 1.15, f"{axis} {value}", _HUES[shift], width=0.7)
            axes.text(7.15 - 2 * shift, top + 1.98, f">> {4 * shift}", ha="center", va="top", fontsize=8,
                      color=colour("muted"))  # fmt: skip
        axes.text(8.2, top + 0.4, "word", ha="left", va="center", fontsize=8, color=colour("muted"))
        axes.text(8.2, top + 1.5, "registers", ha="left", va="center", fontsize=8, color=colour("muted"))
        read = ", ".join(f"{low} and {high} after a shift by {4 * shift}" for shift, (low, high) in enumerate(pairs))
        told.append(f"{name}: {read}")
    axes.set_xlim(-0.1, 9.6)
    axes.set_ylim(3 * len(orders) - 0.5, -0.8)
    axes.axis("off")
    return describe(figure, f"Values {axis} that the mask 0x000f000f takes out of a word. {'; '.join(told)}.", None)


def _box(axes: Axes, x: float, y: float, text: str, hue: str, width: float = 1) -> None:
    height = 0.8 if width == 1 else 0.7
    axes.add_patch(Rectangle((x, y), width, height, facecolor=colour(hue), alpha=0.35, linewidth=0))
    axes.add_patch(Rectangle((x, y), width, height, facecolor="none", edgecolor=colour(hue), linewidth=1.1))
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=9)
