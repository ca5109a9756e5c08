"""Layouts drawn from their value: bits as wires, tiles as grids, words as rows of boxes."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from awqdoc.packing import Layout, Order
from awqdoc.packing.bits import Bit, parse
from awqdoc.visualization.style import colour, describe, new_figure, styled

_HUES = ("blue", "orange", "green", "purple", "ochre")
_AXES = {"k": "blue", "n": "orange", "g": "green"}


def _memory(order: Order) -> list[tuple[str, Bit]]:
    """Where each bit ends, from the top: ``("word bit 3", Bit("k", 2))``."""
    found = []
    for name in ("row", "word", "nibble"):
        bits = parse(getattr(order, name))
        for i, bit in enumerate(bits):
            place = len(bits) - 1 - i
            found.append((name if bit.rest and place == 0 else bit_name(name, place, bit.rest), bit))
    return found


def bit_name(name: str, number: int, rest: bool = False) -> str:
    """Return ``"word bit 3"``, or for this bit and all above it ``"word bits 3+"``."""
    return f"{name} bits {number}+" if rest else f"{name} bit {number}"


def wires(order: Order, lane: dict[str, str] | None = None) -> list[tuple[str, str, str]]:
    """Return (bit of an index, bit of the place in memory, bit of lane, register or half, or ""), in memory's order."""
    owners: dict[Bit, str] = {}
    for name, field in (lane or {}).items():
        bits = parse(field)
        owners |= {bit: bit_name(name, len(bits) - 1 - i) if len(bits) > 1 else name for i, bit in enumerate(bits)}
    return [(str(bit), place, owners.get(bit, "")) for place, bit in _memory(order)]


@styled
def plot_wires(order: Order, title: str, lane: dict[str, str] | None = None) -> Figure:
    """Draw a layout as wires from the bits of an index, left, to the bits of a place in memory, right.

    Parameters
    ----------
    order : Order
        As ``LAYOUTS["awq"].weight``.
    lane : dict or None
        As ``LAYOUTS["marlin"].lane``: written behind the places that belong to a lane, a register or a half.
    """
    memory = _memory(order)
    index = sorted((bit for _, bit in memory), key=lambda bit: (order.axes.index(bit.axis), -bit.number))
    figure, axes = new_figure(title, height=0.9 + 0.26 * len(memory))
    owner = [name for *_, name in wires(order, lane)]
    for height, (place, bit) in enumerate(memory):
        start = index.index(bit)
        hue = colour(_AXES[bit.axis])
        axes.plot([0.12, 0.2, 0.56, 0.64], [start, start, height, height], color=hue, linewidth=1.6)
        axes.text(0.1, start, _name(bit), ha="right", va="center", color=hue)
        axes.text(0.66, height, place, ha="left", va="center")
        axes.text(0.96, height, owner[height], ha="left", va="center", color=colour("muted"), fontsize=9)
    axes.text(0.1, -1, "index", ha="right", va="center", fontsize=9, color=colour("muted"))
    axes.text(0.66, -1, "memory", ha="left", va="center", fontsize=9, color=colour("muted"))
    if any(owner):
        axes.text(0.96, -1, "tensor core", ha="left", va="center", fontsize=9, color=colour("muted"))
    axes.set_xlim(-0.06, 1.24 if any(owner) else 0.96)
    axes.set_ylim(len(memory) - 0.4, -1.5)
    axes.axis("off")
    told = ", ".join(f"{bit} to {place}" + (f" ({name})" if name else "") for bit, place, name in wires(order, lane))
    return describe(figure, f"Which bit of the index goes to which bit of the place in memory: {told}.", None)


def _name(bit: Bit) -> str:
    return bit.axis if bit.rest and bit.number == 0 else str(bit)


@styled
def plot_tile(
    layout: Layout,
    field: str,
    title: str,
    rows: int = 16,
    columns: int = 16,
    marked: Sequence[int] = (),
    parted: Sequence[int] = (),
) -> Figure:
    """Draw the upper left of a weight as a grid, k down and n across, with a part of each code's place in it.

    Parameters
    ----------
    field : str
        What is written in the cells: ``"row"``, ``"word"``, ``"nibble"``, or ``"lane"``, ``"register"``, ``"half"``.
    marked : sequence of int
        Values whose cells are filled; none: each value has a fill of its own, some share a colour.
    parted : sequence of int
        Columns before which a line is drawn.
    """
    figure, axes = new_figure(title, height=0.9 + 4.6 * rows / columns)
    cells = {(k, n): int(layout.where(k, n)[field]) for k in range(rows) for n in range(columns)}
    for (k, n), value in cells.items():
        filled = value in marked if marked else True
        hue = colour(_HUES[(list(marked).index(value) if marked and filled else value) % len(_HUES)])
        axes.add_patch(
            Rectangle((n, k), 1, 1, facecolor=hue if filled else "none", alpha=0.35 if filled else 1, linewidth=0)
        )
        size = 8 if columns <= 16 else 5
        axes.text(n + 0.5, k + 0.54, str(value), ha="center", va="center", fontsize=size)
    _grid(axes, rows, columns)
    for n in parted:
        axes.plot([n, n], [0, rows], color=colour("ink"), linewidth=1.6)
    axes.set_xlabel("n")
    axes.set_ylabel("k")
    shown = "; ".join(f"k = {k}: " + " ".join(str(cells[k, n]) for n in range(columns)) for k in range(min(rows, 4)))
    return describe(figure, f"The {field} of each code, k down and n across. First rows: {shown}.", None)


def _grid(axes: Axes, rows: int, columns: int) -> None:
    step = 1 if columns <= 16 else 8
    axes.set_xlim(0, columns)
    axes.set_ylim(rows, 0)
    axes.set_aspect("equal")
    axes.set_xticks([n + 0.5 for n in range(0, columns, step)], [str(n) for n in range(0, columns, step)])
    axes.set_yticks([k + 0.5 for k in range(rows)], [str(k) for k in range(rows)])
    axes.tick_params(length=0, labelsize=8, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.xaxis.set_label_position("top")
    axes.grid(visible=False)


@styled
def plot_words(order: Order, words: Sequence[tuple[str, int, int]], title: str) -> Figure:
    """Draw words as boxes, the most significant nibble left as one writes numbers, with the index of each value.

    Parameters
    ----------
    words : sequence of (str, int, int)
        Name, row and word of each.
    """
    figure, axes = new_figure(title, height=0.8 + 0.55 * len(words))
    first, second = order.axes[0], order.axes[1]
    parts = []
    for height, (name, row, word) in enumerate(words):
        axes.text(-0.15, height + 0.5, name, ha="right", va="center", fontsize=9)
        held = []
        for nibble in range(order.nibbles):
            index = order.at(row, word, nibble)
            x = order.nibbles - 1 - nibble
            axes.add_patch(Rectangle((x, height + 0.1), 1, 0.8, facecolor="none", edgecolor=colour("muted")))
            axes.text(x + 0.5, height + 0.33, f"{first} {index[first]}", ha="center", va="center", fontsize=8,
                      color=colour(_AXES[first]))  # fmt: skip
            axes.text(x + 0.5, height + 0.68, f"{second} {index[second]}", ha="center", va="center", fontsize=8,
                      color=colour(_AXES[second]))  # fmt: skip
            held.append(f"({index[first]}, {index[second]})")
        parts.append(f"{name}: {' '.join(held)}")
    for nibble in range(order.nibbles):
        axes.text(order.nibbles - 0.5 - nibble, -0.15, str(nibble), ha="center", fontsize=8, color=colour("muted"))
    axes.text(-0.15, -0.15, "nibble", ha="right", fontsize=8, color=colour("muted"))
    axes.set_xlim(-2.2, order.nibbles + 0.05)
    axes.set_ylim(len(words), -0.6)
    axes.axis("off")
    alt = f"Index ({first}, {second}) of the value in each nibble, the lowest first. {'; '.join(parts)}."
    return describe(figure, alt, None)
