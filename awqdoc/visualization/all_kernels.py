"""The experiment ``kernels`` as a contest: who is first, how near to the floor each comes, who got no time, and why."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from awqdoc.formats import Problem
from awqdoc.kernels.table import KERNELS, LADDER
from awqdoc.profiling import ratios
from awqdoc.recordings import Recording, Row
from awqdoc.visualization.style import WIDTH, colour, describe, new_figure, styled
from awqdoc.visualization.tables import Table

TOP = LADDER[-1]
# Narrow panels have room for so many letters above them.
PANEL_LETTERS = 31
STRONGEST = 0.6  # opacity of a cell: letters stay readable on it


@dataclass(frozen=True)
class Floor:
    """The time that no kernel can beat in a cell.

    Attributes
    ----------
    seconds : float
        The longer of reading the packed weight, measured in the same cell, and the operations at the best rate.
    binds : str
        ``"bytes"`` or ``"operations"``: which of them that is.
    """

    seconds: float
    binds: str


@dataclass(frozen=True)
class Standing:
    """Who leads in a cell.

    Attributes
    ----------
    first : str
        The fastest of all, by medians.
    other : str
        The fastest that is not of our ladder.
    lead : float or None
        That one's time over our top step's, the median over the rounds; None if the top step got no time.
    """

    first: str
    other: str
    lead: float | None


def brief(name: str) -> str:
    """Return a backend's title without what all have in common; a name that the table lacks as it is."""
    title = KERNELS[name].title if name in KERNELS else name
    for suffix in (" (Hopper)", " (torch)"):
        title = title.removesuffix(suffix)
    return title.removeprefix("INT4 ").replace(", through GPTQModel", "")


def top_step(recording: Recording) -> str:
    """Return the last step of our ladder that got a time: not every GPU runs all of them. If none did, the last."""
    timed = {row["backend"] for row in recording.rows if "seconds" in row}
    return next((name for name in reversed(LADDER) if name in timed), TOP)


def spans(won: list[int], measured: list[int]) -> str:
    """Write batch sizes as runs of neighbours among those measured: ``1 to 16, 64``; ``none`` if there are none."""
    runs: list[list[int]] = []
    for before, m in zip([None, *measured], measured, strict=False):
        if m in won and before in won:
            runs[-1].append(m)
        elif m in won:
            runs.append([m])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs) or "none"


def kind(zero_points: bool) -> str:
    """Name a kind of weight, as titles do."""
    return "with zero points" if zero_points else "symmetric"


def timed_rows(recording: Recording, shape: str, zero_points: bool) -> dict[str, dict[int, Row]]:
    """Return backend -> M -> row on one shape, the read floor as ``read``; without what has no time."""
    found: dict[str, dict[int, Row]] = {}
    for row in recording.rows:
        if row["shape"] == shape and row["zero_points"] == zero_points and "seconds" in row:
            found.setdefault(row["backend"], {})[row["m"]] = row
    return found


def times_by_m(recording: Recording, shape: str, zero_points: bool) -> dict[str, dict[int, float]]:
    """Return the same with the median seconds in place of the row."""
    rows = timed_rows(recording, shape, zero_points)
    return {name: {m: median(row["seconds"]) for m, row in by_m.items()} for name, by_m in rows.items()}


def _ratio(row: Row, base: Row) -> float:
    """Return the median of a time over another, round by round of the interleaved run."""
    return median(ratios(row["seconds"], base["seconds"]))


def best_rate(recording: Recording) -> tuple[float, Row]:
    """Return the most operations per second that any backend reached anywhere in a recording, and the row that did."""
    rates = (
        (Problem.parse(row["shape"], row["m"]).flops / median(row["seconds"]), row)
        for row in recording.rows
        if row["backend"] != "read" and "seconds" in row
    )
    return max(rates, key=lambda pair: pair[0])


def kernel_floors(recording: Recording, shape: str, zero_points: bool) -> dict[int, Floor]:
    """Return M -> floor on one shape, where the read floor got a time."""
    rate, _ = best_rate(recording)
    found = {}
    for m, read in times_by_m(recording, shape, zero_points).get("read", {}).items():
        operations = Problem.parse(shape, m).flops / rate
        found[m] = Floor(max(read, operations), "bytes" if read >= operations else "operations")
    return found


def kernel_shares(recording: Recording, shape: str, zero_points: bool) -> dict[str, dict[int, float]]:
    """Return backend -> M -> share of the floor: the floor's time over the backend's, by medians; 1 is the floor."""
    bounds = kernel_floors(recording, shape, zero_points)
    return {
        name: {m: bounds[m].seconds / seconds for m, seconds in times.items() if m in bounds}
        for name, times in times_by_m(recording, shape, zero_points).items()
        if name != "read"
    }


def standings(recording: Recording, zero_points: bool) -> dict[tuple[str, int], Standing]:
    """Return (shape, M) -> who leads there; without cells in which nothing outside of our ladder got a time."""
    found, top = {}, top_step(recording)
    for shape in recording.parameters["shape"]:
        rows = timed_rows(recording, shape, zero_points)
        for m in recording.parameters["m"]:
            cell = {name: by_m[m] for name, by_m in rows.items() if m in by_m and name != "read"}
            if any(name not in LADDER for name in cell):
                found[shape, m] = _standing(cell, top)
    return found


def _standing(cell: dict[str, Row], top: str) -> Standing:
    order = sorted(cell, key=lambda name: median(cell[name]["seconds"]))
    other = next(name for name in order if name not in LADDER)
    return Standing(order[0], other, _ratio(cell[other], cell[top]) if top in cell else None)


@styled
def plot_standings(recording: Recording, zero_points: bool) -> Figure:
    """Draw a cell for each shape and M with our top step's lead in it: blue where it leads, orange where it trails."""
    shapes, batches = recording.parameters["shape"], recording.parameters["m"]
    top = brief(top_step(recording))
    title = f"{top}: how many times as fast as the fastest other kernel; {kind(zero_points)}"
    figure, axes = new_figure(title, height=1.6 + 0.24 * len(batches))
    found = standings(recording, zero_points)
    for x, shape in enumerate(shapes):
        for y, m in enumerate(batches):
            _cell(axes, x, y, found[shape, m].lead if (shape, m) in found else None)
    axes.set_xlim(-0.5, len(shapes) - 0.5)
    axes.set_ylim(len(batches) - 0.5, -0.5)
    axes.set_xticks(range(len(shapes)), [shape.replace("x", "\n× ") for shape in shapes], fontsize=8.5)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("N × K")
    axes.set_yticks(range(len(batches)), [str(m) for m in batches], fontsize=9)
    axes.set_ylabel("batch size M (tokens at a time)")
    axes.tick_params(length=0)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    told = []
    for shape in shapes:
        leads = {m: found[shape, m].lead for m in batches if (shape, m) in found}
        some = {m: lead for m, lead in leads.items() if lead is not None}
        ends = ", ".join(f"{lead:.2f} at M = {m}" for m, lead in some.items() if m & (m - 1) == 0)
        told.append(f"{shape}: leads at M {spans([m for m in some if some[m] > 1], batches)} ({ends or 'no time'})")
    return describe(figure, f"The fastest other kernel's time over that of {top}. {'; '.join(told)}.", recording)


def _cell(axes: Axes, x: int, y: int, lead: float | None) -> None:
    """Draw one cell: the stronger the colour, the further from 1, until 4 or a quarter."""
    if lead is not None:
        hue = "blue" if lead > 1 else "orange"
        opacity = STRONGEST * min(1, 0.1 + abs(math.log(lead, 4)))
        axes.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=colour(hue), alpha=opacity, linewidth=0))
    text = "–" if lead is None else f"{lead:.2f}"
    axes.text(x, y, text, ha="center", va="center", fontsize=9, color=colour("ink"))


def ahead_table(recording: Recording, ranges: tuple[tuple[int, int], ...]) -> Table:
    """Tabulate by kind of weight and range of M in how many cells our top step leads, its best and its least lead."""
    rows = []
    for zero_points in recording.parameters["zero_points"]:
        found = standings(recording, zero_points)
        leads = {cell: one.lead for cell, one in found.items() if one.lead is not None}
        for low, high in ranges:
            some = {cell: lead for cell, lead in leads.items() if low <= cell[1] <= high}
            if some:
                ends = (max(some, key=some.__getitem__), min(some, key=some.__getitem__))
                told = [f"{some[cell]:.2f} ({cell[0]}, M = {cell[1]})" for cell in ends]
                ahead = sum(lead > 1 for lead in some.values())
                rows.append([kind(zero_points), f"{low} to {high}", f"{ahead} of {len(some)}", *told])
    columns, top = ["weights", "M", "ahead in", "at best", "least"], brief(top_step(recording))
    return Table(columns, rows, recording, f"{top} against the fastest other kernel, times as fast")


def first_table(recording: Recording, zero_points: bool) -> Table:
    """Tabulate by M and shape the fastest kernel, and where that is one of our ladder the fastest that is not."""
    shapes, found = recording.parameters["shape"], standings(recording, zero_points)
    rows = [[m, *(_placed(found.get((shape, m))) for shape in shapes)] for m in recording.parameters["m"]]
    title = f"The fastest by medians; where it is a step of ours, also the fastest of the others; {kind(zero_points)}"
    return Table(["M", *shapes], rows, recording, title)


def _placed(one: Standing | None) -> str:
    if one is None:
        return ""
    first, other = (brief(name).split(":")[0] for name in (one.first, one.other))
    return f"{first} before {other}" if one.first in LADDER else first


def contestants(recording: Recording, shape: str, zero_points: bool) -> list[str]:
    """Return the backends that a figure of one shape shows: our top step and all that are not of our ladder."""
    timed, top = times_by_m(recording, shape, zero_points), top_step(recording)
    listed = [name for name in (top, *KERNELS) if name in timed]
    unknown = [name for name in timed if name not in KERNELS and name != "read"]
    return [name for name in dict.fromkeys([*listed, *unknown]) if name == top or name not in LADDER]


@styled
def plot_each_time(recording: Recording, shape: str, zero_points: bool) -> Figure:
    """Draw time over M, a panel for each kernel, with FP16 and the floor in all, shaded where the kernel leads."""
    times = times_by_m(recording, shape, zero_points)
    fp16, bounds = times.get("fp16", {}), kernel_floors(recording, shape, zero_points)

    def draw(axes: Axes, name: str) -> tuple[str, str]:
        both = [m for m in times[name] if m in fp16]
        own, base = ([1e6 * one[m] for m in both] for one in (times[name], fp16))
        faster = [a < b for a, b in zip(own, base, strict=True)]
        axes.fill_between(both, own, base, where=faster, color=colour("blue"), alpha=0.25, linewidth=0)
        axes.plot(list(bounds), [1e6 * one.seconds for one in bounds.values()], ":", color=colour("ink"), label="floor")
        _line(axes, fp16, "FP16", "muted", 1e6)
        _line(axes, times[name], "the kernel", "orange", 1e6, "D")
        won = [m for m, yes in zip(both, faster, strict=True) if yes]
        ends = ", ".join(f"{1e6 * times[name][m]:.1f} µs at M = {m}" for m in _ends(times[name]))
        return f"faster at M: {spans(won, both)}", ends

    figure, panels, told = _panels(recording, shape, zero_points, "Time", draw)
    for axes in panels:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    figure.supylabel("time, µs (log), over M", fontsize=10)
    alt = f"Time of a {shape} product over batch size, a panel for each kernel; FP16 and the floor in all. {told}."
    return describe(figure, alt, recording)


@styled
def plot_each_share(recording: Recording, shape: str, zero_points: bool) -> Figure:
    """Draw the share of the floor over M, a panel for each kernel, with FP16's in all and where the floor changes."""
    found, bounds = kernel_shares(recording, shape, zero_points), kernel_floors(recording, shape, zero_points)
    turn = next((m for m, one in bounds.items() if one.binds == "operations"), None)

    def draw(axes: Axes, name: str) -> tuple[str, str]:
        if turn is not None:
            axes.axvline(turn, color=colour("ink"), linestyle=":", linewidth=1.2, label="from here operations bind")
        _line(axes, found.get("fp16", {}), "FP16", "muted")
        _line(axes, found[name], "the kernel", "orange", marker="D")
        best = max(found[name], key=found[name].__getitem__)
        ends = ", ".join(f"{found[name][m]:.0%} at M = {m}" for m in _ends(found[name]))
        return f"at best {found[name][best]:.0%}, M = {best}", ends

    figure, panels, told = _panels(recording, shape, zero_points, "Share of the floor", draw)
    for axes in panels:
        axes.set_ylim(0, 1.05 * max(1, *(max(by_m.values()) for by_m in found.values())))
        axes.set_yticks([0, 0.5, 1])
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    figure.supylabel("share, over M", fontsize=10)
    alt = f"Share of the floor on {shape} over batch size, a panel for each kernel; FP16 in all. {told}."
    return describe(figure, alt, recording)


def _line(
    axes: Axes, points: dict[int, float], label: str, hue: str, factor: float = 1, marker: str | None = None
) -> None:
    values = [factor * value for value in points.values()]
    axes.plot(list(points), values, marker=marker, markersize=3, linewidth=1.4, color=colour(hue), label=label)


def _ends(points: dict[int, float]) -> list[int]:
    return list(dict.fromkeys((min(points), max(points))))


def _panels(
    recording: Recording, shape: str, zero_points: bool, title: str, draw: Callable[[Axes, str], tuple[str, str]]
) -> tuple[Figure, list[Axes], str]:
    """Lay out two columns of panels, let `draw` fill each, and return the figure, the panels and what was told.

    `draw` returns what stands above its panel, and what else the alternative text says.
    """
    names = [name for name in contestants(recording, shape, zero_points) if name != "fp16"]
    figure, head, panels = _grid(len(names))
    figure.suptitle(
        f"{title}, {shape.replace('x', ' × ')} (N × K), {kind(zero_points)}", x=0.02, ha="left", fontsize=11
    )
    told = []
    for axes, name in zip(panels, names, strict=True):
        above, rest = draw(axes, name)
        axes.set_title(f"{textwrap.fill(brief(name), PANEL_LETTERS)}\n{above}", fontsize=8, loc="left")
        told.append(f"{brief(name)}: {above}; {rest}")
    if panels:
        _batches(panels[0], recording.parameters["m"])
        handles, labels = panels[0].get_legend_handles_labels()
        head.legend(handles, labels, loc="center left", ncols=3, fontsize=8.5, borderaxespad=0)
    return figure, panels, ". ".join(told)


def _grid(count: int) -> tuple[Figure, Axes, list[Axes]]:
    """Return a figure, empty axes for a legend on top, and so many panels in two columns with common axes."""
    lines = max(1, -(-count // 2))
    figure = plt.figure(figsize=(WIDTH, 1.3 + 1.45 * lines))
    places = figure.add_gridspec(lines + 1, 2, height_ratios=[0.14, *[1] * lines])
    head = figure.add_subplot(places[0, :])
    head.set_axis_off()
    panels: list[Axes] = []
    for place in range(count):
        first = panels[0] if panels else None
        axes = figure.add_subplot(places[1 + place // 2, place % 2], sharex=first, sharey=first)
        axes.tick_params(labelbottom=place + 2 >= count, labelleft=place % 2 == 0)
        panels.append(axes)
    return figure, head, panels


def _batches(axes: Axes, batches: list[int]) -> None:
    shown = [m for m in batches if m & (m - 1) == 0][::2]
    axes.set_xscale("log", base=2)
    axes.set_xticks(shown, [str(m) for m in shown], fontsize=9)
    axes.minorticks_off()


def shape_leads_table(recording: Recording, zero_points: bool) -> Table:
    """Tabulate by kernel and shape the batch sizes at which it is faster than FP16; empty where it got no time."""
    shapes = recording.parameters["shape"]
    rows = {shape: timed_rows(recording, shape, zero_points) for shape in shapes}
    known = [*KERNELS, *dict.fromkeys(row["backend"] for row in recording.rows if row["backend"] not in KERNELS)]
    lines = []
    for name in known:
        cells = [_lead(by_name.get(name, {}), by_name.get("fp16", {})) for by_name in rows.values()]
        if name not in ("fp16", "read") and any(cells):
            lines.append([brief(name), *cells])
    return Table(["kernel", *shapes], lines, recording, f"Faster than FP16 at these M; {kind(zero_points)}")


def _lead(rows: dict[int, Row], fp16: dict[int, Row]) -> str:
    both = sorted(m for m in rows if m in fp16)
    return spans([m for m in both if _ratio(rows[m], fp16[m]) < 1], both) if both else ""


def outcomes(recording: Recording, backend: str, zero_points: bool) -> dict[int, dict[str, int]]:
    """Return M -> reason why a backend got no time, or ``"timed"`` -> on how many shapes; empty without rows of it.

    Of reasons that differ in numbers alone the first stands for all.
    """
    found: dict[int, dict[str, int]] = {}
    said: dict[tuple[int, str], str] = {}
    for row in recording.rows:
        if row["backend"] == backend and row["zero_points"] == zero_points:
            reason = "timed" if "seconds" in row else str(row["skipped"])
            first = said.setdefault((row["m"], _numberless(reason)), reason)
            counts = found.setdefault(row["m"], {})
            counts[first] = counts.get(first, 0) + 1
    return found


def _numberless(reason: str) -> str:
    return re.sub(r"\d[\d.e+-]*", "#", reason)


def left_out_table(recording: Recording) -> Table:
    """Tabulate what got no time: kernel, M, in how many cells, the reason. Reasons that differ in numbers are one."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in recording.skipped:
        groups.setdefault((row["backend"], _numberless(row["skipped"])), []).append(row)
    rows = []
    for (name, _), found in groups.items():
        listed = spans(sorted({row["m"] for row in found}), recording.parameters["m"])
        texts = list(dict.fromkeys(str(row["skipped"]) for row in found))
        reason = texts[0] if len(texts) == 1 else f"{texts[0]} (the first of {len(texts)} such reasons)"
        rows.append([brief(name), listed, len(found), _kinds(found), reason])
    columns = ["kernel", "M", "cells", "weights", "reason"]
    return Table(columns, rows, recording, "Without a time, by reason; a cell is a shape, an M and a kind of weight")


def _kinds(rows: list[Row]) -> str:
    found = {row["zero_points"] for row in rows}
    return "both" if len(found) == 2 else kind(found.pop())
