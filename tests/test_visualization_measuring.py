"""Figures and tables of mistakes and agreement, on recordings whose answers are known."""

from __future__ import annotations

import math
from typing import Any

import pytest
from figure_checks import assert_house_style

from awqdoc import visualization as vis
from awqdoc.recordings import Recording
from awqdoc.visualization.measuring import MISTAKES

pytestmark = pytest.mark.usefixtures("same_code")

PROVENANCE = {
    "commit": "0123456789", "sources": "sha256:now", "date": "2026-11-25T12:00:00+00:00", "clock": "a clock",
    "gpu": "NVIDIA H100",
}  # fmt: skip


# One held down, and one that NVML says so of although it lost a step only.
CLOCKS = {
    ("matmul", "do_bench"): {"sm_clock_mhz": 1455, "throttle_reasons": ["software power cap"]},
    ("matmul", "graph"): {"sm_clock_mhz": 1965, "throttle_reasons": ["software power cap"]},
}


def mistakes() -> Recording:
    rows: dict[str, dict[str, Any]] = {}
    for number, (_, wrong, right) in enumerate(MISTAKES):
        rows.setdefault(right, {"way": right, "seconds": [1e-5, 2e-5, 9e-5]})
        rows[wrong] = {"way": wrong, "seconds": [2e-5 * (number + 0.5)] * 3}
    busy = {"way": "busy from rest on", "seconds": [1e-3] * 40 + [2e-3] * 200}
    trace = {"way": "clocks and power", "every": 60, "sm_clocks": [1980, 1980, 990, 990], "powers": [90, 90, 700, 700]}
    return Recording("mistakes", {"mistake": ["all"]}, PROVENANCE, [*rows.values(), busy, trace])


def agreement() -> Recording:
    times = {
        "read 4096x4096": {"ncu": 5e-6, "graph": 4e-6, "read": 6e-6, "write": 8e-6, "do_bench": 9e-6},
        "matmul": {"ncu": 1e-3, "graph": 1.01e-3, "read": 1e-3, "write": 1e-3, "do_bench": 1.2e-3},
    }
    rows = [
        {"work": work, "way": way, "seconds": [seconds] * 8, "kernels": 1, **state}
        for work, ways in times.items()
        for way, seconds in ways.items()
        for state in [CLOCKS.get((work, way), {"sm_clock_mhz": 1980, "throttle_reasons": []})]
    ]
    return Recording("agreement", {"work": list(times)}, PROVENANCE, rows)


def test_a_factor_is_the_median_done_wrong_over_the_median_done_right() -> None:
    factors = vis.mistake_factors(mistakes())
    assert list(factors.values()) == pytest.approx([number + 0.5 for number in range(len(MISTAKES))])
    table = vis.mistakes_table(mistakes())
    assert table.rows[0] == [MISTAKES[0][0], "0.50", MISTAKES[0][1], "10.0", MISTAKES[0][2], "20.0"]


def test_mistakes_are_drawn_at_their_factor() -> None:
    (axes,) = vis.plot_mistakes(mistakes()).axes
    assert [text.get_text() for text in axes.texts] == [f"{number + 0.5:.2f}" for number in range(len(MISTAKES))]
    assert [label.get_text() for label in axes.get_yticklabels()] == [name for name, _, _ in MISTAKES]


def test_a_factor_off_the_scale_is_left_to_the_table() -> None:
    made = mistakes()
    next(row for row in made.rows if row["way"] == "the first call of all")["seconds"] = [0.1]
    figure = vis.plot_mistakes(made)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [name for name, _, _ in MISTAKES[1:]]
    assert vis.mistakes_table(made).rows[0][1] == "5000.00"


def test_drift_is_drawn_over_the_time_that_passed() -> None:
    figure = vis.plot_drift(mistakes())
    times, clocks = figure.axes
    assert times.lines[0].get_xdata()[-1] == pytest.approx(0.44)  # type: ignore[index]
    assert list(clocks.lines[0].get_ydata()) == [1980, 1980, 990, 990]  # type: ignore[arg-type]
    assert list(clocks.lines[0].get_xdata()) == pytest.approx([0.001, 0.082, 0.202, 0.322])  # type: ignore[arg-type]
    assert "1.00 ms at first and 2.00 ms at the end" in figure.awqdoc_alt  # type: ignore[attr-defined]


def test_ways_are_compared_with_nsight_compute_the_longest_work_on_top() -> None:
    figure = vis.plot_agreement(agreement())
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "FP16 8192x8192x8192\n1000 µs",
        "read INT4 4096x4096\n5 µs",
    ]
    points = {str(line.get_label()): list(line.get_xdata()) for line in axes.lines}  # type: ignore[arg-type]
    assert points["do_bench"] == pytest.approx([1.2, 1.8])
    assert points["Nsight Compute"] == [1, 1]
    assert vis.agreement_ratios(agreement(), "read 4096x4096")["graph"] == pytest.approx(0.8)


def test_how_far_clocks_are_apart_is_told_of_the_works_asked_for() -> None:
    assert vis.agreement_long(agreement()) == vis.agreement_steady(agreement(), "graph") == ["matmul"]
    assert vis.agreement_apart(agreement(), "graph", ["matmul"]) == pytest.approx(0.01)
    assert vis.agreement_apart(agreement(), "do_bench", ["matmul", "read 4096x4096"]) == pytest.approx(0.8)
    assert vis.agreement_steady(agreement(), "do_bench") == []  # its clock was held down
    assert math.isnan(vis.agreement_apart(agreement(), "do_bench", []))


def test_the_table_has_a_gap_where_a_way_was_not_taken() -> None:
    assert vis.agreement_table(agreement()).rows[0] == [
        "FP16 8192x8192x8192",
        "1",
        "1000",
        "1010",
        "1000",
        "1000",
        "",
        "1200",
    ]


def test_a_clock_held_down_is_told() -> None:
    assert vis.agreement_doubts(agreement()) == [
        "FP16 8192x8192x8192, do_bench: the SM clock was between 1455 and 1980 MHz"
    ]


@pytest.mark.parametrize(
    ("work", "title"),
    [
        ("fp16 28672x4096 1", "FP16 28672x4096, M = 1"),
        ("triton_fused 64x64 16", "INT4 fused 64x64, M = 16"),
        ("nothing", "nothing"),
        ("read 64x64", "read INT4 64x64"),
    ],
)
def test_works_have_titles(work: str, title: str) -> None:
    assert vis.work_title(work) == title


@pytest.mark.parametrize("draw", [vis.plot_mistakes, vis.plot_drift])
def test_house_style_of_mistakes(draw: Any) -> None:
    assert_house_style(lambda: draw(mistakes()))


def test_house_style_of_agreement() -> None:
    assert_house_style(lambda: vis.plot_agreement(agreement()))
