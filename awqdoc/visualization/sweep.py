"""The batch sweep: latency, speed-up and the table of everything that follows from them."""

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
_LOOKS = dict(zip(BACKENDS, (("muted", "o"), ("purple", "s"), ("blue", "^"), ("orange", "D")), strict=False))


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
        axes.fill_between(m, low, high, color=colour(_LOOKS[name][0]), alpha=0.25, linewidth=0)
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
        axes.fill_between(m, low, high, color=colour(_LOOKS[name][0]), alpha=0.25, linewidth=0)
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
    hue, marker = _LOOKS[name]
    axes.plot(x, y, marker=marker, color=colour(hue), label=BACKENDS[name].title)


def _ceiling(recording: Recording, shape: str) -> float:
    size = problem(timed(recording, "fp16", shape)[0])
    return size.weight_bytes(16) / size.weight_bytes(4)


def _batch_axis(axes: Axes, recording: Recording) -> None:
    batches = recording.parameters["m"]
    axes.set_xscale("log", base=2)
    axes.set_xticks(batches, [str(m) for m in batches], fontsize=9)
    axes.minorticks_off()
    axes.set_xlabel("batch size M (tokens at a time)")


def summary(recording: Recording, shape: str, batches: list[int] | None = None) -> Table:
    """Tabulate one shape: time, tokens/s, TFLOP/s, GB/s, speed-up over FP16, and weight memory saved.

    Tokens per second count this one product alone. Useful bytes are the fewest that the product needs: the
    weight in the backend's format, X and Y, once each; dequantize + matmul moves several times that. The
    kernel's error is relative (Frobenius norm) to a float32 product of the same dequantized weight.
    """
    rows = []
    for m in batches or recording.parameters["m"]:
        for name, backend in BACKENDS.items():
            row = next((row for row in timed(recording, name, shape) if row["m"] == m), None)
            if row is None:
                continue
            size, seconds = problem(row), median(row["seconds"])
            ratios = speedups(recording, name, shape).get(m)
            saved = 1 - size.weight_bytes(backend.bits) / size.weight_bytes(16)
            rows.append([
                m, backend.title, f"{1e6 * seconds:.1f}", si(m / seconds, ""), f"{size.flops / seconds / 1e12:.1f}",
                f"{size.bytes(backend.bits) / seconds / 1e9:.0f}", f"{median(ratios):.2f}" if ratios else "",
                f"{saved:.0%}", f"{row['error']:.0e}",
            ])  # fmt: skip
    columns = ["M", "backend", "µs", "tokens/s", "TFLOP/s", "useful GB/s", "speed-up", "memory saved", "kernel error"]
    return Table(columns, rows, recording, title=f"{shape} (N x K), medians")


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
