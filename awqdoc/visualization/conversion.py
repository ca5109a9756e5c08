"""From one layout to another: which bit of a place in memory becomes which, drawn as wires."""

from __future__ import annotations

from matplotlib.figure import Figure

from awqdoc.packing import Order
from awqdoc.packing.bits import Bit, parse
from awqdoc.visualization.layouts import bit_name
from awqdoc.visualization.style import colour, describe, new_figure, styled

_AXES = {"k": "blue", "n": "orange", "g": "green"}


def moves(source: Order, target: Order) -> list[tuple[Bit, str, str]]:
    """Return (bit of the index, its place in the source, its place in the target), in the target's order of memory.

    Where one of the two has ``k0+`` and the other ``k0``, ``k1`` and ``k2+``, the bits are named one by one.
    """
    if source.axes != target.axes:
        raise ValueError(f"{source} and {target} are indexed by different axes")
    cuts = {axis: max(bit.number for bit in source.bits + target.bits if bit.rest and bit.axis == axis)
            for axis in source.axes}  # fmt: skip
    before = dict(_places(source, cuts))
    return [(bit, before[bit], place) for bit, place in _places(target, cuts)]


def _places(order: Order, cuts: dict[str, int]) -> list[tuple[Bit, str]]:
    """Return (bit, as ``"word bit 3"``) from the top of memory, with the rest of each axis cut at the same bit."""
    found = []
    for name in ("row", "word", "nibble"):
        bits = parse(getattr(order, name))
        for i, bit in enumerate(bits):
            lowest = len(bits) - 1 - i
            if not bit.rest:
                found.append((bit, bit_name(name, lowest)))
                continue
            top = cuts[bit.axis]
            place = lowest + top - bit.number
            found.append((Bit(bit.axis, top, rest=True), bit_name(name, place, rest=True) if place else name))
            found += [
                (Bit(bit.axis, number), bit_name(name, lowest + number - bit.number))
                for number in reversed(range(bit.number, top))
            ]
    return found


@styled
def plot_moves(source: Order, target: Order, names: tuple[str, str], title: str) -> Figure:
    """Draw what repacking does as wires from the bits of the old place, left, to those of the new one, right.

    Parameters
    ----------
    names : tuple of str
        What source and target are called.
    """
    moved = moves(source, target)
    lookup = {bit: (place, height) for height, (bit, _, place) in enumerate(moved)}
    ordered = [bit for bit, _, _ in moves(target, source)]
    figure, axes = new_figure(title, height=0.9 + 0.26 * len(moved))
    for start, bit in enumerate(ordered):
        place, height = lookup[bit]
        hue = colour(_AXES[bit.axis])
        axes.plot([0.36, 0.43, 0.69, 0.76], [start, start, height, height], color=hue, linewidth=1.6)
        axes.text(0.02, start, str(bit), ha="left", va="center", color=hue)
        axes.text(0.34, start, moved[height][1], ha="right", va="center")
        axes.text(0.78, height, place, ha="left", va="center")
    for x, name, side in ((0.02, "bit", "left"), (0.34, names[0], "right"), (0.78, names[1], "left")):
        axes.text(x, -1, name, ha=side, va="center", fontsize=9, color=colour("muted"))
    axes.set_xlim(0, 1)
    axes.set_ylim(len(moved) - 0.4, -1.5)
    axes.axis("off")
    told = ", ".join(f"{bit} from {before} to {after}" for bit, before, after in moved)
    return describe(figure, f"Where each bit of a place goes, from {names[0]} to {names[1]}: {told}.", None)
