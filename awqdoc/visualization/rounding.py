"""Plain rounding: one group and its levels, the errors of a layer, and what bits and group size cost."""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from awqdoc.errors import AwqdocError
from awqdoc.quantize import round_to_nearest
from awqdoc.recordings import Recording
from awqdoc.visualization.style import Here, colour, describe, legend, log_axis, new_figure, styled
from awqdoc.visualization.tables import Table

Row = dict[str, Any]
_HUES = {4: ("blue", "o"), 3: ("orange", "D")}
BINS = 24
"""Bins of the histogram between minus and plus 0.6 steps."""


@styled
def plot_group(
    weight: torch.Tensor, source: Here, group_size: int = 128, bits: int = 4, symmetric: bool = False
) -> Figure:
    """Draw the first group of a layer with the levels that its codes stand for, and the errors of the whole layer.

    Parameters
    ----------
    weight : torch.Tensor
        Floating point [N, K] as ``torch.nn.Linear`` stores it.
    source : Here
        Where it is rounded.
    """
    quantized = round_to_nearest(weight.detach().cpu().t(), group_size, bits, symmetric)
    g = quantized.group_size
    group = weight.detach().cpu()[0, :g].float()
    step = float(quantized.scales[0, 0])
    zero = 2 ** (bits - 1) if quantized.zeros is None else int(quantized.zeros[0, 0])
    levels = [(code - zero) * step for code in range(2**bits)]
    errors = _errors_in_steps(weight.detach().cpu(), quantized.dequantize(), quantized.scales, g)

    figure, whole = new_figure(f"One group of {g} weights and its {2**bits} levels", height=5.4)
    whole.remove()
    above, below = figure.subplots(2, 1, height_ratios=[1.4, 1])
    for level in levels:
        above.axhline(level, color=colour("muted"), linewidth=0.7, zorder=1)
    above.plot(range(g), group.tolist(), linestyle="none", marker="o", markersize=3, color=colour("blue"))
    above.grid(visible=False)
    above.set_xlabel("place in the group")
    above.set_ylabel("weight")
    _code_axis(above, levels)
    density, edges = torch.histogram(errors, bins=BINS, range=(-0.6, 0.6), density=True)
    below.stairs(density.tolist(), edges.tolist(), fill=True, color=colour("blue"), alpha=0.5)
    for half in (-0.5, 0.5):
        below.axvline(half, color=colour("ink"), linewidth=1, linestyle=":")
    below.set_ylim(0, 1.2 * float(density.max()))
    below.set_xlabel("restored less original weight, steps (dotted: half a step)")
    below.set_ylabel("density, whole layer")
    rows = [
        {"place": i, "weight": float(group[i]), "code": int(quantized.codes[i, 0]), "scale": step, "zero": zero}
        for i in range(g)
    ]
    alt = (
        f"Above, {g} weights from {float(group.min()):.3g} to {float(group.max()):.3g} among {len(levels)} levels "
        f"{step:.3g} apart, from {levels[0]:.3g} to {levels[-1]:.3g}. Below, the errors of the whole layer: between "
        f"{float(errors.min()):.2f} and {float(errors.max()):.2f} steps, root mean square "
        f"{float(errors.square().mean().sqrt()):.3f}."
    )
    return describe(figure, alt, source.holding("rounded-group", rows))


def _errors_in_steps(
    weight: torch.Tensor, restored: torch.Tensor, scales: torch.Tensor, group_size: int
) -> torch.Tensor:
    """Return all errors of a weight [N, K], each divided by the step of its group, float32 [K * N]."""
    steps = scales.float().repeat_interleave(group_size, dim=0)
    return ((restored.float() - weight.t().float()) / steps).flatten()


def _code_axis(axes: Axes, levels: list[float]) -> None:
    """Name every third level by its code at the right."""
    right = axes.secondary_yaxis("right")
    codes = range(0, len(levels), 3 if len(levels) > 8 else 1)
    right.set_yticks([levels[code] for code in codes], [str(code) for code in codes], fontsize=8)
    right.set_ylabel("code")


def rounding_rows(recording: Recording, bits: int, symmetric: bool) -> list[Row]:
    """Return the rows of one line of the figure, fewest bits per weight first: of the first model, if several."""
    model = recording.parameters["model"][0]
    wanted = {"model": model, "bits": bits, "symmetric": symmetric}
    rows = [row for row in recording.rows if all(row[key] == value for key, value in wanted.items())]
    return sorted(rows, key=lambda row: float(row["bits_per_weight"]))


def bit_ratios(recording: Recording) -> list[Row]:
    """Return how many times the error and the KL divergence grow from INT4 to INT3, all else alike.

    Returns
    -------
    list of dict
        ``group_size``; ``symmetric``; ``step``, the ratio that the number of codes gives; ``weight_error``; ``kl``.

    Raises
    ------
    AwqdocError
        If the recording does not hold both.
    """
    if not {3, 4} <= set(recording.parameters["bits"]):
        raise AwqdocError("To compare bits, the recording must hold both 4 and 3.")
    ratios = []
    for symmetric in recording.parameters["symmetric"]:
        four, three = ({row["group_size"]: row for row in rounding_rows(recording, b, symmetric)} for b in (4, 3))
        for group_size in recording.parameters["group_size"]:
            one, other = four[group_size], three[group_size]
            ratios.append({
                "group_size": group_size, "symmetric": symmetric, "step": 7 / 3 if symmetric else 15 / 7,
                **{key: other[key] / one[key] for key in ("weight_error", "kl")},
            })  # fmt: skip
    return ratios


@styled
def plot_rounding(recording: Recording) -> Figure:
    """Draw the KL divergence over bits per weight: a line through the group sizes for each kind of codes."""
    figure, axes = new_figure("Plain rounding: KL divergence by bits per weight", height=4.2)
    parts = []
    for bits in recording.parameters["bits"]:
        hue, marker = _HUES[bits]
        for symmetric in recording.parameters["symmetric"]:
            rows = rounding_rows(recording, bits, symmetric)
            x, y, errors = ([row[key] for row in rows] for key in ("bits_per_weight", "kl", "kl_error"))
            axes.errorbar(
                x, y, yerr=errors, marker=marker, color=colour(hue), linestyle="--" if symmetric else "-",
                # An open marker is filled by the page, whatever its colour.
                markerfacecolor="none" if symmetric else colour(hue), label=_title(bits, symmetric),
            )  # fmt: skip
            told = ", ".join(f"{row['kl']:.3g} at {row['bits_per_weight']:.2f} ({_group(row)})" for row in rows)
            parts.append(f"{_title(bits, symmetric)}: {told}")
            # Symmetric codes lie above: they are named at the upper right, the others at the lower left.
            side = 1 if symmetric else -1
            for row in rows:
                axes.annotate(
                    _group(row), (row["bits_per_weight"], row["kl"]), (5 * side, 2 * side), fontsize=7.5,
                    textcoords="offset points", ha="left" if symmetric else "right",
                    va="bottom" if symmetric else "top",
                )  # fmt: skip
    axes.set_yscale("log")
    log_axis(axes.yaxis)
    axes.margins(x=0.16, y=0.12)
    axes.set_xlabel("bits per weight, scales included (group size at points)")
    axes.set_ylabel("KL divergence to FP16, nats (log)")
    legend(axes)
    return describe(figure, f"KL divergence to FP16 by bits per weight and group size. {'. '.join(parts)}.", recording)


def rounding_table(recording: Recording) -> Table:
    """Tabulate bits per weight, relative weight error and KL divergence of every combination."""
    rows = [
        [
            _title(bits, symmetric), _group(row), f"{row['bits_per_weight']:.3f}", f"{row['weight_error']:.1%}",
            f"{row['kl']:.4f}", f"{row['kl_error']:.4f}", f"{row['kl'] / row['weight_error'] ** 2:.2f}",
        ]
        for bits in recording.parameters["bits"]
        for symmetric in recording.parameters["symmetric"]
        for row in rounding_rows(recording, bits, symmetric)
    ]  # fmt: skip
    columns = ["codes", "group size", "bits per weight", "weight error", "KL to FP16", "standard error", "KL / error²"]
    return Table(columns, rows, recording, title="Plain rounding of every linear layer")


def _title(bits: int, symmetric: bool) -> str:
    return f"INT{bits} {'symmetric' if symmetric else 'asymmetric'}"


def _group(row: Row) -> str:
    return "all of K" if row["group_size"] == -1 else str(row["group_size"])
