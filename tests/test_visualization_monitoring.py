"""What a made-up GPU tells of itself, drawn and tabulated."""

from __future__ import annotations

from typing import Any

import pytest
from figure_checks import assert_house_style

from awqdoc import visualization as vis
from awqdoc.experiments import monitoring
from awqdoc.recordings import Recording

pytestmark = pytest.mark.usefixtures("same_code")
PROVENANCE = {
    "commit": "0123456789", "sources": "sha256:now", "date": "2026-11-25T12:00:00+00:00", "clock": "a clock",
    "gpu": "NVIDIA H100",
}  # fmt: skip
IDLE, THREAD, INT4, MATMUL = monitoring.AXES["work"]
# Work -> utilization, SM activity, SM occupancy, tensor activity, DRAM bandwidth, all in %.
SHARES = {
    IDLE: (0, 0, 0, 0, 0),
    THREAD: (100, 0.8, 0, 0, 0),
    INT4: (100, 96, 14, 22, 81),
    MATMUL: (100, 99, 12, 93, 30),
}


def recording(**lacking: str) -> Recording:
    rows: list[dict[str, Any]] = []
    for work, shares in SHARES.items():
        for place in range(3):  # the middle one is the median
            values = {key: share + place - 1 for key, share in zip(vis.monitoring.SHARES, shares, strict=True)}
            values |= {"power_w": 600 + place, "sm_clock_mhz": 1755, "cost_s": 1e-4} | dict.fromkeys(lacking)
            rows.append({"work": work, "at_s": 0.2 * place, **values})
        rows += [{"work": work, "lacking": key, "reason": reason} for key, reason in lacking.items()]
        for way, seconds in {"before": [2.0, 2.0], "watched": [2.2, 2.2], "after": [2.0, 2.4]}.items():
            rows.append({"work": work, "way": way, "calls": 5, "seconds": seconds})
    return Recording("monitoring", {"work": list(SHARES)}, PROVENANCE, rows)


def test_of_each_work_the_median_sample_is_told() -> None:
    assert vis.watched_median(recording(), INT4, "dram_bandwidth_percent") == 81
    assert vis.watched_median(recording(), MATMUL, "power_w") == 601
    lacking = recording(dram_bandwidth_percent="Not Supported")
    assert vis.watched_median(lacking, INT4, "dram_bandwidth_percent") is None
    assert len(vis.watched_samples(lacking, INT4)) == 3


def test_watching_is_compared_with_before_and_after() -> None:
    assert vis.watching_slows(recording(), INT4) == pytest.approx(2.2 / 2.1)


def test_the_table_has_a_row_for_each_work_and_a_dash_for_what_is_not_told() -> None:
    table = vis.watched_table(recording(dram_bandwidth_percent="Not Supported"))
    assert table.columns[:3] == ["work", "utilization (nvidia-smi)", "SM activity"]
    assert table.rows[2] == [
        "INT4, our top step, 28672 × 4096, M = 1", "100.0", "96.0", "14.0", "22.0", "–", "601.0", "1755.0"
    ]  # fmt: skip
    assert [row[0] for row in table.rows] == [vis.watched_work(work) for work in SHARES]


def test_the_figure_shows_every_median_and_tells_it_in_words() -> None:
    figure = vis.plot_watched(recording())
    (axes,) = figure.axes
    drawn = {line.get_label(): list(line.get_xdata()) for line in axes.get_lines()}
    assert drawn == {
        title: [float(shares[place]) for shares in SHARES.values()]
        for place, (title, _, _) in enumerate(vis.monitoring.SHARES.values())
    }
    assert "one thread spins: utilization (nvidia-smi) 100 %, SM activity 1 %" in figure.awqdoc_alt  # type: ignore[attr-defined]


def test_a_work_that_this_gpu_cannot_do_is_left_out_of_figure_and_table() -> None:
    made = recording()
    rows = [row for row in made.rows if row["work"] != INT4] + [{"work": INT4, "skipped": "it needs Hopper"}]
    some = Recording("monitoring", made.parameters, PROVENANCE, rows)
    assert len(vis.watched_table(some).rows) == 3
    assert len(vis.plot_watched(some).axes[0].get_yticks()) == 3


def test_the_figure_has_the_style_of_the_house() -> None:
    assert_house_style(lambda: vis.plot_watched(recording()))
