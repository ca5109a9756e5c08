"""What bytes, operations and launches predict, from a made-up GPU whose costs are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from figure_checks import assert_house_style

from awqdoc import visualization as vis
from awqdoc.errors import AwqdocError
from awqdoc.formats import Problem
from awqdoc.kernels.table import LADDER
from awqdoc.recordings import Recording

TOP = LADDER[-1]
LLAMA = ["6144x4096", "4096x4096", "28672x4096", "4096x14336"]
BATCHES = [1, 1024]
PROVENANCE = {
    "commit": "0123456789", "sources": "sha256:now", "date": "2026-11-25T12:00:00+00:00", "clock": "a clock",
    "gpu": "NVIDIA H100",
}  # fmt: skip
LAUNCH, BANDWIDTH = 2e-6, 1e12
# Seconds of a product at M = 1 and at 1024, the same on every shape; the rounds drift, all alike.
SECONDS = {"fp16": (80e-6, 400e-6), TOP: (20e-6, 500e-6), "dequantize": (160e-6, 480e-6)}
ROUNDS = (1, 1, 1.5)


def recording() -> Recording:
    rows: list[dict[str, Any]] = []
    for shape in LLAMA:
        for place, m in enumerate(BATCHES):
            cell = {"shape": shape, "zero_points": True, "m": m}
            size = int(Problem.parse(shape, 1).weight_bytes(4))
            rows.append({**cell, "backend": "read", "bytes": size, "seconds": [LAUNCH + size / BANDWIDTH]})
            for name, seconds in SECONDS.items():
                rows.append({**cell, "backend": name, "seconds": [factor * seconds[place] for factor in ROUNDS]})
            # One that got a time on one of the four only, the largest.
            odd = {"seconds": [1e-6] * 3} if shape == "28672x4096" else {"skipped": "its results change"}
            rows.append({**cell, "backend": "autoawq_triton", **odd})
    return Recording("kernels", {"shape": LLAMA, "zero_points": [True], "m": BATCHES}, PROVENANCE, rows)


def test_costs_are_read_off_the_line_of_the_reads_and_the_best_fp16_product() -> None:
    costs = vis.kernel_costs(recording())
    assert costs.bandwidth == pytest.approx(BANDWIDTH)
    assert costs.launch == pytest.approx(LAUNCH)
    assert costs.residual < 1e-12
    # 1024 tokens on the largest layer in 400 µs.
    assert costs.peak == pytest.approx(2 * 1024 * 28672 * 4096 / 400e-6)


def test_costs_need_reads_of_two_sizes() -> None:
    one = recording().select(shape=["4096x4096"])
    with pytest.raises(AwqdocError, match=r"reads of two sizes or more .+; found 1 sizes and 2 products: measure more"):
        vis.kernel_costs(one)


def test_a_prediction_is_launches_and_unpacking_and_the_longer_of_bytes_and_operations() -> None:
    costs = vis.kernel_costs(recording())
    size = Problem(1, 4096, 4096)
    weight, tokens = 4096 * 4096, 2 * (4096 + 4096)
    int4 = weight * (4 + 20 / 128) / 8
    assert vis.predict_kernel(size, "fp16", costs).seconds == pytest.approx(2e-6 + (2 * weight + tokens) / 1e12)
    assert vis.predict_kernel(size, TOP, costs).seconds == pytest.approx(2e-6 + (int4 + tokens) / 1e12)
    twice = vis.predict_kernel(size, "dequantize", costs)
    # Read INT4, write FP16, and then all that FP16 does; two kernels.
    assert twice.seconds == pytest.approx(4e-6 + (int4 + 2 * weight + 2 * weight + tokens) / 1e12)
    assert twice.largest == "unpacking"


def test_many_tokens_are_bound_by_operations_with_either_weight() -> None:
    costs = vis.kernel_costs(recording())
    size = Problem(4096, 28672, 4096)
    fp16, int4 = (vis.predict_kernel(size, name, costs) for name in ("fp16", TOP))
    assert fp16.seconds == int4.seconds == pytest.approx(2e-6 + 1600e-6)
    assert fp16.largest == "operations"


def test_the_predicted_parts_as_a_table() -> None:
    table = vis.prediction_table(Problem(1, 4096, 4096), vis.kernel_costs(recording()), recording())
    # 33.6 MB, 8.7 MB at 1 TB/s.
    assert table.rows[0] == ["FP16", "2.0", "0.0", "33.6", "0.1", "35.6", "1.00"]
    assert table.rows[1][1:6] == ["2.0", "0.0", "8.7", "0.1", "10.7"]
    assert table.rows[2][1:6] == ["4.0", "42.3", "33.6", "0.1", "79.8"]
    assert table.caption.endswith("modelled: computed from formulas or data sheets, not measured")


def test_a_situation_is_predicted_even_where_it_was_not_measured() -> None:
    decode = vis.Situation("Decode", TOP, "4096x4096", 1)
    predicted, measured = vis.situation_gains(recording(), decode)
    assert predicted == pytest.approx((2 + 33.5708) / (2 + 8.73251), rel=1e-4)
    assert measured == pytest.approx(4)
    unknown = replace(decode, backend="autoawq_triton")
    assert vis.situation_gains(recording(), unknown) == (pytest.approx(predicted), None)


SITUATIONS = (
    vis.Situation("Decode", TOP, "4096x4096", 1),
    vis.Situation("Prefill", TOP, "28672x4096", 1024),
    vis.Situation("AutoAWQ", "autoawq_triton", "4096x4096", 1),
)


def test_situations_are_drawn_open_as_predicted_and_filled_as_measured() -> None:
    axes = vis.plot_situations(recording(), SITUATIONS).axes[0]
    marks = [line for line in axes.lines if line.get_marker() in "oD" and len(line.get_xdata())]
    measured = {line.get_ydata()[0]: line.get_xdata()[0] for line in marks if line.get_marker() == "D"}
    assert measured == {0: pytest.approx(4), 1: pytest.approx(0.8)}
    predicted = {line.get_ydata()[0]: line.get_xdata()[0] for line in marks if line.get_marker() == "o"}
    assert predicted.keys() == {0, 1, 2}
    assert predicted[1] == pytest.approx(1)


def test_situations_as_a_table() -> None:
    rows = vis.situations_table(recording(), SITUATIONS).rows
    assert rows[0][2:] == ["4096x4096", "1", "10.7", "20.0", "bytes", "3.31", "4.00"]
    assert rows[1][4:] == ["402.0", "500.0", "operations", "1.00", "0.80"]
    assert rows[2][5] == rows[2][8] == ""


def test_distances_are_those_of_all_cells_with_a_time() -> None:
    found = vis.prediction_distances(recording(), "fp16")
    assert len(found) == 8
    assert found[2] == pytest.approx(80 / 35.5708, rel=1e-4)  # 4096x4096, M = 1
    assert len(vis.prediction_distances(recording(), "autoawq_triton")) == 2


def test_a_layer_is_the_sum_of_its_four_products_where_all_have_times() -> None:
    times = vis.layer_times(recording())
    assert times[TOP] == pytest.approx({1: 80e-6, 1024: 2000e-6})
    assert "autoawq_triton" not in times


def test_a_layer_as_a_figure_and_a_table() -> None:
    rows = {row[0]: row[1:] for row in vis.layer_table(recording(), (1, 1024)).rows}
    assert rows["FP16"] == ["320", "1600", ""]
    assert rows[vis.brief(TOP)] == ["80", "2000", "1"]
    assert rows["dequantize + matmul"] == ["640", "1920", "none"]
    lines = {line.get_label(): list(line.get_ydata()) for line in vis.plot_layer(recording()).axes[0].lines}
    assert lines[vis.brief(TOP)] == pytest.approx([4, 0.8])
    assert lines["predicted (modelled)"][1] == pytest.approx(1, rel=0.05)
    assert not any("AutoAWQ" in label for label in lines)


def test_where_the_top_step_does_not_run_the_last_that_does_stands_for_our_ladder() -> None:
    some = replace(
        recording(),
        rows=[{**row, "backend": LADDER[4] if row["backend"] == TOP else row["backend"]} for row in recording().rows],
    )
    assert vis.brief(LADDER[4]) in [row[0] for row in vis.layer_table(some, (1, 1024)).rows]
    assert vis.brief(LADDER[4]) in [line.get_label() for line in vis.plot_layer(some).axes[0].lines]


@pytest.mark.parametrize(
    "draw", [lambda: vis.plot_situations(recording(), SITUATIONS), lambda: vis.plot_layer(recording())]
)
def test_house_style(draw: Any) -> None:
    assert_house_style(draw)


def test_a_prompt_with_the_time_in_which_the_gpu_worked_and_the_products_of_the_same_gpu() -> None:
    rows = [
        {"tokens": 1024, "backend": "fp16", "seconds": [0.08, 0.1, 0.12], "busy": 0.06, "launches": 1000},
        {"tokens": 256, "backend": TOP, "seconds": [0.02], "busy": 0.005, "launches": 900},
        {"tokens": 256, "backend": "gptqmodel_marlin", "skipped": "gptqmodel is not installed"},
    ]
    prompts = Recording("prefill", {"tokens": [256, 1024]}, PROVENANCE, rows)
    shown = [
        ["1024", "FP16, cuBLAS", "100.0", "60.0", "60%", "1000"],
        ["256", "INT4, our top step", "20.0", "5.0", "25%", "900"],
    ]
    alone = 32 * 4 * 0.4  # ms of four products in each of 32 layers
    assert vis.prompt_table(prompts, recording()).rows == [[*shown[0], f"{alone:.1f}"], [*shown[1], ""]]
    other = replace(recording(), provenance=PROVENANCE | {"gpu": "NVIDIA A100"})
    assert [line[-1] for line in vis.prompt_table(prompts, other).rows] == ["", ""]
