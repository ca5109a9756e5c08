"""A bar for each thing that was measured, by any metric."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from awqdoc.errors import AwqdocError
from awqdoc.profiling import Measurement, Summary, summarize
from awqdoc.visualization.style import Here, colour, describe, new_figure, styled

Results = Mapping[str, Mapping[str, float | Sequence[float]]] | Sequence[Measurement]
LONGEST = 24  # letters of a name on one line, about a third of the figure
METRICS = {
    "latency_ms": "latency, ms", "latency_us": "latency, µs", "tokens_per_s": "tokens per second", "tflops": "TFLOP/s",
    "gbps": "GB/s", "speedup": "speed-up", "memory_mb": "memory, MB",
}  # fmt: skip
"""Metric -> how its axis is called; others are called as they are."""


class Given(Here):
    """Numbers that a caller hands over: who measured them, and where, only he knows."""

    @property
    def label(self) -> str:
        """Say that they were given, and when they were drawn."""
        return f"numbers as given, drawn {self.date}"


@styled
def plot_performance_comparison(results: Results, source: Here, metric: str = "latency_ms") -> Figure:
    """Draw a bar for each result, with the quartiles where there are samples.

    Parameters
    ----------
    results : dict or list
        Name -> metric -> a number or its samples (list, array or tensor); or what
        `awqdoc.profiling.Benchmarker.results` holds, of which ``latency_ms`` is drawn, with its conditions.
    metric : str
        One of `METRICS`, or any other that all results have.
    """
    values = _checked(results, metric)
    title = METRICS.get(metric, metric)
    names = [textwrap.fill(name, LONGEST) for name in values]
    lines = max(name.count("\n") + 1 for name in names)
    figure, axes = new_figure(f"{title[:1].upper()}{title[1:]}", height=1.6 + max(0.4, 0.2 * lines) * len(values))
    places = range(len(values))
    medians = [summary.median for summary in values.values()]
    axes.barh(places, medians, height=0.6, color=colour("blue"))
    for place, summary in enumerate(values.values()):
        if summary.count > 1:
            axes.plot([summary.low, summary.high], [place, place], "|-", color=colour("ink"), markersize=9)
    axes.set_yticks(places, names)
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.set_xlim(0, 1.08 * max(summary.high for summary in values.values()) or 1)
    sampled = any(summary.count > 1 for summary in values.values())
    conditions = dict.fromkeys(result.conditions for result in results if isinstance(result, Measurement))
    told = [title, *(["bars are medians, whiskers quartiles"] if sampled else []), *conditions]
    axes.set_xlabel(textwrap.fill("; ".join(told), 50), fontsize=9)
    rows = [
        {"name": name, metric: s.median, "q1": s.low, "q3": s.high, "samples": s.count} for name, s in values.items()
    ]
    parts = "; ".join(f"{name} {summary.median:.4g}" for name, summary in values.items())
    return describe(figure, f"{title}: {parts}.", source.holding("performance-comparison", rows))


def _checked(results: Results, metric: str) -> dict[str, Summary]:
    """Return the summary of each result's metric, or say what is missing."""
    if not isinstance(results, Mapping):
        if not isinstance(results, Sequence) or not all(isinstance(result, Measurement) for result in results):
            raise AwqdocError("The results must be a dict of name -> metrics, or a list of Measurement.")
        names = [result.name for result in results]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise AwqdocError(f"{names.count(twice[0])} results are named {twice[0]!r}: give each a name of its own.")
        results = {result.name: {"latency_ms": [1e3 * s for s in result.seconds]} for result in results}
    if not results:
        raise AwqdocError("There are no results to compare: one or more are needed.")
    found = {}
    for name, metrics in results.items():
        if not isinstance(metrics, Mapping) or metric not in metrics:
            has = ", ".join(metrics) if isinstance(metrics, Mapping) and metrics else "none"
            raise AwqdocError(f"{name!r} has no metric {metric!r}; it has {has}.")
        found[str(name)] = summarize(_samples(name, metric, metrics[metric]))
    return found


def _samples(name: str, metric: str, value: Any) -> list[float]:
    value = value.tolist() if hasattr(value, "tolist") else value  # NumPy's and torch's
    samples = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    for sample in samples:
        if not isinstance(sample, int | float) or not math.isfinite(sample) or sample < 0:
            raise AwqdocError(f"{metric} of {name!r} must be finite numbers, 0 or more; found {sample!r}.")
    return samples
