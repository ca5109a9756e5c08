"""The experiment ``hierarchy``: what a product of the tensor cores costs, by mma.sync and by wgmma."""

from __future__ import annotations

from statistics import median

import numpy as np
from matplotlib.figure import Figure

from awqdoc.recordings import Recording
from awqdoc.visualization.measured_hierarchy import data_sheet, probe_rows, rate
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


@styled
def plot_wgmma(recording: Recording, way: Way, warpgroups: int) -> Figure:
    """Draw cycles for each wgmma over its columns, by where the left operand is, above what the tensor cores need."""
    groups = "two warpgroups" if warpgroups == 2 else "one warpgroup"
    figure, axes = new_figure(f"wgmma, 64 × N × 16: {groups}, {WAYS[way]}", height=3.8)
    told = []
    last = 0
    for left, (hue, marker) in LEFTS.items():
        points = wgmma_cycles(recording, left, way, warpgroups)
        axes.plot(list(points), list(points.values()), marker=marker, color=colour(hue), label=f"A in {left}")
        told.append(f"A in {left}: " + ", ".join(f"{cycles:.0f} at {n}" for n, cycles in points.items()))
        last = max(last, *points)
    axes.plot([0, last], [0, last / 2], ":", color=colour("ink"), label="N / 2")
    axes.set_xticks(range(0, last + 1, 32))
    axes.set_xlabel("columns N (tokens)")
    axes.set_ylabel("cycles of the SM for each wgmma")
    axes.set_ylim(0, None)
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
