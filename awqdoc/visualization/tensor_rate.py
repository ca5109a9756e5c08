"""The experiment ``hierarchy``: what a product of the tensor cores costs, by mma.sync and by wgmma."""

from __future__ import annotations

from statistics import median

import numpy as np
from matplotlib.figure import Figure

from awqdoc.recordings import Recording
from awqdoc.visualization.measured_hierarchy import PER_CYCLE, chip, data_sheet, probe_rows, rate
from awqdoc.visualization.style import colour, describe, legend, new_figure, si, styled
from awqdoc.visualization.tables import Table

LEFTS = {
    "shared memory": ("blue", "o"),
    "registers": ("green", "s"),
    "registers, written anew": ("orange", "D"),
}
# wgmmas in a group, groups under way, sums, as the rows have them -> what a reader calls it.
WAYS = {
    (1, 1, 1): "one in flight",
    (1, 2, 1): "two in flight",
    (1, 4, 1): "four in flight",
    (4, 2, 1): "two groups of four",
    (2, 2, 2): "two groups of two",
}
Way = tuple[int, int, int]


def wgmma_cycles(recording: Recording, left: str, way: Way, warpgroups: int) -> dict[int, float]:
    """Return columns N -> median cycles of the SM for each wgmma."""
    together, pending, adders = way
    rows = probe_rows(
        recording, "wgmma", left=left, together=together, pending=pending, adders=adders, warpgroups=warpgroups
    )
    return {row["columns"]: median(row["cycles"]) for row in sorted(rows, key=lambda row: row["columns"])}


def fixed_cost(recording: Recording, left: str, way: Way, warpgroups: int) -> tuple[float, float] | None:
    """Fit cycles = fixed + slope * N by least squares to wgmmas of 32 to 128 columns; None for fewer than three.

    The tensor cores need half a cycle for a column, whatever is fixed.
    """
    points = {n: c for n, c in wgmma_cycles(recording, left, way, warpgroups).items() if 32 <= n <= 128}
    if len(points) < 3:
        return None
    slope, fixed = np.polyfit(list(points), list(points.values()), 1)
    return float(fixed), float(slope)


def operand_cycles(columns: int, left: str) -> float:
    """Return the cycles (modelled) in which shared memory gives a wgmma its operands, FP16, 128 bytes in a cycle.

    They are 16 k of N columns of B and, if A is there too, of 64 rows.
    """
    rows = columns + (64 if left == "shared memory" else 0)
    return rows * 16 * 2 / PER_CYCLE


@styled
def plot_wgmma(recording: Recording, way: Way, warpgroups: int) -> Figure:
    """Draw cycles for each wgmma over its columns, by where A is, beside what tensor cores and shared memory need."""
    groups = "two warpgroups" if warpgroups == 2 else "one warpgroup"
    figure, axes = new_figure(f"wgmma, 64 × N × 16: {groups}, {WAYS[way]}", height=4.0)
    told = []
    columns: set[int] = set()
    for left, (hue, marker) in LEFTS.items():
        points = wgmma_cycles(recording, left, way, warpgroups)
        axes.plot(list(points), list(points.values()), marker=marker, color=colour(hue), label=f"A in {left}")
        told.append(f"A in {left}: " + ", ".join(f"{cycles:.0f} at {n}" for n, cycles in points.items()))
        columns |= set(points)
    ends = [min(columns, default=8), max(columns, default=256)]
    axes.plot(ends, [n / 2 for n in ends], ":", color=colour("ink"), label="N / 2 (modelled)")
    line = [n for n in sorted({*columns, *ends}) if n <= 64]
    through = [operand_cycles(n, "shared memory") for n in line]
    axes.plot(line, through, "--", color=colour("purple"), label="16 + N / 4 (modelled)")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    ticks = [2**power for power in range(2, 9)]
    shown = [tick for tick in ticks if ends[0] <= tick <= ends[1]]
    axes.set_xticks(shown, [str(tick) for tick in shown])
    axes.set_yticks(ticks[:-1], [str(tick) for tick in ticks[:-1]])
    axes.minorticks_off()
    axes.set_xlabel("columns N, the tokens (log)")
    axes.set_ylabel("cycles of the SM (log)")
    legend(axes)
    return describe(figure, f"Cycles of a wgmma over N. {'; '.join(told)}.", recording)


def wgmma_table(recording: Recording) -> Table:
    """Tabulate, by left operand, flight and warpgroups, the fixed cycles of a wgmma and those for each column."""
    rows = []
    for warpgroups in (1, 2):
        for way, called in WAYS.items():
            for left in LEFTS:
                found = fixed_cost(recording, left, way, warpgroups)
                if found is not None:
                    cycles = wgmma_cycles(recording, left, way, warpgroups)
                    cells = [f"{cycles[n]:.0f}" for n in (32, 64, 128)]
                    rows.append([warpgroups, called, left, f"{found[0]:+.1f}", f"{found[1]:.2f}", *cells])
    columns = ["warpgroups", "under way", "A in", "fixed cycles", "cycles per column", "N = 32", "N = 64", "N = 128"]
    return Table(columns, rows, recording, "Cycles of the SM for each wgmma m64nNk16; line through N = 32 to 128")


def peak_table(recording: Recording) -> Table:
    """Tabulate the highest rates by mma.sync and by wgmma beside the data sheet's."""
    sheet = data_sheet(recording)
    rows = []
    for what in ("mma.sync", "wgmma"):
        found = probe_rows(recording, what)
        if found:
            best = max(found, key=lambda row: rate(row, "flop"))
            share = f"{rate(best, 'flop') / sheet.peak:.0%}" if sheet else ""
            how = (
                f"{best['warps']} warps, {best['chains']} sums each" if what == "mma.sync"
                else f"N = {best['columns']}, A in {best['left']}, {best['warpgroups']} warpgroups"
            )  # fmt: skip
            rows.append([what, how, si(rate(best, "flop"), "FLOP/s"), share])
    return Table(["instruction", "fastest with", "rate", "of the data sheet's"], rows, recording)


def mma_latency(recording: Recording) -> float:
    """Return the cycles from one mma.sync m16n8k16 to another that needs its result: one warp, one sum."""
    (row,) = probe_rows(recording, "mma.sync", warps=1, chains=1)
    return float(median(row["cycles"]))


def clock_at_work(recording: Recording) -> float | None:
    """Return the SM's clock in Hz while wgmmas ran: cycles of a block over the seconds of its launch.

    It is the slope of a line through all wgmma launches, so that what is the same in each, the launch itself, does not
    count. None where there is no wgmma.
    """
    rows = probe_rows(recording, "wgmma")
    if len(rows) < 3:
        return None
    products = [row["flop"] / chip(recording)["sms"] / (2 * 64 * 16 * row["columns"]) for row in rows]
    cycles = [count * median(row["cycles"]) for count, row in zip(products, rows, strict=True)]
    slope, _ = np.polyfit(cycles, [median(row["seconds"]) for row in rows], 1)
    return float(1 / slope)
