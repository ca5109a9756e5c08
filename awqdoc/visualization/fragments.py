"""Which elements of A, B and C a lane holds for one tensor-core instruction, drawn as three grids."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from awqdoc.visualization.style import colour, describe, new_figure, styled

# Rows and columns, what they count, their hue, and where the grid lies: A left of C and B above it, since C += A B.
_GAP = 4
_GRIDS = {
    "A": (16, 16, "token", "k", "green", (0, 16 + _GAP)),
    "B": (16, 8, "k", "n", "blue", (16 + _GAP, 0)),
    "C": (16, 8, "token", "n", "orange", (16 + _GAP, 16 + _GAP)),
}


def lane_elements(lane: int) -> dict[str, dict[tuple[int, int], int]]:
    """Return which elements of A, B and C a lane holds for ``mma.sync.m16n8k16``, and in which register.

    With FP16 inputs and FP32 sums, as NVIDIA's PTX manual has it: two elements share a register in A and B, none in C.

    Returns
    -------
    dict
        ``"A"``, ``"B"``, ``"C"`` -> (row, column) -> register.
    """
    eighth, pair = lane // 4, 2 * (lane % 4)
    return {
        "A": {(eighth + 8 * (r % 2), pair + 8 * (r // 2) + half): r for r in range(4) for half in range(2)},
        "B": {(pair + 8 * r + half, eighth): r for r in range(2) for half in range(2)},
        "C": {(eighth + 8 * (r // 2), pair + r % 2): r for r in range(4)},
    }


@styled
def plot_fragments(lane: int, title: str) -> Figure:
    """Draw A, B and C of one ``mma.sync.m16n8k16`` as factors and product, with a lane's elements filled.

    A filled cell shows the register that holds it.
    """
    figure, axes = new_figure(title, height=5.4)
    told = []
    for name, (rows, columns, down, across, hue, (left, top)) in _GRIDS.items():
        held = lane_elements(lane)[name]
        axes.text(left, top - 2.3, f"{name}: {down} x {across}", va="center", fontsize=9.5, color=colour(hue))
        for row in range(rows):
            for column in range(columns):
                _cell(axes, left + column, top + row, held.get((row, column)), hue)
        for row in sorted({row for row, _ in held}):
            axes.text(left - 0.3, top + row + 0.5, str(row), ha="right", va="center", fontsize=8)
        for column in sorted({column for _, column in held}):
            axes.text(left + column + 0.5, top - 0.7, str(column), ha="center", va="center", fontsize=8)
        places = " ".join(f"({row}, {column}) in {register}" for (row, column), register in held.items())
        told.append(f"{name}, {down} by {across}: {places}")
    axes.text(
        0, 3, f"Filled: what lane {lane} holds\nNumber: in which register", va="top", fontsize=9.5, linespacing=1.7
    )
    axes.set_xlim(-1.8, 24.2 + _GAP)
    axes.set_ylim(32.2 + _GAP, -3)
    axes.axis("off")
    return describe(figure, f"Elements that lane {lane} holds, and the register of each. {'; '.join(told)}.", None)


def _cell(axes: Axes, x: float, y: float, register: int | None, hue: str) -> None:
    if register is not None:
        axes.add_patch(Rectangle((x, y), 1, 1, facecolor=colour(hue), alpha=0.35, linewidth=0))
        axes.text(x + 0.5, y + 0.54, str(register), ha="center", va="center", fontsize=8)
    axes.add_patch(Rectangle((x, y), 1, 1, facecolor="none", edgecolor=colour("grid"), linewidth=0.6))
