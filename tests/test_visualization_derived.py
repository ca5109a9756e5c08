"""What follows from the times of a sweep, and bars of anything, on numbers whose answer is known."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from figure_checks import assert_house_style

from awqdoc import visualization as vis
from awqdoc.errors import AwqdocError
from awqdoc.profiling import Benchmarker, Measurement
from awqdoc.recordings import Recording
from awqdoc.visualization import Here
from awqdoc.visualization.comparison import Given, plot_performance_comparison

pytestmark = pytest.mark.usefixtures("same_code")

SHAPE = "4096x4096"
PROVENANCE = {
    "commit": "0123456789", "sources": "sha256:now", "date": "2026-11-25T12:00:00+00:00", "clock": "a clock",
    "gpu": "NVIDIA H100",
}  # fmt: skip
STATE = {"sm_clock_mhz": 1980, "power_w": 300.5, "throttle_reasons": ["idle", "sync boost"]}
# At 2 TB/s and 500 TFLOP/s the product of one token takes 16.785 µs in FP16 and 4.367 in INT4, both by their bytes.
FLOORS = (
    {"backend": "read", "seconds": [5e-6] * 5, "bytes": 8_650_752},
    {"backend": "copy", "seconds": [1e-4] * 5, "bytes": 200_000_000},
    {"backend": "matmul", "seconds": [2e-3] * 5, "flops": 10**12},
)


def sweep(*, floors: bool = True, gpu: str = "NVIDIA H100", factor: float = 1) -> Recording:
    times = {"fp16": [20e-6, 18e-6, 22e-6, 19e-6, 21e-6], "triton_fused": [10e-6, 9e-6, 11e-6, 10e-6, 10e-6]}
    cell = {"shape": SHAPE, "group_size": 128, "m": 1}
    rows = [
        {**cell, "backend": name, "seconds": [factor * t for t in seconds], "error": 2e-4, **STATE}
        for name, seconds in times.items()
    ]
    rows.append({**cell, "backend": "autoawq_triton", "skipped": "it was away"})
    rows += [{**cell, **floor, **STATE} for floor in FLOORS if floors]
    parameters: dict[str, list[Any]] = {"shape": [SHAPE], "group_size": [128], "m": [1]}
    return Recording("batch-sweep", parameters, {**PROVENANCE, "gpu": gpu}, rows)


def by_backend(recording: Recording) -> dict[str, dict[str, Any]]:
    return {row["backend"]: row for row in vis.results(recording)}


def test_results_follow_from_the_samples() -> None:
    rows = by_backend(sweep())
    fp16, fused = rows["fp16"], rows["triton_fused"]
    assert (fp16["samples"], fp16["median_us"], fp16["min_us"], fp16["max_us"]) == pytest.approx((5, 20, 18, 22))
    assert (fp16["q1_us"], fp16["q3_us"]) == pytest.approx((19, 21))
    assert fp16["tokens_per_s"] == pytest.approx(50_000)
    assert fp16["tflops"] == pytest.approx(2 * 4096 * 4096 / 20e-6 / 1e12)
    assert fp16["useful_gb_per_s"] == pytest.approx((2 * 4096 * 4096 + 4 * 4096) / 20e-6 / 1e9)
    assert fused["speedup_over_fp16"] == pytest.approx(2)  # the median of 2, 2, 2, 1.9, 2.1
    assert fused["memory_saved"] == pytest.approx(1 - 4.15625 / 16)
    assert fp16["throttle_reasons"] == "idle; sync boost"


def test_a_share_of_the_roofline_is_the_time_allowed_over_the_time_taken() -> None:
    rows = by_backend(sweep())
    assert rows["fp16"]["share_of_roofline"] == pytest.approx(16.785 / 20, rel=1e-3)
    assert rows["triton_fused"]["share_of_roofline"] == pytest.approx(4.367 / 10, rel=1e-3)
    assert by_backend(sweep(floors=False))["fp16"]["share_of_roofline"] is None
    on_a_cpu = replace(sweep(), provenance={**PROVENANCE, "device": "cpu"})
    assert by_backend(on_a_cpu)["fp16"]["share_of_roofline"] is None
    shares = [row[7] for row in vis.summary(sweep(), SHAPE).rows]
    assert shares == ["84%", "44%"]
    roofs = "roofs 2 TB/s (large copy) and 500 TFLOP/s (large FP16 matmul)"
    assert roofs in vis.summary(sweep(), SHAPE).caption
    assert "roofs" not in vis.summary(on_a_cpu, SHAPE).caption


def test_rates_of_a_cpu_are_not_rounded_to_nothing() -> None:
    (fp16, _) = vis.summary(sweep(factor=1e4), SHAPE).rows
    assert fp16[4:6] == ["0.00017", "0.17"]


def test_csv_has_the_same_columns_with_and_without_what_was_skipped() -> None:
    whole = sweep()
    timed = replace(whole, rows=[row for row in whole.rows if "seconds" in row])
    assert vis.results_csv(timed).splitlines()[0] == vis.results_csv(whole).splitlines()[0]


def test_floors_have_rates_and_are_no_backend() -> None:
    rows = by_backend(sweep())
    assert rows["copy"]["useful_gb_per_s"] == pytest.approx(2000)
    assert rows["matmul"]["tflops"] == pytest.approx(500)
    assert "speedup_over_fp16" not in rows["copy"]
    assert len(vis.summary(sweep(), SHAPE).rows) == 2


def test_csv_has_a_line_for_each_row_and_says_where_it_is_from() -> None:
    lines = list(csv.DictReader(io.StringIO(vis.results_csv(sweep()))))
    assert [line["backend"] for line in lines] == ["fp16", "triton_fused", "autoawq_triton", "read", "copy", "matmul"]
    assert (lines[0]["median_us"], lines[0]["gpu"], lines[0]["origin"]) == ("20", "NVIDIA H100", "recorded")
    assert (lines[2]["skipped"], lines[2]["median_us"]) == ("it was away", "")


def test_the_read_floor_is_drawn_below_the_kernels() -> None:
    (axes,) = vis.plot_latency(sweep(), SHAPE).axes
    (line,) = (line for line in axes.lines if line.get_label() == "only reading the INT4 weight")
    assert list(line.get_ydata()) == pytest.approx([5])  # type: ignore[arg-type]
    assert_house_style(lambda: vis.plot_latency(sweep(), SHAPE))


def test_a_speed_up_is_drawn_where_fp16_has_no_time() -> None:
    whole = sweep()
    first = {key: value for key, value in whole.rows[0].items() if key != "seconds"} | {"skipped": "it was wrong"}
    (axes,) = vis.plot_speedup(replace(whole, rows=[first, *whole.rows[1:]]), SHAPE).axes
    assert [line.get_label() for line in axes.lines] == ["bytes allow 3.85 (modelled)", "FP16"]


def test_gpus_stand_side_by_side_as_soon_as_there_are_two() -> None:
    other = sweep(gpu="NVIDIA Other", factor=2)
    elsewhere = replace(other, rows=[{**row, "shape": "64x64"} for row in other.rows])
    later = replace(other, rows=[{**row, "m": 2} for row in other.rows])
    assert len(vis.gpus_table(sweep(), [later], SHAPE).columns) == 3
    alone = vis.gpus_table(sweep(), [sweep(), elsewhere], SHAPE)
    assert alone.rows == [["1", "20.0", "10.0 (fused Triton (ours))"]]
    table = vis.gpus_table(sweep(), [sweep(), other], SHAPE)
    assert table.columns == [
        "M", "NVIDIA H100, FP16, µs", "NVIDIA H100, best INT4, µs", "NVIDIA Other, FP16, µs",
        "NVIDIA Other, best INT4, µs",
    ]  # fmt: skip
    assert table.rows == [["1", "20.0", "10.0 (fused Triton (ours))", "40.0", "20.0 (fused Triton (ours))"]]
    assert "recorded on NVIDIA Other" in table.caption


# Bars of anything.

HERE = Here("a machine", "2026-11-25")
RESULTS = {"FP16": {"latency_ms": [0.10, 0.12, 0.14], "tflops": 3.0}, "INT4": {"latency_ms": 0.05, "tflops": 6.0}}


def bars(results: Any, metric: str = "latency_ms") -> dict[str, float]:
    (axes,) = plot_performance_comparison(results, HERE, metric).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    return dict(zip(names, [bar.get_width() for bar in axes.patches], strict=True))  # type: ignore[attr-defined]


def test_bars_are_medians_of_the_metric_asked_for() -> None:
    assert bars(RESULTS) == pytest.approx({"FP16": 0.12, "INT4": 0.05})
    assert bars(RESULTS, "tflops") == {"FP16": 3.0, "INT4": 6.0}
    assert bars({"a": {"joules": 7}}, "joules") == {"a": 7}


def test_whiskers_are_quartiles_where_there_are_samples() -> None:
    (axes,) = plot_performance_comparison(RESULTS, HERE).axes
    (whisker,) = axes.lines
    assert list(whisker.get_xdata()) == pytest.approx([0.11, 0.13])  # type: ignore[arg-type]
    assert axes.get_xlabel() == "latency, ms; bars are medians, whiskers quartiles"


def test_what_the_benchmarker_measured_can_be_drawn() -> None:
    bench = Benchmarker(6, device="cpu")
    bench.compare({"a": lambda: None, "b": lambda: None})
    assert list(bars(bench.results)) == ["a", "b"]


def test_conditions_of_what_was_measured_are_said_once() -> None:
    results = [Measurement("a", (0.001,) * 3, "CUDA events, L2 cache warm"), Measurement("b", (0.002,), "a clock")]
    (axes,) = plot_performance_comparison([*results, replace(results[0], name="c")], HERE).axes
    told = " ".join(axes.get_xlabel().split())
    assert told == "latency, ms; bars are medians, whiskers quartiles; CUDA events, L2 cache warm; a clock"


@pytest.mark.parametrize(
    "samples", [[1.0, 2.0, 6.0], (1, 2, 6), np.array([1, 2, 6]), torch.tensor([1.0, 2.0, 6.0]), np.float32(2)]
)
def test_samples_may_come_as_list_array_or_tensor(samples: Any) -> None:
    assert bars({"a": {"latency_ms": samples}}) == {"a": 2}


def test_long_names_are_not_cut_off() -> None:
    names = [f"model.layers.{i}.self_attn.q_proj.weight, packed as AWQ does, groups of 128, on a GPU" for i in range(4)]
    assert_house_style(lambda: plot_performance_comparison({name: {"latency_ms": 2} for name in names}, HERE))
    figure = plot_performance_comparison({name: {"latency_ms": 2} for name in names}, HERE)
    figure.canvas.draw()
    (axes,) = figure.axes
    assert axes.bbox.width > figure.bbox.width / 2
    boxes = sorted((label.get_window_extent() for label in axes.get_yticklabels()), key=lambda box: box.y0)
    assert all(lower.y1 < upper.y0 for lower, upper in pairwise(boxes))


def test_comparison_is_saved_where_it_was_asked_for(tmp_path: Path) -> None:
    path = vis.VisualizationHelper(output_dir=tmp_path / "new").plot_performance_comparison(RESULTS, metric="tflops")
    assert path == tmp_path / "new" / "performance_comparison.png"
    assert Given.now().label.startswith("numbers as given, drawn 20")
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("results", "words"),
    [
        ({}, "no results to compare"),
        ([], "no results to compare"),
        ([1], "a dict of name -> metrics, or a list of Measurement"),
        (3, "a dict of name -> metrics, or a list of Measurement"),
        (None, "a dict of name -> metrics, or a list of Measurement"),
        ([Measurement("a", (1.0,), "")] * 2, "2 results are named 'a': give each a name of its own"),
        ({"a": {"latency_ms": np.array([1.0, np.inf])}}, "found inf"),
        ({"a": {"tflops": 1}}, "'a' has no metric 'latency_ms'; it has tflops"),
        ({"a": {}}, "it has none"),
        ({"a": 3}, "it has none"),
        ({"a": {"latency_ms": float("nan")}}, "must be finite numbers, 0 or more; found nan"),
        ({"a": {"latency_ms": [1, -1]}}, "found -1"),
        ({"a": {"latency_ms": "fast"}}, "found 'fast'"),
        ({"a": {"latency_ms": []}}, "There are no samples"),
    ],
)
def test_what_cannot_be_compared_is_refused(results: Any, words: str) -> None:
    with pytest.raises(AwqdocError) as refusal:
        plot_performance_comparison(results, HERE)
    assert words in str(refusal.value)


def test_house_style_of_bars() -> None:
    assert_house_style(lambda: plot_performance_comparison(RESULTS, HERE))
