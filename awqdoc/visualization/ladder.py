"""The experiment ``kernels``: our ladder step by step, and every kernel beside the others and the floor."""

from __future__ import annotations

from math import nan
from statistics import median

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from awqdoc.errors import AwqdocError
from awqdoc.formats import Problem
from awqdoc.kernels.table import KERNELS, LADDER
from awqdoc.recordings import Recording, Row
from awqdoc.visualization.style import colour, describe, legend, log_axis, new_figure, styled
from awqdoc.visualization.tables import Table

# Tokens that the figure of the ladder shows, and how.
BATCHES = {1: ("blue", "o"), 16: ("orange", "D"), 64: ("green", "s")}
# Kernels that the figures over M show, and how; the lower steps would only fill them.
CURVES = {
    "fp16": ("muted", "o"),
    "triton_fused": ("purple", "s"),
    "cuda_stripes": ("ochre", "v"),
    "cuda_warpgroups": ("green", "^"),
    "cuda_small_batch": ("blue", "P"),
    "cuda_overlapped": ("orange", "D"),
}


def kernel_rows(recording: Recording, shape: str, zero_points: bool, m: int) -> dict[str, Row]:
    """Return backend -> row of one cell of the experiment ``kernels``."""
    cell = {"shape": shape, "zero_points": zero_points, "m": m}
    return {row["backend"]: row for row in recording.rows if all(row[axis] == value for axis, value in cell.items())}


def kernel_times(recording: Recording, shape: str, zero_points: bool, m: int) -> dict[str, float]:
    """Return backend -> median seconds of one cell, the read floor as ``read``; without those that have no time."""
    rows = kernel_rows(recording, shape, zero_points, m)
    return {name: median(row["seconds"]) for name, row in rows.items() if "seconds" in row}


def over(recording: Recording, shape: str, zero_points: bool, m: int, name: str, base: str) -> float:
    """Return the median of a kernel's time over another's, round by round; nan where one of them has no time."""
    rows = kernel_rows(recording, shape, zero_points, m)
    own, other = (rows.get(one, {}).get("seconds") for one in (name, base))
    return median(a / b for a, b in zip(own, other, strict=True)) if own and other else nan


def last_step(recording: Recording, shape: str, zero_points: bool = True, m: int = 1) -> str:
    """Return the name of the last step of the ladder that got a time: not every GPU runs all of them.

    Raises
    ------
    AwqdocError
        If none did.
    """
    times = kernel_times(recording, shape, zero_points, m)
    found = [name for name in LADDER if name in times]
    if not found:
        raise AwqdocError(f"No step of the ladder has a time on {shape}: install what `awqdoc doctor` names.")
    return found[-1]


@styled
def plot_ladder(recording: Recording, shape: str, zero_points: bool = True) -> Figure:
    """Draw each step's time over the read floor for 1, 16 and 64 tokens, FP16 on top."""
    names = ("fp16", *LADDER)
    figure, axes = new_figure(f"The ladder, {shape.replace('x', ' × ')} (N × K)", height=4.6)
    told = []
    for m, (hue, marker) in BATCHES.items():
        floor = kernel_times(recording, shape, zero_points, m)["read"]
        found = kernel_times(recording, shape, zero_points, m)
        places = [(found[name] / floor, place) for place, name in enumerate(names) if name in found]
        axes.plot(
            *zip(*places, strict=True), linestyle="none", marker=marker, markersize=6, color=colour(hue),
            label=f"M = {m}",
        )  # fmt: skip
        told.append(f"M = {m}: " + ", ".join(f"{KERNELS[names[place]].title} {ratio:.2f}" for ratio, place in places))
    axes.axvline(1, color=colour("ink"), linewidth=1, label="read floor")
    labels = [_short(name).removeprefix("Step ").replace(", ", ",\n") for name in names]
    axes.set_yticks(range(len(names)), labels, fontsize=8.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xscale("log")
    log_axis(axes.xaxis)
    axes.set_xlabel("times the read floor (log)")
    legend(axes)
    return describe(figure, f"Time over the read floor on {shape}, by step. {'; '.join(told)}.", recording)


def _short(name: str) -> str:
    return KERNELS[name].title.removesuffix(" (Hopper)").removesuffix(" (torch)")


def ladder_table(recording: Recording, shape: str, batches: tuple[int, ...], zero_points: bool = True) -> Table:
    """Tabulate medians in µs of FP16, of each step and of the read floor, and the share of the floor for one token."""
    rows = []
    cells = {m: kernel_times(recording, shape, zero_points, m) for m in batches}
    for name in ("fp16", *LADDER, "read"):
        times = [f"{1e6 * cells[m][name]:.1f}" if name in cells[m] else "" for m in batches]
        first = cells[batches[0]]
        share = f"{first['read'] / first[name]:.0%}" if name in first else ""
        rows.append(["read floor" if name == "read" else _short(name), *times, share])
    columns = ["", *(f"M = {m}" for m in batches), f"share of floor, M = {batches[0]}"]
    return Table(columns, rows, recording, f"µs, medians; {shape} (N x K), {_kind(zero_points)}")


def _kind(zero_points: bool) -> str:
    return "with zero points" if zero_points else "symmetric"


@styled
def plot_kernels(recording: Recording, shape: str, zero_points: bool = True) -> Figure:
    """Draw time over M for FP16 and the kernels of `CURVES`, with the read floor."""
    figure, axes = new_figure(f"FP16 and our kernels on {shape.replace('x', ' × ')} (N × K)", height=4.2)
    batches = recording.parameters["m"]
    cells = {m: kernel_times(recording, shape, zero_points, m) for m in batches}
    told = []
    for name, (hue, marker) in CURVES.items():
        points = [(m, 1e6 * cells[m][name]) for m in batches if name in cells[m]]
        if not points:
            continue
        axes.plot(*zip(*points, strict=True), marker=marker, color=colour(hue), label=_short(name))
        (first, fast), (last, slow) = points[0], points[-1]
        told.append(f"{_short(name)}: {fast:.0f} µs at M = {first}, {slow:.0f} at {last}")
    axes.plot(batches, [1e6 * cells[m]["read"] for m in batches], ":", color=colour("ink"), label="read floor")
    _batches(axes, batches)
    axes.set_yscale("log")
    log_axis(axes.yaxis)
    axes.set_ylabel("time, µs (log)")
    legend(axes)
    return describe(figure, f"Time of one {shape} product over batch size. {'; '.join(told)}.", recording)


def _batches(axes: Axes, batches: list[int]) -> None:
    shown = [m for m in batches if m & (m - 1) == 0]
    axes.set_xscale("log", base=2)
    axes.set_xticks(shown, [str(m) for m in shown], fontsize=9)
    axes.minorticks_off()
    axes.set_xlabel("batch size M (tokens at a time)")


def lead(recording: Recording, shape: str, name: str, zero_points: bool = True) -> list[int]:
    """Return the batch sizes at which a kernel is faster than FP16, by medians of ratios."""
    return [
        m
        for m in recording.parameters["m"]
        if name in kernel_times(recording, shape, zero_points, m)
        and over(recording, shape, zero_points, m, name, "fp16") < 1
    ]


def lead_table(recording: Recording, zero_points: bool = True) -> Table:
    """Tabulate for each shape and kernel from which to which M it is faster than FP16, and its best speed-up."""
    rows = []
    for shape in recording.parameters["shape"]:
        for name in KERNELS:
            found = [m for m in recording.parameters["m"] if name in kernel_times(recording, shape, zero_points, m)]
            if name == "fp16" or not found:
                continue
            gains = {m: 1 / over(recording, shape, zero_points, m, name, "fp16") for m in found}
            won = [m for m in found if gains[m] > 1]
            best = max(found, key=gains.__getitem__)
            span = "" if not won else str(won[0]) if len(won) == 1 else f"{won[0]} to {won[-1]}"
            rows.append([shape, _short(name), span, f"{gains[best]:.2f} at {best}"])
    return Table(["N x K", "kernel", "faster than FP16 at M", "best"], rows, recording, _kind(zero_points))


def distance_table(recording: Recording, name: str, batches: tuple[int, ...], zero_points: bool = True) -> Table:
    """Tabulate a kernel's time over the read floor by shape and batch size: medians of ratios, round by round."""
    rows = []
    for shape in recording.parameters["shape"]:
        cells = []
        for m in batches:
            times = kernel_times(recording, shape, zero_points, m)
            cells.append(f"{over(recording, shape, zero_points, m, name, 'read'):.2f}" if name in times else "")
        size = Problem.parse(shape, 1)
        rows.append([shape, f"{size.weight_bytes(4) / 1e6:.0f} MB", *cells])
    columns = ["N x K", "INT4 weight", *(f"M = {m}" for m in batches)]
    return Table(columns, rows, recording, f"{_short(name)}: times the read floor, {_kind(zero_points)}")
