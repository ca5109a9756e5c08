"""Mistakes of measuring and how large they are; clocks that agree and that do not."""

from __future__ import annotations

import math
from itertools import accumulate
from statistics import median

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from awqdoc.profiling import doubted, summarize
from awqdoc.recordings import Recording, Row
from awqdoc.visualization.style import colour, describe, legend, new_figure, styled
from awqdoc.visualization.tables import Table

# What is said of it, the way that is wrong, and the way that is right.
MISTAKES = (
    ("first call counted", "the first call of all", "clock stopped when the GPU is done"),
    ("no synchronization", "clock stopped when the call returns", "clock stopped when the GPU is done"),
    ("launch gaps counted", "called from Python", "replayed as a graph"),
    ("warm cache, FP16", "fp16, one weight again", "fp16, cold copies"),
    ("warm cache, only reading INT4", "read, one weight again", "read, cold copies"),
    ("warm cache, INT4 fused", "triton_fused, one weight again", "triton_fused, cold copies"),
    ("zeros as data", "zeros", "random numbers"),
    ("second to read a weight", "dequantize, second", "dequantize, first"),
)
WAYS = {
    "ncu": ("Nsight Compute", "ink", "|"),
    "graph": ("graph, cold copies", "blue", "o"),
    "read": ("flushed by a read", "green", "^"),
    "write": ("flushed by a write", "purple", "s"),
    "do_bench, short": ("do_bench for 10 ms", "ochre", "v"),
    "do_bench": ("do_bench", "orange", "D"),
}
"""Name, colour and marker of each way to time."""


def samples_of(recording: Recording, way: str) -> list[float]:
    """Return the seconds of one way of the experiment ``mistakes``."""
    return next(list(row["seconds"]) for row in recording.rows if row["way"] == way and "seconds" in row)


def mistake_factors(recording: Recording) -> dict[str, float]:
    """Return for each mistake what it makes of the time: the median done wrong over the median done right."""
    return {
        name: median(samples_of(recording, wrong)) / median(samples_of(recording, right))
        for name, wrong, right in MISTAKES
    }


@styled
def plot_mistakes(recording: Recording) -> Figure:
    """Draw by what each mistake multiplies the time, on a log axis; the first call is too long to be drawn."""
    factors = {name: factor for name, factor in mistake_factors(recording).items() if factor < 100}
    figure, axes = new_figure("What each mistake makes of the time", height=1.5 + 0.36 * len(factors))
    places = range(len(factors))
    axes.axvline(1, color=colour("ink"), linewidth=1)
    axes.hlines(places, 1, list(factors.values()), color=colour("orange"), linewidth=3)
    axes.plot(list(factors.values()), places, "o", color=colour("orange"), markersize=6)
    for place, factor in enumerate(factors.values()):
        aside, side = (-8, "right") if factor < 1 else (8, "left")
        axes.annotate(
            f"{factor:.2f}", (factor, place), textcoords="offset points", xytext=(aside, 0), ha=side, va="center",
            fontsize=9,
        )  # fmt: skip
    axes.set_yticks(places, list(factors))
    axes.set_ylim(len(factors) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.set_xticks([0.1, 0.2, 0.5, 1, 2, 5, 10], ["0.1", "0.2", "0.5", "1", "2", "5", "10"])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(min(0.06, 0.3 * min(factors.values())), max(15, 3 * max(factors.values())))
    axes.set_xlabel("times the time measured right (log)")
    told = ", ".join(f"{name} {factor:.2f}" for name, factor in factors.items())
    return describe(figure, f"The time measured wrong over the time measured right: {told}.", recording)


def mistakes_table(recording: Recording) -> Table:
    """Tabulate the medians in µs, wrong and right, and their ratio."""
    rows = []
    for name, wrong, right in MISTAKES:
        times = [1e6 * median(samples_of(recording, way)) for way in (wrong, right)]
        rows.append([name, f"{times[0] / times[1]:.2f}", wrong, f"{times[0]:.1f}", right, f"{times[1]:.1f}"])
    title = (
        "Medians; first call and synchronization: FP16 28672x4096, M = 256; launch gaps, cache, second: 4096x4096, "
        "M = 1; zeros: 8192x8192x8192"
    )
    return Table(["mistake", "ratio", "wrong", "µs", "right", "µs"], rows, recording, title)


def sustained(recording: Recording) -> tuple[list[float], list[int], list[float], int]:
    """Return seconds of each product of the sustained run, clocks (MHz), watts, and products between two readings."""
    trace = next(row for row in recording.rows if row["way"] == "clocks and power")
    return samples_of(recording, "busy from rest on"), trace["sm_clocks"], trace["powers"], trace["every"]


@styled
def plot_drift(recording: Recording) -> Figure:
    """Draw the time of every product of a run from rest on, and the clock that was read meanwhile, over seconds."""
    seconds, clocks, _, every = sustained(recording)
    figure, axes = new_figure("The same product again and again, from rest on")
    ends = list(accumulate(seconds))
    axes.plot(ends, [1e3 * s for s in seconds], ".", markersize=2, color=colour("blue"), label="time of a product, ms")
    axes.set_ylim(0, 1.15e3 * sorted(seconds)[int(0.99 * len(seconds))])
    axes.set_xlabel("seconds since the start")
    axes.set_ylabel("ms")
    right = axes.twinx()
    right.grid(visible=False)
    right.plot(ends[::every], clocks, "-", color=colour("orange"))
    axes.plot([], [], "-", color=colour("orange"), label="SM clock, MHz (right)")
    right.set_ylim(0, 1.15 * max(clocks))
    right.set_ylabel("MHz")
    legend(axes)
    early, late = median(seconds[:20]), median(seconds[-200:])
    return describe(
        figure,
        f"A large product takes {1e3 * early:.2f} ms at first and {1e3 * late:.2f} ms at the end of {ends[-1]:.1f} "
        f"seconds, while the SM clock goes from {clocks[0]} to {clocks[-1]} MHz.",
        recording,
    )


def work_title(work: str) -> str:
    """Write ``fp16 28672x4096 1`` as readers do: FP16 28672x4096, M = 1."""
    name, *sizes = work.split()
    titles = {"fp16": "FP16", "triton_fused": "INT4 fused", "read": "read INT4", "matmul": "FP16 8192x8192x8192"}
    return f"{titles.get(name, name)} {', M = '.join(sizes)}".rstrip()


def agreement_rows(recording: Recording, work: str) -> dict[str, Row]:
    """Return way -> row of one work of the experiment ``agreement``."""
    return {row["way"]: row for row in recording.rows if row["work"] == work}


def agreement_ratios(recording: Recording, work: str) -> dict[str, float]:
    """Return way -> its median over Nsight Compute's."""
    rows = agreement_rows(recording, work)
    return {way: median(row["seconds"]) / median(rows["ncu"]["seconds"]) for way, row in rows.items()}


def agreement_long(recording: Recording) -> list[str]:
    """Return the works of the experiment ``agreement`` that take more than 100 µs by Nsight Compute."""
    return [work for work in recording.parameters["work"] if _reference(recording, work) > 100e-6]


def agreement_steady(recording: Recording, way: str) -> list[str]:
    """Return the long works of which `awqdoc.profiling.doubted` has nothing against a way's samples."""
    restless = {(row["work"], row["way"]) for row, _ in doubted(recording.rows)}
    return [work for work in agreement_long(recording) if (work, way) not in restless]


def agreement_apart(recording: Recording, way: str, works: list[str]) -> float:
    """Return by what share a way's medians differ from Nsight Compute's at most, over some works; nan for none."""
    return max((abs(agreement_ratios(recording, work)[way] - 1) for work in works), default=math.nan)


def agreement_doubts(recording: Recording) -> list[str]:
    """Say which times of the experiment ``agreement`` should not be believed, and why."""
    return [f"{work_title(row['work'])}, {WAYS[row['way']][0]}: {doubt}" for row, doubt in doubted(recording.rows)]


@styled
def plot_agreement(recording: Recording) -> Figure:
    """Draw each way's median over Nsight Compute's, a line for each work, the longest on top; without the 10 ms run."""
    works = sorted(recording.parameters["work"], key=lambda work: -_reference(recording, work))
    figure, axes = new_figure("The same calls by different clocks", height=2.1 + 0.36 * len(works))
    for way, (title, hue, marker) in WAYS.items():
        if way == "do_bench, short":  # of some short calls several times what it finds later
            continue
        places = [
            (ratio, place)
            for place, work in enumerate(works)
            if (ratio := agreement_ratios(recording, work).get(way)) is not None
        ]
        axes.plot(
            *zip(*places, strict=True), linestyle="none", marker=marker, markersize=11 if marker == "|" else 5.5,
            markeredgewidth=2 if marker == "|" else 0.8, color=colour(hue), label=title,
        )  # fmt: skip
    axes.set_yticks(
        range(len(works)), [f"{work_title(work)}\n{1e6 * _reference(recording, work):.4g} µs" for work in works]
    )
    axes.tick_params(axis="y", labelsize=8)
    axes.set_ylim(len(works) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.set_xticks([0.7, 1, 1.5, 2, 3, 5], ["0.7", "1", "1.5", "2", "3", "5"])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("times Nsight Compute's duration (log)")
    legend(axes)
    told = "; ".join(
        f"{work_title(work)}: "
        + ", ".join(
            f"{WAYS[way][0]} {ratio:.2f}" for way, ratio in agreement_ratios(recording, work).items() if way != "ncu"
        )
        for work in works
    )
    return describe(figure, f"Medians over Nsight Compute's, by work. {told}.", recording)


def _reference(recording: Recording, work: str) -> float:
    return median(agreement_rows(recording, work)["ncu"]["seconds"])


def agreement_table(recording: Recording) -> Table:
    """Tabulate medians in µs, with how many kernels a call has."""
    rows = []
    for work in sorted(recording.parameters["work"], key=lambda work: -_reference(recording, work)):
        found = agreement_rows(recording, work)
        times = [f"{1e6 * summarize(found[way]['seconds']).median:.4g}" if way in found else "" for way in WAYS]
        rows.append([work_title(work), found["ncu"]["kernels"], *times])
    columns = ["work", "kernels", *(title for title, _, _ in WAYS.values())]
    return Table(columns, rows, recording, "µs, medians")
