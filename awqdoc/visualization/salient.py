"""Salient channels: what keeping them in FP16 buys by how they were picked, and what scaling them buys instead."""

from __future__ import annotations

from statistics import mean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator, PercentFormatter

from awqdoc.recordings import Recording
from awqdoc.visualization.paired import paired_difference, paired_ratio
from awqdoc.visualization.style import colour, describe, legend, new_figure, styled
from awqdoc.visualization.tables import Table

Row = dict[str, Any]
_MODELS = {"embedded": "as trained", "embedded+outliers": "with added outliers"}
# Pick -> how it is written, colour, marker.
_PICKS = {
    "activation": ("largest activation", "blue", "o"),
    "weight": ("largest weight norm", "orange", "s"),
    "random": ("at random, each draw", "muted", "x"),
}
# Model -> colour, marker.
_LINES = {"embedded": ("blue", "o"), "embedded+outliers": ("orange", "s")}
_SCALED = 0.01
"""Share of the channels that the experiment ``scaling`` multiplies."""
_DRAWN = 2.0
"""Beyond this factor the KL divergence is so much larger that it would flatten the rest of the drawing."""


def picked(recording: Recording, model: str, share: float, pick: str) -> list[Row]:
    """Return the rows of one pick: one for each random draw, one of any other."""
    wanted = {"model": model, "share": share, "pick": pick}
    return [row for row in recording.rows if all(row[key] == value for key, value in wanted.items())]


def kl_removed(recording: Recording, model: str, share: float, pick: str) -> list[tuple[float, float]]:
    """Return which share of the KL divergence of rounding everything each draw of a pick removes, and its error."""
    (everything,) = picked(recording, model, share, "none")
    ratios = [paired_ratio(row, everything) for row in picked(recording, model, share, pick)]
    return [(1 - ratio, error) for ratio, error in ratios]


def scaled_kl(recording: Recording, kept: Recording, model: str) -> dict[float, float]:
    """Return the KL divergence at each factor that the analysis of the AWQ paper leads to: modelled, not measured.

    KL grows with the square of a small error. What is left when the salient channels stay in FP16 belongs to the
    other channels, whose error grows with the step; the rest to the salient ones, whose error follows step / s.
    Empty if `kept` lacks the share of channels that was scaled.

    Parameters
    ----------
    recording : Recording
        Of the experiment ``scaling``.
    kept : Recording
        Of the experiment ``salient``.
    """
    others, everything = (picked(kept, model, _SCALED, pick) for pick in ("activation", "none"))
    if not others:
        return {}
    base, salient = others[0]["kl"], everything[0]["kl"] - others[0]["kl"]
    return {
        row["factor"]: base * row["step_ratio"] ** 2 + salient * row["error_ratio"] ** 2
        for row in scaled(recording, model)
    }


def scaled(recording: Recording, model: str) -> list[Row]:
    """Return the rows of one model by factor."""
    return sorted((row for row in recording.rows if row["model"] == model), key=lambda row: float(row["factor"]))


@styled
def plot_salient(recording: Recording) -> Figure:
    """Draw the KL divergence by share kept and pick, the models beside each other; bars are standard errors."""
    figure, axes = new_figure("Some channels in FP16, all others in INT3: which to keep?", height=4.0)
    shares, parts, ticks = sorted(recording.parameters["share"]), [], {}
    for number, model in enumerate(recording.parameters["model"]):
        start = number * (len(shares) + 0.25)
        places = {start + i: share for i, share in enumerate(shares)}
        ticks.update({x: _percent(share) for x, share in places.items()})
        for offset, pick in zip((-0.22, 0, 0.22), _PICKS, strict=True):
            _draw_pick(axes, recording, model, pick, {x + offset: share for x, share in places.items()}, number == 0)
        (row,) = picked(recording, model, shares[0], "none")
        ends = (start - 0.45, start + len(shares) - 0.55)
        axes.hlines(
            row["kl"], *ends, color=colour("ink"), linewidth=1.2, label="_" if number else "none kept: all INT3"
        )
        axes.fill_between(ends, *_within(row), color=colour("ink"), alpha=0.12, linewidth=0)
        title = _MODELS.get(model, model)
        axes.text(sum(ends) / 2, 0.02, title, transform=axes.get_xaxis_transform(), ha="center", fontsize=9)
        parts.append(_salient_alt(recording, model, shares))
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False, axis="x")
    axes.set_ylim(0, 1.06 * max(_within(row)[1] for row in recording.rows))
    axes.set_xlabel("share of the input channels of each layer that stay in FP16")
    axes.set_ylabel("KL divergence to FP16, nats")
    legend(axes)
    return describe(figure, " ".join(parts), recording)


def _draw_pick(
    axes: Axes, recording: Recording, model: str, pick: str, places: dict[float, float], named: bool
) -> None:
    title, hue, marker = _PICKS[pick]
    rows = [(x, row) for x, share in places.items() for row in picked(recording, model, share, pick)]
    axes.errorbar(
        [x for x, _ in rows],
        [row["kl"] for _, row in rows],
        # Draws lie on each other, and would hide behind bars that all of them share.
        yerr=None if pick == "random" else [row["kl_error"] for _, row in rows],
        fmt=marker,
        color=colour(hue),
        markersize=4,
        capsize=3,
        elinewidth=1.2,
        label=title if named else None,
    )


def _salient_alt(recording: Recording, model: str, shares: list[float]) -> str:
    (everything,) = picked(recording, model, shares[0], "none")
    cells = []
    for share in shares:
        activation, weight, random = ([row["kl"] for row in picked(recording, model, share, pick)] for pick in _PICKS)
        cells.append(
            f"{_percent(share)} kept by activation {activation[0]:.3f}, by weight norm {weight[0]:.3f}, "
            f"at random {min(random):.3f} to {max(random):.3f}"
        )
    return f"KL divergence {_MODELS.get(model, model)}: all INT3 {everything['kl']:.3f}; {'; '.join(cells)}."


def salient_table(recording: Recording) -> Table:
    """Tabulate which part of the KL divergence each pick takes away, for every model and share."""
    rows = []
    for model in recording.parameters["model"]:
        for share in sorted(recording.parameters["share"]):
            activation, weight, draws = (kl_removed(recording, model, share, pick) for pick in _PICKS)
            random = [removed for removed, _ in draws]
            channels = picked(recording, model, share, "activation")[0]["channels"]
            rows.append([
                _MODELS.get(model, model), _percent(share), f"{channels:.1f}",
                *("{:.1%} ± {:.1%}".format(*removed[0]) for removed in (activation, weight)),
                f"{mean(random):.1%}", f"{min(random):.1%} to {max(random):.1%}",
            ])  # fmt: skip
    columns = ["model", "kept", "channels (mean)", "activation", "weight norm", "random (mean)", "random (draws)"]
    return Table(columns, rows, recording, title="Share of the KL divergence to FP16 that keeping channels takes away")


@styled
def plot_scaling(recording: Recording, kept: Recording) -> Figure:
    """Draw the KL divergence by factor, relative to plain rounding: measured, and as the paper's analysis has it.

    The factor 1 must be among those recorded.
    """
    figure, axes = new_figure("Salient channels multiplied by s, rounded, divided by s", height=4.0)
    parts = []
    for model in recording.parameters["model"]:
        hue, marker = _LINES.get(model, ("green", "^"))
        rows = [row for row in scaled(recording, model) if row["factor"] <= _DRAWN]
        plain = {row["factor"]: row for row in rows}[1]
        base, factors = plain["kl"], [row["factor"] for row in rows]
        title = _MODELS.get(model, model)
        ratios, errors = zip(*(paired_ratio(row, plain) for row in rows), strict=True)
        axes.plot(factors, ratios, marker=marker, color=colour(hue), label=f"{title}, measured")
        axes.errorbar(factors, ratios, yerr=errors, fmt="none", color=colour(hue), capsize=3, elinewidth=1.2)
        parts.append(f"{title} measured " + _points(dict(zip(factors, ratios, strict=True))))
        modelled = {factor: kl / base for factor, kl in scaled_kl(recording, kept, model).items() if factor <= _DRAWN}
        if modelled:
            axes.plot(list(modelled), list(modelled.values()), ":", color=colour(hue), label=f"{title}, modelled")
            parts.append(f"{title} modelled " + _points(modelled))
    axes.axhline(1, color=colour("ink"), linewidth=1)
    ticks = [factor for factor in sorted(recording.parameters["factor"]) if factor <= _DRAWN]
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{factor:g}" for factor in ticks])
    axes.minorticks_off()
    axes.yaxis.set_major_locator(MultipleLocator(0.05))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlabel("factor s (log)")
    axes.set_ylabel("KL divergence relative to s = 1")
    legend(axes)
    return describe(figure, f"KL divergence by factor, relative to s = 1: {'; '.join(parts)}.", recording)


def _points(values: dict[float, float]) -> str:
    return ", ".join(f"{value:.0%} at {factor:g}" for factor, value in values.items())


def scaling_table(recording: Recording, model: str) -> Table:
    """Tabulate what a factor does to the groups' steps and to the model, as table 2 of the AWQ paper does."""
    found = scaled(recording, model)
    rows = [
        [
            f"{row['factor']:g}", f"{row['changed']:.1%}", f"{row['step_ratio']:.3f}", f"{row['error_ratio']:.3f}",
            f"{row['kl']:.4f}", "" if row is found[0] else "{:+.4f} ± {:.4f}".format(*paired_difference(row, found[0])),
        ]
        for row in found
    ]  # fmt: skip
    least = f"{found[0]['factor']:g}"
    columns = [
        "s",
        "groups with another step",
        "step ratio (mean)",
        "step ratio / s",
        "KL to FP16",
        f"less that at {least}",
    ]
    return Table(columns, rows, recording, title=f"Salient channels scaled by s, model {_MODELS.get(model, model)}")


def _within(row: Row) -> tuple[float, float]:
    return row["kl"] - row["kl_error"], row["kl"] + row["kl_error"]


def _percent(share: float) -> str:
    return f"{100 * share:g} %"
