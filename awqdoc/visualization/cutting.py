"""How the records of a weight are cut among blocks: the schedule of step 5, drawn, and what it is worth."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from awqdoc.formats import Problem
from awqdoc.kernels.ladder.records import SIDE
from awqdoc.kernels.ladder.schedule import helpers, stripes
from awqdoc.recordings import Recording
from awqdoc.visualization.ladder import over
from awqdoc.visualization.style import colour, describe, new_figure, styled
from awqdoc.visualization.tables import Table

HUES = ("blue", "orange", "green", "purple", "ochre")


@styled
def plot_stripes(tiles: int, per_tile: int, blocks: int) -> Figure:
    """Draw which block multiplies which record: a column for each tile, its records downwards along K.

    A thick line encloses what a block leaves for the one that has the beginning of the tile.
    """
    figure, axes = new_figure(f"{tiles} tiles of {per_tile} records on {blocks} blocks, in equal stripes", height=3.6)
    parts = stripes(tiles * per_tile, per_tile, blocks)
    for part in parts:
        top = part.begin - part.tile * per_tile
        size = part.end - part.begin
        leaves = part.role == "leaves"
        axes.add_patch(
            Rectangle(
                (part.tile + 0.06, top + 0.06), 0.88, size - 0.12, facecolor=colour(HUES[part.block % len(HUES)]),
                alpha=0.25 if leaves else 0.55, edgecolor=colour("ink"), linewidth=1.8 if leaves else 0,
            )
        )  # fmt: skip
        text = f"{part.block} leaves" if leaves else f"{part.block} adds" if part.role == "adds" else str(part.block)
        axes.text(part.tile + 0.5, top + size / 2, text, ha="center", va="center", fontsize=8, color=colour("ink"))
    axes.set_xlim(0, tiles)
    axes.set_ylim(per_tile, 0)
    axes.set_xticks([tile + 0.5 for tile in range(tiles)], [str(tile) for tile in range(tiles)])
    axes.set_yticks(range(0, per_tile + 1, max(1, per_tile // 6)))
    axes.grid(visible=False)
    axes.set_xlabel("tile of 128 columns of W")
    axes.set_ylabel("record along K")
    told = "; ".join(f"block {p.block}: tile {p.tile}, records {p.begin} to {p.end - 1}, {p.role}" for p in parts)
    return describe(figure, f"Which block multiplies which records. {told}.", None)


def busy(shape: str, sms: int, per_sm: int = 1) -> tuple[float, float]:
    """Return which share of the SMs' time is used by one block for each tile, and by stripes, in records of work.

    A block takes a time in proportion to its records; `per_sm` blocks share an SM.
    """
    size = Problem.parse(shape, 1)
    tiles, per_tile = size.n // SIDE, size.k // SIDE
    waves = -(-tiles // (sms * per_sm))
    longest = max(-(-tiles * per_tile // sms), 1)
    return tiles / (waves * sms * per_sm), tiles * per_tile / (sms * longest)


def cutting_table(recording: Recording, sms: int, m: int = 1) -> Table:
    """Tabulate by shape: tiles, shares of SMs at work, blocks that share a tile, gain as modelled and as measured."""
    rows = []
    for shape in recording.parameters["shape"]:
        size = Problem.parse(shape, 1)
        tiles, per_tile = size.n // SIDE, size.k // SIDE
        whole, cut = busy(shape, sms)
        most = 1 + max(helpers(tiles * per_tile, per_tile, sms, block) for block in range(sms))
        gain = 1 / over(recording, shape, True, m, "cuda_stripes", "cuda_pipeline")
        rows.append([shape, tiles, per_tile, f"{whole:.0%}", f"{cut:.0%}", most, f"{cut / whole:.2f}", f"{gain:.2f}"])
    columns = [
        "N x K", "tiles", "records each", "SMs at work, block per tile", "with stripes", "blocks on a tile",
        "gain, modelled", "gain, measured",
    ]  # fmt: skip
    title = f"Step 5 against step 4, M = {m}; shares and modelled gain are computed for {sms} SMs"
    return Table(columns, rows, recording, title)
