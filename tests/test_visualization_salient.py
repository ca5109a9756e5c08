"""Figures and tables of salient channels, on recordings whose numbers we know."""

from collections.abc import Iterator
from typing import Any

import pytest
from figure_checks import assert_house_style
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from awqdoc import visualization as vis
from awqdoc.recordings import Recording

pytestmark = pytest.mark.usefixtures("same_code")

PROVENANCE = {
    "commit": "0123456789", "sources": "sha256:now", "date": "2026-11-23T18:12:08+00:00", "clock": None,
    "gpu": "NVIDIA H200",
}  # fmt: skip
MODELS = ["embedded", "embedded+outliers"]
SHARES = [0.01, 0.1]
FACTORS = [1.0, 1.5, 2.0, 8.0]
# KL by share; the model with outliers has twice that.
KL = {"none": (0.2, 0.2), "activation": (0.15, 0.1), "weight": (0.19, 0.175), "random": (0.18, 0.17)}
# Factor -> share of the groups changed, step ratio, KL; the model with outliers has twice the KL.
SCALED = {1.0: (0.0, 1.0, 0.2), 1.5: (0.1, 1.02, 0.19), 2.0: (0.25, 1.1, 0.21), 8.0: (0.75, 2.0, 0.9)}


def salient_rows() -> Iterator[dict[str, Any]]:
    for model in MODELS:
        for i, share in enumerate(SHARES):
            for pick, values in KL.items():
                for seed in (0, 1) if pick == "random" else (None,):
                    kl = (1 + MODELS.index(model)) * (values[i] + 0.01 * (seed or 0))
                    channels = 0.0 if pick == "none" else 256 * share
                    yield {"model": model, "share": share, "pick": pick, "seed": seed, "channels": channels,
                           "kl": kl, "kl_error": kl / 50, "kl_windows": [0.5 * kl, 1.5 * kl]}  # fmt: skip


SALIENT = Recording("salient", {"model": MODELS, "share": SHARES}, PROVENANCE, list(salient_rows()))


def windows(model: str, factor: float, kl: float) -> list[float]:
    """KL of two windows, whose ratio to that of plain rounding (0.2 on average) has a standard error of 0.004 / 0.2."""
    off = 0.004 if factor > 1 else 0
    return [(1 + MODELS.index(model)) * value for value in (0.5 * kl - off, 1.5 * kl + off)]


SCALING = Recording(
    "scaling",
    {"model": MODELS, "factor": FACTORS},
    PROVENANCE,
    [
        {"model": model, "factor": factor, "changed": changed, "step_ratio": step, "error_ratio": step / factor,
         "kl": (1 + MODELS.index(model)) * kl, "kl_windows": windows(model, factor, kl)}
        for model in MODELS
        for factor, (changed, step, kl) in SCALED.items()
    ],
)  # fmt: skip


def salient(**parameters: Any) -> Recording:
    return SALIENT.select(**parameters)


def bars(figure: Figure) -> dict[str, ErrorbarContainer]:
    """Label -> what was drawn under it first."""
    found: dict[str, ErrorbarContainer] = {}
    for container in figure.axes[0].containers:
        assert isinstance(container, ErrorbarContainer)
        found.setdefault(container.get_label(), container)
    return found


def heights(container: ErrorbarContainer) -> list[float]:
    return [float(y) for y in container.lines[0].get_ydata()]


def test_points_are_the_recorded_kl() -> None:
    drawn = bars(vis.plot_salient(salient(model=["embedded"])))
    assert heights(drawn["largest activation"]) == [0.15, 0.1]
    assert heights(drawn["largest weight norm"]) == [0.19, 0.175]
    assert heights(drawn["at random, each draw"]) == pytest.approx([0.18, 0.19, 0.17, 0.18])


def test_bars_are_standard_errors_and_random_draws_have_none() -> None:
    drawn = bars(vis.plot_salient(salient(model=["embedded"])))
    (bar,) = drawn["largest activation"].lines[2]
    assert [list(segment[:, 1]) for segment in bar.get_segments()] == [
        pytest.approx([0.147, 0.153]),
        pytest.approx([0.098, 0.102]),
    ]
    assert not drawn["at random, each draw"].has_yerr


def test_axis_begins_at_zero_and_holds_every_bar() -> None:
    low, high = vis.plot_salient(SALIENT).axes[0].get_ylim()
    assert low == 0
    assert high > 2 * 0.2 * 1.02


def test_each_model_has_its_line_of_plain_rounding() -> None:
    figure = vis.plot_salient(SALIENT)
    lines = [c.get_segments() for c in figure.axes[0].collections if hasattr(c, "get_segments")]
    levels = {float(s[0][1]) for segments in lines for s in segments if s[0][1] == s[1][1]}
    assert levels == {0.2, 0.4}
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()].count("none kept: all INT3") == 1
    assert [text.get_text() for text in figure.axes[0].texts] == ["as trained", "with added outliers"]


def test_alt_text_of_picks_tells_the_numbers() -> None:
    alt = vis.plot_salient(SALIENT).awqdoc_alt  # type: ignore[attr-defined]
    assert "as trained: all INT3 0.200; 1 % kept by activation 0.150, by weight norm 0.190, at random 0.180" in alt
    assert "with added outliers: all INT3 0.400" in alt
    assert "10 % kept by activation 0.200, by weight norm 0.350, at random 0.340 to 0.360." in alt


@pytest.mark.parametrize(
    "parameters", [{"share": [0.1]}, {"model": [MODELS[1]]}, {"model": [MODELS[0]], "share": [0.01]}]
)
def test_picks_are_drawn_and_tabulated_for_a_part_of_the_axes(parameters: dict[str, Any]) -> None:
    part = salient(**parameters)
    figure = vis.plot_salient(part)
    ticks = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    cells = [f"{100 * share:g} %" for _ in part.parameters["model"] for share in part.parameters["share"]]
    assert ticks == cells
    assert [row[1] for row in vis.salient_table(part).rows] == cells


def test_kl_removed_is_relative_to_plain_rounding() -> None:
    for model in MODELS:
        assert vis.kl_removed(SALIENT, model, 0.01, "activation") == [pytest.approx((0.25, 0))]
        assert vis.kl_removed(SALIENT, model, 0.01, "none") == [(0, 0)]
        assert [share for share, _ in vis.kl_removed(SALIENT, model, 0.1, "random")] == pytest.approx([0.15, 0.1])


def test_error_of_kl_removed_is_taken_window_by_window() -> None:
    cell = {"model": "embedded", "share": 0.01}
    rows = [
        {**cell, "pick": "none", "kl": 2.0, "kl_windows": [1.0, 3.0]},
        {**cell, "pick": "activation", "kl": 1.0, "kl_windows": [0.4, 1.6]},
    ]
    ((removed, error),) = vis.kl_removed(Recording("salient", {}, PROVENANCE, rows), "embedded", 0.01, "activation")
    # Half is left, give or take 0.1 in each of two windows, of 2 on average.
    assert (removed, error) == (pytest.approx(0.5), pytest.approx(0.05))


def test_table_of_picks() -> None:
    table = vis.salient_table(SALIENT)
    assert table.rows[1] == [
        "as trained", "10 %", "25.6", "50.0% ± 0.0%", "12.5% ± 0.0%", "12.5%", "10.0% to 15.0%",
    ]  # fmt: skip
    assert table.rows[2][:2] == ["with added outliers", "1 %"]


def test_model_of_the_scaled_kl_joins_both_parts() -> None:
    # 0.15 belongs to the other channels and grows with the step, 0.05 to the salient ones.
    modelled = vis.scaled_kl(SCALING, SALIENT, "embedded")
    assert modelled[1.0] == pytest.approx(0.2)
    assert modelled[2.0] == pytest.approx(0.15 * 1.1**2 + 0.05 * 0.55**2)


def test_nothing_is_modelled_without_the_share_that_was_scaled() -> None:
    part = salient(share=[0.1])
    assert vis.scaled_kl(SCALING, part, "embedded") == {}
    figure = vis.plot_scaling(SCALING, part)
    assert "modelled" not in figure.awqdoc_alt  # type: ignore[attr-defined]
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == [
        "as trained, measured",
        "with added outliers, measured",
    ]


def test_lines_are_relative_to_a_factor_of_one_and_end_where_the_drawing_does() -> None:
    figure = vis.plot_scaling(SCALING, SALIENT)
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert list(lines["as trained, measured"].get_xdata()) == [1, 1.5, 2]
    assert list(lines["as trained, measured"].get_ydata()) == pytest.approx([1, 0.95, 1.05])
    assert list(lines["as trained, modelled"].get_ydata()) == pytest.approx(
        [kl / 0.2 for kl in list(vis.scaled_kl(SCALING, SALIENT, "embedded").values())[:3]]
    )
    bar = figure.axes[0].containers[0].lines[2][0].get_segments()[1]
    assert list(bar[:, 1]) == pytest.approx([0.93, 0.97])


def test_alt_text_of_scaling_tells_the_numbers() -> None:
    alt = vis.plot_scaling(SCALING, SALIENT).awqdoc_alt  # type: ignore[attr-defined]
    assert "as trained measured 100% at 1, 95% at 1.5, 105% at 2; as trained modelled 100% at 1" in alt
    assert "at 8" not in alt


def test_scaling_is_drawn_for_a_part_of_the_axes() -> None:
    axes = vis.plot_scaling(SCALING.select(model=["embedded"], factor=[1.0, 2.0]), SALIENT).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2"]
    assert list(axes.get_xticks()) == [1, 2]
    assert {line.get_label() for line in axes.lines} >= {"as trained, measured", "as trained, modelled"}
    assert not [line for line in axes.lines if "outliers" in str(line.get_label())]


def test_table_of_scaling() -> None:
    table = vis.scaling_table(SCALING, "embedded+outliers")
    assert table.rows[2] == ["2", "25.0%", "1.100", "0.550", "0.4200", "+0.0200 ± 0.0180"]
    assert table.rows[0][5] == ""
    assert len(table.rows) == len(FACTORS)


@pytest.mark.parametrize("draw", [lambda: vis.plot_salient(SALIENT), lambda: vis.plot_scaling(SCALING, SALIENT)])
def test_drawn_in_the_style_of_the_house(draw: Any) -> None:
    assert_house_style(draw)
