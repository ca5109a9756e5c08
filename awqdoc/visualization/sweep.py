"""The batch sweep: latency and speed-up, and what they make of a stack of layers."""

from __future__ import annotations

from statistics import median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from awqdoc.formats import Problem
from awqdoc.kernels import BACKENDS
from awqdoc.recordings import Recording
from awqdoc.visualization.style import colour, describe, legend, log_axis, new_figure, si, styled
from awqdoc.visualization.tables import Table

Row = dict[str, Any]
# Colour and marker of each backend: lines that cross stay apart without colour too.
LOOKS = dict(zip(BACKENDS, (("muted", "o"), ("purple", "s"), ("blue", "^"), ("orange", "D")), strict=False))


def problem(row: Row) -> Problem:
    """Return the size that a row of the sweep belongs to."""
    return Problem.parse(row["shape"], row["m"], row["group_size"])


def timed(recording: Recording, backend: str, shape: str) -> list[Row]:
    """Return the rows with times of one backend and shape, by batch size."""
    rows = [row for row in recording.rows if row["backend"] == backend and row["shape"] == shape and "seconds" in row]
    return sorted(rows, key=lambda row: int(row["m"]))


def speedups(recording: Recording, backend: str, shape: str) -> dict[int, list[float]]:
    """Return, for each batch size, FP16 time over a backend's time, round by round of the interleaved run."""
    base = {row["m"]: row["seconds"] for row in timed(recording, "fp16", shape)}
    return {
        row["m"]: [b / a for a, b in zip(row["seconds"], base[row["m"]], strict=True)]
        for row in timed(recording, backend, shape)
        if row["m"] in base
    }


@styled
def plot_latency(recording: Recording, shape: str) -> Figure:
    """Draw time over batch size for every backend on one layer shape: medians, with all samples as a band."""
    figure, axes = new_figure(f"One layer, {shape.replace('x', ' × ')} (N × K): time by batch size")
    for name in BACKENDS:
        rows = timed(recording, name, shape)
        if not rows:
            continue
        m = [row["m"] for row in rows]
        _line(axes, name, m, [1e6 * median(row["seconds"]) for row in rows])
        low, high = ([1e6 * f(row["seconds"]) for row in rows] for f in (min, max))
        axes.fill_between(m, low, high, color=colour(LOOKS[name][0]), alpha=0.25, linewidth=0)
    floor = timed(recording, "read", shape)
    if floor:
        times = [1e6 * median(row["seconds"]) for row in floor]
        axes.plot([row["m"] for row in floor], times, ":", color=colour("ink"), label="only reading the INT4 weight")
    axes.set_yscale("log")
    log_axis(axes.yaxis)
    _batch_axis(axes, recording)
    axes.set_ylabel("time, µs (log)")
    legend(axes)
    return describe(figure, _latency_alt(recording, shape), recording)


def _latency_alt(recording: Recording, shape: str) -> str:
    parts = []
    for name, backend in BACKENDS.items():
        rows = timed(recording, name, shape)
        if rows:
            first, last = rows[0], rows[-1]
            parts.append(
                f"{backend.title}: {1e6 * median(first['seconds']):.0f} µs at batch {first['m']}, "
                f"{1e6 * median(last['seconds']):.0f} µs at batch {last['m']}"
            )
    floor = timed(recording, "read", shape)
    if floor:
        parts.append(f"only reading the INT4 weight: {1e6 * median(floor[0]['seconds']):.0f} µs")
    return f"Time of one {shape} product over batch size, by backend. {'; '.join(parts)}."


@styled
def plot_speedup(recording: Recording, shape: str) -> Figure:
    """Draw the speed-up over FP16 by batch size for each INT4 backend, and the ceiling that the bytes set."""
    figure, axes = new_figure(f"INT4 against FP16, {shape.replace('x', ' × ')} (N × K)")
    parts = []
    for name, backend in BACKENDS.items():
        ratios = speedups(recording, name, shape)
        if name == "fp16" or not ratios:
            continue
        m = sorted(ratios)
        _line(axes, name, m, [median(ratios[i]) for i in m])
        low, high = ([f(ratios[i]) for i in m] for f in (min, max))
        axes.fill_between(m, low, high, color=colour(LOOKS[name][0]), alpha=0.25, linewidth=0)
        parts.append(
            f"{backend.title}: {median(ratios[m[0]]):.2f} at batch {m[0]}, {median(ratios[m[-1]]):.2f} at {m[-1]}"
        )
    ceiling = _ceiling(recording, shape)
    axes.axhline(ceiling, color=colour("muted"), linestyle=":", label=f"bytes allow {ceiling:.2f} (modelled)")
    axes.axhline(1, color=colour("ink"), linewidth=1, label="FP16")
    axes.set_ylim(0, ceiling * 1.08)
    axes.yaxis.set_major_locator(MultipleLocator(1))  # the automatic one heeds the caller's font size
    _batch_axis(axes, recording)
    axes.set_ylabel("speed-up over FP16")
    legend(axes)
    alt = f"Speed-up over FP16 by batch size for a {shape} layer. {'; '.join(parts)}. The bytes allow {ceiling:.2f}."
    return describe(figure, alt, recording)


def _line(axes: Axes, name: str, x: list[int], y: list[float]) -> None:
    hue, marker = LOOKS[name]
    axes.plot(x, y, marker=marker, color=colour(hue), label=BACKENDS[name].title)


def _ceiling(recording: Recording, shape: str) -> float:
    size = Problem.parse(shape, 1, recording.parameters["group_size"][0])
    return size.weight_bytes(16) / size.weight_bytes(4)


def _batch_axis(axes: Axes, recording: Recording) -> None:
    batches = recording.parameters["m"]
    axes.set_xscale("log", base=2)
    axes.set_xticks(batches, [str(m) for m in batches], fontsize=9)
    axes.minorticks_off()
    axes.set_xlabel("batch size M (tokens at a time)")


def layers_table(recording: Recording, layers: int) -> Table:
    """Tabulate tokens per second of a whole stack of layers, if nothing but the measured products took time."""
    shapes = recording.parameters["shape"]
    rows = []
    for m in recording.parameters["m"]:
        cells = []
        for name in BACKENDS:
            found = [row for shape in shapes for row in timed(recording, name, shape) if row["m"] == m]
            whole = layers * sum(median(row["seconds"]) for row in found)
            cells.append(si(m / whole, "") if len(found) == len(shapes) else "")
        rows.append([m, *cells])
    title = f"Tokens/s of {layers} layers of {', '.join(shapes)} (N x K), computed from medians"
    return Table(["M", *(backend.title for backend in BACKENDS.values())], rows, recording, title)
