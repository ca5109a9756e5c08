"""What a GPU tells of itself while it works: the figure that ``nvidia-smi`` shows beside what the hardware counted."""

from __future__ import annotations

from statistics import median

from matplotlib.figure import Figure

from awqdoc.recordings import Recording, Row
from awqdoc.visualization.style import colour, describe, legend, new_figure, styled
from awqdoc.visualization.tables import Table

# Key of a sample -> what readers call it, its colour and its marker.
SHARES = {
    "utilization_percent": ("utilization (nvidia-smi)", "ink", "|"),
    "sm_active_percent": ("SM activity", "blue", "o"),
    "sm_occupancy_percent": ("SM occupancy", "purple", "s"),
    "tensor_active_percent": ("tensor activity", "orange", "D"),
    "dram_bandwidth_percent": ("DRAM bandwidth", "green", "^"),
}
WORKS = {"idle": "idle", "one thread": "one thread spins", "matmul": "FP16 product, 8192³"}


def watched_work(work: str) -> str:
    """Name a work of the experiment ``monitoring`` for readers."""
    if work in WORKS:
        return WORKS[work]
    _, shape, m = work.split()
    return f"INT4, our top step, {shape.replace('x', ' × ')}, M = {m}"


def watched_samples(recording: Recording, work: str) -> list[Row]:
    """Return the samples of one work, in order."""
    return [row for row in recording.rows if row["work"] == work and "at_s" in row]


def watched_median(recording: Recording, work: str, key: str) -> float | None:
    """Return the median of a value over the samples of one work; None if this GPU does not tell it."""
    values = [row[key] for row in watched_samples(recording, work) if row[key] is not None]
    return median(values) if values else None


def watching_slows(recording: Recording, work: str) -> float:
    """Return by what factor a work takes longer while it is watched: the median beside those of before and after."""
    medians = {row["way"]: median(row["seconds"]) for row in recording.rows if row["work"] == work and "way" in row}
    return 2 * medians["watched"] / (medians["before"] + medians["after"])


@styled
def plot_watched(recording: Recording) -> Figure:
    """Draw the medians of all shares of each work that was done, on one scale from 0 to 100 %."""
    works = [work for work in recording.parameters["work"] if watched_samples(recording, work)]
    figure, axes = new_figure("What a GPU says of itself, medians of the samples", height=2.2 + 0.5 * len(works))
    for key, (title, hue, marker) in SHARES.items():
        values = [watched_median(recording, work, key) for work in works]
        points = [(value, place) for place, value in enumerate(values) if value is not None]
        size = 13 if marker == "|" else 6
        axes.plot(
            [value for value, _ in points], [place for _, place in points], marker, color=colour(hue), label=title,
            markersize=size, markeredgewidth=2.5 if marker == "|" else 1, fillstyle="full" if marker == "o" else "none",
        )  # fmt: skip
    axes.set_yticks(range(len(works)), [watched_work(work).replace(", ", "\n") for work in works])
    axes.set_ylim(len(works) - 0.5, -0.5)
    axes.set_xlim(-3, 103)
    axes.set_xlabel("%")
    legend(axes)
    said = [f"{watched_work(work)}: {_text(recording, work)}" for work in works]
    return describe(figure, "Shares of 100 %, " + "; ".join(said) + ".", recording)


def _text(recording: Recording, work: str) -> str:
    values = {title: watched_median(recording, work, key) for key, (title, _, _) in SHARES.items()}
    return ", ".join(f"{title} {value:.0f} %" for title, value in values.items() if value is not None)


def watched_table(recording: Recording) -> Table:
    """Tabulate the medians of each work; what the GPU does not tell is a dash."""
    keys = {**{key: title for key, (title, _, _) in SHARES.items()}, "power_w": "W", "sm_clock_mhz": "MHz"}
    rows = []
    for work in recording.parameters["work"]:
        values = [watched_median(recording, work, key) for key in keys]
        if watched_samples(recording, work):
            rows.append([watched_work(work), *("–" if value is None else f"{value:.1f}" for value in values)])
    return Table(["work", *keys.values()], rows, recording, "%, medians of the samples")
