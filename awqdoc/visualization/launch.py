"""A launch as a table and as a drawing: what limits the blocks on an SM, and which SM holds how many in which wave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from awqdoc.gpu.footprints import Footprint
from awqdoc.gpu.occupancy import LIMITS, Launch, launch
from awqdoc.visualization.style import colour, describe, new_figure, styled
from awqdoc.visualization.tables import Table

MOST_WAVES = 6  # that are drawn in full width; of more, the first and the last
MOST_NUMBERED = 120  # blocks: more cannot be read one by one


@styled
def plot_launch(launch: Launch) -> Figure:
    """Draw which SMs are at work in which wave: a row for each SM, time to the right in waves.

    Where they can be read, the blocks are drawn one by one; otherwise a box is a number of SMs that hold equally many.
    """
    figure, axes = new_figure(
        f"{_many(launch.blocks, 'block')} on {_many(launch.chip.sms, 'SM')}, {launch.blocks_per_sm} on each at once: "
        f"{_many(launch.waves, 'wave')}",
        height=3.4,
    )
    drawn = _drawn_waves(launch.waves)
    for place, wave in enumerate(drawn):
        if wave is None:
            axes.text(place + 0.5, launch.chip.sms / 2, "…", ha="center", va="center", fontsize=16)
        elif launch.slots * len(drawn) <= MOST_NUMBERED:
            _draw_blocks(axes, launch, place, wave)
        else:
            _draw_groups(axes, launch, place, wave)
    axes.set_xlim(0, len(drawn))
    axes.set_ylim(launch.chip.sms, 0)
    axes.set_xticks(
        [place + 0.5 for place, wave in enumerate(drawn) if wave is not None],
        [str(wave) for wave in drawn if wave is not None],
    )
    axes.tick_params(axis="x", length=0)
    if launch.chip.sms <= 16:
        axes.set_yticks([sm + 0.5 for sm in range(launch.chip.sms)], [str(sm) for sm in range(launch.chip.sms)])
    axes.grid(visible=False)
    axes.set_xlabel("wave: time to the right, if all blocks take the same time")
    axes.set_ylabel("SM")
    return describe(figure, _told(launch), None)


def _drawn_waves(waves: int) -> list[int | None]:
    """Return the numbers of the waves to draw; None stands for those between."""
    if waves <= MOST_WAVES:
        return list(range(1, waves + 1))
    return [1, 2, None, waves - 1, waves]


def _in_wave(launch: Launch, wave: int) -> int:
    return launch.slots if wave < launch.waves else launch.last_wave


def _groups(blocks: int, sms: int) -> Iterator[tuple[int, int]]:
    """Yield (SMs, blocks on each of them) for blocks that are dealt out one by one to all SMs in turn."""
    each, more = divmod(blocks, sms)
    yield from ((count, number) for count, number in ((more, each + 1), (sms - more, each)) if count)


def _draw_groups(axes: Axes, launch: Launch, place: int, wave: int) -> None:
    top = 0
    for count, number in _groups(_in_wave(launch, wave), launch.chip.sms):
        share = number / launch.blocks_per_sm
        axes.add_patch(
            Rectangle(
                (place + 0.03, top), 0.94, count, facecolor=colour("blue"), alpha=0.1 + 0.5 * share if number else 0,
                edgecolor=colour("ink"), linewidth=0.8,
            )
        )  # fmt: skip
        if not number:
            _outline(axes, place + 0.03, top, 0.94, count)
        if count >= launch.chip.sms / 12:
            text = f"{number} of {launch.blocks_per_sm}\non {_many(count, 'SM')}" if number else f"{count} idle"
            axes.text(place + 0.5, top + count / 2, text, ha="center", va="center", fontsize=8)
        top += count


def _draw_blocks(axes: Axes, launch: Launch, place: int, wave: int) -> None:
    """Draw each block with its number; those that an SM holds at once lie one above the other."""
    height = 1 / launch.blocks_per_sm
    for slot in range(launch.slots):
        lane, sm = divmod(slot, launch.chip.sms)
        x, y = place + 0.03, sm + 0.06 + lane * height * 0.88
        if slot >= _in_wave(launch, wave):
            _outline(axes, x, y, 0.94, height * 0.88)
            continue
        box = Rectangle(
            (x, y), 0.94, height * 0.88, facecolor=colour("blue"), alpha=0.6, edgecolor=colour("ink"), linewidth=0.6
        )
        axes.add_patch(box)
        if launch.slots <= 24:
            number = str((wave - 1) * launch.slots + slot)
            axes.text(place + 0.5, y + height * 0.44, number, ha="center", va="center", fontsize=7)


def _outline(axes: Axes, x: float, y: float, width: float, height: float) -> None:
    """Show what is empty."""
    axes.add_patch(
        Rectangle((x, y), width, height, fill=False, edgecolor=colour("muted"), linewidth=0.8, linestyle=":")
    )


def _told(launch: Launch) -> str:
    last = ", ".join(
        f"{_many(count, 'SM')} hold{'s' if count == 1 else ''} {number or 'none'}"
        for count, number in _groups(launch.last_wave, launch.chip.sms)
    )
    waves = _many(launch.waves, "wave")
    full = f"In all but the last each SM holds {launch.blocks_per_sm}. " if launch.waves > 1 else ""
    return (
        f"{_many(launch.blocks, 'block')} on {_many(launch.chip.sms, 'SM')} in {waves}. {full}"
        f"In the last {last}. {launch.lost:.1%} of all places are empty."
    )


def _many(count: int, name: str) -> str:
    return f"{count} {name}{'' if count == 1 else 's'}"


def launch_table(launch: Launch) -> Table:
    """Tabulate what a launch asks for and what follows: blocks by each resource, occupancy, waves and tail."""
    chip, limits = launch.chip, LIMITS[launch.chip.capability]
    rows: list[list[Any]] = [
        ["warps of a block", launch.warps, f"{launch.threads} threads, 32 in each"],
        ["registers of a block, rounded up", launch.registers, "to each warp, in pieces of 256"],
        ["shared bytes of a block, rounded up", launch.shared, f"in pieces of {limits.unit}"],
        *([f"blocks by {name}", blocks, ""] for name, blocks in launch.fits.items()),
        ["blocks on an SM", launch.blocks_per_sm, f"limited by {' and '.join(launch.limiters)}"],
        ["warps on an SM", launch.resident_warps, f"of {limits.warps}"],
        ["theoretical occupancy", f"{launch.occupancy:.1%}", "if the grid has blocks enough"],
        ["with this grid, first wave", f"{launch.grid_occupancy:.1%}", "mean of all SMs"],
        ["blocks that the GPU holds", launch.slots, f"on {chip.sms} SMs"],
        ["waves", launch.waves, "if all blocks take the same time"],
        ["blocks in the last", launch.last_wave, ""],
        ["places empty, mean of all waves", f"{launch.lost:.1%}", ""],
    ]
    title = f"{launch.blocks} blocks of {launch.threads} threads on {chip.name} ({chip.sms} SMs)"
    return Table(["fact", "value", "how"], rows, None, title)


def footprints_table(kernels: Mapping[str, Footprint], gpu: str) -> Table:
    """Tabulate kernels by name: what they ask for, what limits them on a GPU, and how full they make it."""
    rows = []
    for name, asked in kernels.items():
        found = launch((asked.grid,), (asked.threads,), asked.regs, asked.smem, gpu)
        rows.append([
            name, f"{found.occupancy:.0%}", f"{found.grid_occupancy:.0%}", found.blocks_per_sm,
            " and ".join(found.limiters), asked.threads, asked.regs, asked.smem, asked.grid,
        ])  # fmt: skip
    columns = [
        "kernel", "occupancy", "with its grid", "blocks on an SM", "limited by", "threads", "registers",
        "shared bytes", "blocks",
    ]  # fmt: skip
    return Table(columns, rows, None, f"What kernels ask for, and what {gpu} gives them")
