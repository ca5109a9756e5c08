"""One tile on its way through our kernels: its bytes, its fragments, who stores what, and copies that run ahead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from awqdoc.kernels.ladder import walk
from awqdoc.visualization.style import colour, describe, new_figure, styled

_REGISTERS = ("blue", "orange", "green", "purple")
# Fragment -> its name, what its rows and columns count, size of a cell, cells of a box (what a lane has in a register),
# and where it lies: the left operand beside the sums, the right one above them.
_GRIDS = {
    "left": ("weight", "n", "k", (0.85, 1.0), (2, 1), (0.0, 14.0)),
    "right": ("X", "k", "token", (1.45, 0.6), (1, 2), (17.2, 0.0)),
    "sums": ("sums", "n", "token", (1.45, 1.0), (1, 1), (17.2, 14.0)),
}


def owners(fragment: str) -> dict[tuple[int, int], tuple[int, ...]]:
    """Return (row, column) -> (lane, register, half) of ``"left"`` or ``"right"``, (lane, register) of ``"sums"``."""
    rows, columns = np.broadcast_arrays(*{"left": walk.LEFT, "right": walk.RIGHT, "sums": walk.SUMS}[fragment])
    return {(int(row), int(columns[place])): place for place, row in np.ndenumerate(rows)}


@styled
def plot_record(record: walk.Parts, lane: int, title: str) -> Figure:
    """Draw a record as its bytes: 16 loads of a warp, scales, zero points; then what one lane has of the first load."""
    figure, axes = new_figure(title, height=3.7)
    scales, zeros = record.scales.nbytes, 0 if record.zeros is None else record.zeros.nbytes
    size = record.codes.nbytes + scales + zeros
    sections = [(512, "blue")] * 16 + [(scales, "orange"), (zeros, "green")]
    left = 0.0
    for number, (count, hue) in enumerate(sections):
        _box(axes, left, 0, 100 * count / size, 1, hue, filled=number == 0)
        left += 100 * count / size
    for x, name, place in (
        (0, f"codes: 8 tiles of 16 rows, two loads each; {record.codes.nbytes} bytes", "left"),
        (100, f"scales {scales}, zero points {zeros}", "right"),
    ):
        axes.text(x, -0.15 if place == "left" else 1.15, name, ha=place, va="bottom" if place == "left" else "top",
                  fontsize=8.5)  # fmt: skip
    _zoom(axes, (0, 100 * 512 / size), 1, 2.6)
    for other in range(32):
        _box(axes, other * 3.125, 2.6, 3.125, 1, "blue", filled=other == lane)
        if other in (0, lane, 31):
            axes.text(other * 3.125 + 1.56, 3.12, str(other), ha="center", va="center", fontsize=8)
    axes.text(1.5, 2.45, "512 bytes: the lanes of a warp, 16 bytes each", ha="left", va="bottom", fontsize=8.5)
    _zoom(axes, (lane * 3.125, lane * 3.125 + 3.125), 3.6, 5.4)
    words = [f"0x{word:08x}" for word in record.codes[0, 0, lane].tolist()]
    for number, word in enumerate(words):
        _box(axes, 25 * number, 5.4, 25, 1, "blue", filled=number == 0)
        axes.text(25 * number + 12.5, 5.93, word, ha="center", va="center", fontsize=9, family="DejaVu Sans Mono")
        axes.text(25 * number + 12.5, 6.55, f"k {16 * number} to {16 * number + 15}", ha="center", va="top",
                  fontsize=8.5, color=colour("muted"))  # fmt: skip
    axes.set_xlim(-0.5, 100.5)
    axes.set_ylim(7.2, -0.8)
    axes.axis("off")
    alt = (
        f"A record of {size} bytes: codes {record.codes.nbytes}, in 16 loads of 512, scales {scales}, zero points "
        f"{zeros}. Of the first load lane {lane} has bytes {16 * lane} to {16 * lane + 15}: {', '.join(words)}."
    )
    return describe(figure, alt, None)


def _box(axes: Axes, x: float, y: float, width: float, height: float, hue: str, filled: bool) -> None:
    if filled:
        axes.add_patch(Rectangle((x, y), width, height, facecolor=colour(hue), alpha=0.4, linewidth=0))
    axes.add_patch(Rectangle((x, y), width, height, facecolor="none", edgecolor=colour(hue), linewidth=0.9))


def _zoom(axes: Axes, part: tuple[float, float], top: float, bottom: float) -> None:
    """Draw lines from both ends of a part to the ends of its enlargement below."""
    for start, end in zip(part, (0, 100), strict=True):
        axes.plot([start, end], [top, bottom], color=colour("muted"), linewidth=0.8, linestyle=":")


@styled
def plot_owners(lane: int, title: str) -> Figure:
    """Draw the fragments of one ``mma`` as factors and product: in each place its lane, in the register's colour.

    Places of one lane that share a register are one box; those of `lane` are filled.
    """
    figure, axes = new_figure(title, height=5.7)
    told = []
    for fragment, (name, down, across, (width, height), (wide, tall), (left, top)) in _GRIDS.items():
        held = owners(fragment)
        mine = sorted(place for place, owner in held.items() if owner[0] == lane)
        told.append(f"{name}, {down} by {across}: " + " ".join(f"{place} in {held[place][1]}" for place in mine))
        axes.text(left, top - 2.0, f"{name}: {down} × {across}", va="center", fontsize=9.5)
        for (row, column), (owner, register, *_) in held.items():
            if row % tall or column % wide:
                continue
            x, y = left + column * width, top + row * height
            _place(axes, x, y, wide * width, tall * height, owner, register, filled=owner == lane)
            if owner == lane:
                axes.text(left - 0.3, y + tall * height / 2, _names(row, tall), ha="right", va="center", fontsize=8,
                          color=colour("muted"))  # fmt: skip
                axes.text(x + wide * width / 2, top - 0.6, _names(column, wide), ha="center", va="center", fontsize=8,
                          color=colour("muted"))  # fmt: skip
    axes.text(0, 0, f"number: the lane\nfilled: lane {lane}\ncolour: its register", va="top", fontsize=9.5,
              linespacing=1.7)  # fmt: skip
    for register in range(4):
        _place(axes, 2.6 * register, 6.2, 1.8, 1.2, register, register, filled=True)
    axes.set_xlim(-2.1, 28.9)
    axes.set_ylim(30.1, -2.7)
    axes.axis("off")
    return describe(figure, f"Places of lane {lane}, and the register of each. {'; '.join(told)}.", None)


def _names(first: int, count: int) -> str:
    return ", ".join(str(first + i) for i in range(count))


def _place(axes: Axes, x: float, y: float, width: float, height: float, text: int, register: int, filled: bool) -> None:
    hue = colour(_REGISTERS[register])
    axes.add_patch(Rectangle((x, y), width, height, facecolor=hue, alpha=0.6 if filled else 0.13, linewidth=0))
    axes.add_patch(Rectangle((x, y), width, height, facecolor="none", edgecolor=colour("grid"), linewidth=0.6))
    axes.text(x + width / 2, y + height / 2, str(text), ha="center", va="center_baseline", fontsize=8)


@styled
def plot_stores(lane: int, title: str) -> Figure:
    """Draw which warp stores which 16 columns of a block's 128, and which lane which outputs of one of these tiles."""
    figure, axes = new_figure(title, height=3.9)
    for tile in range(8):
        team = tile % 2
        _box(axes, 2 * tile, 0, 2, 1.2, ("blue", "orange")[team], filled=True)
        axes.text(2 * tile + 1, 0.6, f"warp {tile // 2 + 4 * team}", ha="center", va="center", fontsize=8)
    for x, text in ((0, "n 0"), (16, "n 127")):
        axes.text(x, -0.15, text, ha="left" if x == 0 else "right", va="bottom", fontsize=8, color=colour("muted"))
    axes.text(8, -0.15, "team 0 blue, team 1 orange", ha="center", va="bottom", fontsize=8.5)
    for start, end in ((0, 0), (2, 16)):
        axes.plot([start, end], [1.2, 3.1], color=colour("muted"), linewidth=0.8, linestyle=":")
    for token in range(8):
        for pair in range(8):
            owner = 4 * token + pair % 4
            _place(axes, 2 * pair, 3.1 + token, 2, 1, owner, 0, filled=owner == lane)
        axes.text(-0.2, 3.6 + token, str(token), ha="right", va="center", fontsize=8, color=colour("muted"))
    axes.text(-0.9, 7.1, "token", ha="right", va="center", fontsize=9, rotation=90)
    axes.plot([8, 8], [3.1, 11.1], color=colour("ink"), linewidth=1.4)
    for x, text in ((4, "first store"), (12, "second store")):
        axes.text(x, 11.3, text, ha="center", va="top", fontsize=8.5)
    axes.set_xlim(-1.6, 16.1)
    axes.set_ylim(12.2, -0.9)
    axes.axis("off")
    alt = (
        "Warps 0, 4, 1, 5, 2, 6, 3, 7 store 16 columns each, team 0 and team 1 in turn. In a tile of 8 tokens by 16 "
        f"columns, lane l stores token l // 4, columns 2 (l % 4) and the next, then those 8 further; lane {lane}: "
        f"token {lane // 4}, columns {lane % 4 * 2}, {lane % 4 * 2 + 1}, {lane % 4 * 2 + 8} and {lane % 4 * 2 + 9}."
    )
    return describe(figure, alt, None)


Times = tuple[Sequence[float], Sequence[float]]


@styled
def plot_pipeline(runs: Mapping[int, Times], multiply: float, title: str) -> Figure:
    """Draw a modelled timeline for each number of stages: its slots, which records are copied to, and the products.

    Parameters
    ----------
    runs : dict
        Stages -> when each record's copy begins and when its multiplication, in times of one copy.
    multiply : float
        Time of one multiplication, in times of one copy.
    """
    figure, axes = new_figure(title, height=1.2 + 0.24 * sum(stages + 2 for stages in runs))
    height, last, told = 0.0, 0.0, []
    for stages, (copies, products) in runs.items():
        axes.text(0, height - 0.1, f"S = {stages}", ha="left", va="bottom", fontsize=9)
        for record, (copy, product) in enumerate(zip(copies, products, strict=True)):
            _span(axes, copy, height + record % stages, 1, record, "blue")
            _span(axes, product, height + stages, multiply, record, "orange")
        waited = sum(products[i + 1] - products[i] - multiply for i in range(len(products) - 1))
        end = products[-1] + multiply
        axes.text(end + 0.1, height + stages + 0.43, f"waits {waited:g} in all", ha="left", va="center", fontsize=8.5)
        told.append(f"S = {stages}: done at {end:g}, {waited:g} of it waiting after the first copy")
        last, height = max(last, end), height + stages + 2.1
    axes.set_xlim(0, last + 2.6)
    axes.set_ylim(height - 0.9, -1)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False, axis="y")
    axes.set_xticks(range(int(last) + 2))
    axes.set_xlabel("time of one copy = 1; blue: copies, orange: multiplications", fontsize=9)
    records = len(next(iter(runs.values()))[0])
    alt = f"Timelines of {records} records, a multiplication taking {multiply:g} of a copy's time. {'; '.join(told)}."
    return describe(figure, alt, None)


def _span(axes: Axes, start: float, y: float, width: float, record: int, hue: str) -> None:
    axes.add_patch(Rectangle((start, y), width, 0.86, facecolor=colour(hue), alpha=0.35, linewidth=0))
    axes.add_patch(Rectangle((start, y), width, 0.86, facecolor="none", edgecolor=colour(hue), linewidth=0.9))
    axes.text(start + width / 2, y + 0.45, str(record), ha="center", va="center", fontsize=8)
