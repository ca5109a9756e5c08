"""AWQ's clipping: one group at every threshold, which thresholds are chosen, and what they gain."""

from __future__ import annotations

from statistics import geometric_mean
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator

from awqdoc.recordings import Recording
from awqdoc.visualization.style import Here, colour, describe, legend, new_figure, styled
from awqdoc.visualization.tables import Table

if TYPE_CHECKING:
    import torch

STEP = 0.05
"""Thresholds are 1, 0.95 ... times the largest magnitude of a group, in steps of 1 / `awqdoc.quantize.clip.GRID`."""

Row = dict[str, Any]
Cell = tuple[int, int]
# Colour, marker and line of bits and group size, in the order of the axes.
_HUES, _LINES = ("blue", "orange"), (("o", "-"), ("s", "--"))


def clipped_group(weight: torch.Tensor, gram: torch.Tensor, bits: int) -> list[Row]:
    """Round one group at every threshold that `awqdoc.quantize.search_clip` tries.

    Parameters
    ----------
    weight : torch.Tensor
        [g], floating point: neighbours along K of one output channel.
    gram : torch.Tensor
        X^T X of their inputs, [g, g].

    Returns
    -------
    list of dict
        A row for each ``threshold``, a share of the largest magnitude, with the squared error of the group's partial
        sum over all tokens, ``loss``; ``clamping`` and ``rounding``, what it would be from either alone; and as lists
        the weights, ``weight``, what they become, ``rounded``, and all that they might become, ``grid``.
    """
    from awqdoc.quantize import clamp_groups, round_to_nearest
    from awqdoc.quantize.clip import GRID, MAX_SHRINK

    row = weight.detach().float().unsqueeze(0)
    largest = row.abs().amax(dim=1, keepdim=True)

    def cost(error: torch.Tensor) -> float:
        return float(((error @ gram) * error).sum())

    rows = []
    for i in range(int(MAX_SHRINK * GRID)):
        kept = clamp_groups(row, largest * (1 - i / GRID))
        quantized = round_to_nearest(kept.t(), -1, bits)
        assert quantized.zeros is not None, "not symmetric"
        scale, zero = float(quantized.scales), int(quantized.zeros)
        rounded = (quantized.codes.t().float() - zero) * scale
        rows.append({
            "threshold": 1 - i / GRID, "bits": bits,
            "loss": cost(rounded - row), "clamping": cost(kept - row), "rounding": cost(rounded - kept),
            "weight": row.flatten().tolist(), "rounded": rounded.flatten().tolist(),
            "grid": [(code - zero) * scale for code in range(2**bits)],
        })  # fmt: skip
    return rows


@styled
def plot_clipped_group(rows: list[Row], source: Here) -> Figure:
    """Draw a group's weights between the values that they can become without and with the best clipping.

    Below, the squared error by threshold, and what it would be from clamping and from rounding alone.

    Parameters
    ----------
    rows : list of dict
        Of `clipped_group`.
    source : Here
        Where they were computed.
    """
    best = min(rows, key=lambda row: float(row["loss"]))
    weight = rows[0]["weight"]
    bits, threshold = best["bits"], best["threshold"]
    figure, whole = new_figure(f"One group of {len(weight)} weights at {bits} bits", height=4.9)
    whole.remove()
    above, below = figure.subplots(2, 1, height_ratios=[1, 1.25])
    limit = threshold * max(map(abs, weight))
    cut = [value for value in weight if abs(value) > limit]
    inside = [value for value in weight if abs(value) <= limit]
    above.plot(inside, [0] * len(inside), "|", markersize=11, color=colour("muted"))
    above.plot(cut, [0] * len(cut), "|", markersize=11, markeredgewidth=2, color=colour("purple"))
    for height, row, hue in ((1, rows[0], "blue"), (-1, best, "orange")):
        above.plot(row["grid"], [height] * len(row["grid"]), "D", markersize=5.5, color=colour(hue))
    above.set_yticks([1, 0, -1], ["not clipped", "weights", f"clipped at {threshold:.2f}"], fontsize=9)
    above.set_ylim(-1.6, 1.6)
    above.grid(visible=False, axis="y")
    above.xaxis.set_major_locator(MaxNLocator(5))
    above.set_xlabel("weight, and the values that it can become", fontsize=9)

    unit, shares = rows[0]["loss"], [row["threshold"] for row in rows]
    for key, hue, mark, name in (
        ("loss", "ink", "o", "both"),
        ("rounding", "green", "s", "rounding alone"),
        ("clamping", "purple", "^", "clamping alone"),
    ):
        below.plot(shares, [row[key] / unit for row in rows], marker=mark, color=colour(hue), label=name)
    below.set_xlim(max(shares) + 0.02, min(shares) - 0.02)
    below.set_ylim(bottom=0)
    below.xaxis.set_major_locator(MultipleLocator(0.1))
    below.yaxis.set_major_locator(MaxNLocator(5))
    below.set_xlabel("threshold, share of the largest magnitude", fontsize=9)
    below.set_ylabel("squared error / not clipped", fontsize=9)
    legend(below, columns=3)
    grids = [f"{len(row['grid'])} values {row['grid'][1] - row['grid'][0]:.4f} apart" for row in (rows[0], best)]
    errors = [f"{row['loss'] / unit:.2f} at {row['threshold']:.2f}" for row in (best, rows[-1])]
    alt = (
        f"{len(weight)} weights and the values that they become. Not clipped: {grids[0]}. Clipped at {threshold:.2f} "
        f"of the largest magnitude: {grids[1]}; weights beyond: {len(cut)}. Squared error, clipped / not "
        f"clipped: least, {errors[0]}; {errors[1]}."
    )
    cells = [{key: " ".join(map(str, v)) if isinstance(v, list) else v for key, v in row.items()} for row in rows]
    return describe(figure, alt, source.holding("clipped-group", cells))


def threshold_shares(recording: Recording, bits: int, group_size: int) -> list[float]:
    """Return the share of all groups that chose each threshold 1, 0.95 ..., all layers together."""
    rows = recording.select(bits=[bits], group_size=[group_size]).rows
    counts = [sum(at) for at in zip(*(row["chosen"] for row in rows), strict=True)]
    return [count / sum(counts) for count in counts]


def mean_threshold(shares: list[float]) -> float:
    """Return the mean threshold, as a share of the largest magnitude."""
    return sum((1 - i * STEP) * share for i, share in enumerate(shares))


def clipping_gains(recording: Recording, bits: int, group_size: int) -> dict[str, list[float]]:
    """Return for each layer, block by block, its squared output error with clipping over that without."""
    found: dict[str, list[float]] = {}
    rows = recording.select(bits=[bits], group_size=[group_size]).rows
    for row in sorted(rows, key=lambda row: int(row["block"])):
        found.setdefault(row["layer"], []).append(row["loss_clipped"] / row["loss"])
    return found


def _cells(recording: Recording) -> list[Cell]:
    parameters = recording.parameters
    return [(bits, size) for bits in parameters["bits"] for size in parameters["group_size"]]


@styled
def plot_thresholds(recording: Recording) -> Figure:
    """Draw which share of the groups chose each threshold, for every number of bits and group size."""
    figure, axes = new_figure("Where groups are clipped", height=3.8)
    bits_axis, sizes = recording.parameters["bits"], recording.parameters["group_size"]
    parts = []
    for bits, size in _cells(recording):
        shares = threshold_shares(recording, bits, size)
        thresholds = [1 - i * STEP for i in range(len(shares))]
        hue = _HUES[bits_axis.index(bits) % 2]
        marker, line = _LINES[sizes.index(size) % 2]
        name = f"INT{bits}, groups of {size}"
        percent = [100 * share for share in shares]
        axes.plot(thresholds, percent, marker=marker, linestyle=line, color=colour(hue), label=name)
        parts.append(f"{name}: {shares[0]:.0%} not clipped, mean threshold {mean_threshold(shares):.2f}")
    axes.set_xlim(1.02, 1 - STEP * len(shares) + 0.03)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MultipleLocator(0.1))  # the automatic one heeds the caller's font size
    axes.yaxis.set_major_locator(MultipleLocator(10))
    axes.set_xlabel("threshold, share of the largest magnitude (1.0: not clipped)")
    axes.set_ylabel("% of groups")
    legend(axes)
    return describe(figure, f"Share of groups by chosen threshold. {'; '.join(parts)}.", recording)


def clipping_table(recording: Recording) -> Table:
    """Tabulate the squared output error of each kind of layer, clipped over not clipped: mean and range over blocks."""
    cells = {cell: clipping_gains(recording, *cell) for cell in _cells(recording)}
    layers = list(dict.fromkeys(layer for gains in cells.values() for layer in gains))
    rows = []
    for layer in layers:
        gains = [cells[cell][layer] for cell in cells]
        texts = [f"{geometric_mean(gain):.2f} ({min(gain):.2f} to {max(gain):.2f})" for gain in gains]
        rows.append([layer.rpartition(".")[2], *texts])
    columns = ["layer", *(f"INT{bits}, g = {size}" for bits, size in cells)]
    title = "Squared output error, clipped / not clipped: geometric mean (range) over blocks"
    return Table(columns, rows, recording, title)
