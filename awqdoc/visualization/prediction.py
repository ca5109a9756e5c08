"""What bytes and operations alone predict, to be held against a measurement."""

from __future__ import annotations

from typing import Protocol

from matplotlib.figure import Figure

from awqdoc.formats import Problem
from awqdoc.gpu.datasheets import DataSheet
from awqdoc.visualization.style import colour, describe, legend, log_axis, new_figure, styled


class Rates(Protocol):
    """Bytes and operations per second, wherever they are from: a data sheet, or roofs that were measured."""

    @property
    def bandwidth(self) -> float:
        """Bytes per second."""

    @property
    def peak(self) -> float:
        """FLOP per second."""


def predicted_seconds(problem: Problem, bits: int, gpu: Rates) -> float:
    """Return the time that no kernel can beat: the longer of moving the bytes and doing the operations."""
    return max(problem.bytes(bits) / gpu.bandwidth, problem.flops / gpu.peak)


@styled
def plot_prediction(n: int, k: int, gpu: DataSheet, batches: tuple[int, ...]) -> Figure:
    """Draw the predicted time of one layer over batch size, FP16 and INT4, with the bound that sets each."""
    figure, axes = new_figure(f"Least time of a {n} × {k} layer, {gpu.name}")
    times = {}
    for bits, name in ((16, "blue"), (4, "orange")):
        times[bits] = [1e6 * predicted_seconds(Problem(m, n, k), bits, gpu) for m in batches]
        axes.plot(
            batches,
            times[bits],
            "o-",
            color=colour(name),
            label="FP16 weight" if bits == 16 else "INT4 weight",
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(batches, [str(m) for m in batches], fontsize=9)
    log_axis(axes.yaxis)
    axes.minorticks_off()
    axes.set_xlabel("batch size M (tokens at a time)")
    axes.set_ylabel("least time, µs (log)")
    legend(axes)
    first, last = (f"{times[16][i]:.1f} µs in FP16 and {times[4][i]:.1f} µs in INT4" for i in (0, -1))
    return describe(
        figure,
        f"Predicted least time over batch size. At batch {batches[0]}: {first}. At batch {batches[-1]}: {last}. "
        "The curves are flat while the weight must be read, then rise together.",
        source=None,
    )
