"""How long packing takes: ours, AutoAWQ's and a plain copy, on a CPU and on a GPU."""

from __future__ import annotations

from statistics import median
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from awqdoc.recordings import Recording
from awqdoc.visualization.style import colour, describe, legend, new_figure, styled
from awqdoc.visualization.tables import Table

Row = dict[str, Any]
WORKS = {
    "copy": ("copy of the codes", "muted", "|"), "codes": ("ours, codes alone", "purple", "s"),
    "pack": ("ours, pack", "blue", "o"),
    "from weight": ("ours, round and pack", "green", "^"), "autoawq": ("AutoAWQ, the same", "orange", "D"),
}  # fmt: skip
"""Name, colour and marker of each work that is drawn."""
_PLACES = {"cpu": "CPU", "cuda": "GPU"}


def packing_times(recording: Recording, shape: str, where: str) -> dict[str, dict[str, float]]:
    """Return format -> work -> median seconds, of what was measured at a place, ``"cpu"`` or ``"cuda"``."""
    times: dict[str, dict[str, float]] = {}
    for row in recording.rows:
        if (row["shape"], row["where"]) == (shape, where) and "seconds" in row:
            times.setdefault(row["format"], {})[row["work"]] = median(row["seconds"])
    return times


@styled
def plot_packing(recording: Recording, shape: str) -> Figure:
    """Draw the seconds of each work on a log axis, a line for each place and format."""
    lines = [
        (f"{title}, {name}", works)
        for where, title in _PLACES.items()
        for name, works in packing_times(recording, shape, where).items()
    ]
    figure, axes = new_figure(f"Packing a weight of {shape} (N x K)", height=1.7 + 0.36 * len(lines))
    for work, (title, hue, marker) in WORKS.items():
        places = [(works[work], place) for place, (_, works) in enumerate(lines) if work in works]
        if places:
            seconds, heights = zip(*places, strict=True)
            axes.plot(
                seconds, heights, linestyle="none", marker=marker, markersize=11 if marker == "|" else 6,
                markeredgewidth=2 if marker == "|" else 1, color=colour(hue), label=title,
            )  # fmt: skip
    axes.set_yticks(range(len(lines)), [name for name, _ in lines])
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.margins(x=0.08)
    axes.xaxis.set_major_locator(LogLocator(subs=(1,)))  # five decades: no room for 2 and 5 of each
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("seconds (log)")
    legend(axes, columns=2)
    told = "; ".join(
        f"{name}: " + ", ".join(f"{WORKS[work][0]} {works[work]:.3g} s" for work in WORKS if work in works)
        for name, works in lines
    )
    return describe(figure, f"Seconds to pack, by place and format. {told}.", recording)


def packing_table(recording: Recording, shape: str) -> Table:
    """Tabulate milliseconds, and how many times as long AutoAWQ takes as ours."""
    rows = []
    for where, title in _PLACES.items():
        for name, works in packing_times(recording, shape, where).items():
            theirs = works.get("autoawq")
            ratios = [_three_digits(theirs / works[work]) if theirs else "" for work in ("pack", "from weight")]
            cells = [_three_digits(1e3 * works[work]) if work in works else "" for work in (*WORKS, "unpack")]
            rows.append([title, name, *cells, *ratios])
    columns = [
        "on", "format", "copy, ms", "codes alone, ms", "pack, ms", "round and pack, ms", "AutoAWQ, ms", "unpack, ms",
        "AutoAWQ / pack", "AutoAWQ / round and pack",
    ]  # fmt: skip
    return Table(columns, rows, recording, title=f"{shape} (N x K), group size 128, medians")


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
