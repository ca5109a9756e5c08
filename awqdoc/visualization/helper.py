"""Figures of a reader's own tensors and measurements, saved as pictures."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping
from pathlib import Path

import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from awqdoc.errors import AwqdocError
from awqdoc.visualization.comparison import Given, Results, plot_performance_comparison
from awqdoc.visualization.style import Here, colour, describe, legend, new_figure, styled

BINS = 120
HUES = ("blue", "orange", "green", "purple", "ochre")
DASHES = ("-", "--", ":", "-.")

# Values that are counted at a time: float32, in which torch counts, has no whole numbers beyond 2^24.
PART = 1 << 22


class VisualizationHelper:
    """Draws tensors and measurements of your own and saves the figures in a folder.

    Parameters
    ----------
    output_dir : str or pathlib.Path
        Made when the first figure is saved.
    """

    def __init__(self, output_dir: str | Path = ".") -> None:
        self.output_dir = Path(output_dir)

    def plot_weight_distribution(
        self, weights: Mapping[str, torch.Tensor], filename: str = "weight_distribution.png"
    ) -> Path:
        """Draw the histograms of named tensors in one figure and save it.

        Parameters
        ----------
        weights : dict
            Name -> tensor of any shape and real dtype, on any device.
        filename : str
            A name that ends in ``.png``.

        Returns
        -------
        pathlib.Path
            Where the figure lies.

        Raises
        ------
        AwqdocError
            If there is no tensor, something else than a tensor, one that is empty or not finite, or the folder cannot
            be written to.
        """
        path = self._path(filename)
        return _save(plot_weight_distribution(weights, Here.now(work="values of the tensors given, counted")), path)

    def plot_performance_comparison(
        self, results: Results, metric: str = "latency_ms", filename: str = "performance_comparison.png"
    ) -> Path:
        """Draw a bar for each result and save it.

        Parameters
        ----------
        results : dict or list
            Name -> metric -> a number or its samples (list, array or tensor), as
            ``{"FP16": {"latency_ms": [0.11, 0.12]}}``; or `awqdoc.profiling.Benchmarker.results`.
        metric : str
            What is drawn: ``latency_ms``, ``tokens_per_s``, ``tflops``, ``gbps``, ``speedup``, ``memory_mb``, or
            another that all results have.
        filename : str
            A name that ends in ``.png``.

        Returns
        -------
        pathlib.Path
            Where the figure lies.

        Raises
        ------
        AwqdocError
            If there is no result, one lacks the metric, two have the same name, a number is negative or not finite, or
            the folder cannot be written to.
        """
        path = self._path(filename)
        return _save(plot_performance_comparison(results, Given.now(), metric), path)

    def _path(self, filename: str) -> Path:
        path = self.output_dir / filename
        if path.suffix.lower() != ".png":
            raise AwqdocError(f"The figure is saved as PNG, so its filename must end in .png; found {filename!r}.")
        return path


def _save(figure: Figure, path: Path) -> Path:
    """Save a figure on white and close it."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=200, facecolor="white")
    plt.close(figure)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture.getvalue())
    except OSError as error:
        raise AwqdocError(
            f"{path} cannot be written ({error.strerror}): choose an output_dir that you may write to."
        ) from None
    return path


@styled
def plot_weight_distribution(
    weights: Mapping[str, torch.Tensor], source: Here, title: str = "Weight distribution"
) -> Figure:
    """Draw the histograms of named tensors over common bins, as densities on a log axis, which shows the tails.

    Parameters
    ----------
    weights : dict
        Name -> tensor of any shape and real dtype, on any device.
    """
    flat = _checked(weights)
    low, high = min(float(t.min()) for t in flat.values()), max(float(t.max()) for t in flat.values())
    if low == high:
        low, high = low - 0.5, high + 0.5
    width = (high - low) / BINS
    edges = [low + width * i for i in range(BINS + 1)]
    densities = {name: _count(t, low, high) / (t.numel() * width) for name, t in flat.items()}

    names = [textwrap.fill(name, 60) for name in flat]
    columns = 2 if max(map(len, names)) <= 30 else 1
    lines = sum(name.count("\n") + 1 for name in names) / columns
    figure, axes = new_figure(title, height=3.4 + 0.18 * lines)
    lowest = min(float(d[d > 0].min()) for d in densities.values()) / 2
    axes.set_yscale("log")
    for i, (name, density) in enumerate(zip(names, densities.values(), strict=True)):
        hue = colour(HUES[i % len(HUES)])
        values = density.where(density > 0, math.nan).tolist()
        # Where outlines cross, the areas still tell what lies above.
        axes.stairs(values, edges, baseline=lowest, fill=True, color=hue, alpha=0.12, linewidth=0)
        axes.stairs(
            values, edges, baseline=None, linewidth=1.3, color=hue, linestyle=DASHES[i // len(HUES) % len(DASHES)],
            label=name,
        )  # fmt: skip
    axes.set_ylim(bottom=lowest)
    axes.set_xlabel("value")
    axes.set_ylabel("density (log)")
    legend(axes, columns=columns)
    parts = "; ".join(
        f"{name}: {t.numel()} values from {float(t.min()):.3g} to {float(t.max()):.3g}, standard deviation "
        f"{float(t.double().std(correction=0)):.3g}"
        for name, t in flat.items()
    )
    rows = [
        {"from": edge, "to": edge + width, **{name: float(d[i]) for name, d in densities.items()}}
        for i, edge in enumerate(edges[:-1])
    ]
    return describe(figure, f"Histograms over common bins. {parts}.", source.holding("weight-distribution", rows))


def _checked(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return each tensor flat on the CPU, or say what cannot be drawn."""
    if not isinstance(weights, Mapping) or not weights:
        found = "an empty one" if isinstance(weights, Mapping) else f"a {type(weights).__name__}"
        raise AwqdocError(f"The weights to draw must be a dict of name -> tensor; found {found}.")
    flat = {}
    for name, tensor in weights.items():
        if not isinstance(tensor, torch.Tensor) or tensor.is_complex():
            found = "complex" if isinstance(tensor, torch.Tensor) else f"a {type(tensor).__name__}"
            raise AwqdocError(f"{name!r} must be a tensor of real numbers; it is {found}.")
        if tensor.numel() == 0:
            raise AwqdocError(f"{name!r} is empty, so it has no distribution: leave it out.")
        values = tensor.detach().cpu().flatten()
        values = values if values.dtype == torch.float64 else values.float()
        if not torch.isfinite(values).all():
            raise AwqdocError(f"{name!r} holds inf or nan: look at where it comes from before you draw it.")
        flat[str(name)] = values
    return flat


def _count(values: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Return how many values each bin holds, float64 [BINS]."""
    counts = torch.zeros(BINS, dtype=torch.float64)
    for part in values.split(PART):
        counts += torch.histc(part.float().clamp(low, high), BINS, low, high).double()
    return counts
