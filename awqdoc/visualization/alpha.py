"""AWQ's scale search: the loss over its grid of alphas, what the best of them gains, and how near the next one is."""

from __future__ import annotations

from math import inf
from statistics import geometric_mean, median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MultipleLocator, NullLocator

from awqdoc.recordings import Recording
from awqdoc.visualization.style import colour, describe, legend, new_figure, styled
from awqdoc.visualization.tables import Table

Row = dict[str, Any]

NEAR = 0.01
"""A loss that exceeds the least by no more than this share counts as a near tie."""

_READERS = {
    "self_attn.q_proj": "query, key, value",
    "self_attn.o_proj": "output",
    "self_attn.out_proj": "output",
    "mlp.gate_proj": "gate, up",
    "mlp.down_proj": "down",
}
_MODELS = {"embedded": "as trained", "embedded+outliers": "with added outliers"}
_TICKS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1, 1.25, 1.5, 2, 3, 4, 6)
_TOP = 1.6  # of a panel; what lies above is worse than any alpha that could be chosen


def readers(layer: str) -> str:
    """Name the layers that share an input, given the first of them as a recording has it."""
    return _READERS.get(layer, layer.rpartition(".")[2])


def alphas(losses: list[float]) -> list[float]:
    """Return the alphas that the losses of a search belong to: 0, 0.05 ... 0.95."""
    return [i / len(losses) for i in range(len(losses))]


def near_ties(losses: list[float], share: float = NEAR) -> int:
    """Count the alphas whose loss is the least, or more than it by no more than `share`."""
    return sum(loss <= (1 + share) * min(losses) for loss in losses)


def relative_losses(recording: Recording, model: str, bits: int, duo_scaling: bool) -> dict[str, list[list[float]]]:
    """Return what scaling leaves of the rounding error.

    Parameters
    ----------
    recording : Recording
        Of the experiment ``alpha``, with the rows without duo scaling: their alpha 0 is no scaling.

    Returns
    -------
    dict
        Layer -> for each block, in order, the loss at each alpha over the loss without scaling.
    """
    found: dict[str, list[list[float]]] = {}
    unscaled = {_place(row): row["losses"][0] for row in _search(recording, model, bits, duo_scaling=False)}
    for row in _search(recording, model, bits, duo_scaling):
        losses = [loss / unscaled[_place(row)] for loss in row["losses"]]
        found.setdefault(row["layer"], []).append(losses)
    return found


def _search(recording: Recording, model: str, bits: int, duo_scaling: bool) -> list[Row]:
    """Return the rows of one search of a model, by block; a loss that overflowed is infinite."""
    rows = recording.select(model=[model], bits=[bits], duo_scaling=[duo_scaling]).rows
    cleaned = [{**row, "losses": [inf if loss is None else loss for loss in row["losses"]]} for row in rows]
    return sorted(cleaned, key=lambda row: int(row["block"]))


def _place(row: Row) -> tuple[int, str]:
    return row["block"], row["layer"]


def _best(losses: list[float]) -> float:
    return alphas(losses)[losses.index(min(losses))]


@styled
def plot_scale_search(recording: Recording, model: str, bits: int, duo_scaling: bool = False) -> Figure:
    """Draw the loss over alpha of every block, relative to no scaling, in a panel for each kind of input."""
    found = relative_losses(recording, model, bits, duo_scaling)
    variant = ", duo scaling" if duo_scaling else ""
    figure, whole = new_figure(f"Error left by scaling with each alpha, INT{bits}{variant}", height=4.9)
    whole.remove()
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    lowest = min(min(losses) for blocks in found.values() for losses in blocks)
    parts = []
    for axes, (layer, blocks) in zip(panels.flat, found.items(), strict=False):
        axes.axhline(1, color=colour("ink"), linewidth=1)
        for number, losses in enumerate(blocks):
            hue, label = "muted", "between"
            if number in (0, len(blocks) - 1):
                hue, label = ("orange", "last block") if number else ("blue", "first block")
            line = 0.9 if hue == "muted" else 1.8
            axes.plot(alphas(losses), losses, color=colour(hue), linewidth=line, label=label)
            axes.plot(_best(losses), min(losses), "o", color=colour(hue))
        axes.set_title(f"input of {readers(layer)}", fontsize=9.5, loc="left")
        _ratio_axis(axes)
        axes.set_ylim(0.92 * lowest, _TOP)
        least, best = _range([min(losses) for losses in blocks], ".2f"), _range([*map(_best, blocks)], ".2f")
        parts.append(f"{readers(layer)}: least {least} of the loss without scaling, at alpha {best}")
    for axes in panels.flat[len(found) :]:
        axes.remove()
    for axes in panels.flat[max(0, len(found) - 2) : len(found)]:  # the lowest of each column
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("alpha")
    for axes in panels[:, 0]:
        axes.set_ylabel("loss / unscaled (log)")
    drawn = panels.flat[len(found) - 1]
    handles, labels = drawn.get_legend_handles_labels()
    entries = dict(zip(labels, handles, strict=True))
    drawn.legend(list(entries.values()), list(entries), fontsize=8.5, handlelength=1.5)
    alt = f"Loss over alpha for each block of {model}, relative to no scaling. {'; '.join(parts)}."
    return describe(figure, alt, recording)


@styled
def plot_duo_scaling(recording: Recording, layer: str, bits: int) -> Figure:
    """Draw the loss over alpha with and without duo scaling for every model, as geometric means over the blocks.

    All are relative to the first model's loss without scaling, so that models that compute the same can be compared.
    """
    figure, axes = new_figure(f"Two forms of the scale, input of {readers(layer)}, INT{bits}", height=3.9)
    models = [model for model in recording.parameters["model"] if layer in mean_losses(recording, model, bits, False)]
    unit = mean_losses(recording, models[0], bits, False)[layer][0]
    parts = []
    for model, hue in zip(models, ("blue", "orange", "green"), strict=False):
        for duo in recording.parameters["duo_scaling"]:
            means = [loss / unit for loss in mean_losses(recording, model, bits, duo)[layer]]
            # Of two lines that lie on each other both are seen: a thick one below, a dashed one above.
            look: dict[str, Any] = {"linewidth": 1.8} if not duo else {"linewidth": 4, "alpha": 0.45}
            if duo and model != models[0]:
                look = {"linestyle": "--", "linewidth": 1.4}
            name = f"{_MODELS.get(model, model)}, {'duo' if duo else 'plain'}"
            axes.plot(alphas(means), means, color=colour(hue), label=name, **look)
            parts.append(f"{name}: {means[0]:.2f} at alpha 0, least {min(means):.2f} at {_best(means):.2f}")
    axes.axhline(1, color=colour("ink"), linewidth=1)
    _ratio_axis(axes)
    axes.set_xlabel("alpha")
    axes.set_ylabel(f"loss / unscaled, {_MODELS.get(models[0], models[0])} (log)", fontsize=9)
    legend(axes)
    alt = f"Loss over alpha, geometric mean over the blocks. {'; '.join(parts)}."
    return describe(figure, alt, recording)


def _ratio_axis(axes: Axes) -> None:
    """Draw ratios over alpha, half as much and twice as much equally far from 1."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(FixedLocator(_TICKS))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(MultipleLocator(0.25))  # the automatic one heeds the caller's font size
    axes.yaxis.set_major_formatter("{x:g}")


def mean_losses(recording: Recording, model: str, bits: int, duo_scaling: bool) -> dict[str, list[float]]:
    """Return, for each layer, the geometric mean over the blocks of the loss at each alpha."""
    found: dict[str, list[list[float]]] = {}
    for row in _search(recording, model, bits, duo_scaling):
        found.setdefault(row["layer"], []).append(row["losses"])
    return {layer: [geometric_mean(at) for at in zip(*blocks, strict=True)] for layer, blocks in found.items()}


def scale_table(recording: Recording, model: str) -> Table:
    """Tabulate for each kind of input the alphas chosen, the loss left, and how many alphas come near the best."""
    rows = []
    for bits in recording.parameters["bits"]:
        for duo in recording.parameters["duo_scaling"]:
            for layer, blocks in relative_losses(recording, model, bits, duo).items():
                least = [min(losses) for losses in blocks]
                rows.append([
                    readers(layer), bits, "duo" if duo else "plain", _range([*map(_best, blocks)], ".2f"),
                    f"{geometric_mean(least):.3f}", _range(least, ".2f"),
                    f"{median(near_ties(losses) for losses in blocks):g}",
                ])  # fmt: skip
    columns = ["input of", "bits", "scale", "alphas chosen", "loss / unscaled", "by block", f"within {NEAR:.0%}"]
    size = len(alphas(recording.rows[0]["losses"])) if recording.rows else 0
    title = f"{model}: geometric mean and range over the blocks; alphas of {size} within {NEAR:.0%} of the best, median"
    return Table(columns, rows, recording, title)


def _range(values: list[float], form: str) -> str:
    low, high = (format(value, form) for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
