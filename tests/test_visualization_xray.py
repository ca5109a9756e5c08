"""An X-ray of made-up kernels, whose answers are known, drawn and tabulated."""

from __future__ import annotations

from typing import Any

import pytest
from figure_checks import assert_house_style
from matplotlib.figure import Figure

from awqdoc import recordings
from awqdoc import visualization as vis
from awqdoc.experiments import xray
from awqdoc.gpu.diagnosis import OTHERS, SECTORS, STALL
from awqdoc.gpu.footprints import SHAPE
from awqdoc.recordings import Recording
from awqdoc.visualization.xray_time import PIPE, most_at_once

pytestmark = pytest.mark.usefixtures("same_code")
PROVENANCE = {
    "commit": "0123456789", "sources": "sha256:now", "date": "2026-11-25T12:00:00+00:00", "clock": "a clock",
    "gpu": "NVIDIA H200", "compute_capability": "9.0", "sm_count": 132,
}  # fmt: skip
TOP, LOWER, FP16 = xray.AXES["kernel"]
# Kernel -> what its launch asks for: kernel, block, registers, static and dynamic shared memory.
LAUNCHES = {
    TOP: ("small_batch", 288, 106, 8320, 91136),
    LOWER: ("pipeline", 256, 76, 4096, 84992),
    FP16: ("nvjet", 384, 168, 0, 225652),
}
# Block, SM, begin, end: of the lower kernel two are on SM 0 at once, and then a third.
BLOCKS = {TOP: [(0, 0, 0, 900), (1, 1, 100, 1000)], LOWER: [(0, 0, 0, 500), (1, 0, 10, 600), (2, 0, 500, 1000)]}
# Warp of block 0 -> (ns, phase). Of the top one warp multiplies and one fetches; of the lower one does both.
MARKS = {
    TOP: {0: [(0, 6), (400, 1), (600, 6), (650, 1), (850, 4), (900, 7)], 8: [(0, 0), (100, 6), (900, 7)]},
    LOWER: {0: [(0, 0), (240, 6), (250, 1), (300, 2), (480, 4), (500, 7)]},
}
COUNTED = {
    STALL.format("selected"): 1.0, STALL.format("long_scoreboard"): 2.0, STALL.format("wait"): 0.5,
    STALL.format("branch_resolving"): 0.5, SECTORS: 0.0, "dram__bytes_read.sum": 61e6,
    PIPE.format("min"): 5.0, PIPE.format("avg"): 15.0, PIPE.format("max"): 20.0,
}  # fmt: skip


def rows_of(kernel: str) -> list[dict[str, Any]]:
    name, block, registers, static, dynamic = LAUNCHES[kernel]
    rows: list[dict[str, Any]] = [
        {"what": "launch", "kernel_name": name, "grid": [132], "block": block, "registers": registers,
         "shared_static": static, "shared_dynamic": dynamic, "source": "cuKernelGetAttribute"},
        {"what": "cost", "way": "plain", "seconds": [30e-6, 30e-6, 1.0]},
        *({"what": "block", "block": number, "sm": sm, "begin_ns": begin, "end_ns": end}
          for number, sm, begin, end in BLOCKS.get(kernel, [])),
        *({"what": "mark", "block": 0, "warp": warp, "phase": phase, "at_ns": at}
          for warp, marks in MARKS.get(kernel, {}).items() for at, phase in marks),
        *({"what": "counter", "metric": metric, "value": value, "unit": ""} for metric, value in COUNTED.items()),
    ]  # fmt: skip
    return [{"kernel": kernel, "m": 1, **row} for row in rows]


def recording(without: str = "") -> Recording:
    rows = [row for kernel in LAUNCHES for row in rows_of(kernel) if row["what"] != without]
    return Recording("xray", {"kernel": list(LAUNCHES), "m": [1]}, PROVENANCE, rows)


def device() -> Recording:
    rows = [{"fact": "L2 cache", "value": 60 << 20, "unit": "B", "source": "torch"}]
    return Recording("device", {}, PROVENANCE, rows)


def test_waits_for_data_and_for_warps_are_told_apart() -> None:
    values = vis.xray_report(recording(), TOP, 1).values
    # Two waits of 400 and 50 of 900 ns; were both as short as the shorter, 100 of 900.
    wanted = {"first data seen": 400, "waiting": 450 / 900, "waiting at least": 100 / 900, "working": 400 / 900}
    assert {name: values[name].value for name in wanted} == pytest.approx(wanted)
    lower = vis.xray_report(recording(), LOWER, 1)
    assert lower.phases == pytest.approx({0: 0.48, 6: 0.02, OTHERS: 0.1, 2: 0.36, 4: 0.04})
    assert lower.values["working"].value == pytest.approx(0.36)


def test_a_kernel_whose_warps_start_loads_most_of_the_time_is_told_so() -> None:
    busy = [row for row in recording().rows if row["what"] != "block"]  # else it has idle SMs
    report = vis.xray_report(Recording("xray", {}, PROVENANCE, busy), LOWER, 1)
    assert report.bottleneck.name == "issuing of loads"


def test_a_ratio_over_no_requests_is_left_out() -> None:
    assert "sectors per load" not in vis.xray_report(recording(), TOP, 1).values
    row = next(row for row in vis.transactions_table(recording(), 1).rows if row[0] == "sectors per request")
    assert row[1:] == ["–", "–", "–", SECTORS]


def test_every_value_of_a_table_names_its_source() -> None:
    for table in (
        vis.xray_launch_table(recording(), 1), vis.report_table(recording(), 1), vis.transactions_table(recording(), 1),
        vis.snapshot_table(recording(), device(), 1),
    ):  # fmt: skip
        assert all(row[-1] for row in table.rows)
    found = {row[0]: row[1:-1] for row in vis.report_table(recording(), 1).rows}
    assert found["time"] == ["30.0 µs"] * 3
    assert found["waiting"] == ["50.0%", "2.0%", "–"]
    assert found["most held by"] == ["long scoreboard, 2.0 warps"] * 3
    assert [row[0] for row in vis.bottleneck_table(recording()).rows] == [
        f"{name}, M = 1" for name in ("step 8", "step 4", "FP16, cuBLAS")
    ]


def test_blocks_of_an_sm_are_counted_while_they_are_there() -> None:
    blocks = [dict(zip(("block", "sm", "begin_ns", "end_ns"), block, strict=True)) for block in BLOCKS[LOWER]]
    assert most_at_once(blocks) == 2  # the third begins as the first ends
    assert most_at_once([{**row, "sm": row["block"]} for row in blocks]) == 1


def test_blocks_are_drawn_on_their_sms_over_time() -> None:
    figure = vis.plot_blocks(recording(), 1)
    boxes = [sum((patch.get_bbox().bounds for patch in axes.patches), ()) for axes in figure.axes]
    assert boxes[0] == pytest.approx((0, 0, 0.9, 1, 0.1, 1, 0.9, 1))  # x, y, width, height of each
    assert boxes[1] == pytest.approx((0, 0, 0.5, 1, 0.01, 0, 0.59, 1, 0.5, 0, 0.5, 1))
    assert "step 8: ramp 0.10 µs, tail 0.1 of 1.0 µs, 130 SMs without a block" in figure.awqdoc_alt  # type: ignore[attr-defined]


def test_phases_are_drawn_from_mark_to_mark_and_told() -> None:
    figure = vis.plot_phases(recording(), TOP, 1, zoom=0.5)
    zoomed, whole = ([patch.get_bbox().bounds for patch in axes.patches] for axes in figure.axes)
    assert [x for x, *_ in zoomed] == pytest.approx([0, 0.4, 0, 0.1])
    assert [width for _, _, width, _ in zoomed] == pytest.approx([0.4, 0.1, 0.1, 0.4])
    assert sum(width for _, _, width, _ in whole) == pytest.approx(2 * 0.9)
    assert "warp 8: issue a load 100, wait for data or room 800" in figure.awqdoc_alt  # type: ignore[attr-defined]
    assert vis.turn_ns(recording(), TOP, 1) == 250


def test_stall_reasons_are_shares_of_all_warps() -> None:
    found = vis.stall_shares(recording(), FP16, 1)
    assert {name: share for name, share in found.items() if share} == pytest.approx(
        {"issues": 25, "memory": 50, "fixed latency": 12.5, "other": 12.5}
    )
    assert vis.stall_shares(recording(without="counter"), FP16, 1) == {}


def test_the_least_mean_and_most_of_all_sms_are_drawn() -> None:
    lines = vis.plot_tensor_activity(recording()).axes[0].get_lines()
    assert [list(line.get_xdata()) for line in lines[:3]] == [[5, 20], [5, 20], [15]]


def test_stages_fill_the_shared_memory_that_the_driver_saw() -> None:
    own = [row for row in recordings.find("xray")[0].rows if row["what"] == "launch" and row["kernel"] != FP16]
    assert len(own) == 4
    assert SHAPE == xray.SHAPE
    for row in own:
        stage, _ = vis.stage_bytes(row["kernel_name"], row["m"])
        left = row["shared_dynamic"] % stage
        assert left == (0 if row["kernel_name"] == "pipeline" else 1024)  # to align the first stage


def test_a_snapshot_goes_from_memory_to_registers() -> None:
    held = vis.snapshot(recording(), device(), TOP, 1)
    assert list(dict.fromkeys(one.where for one in held)) == [
        "memory", "L2", "memory to L2", "shared memory", "registers"
    ]  # fmt: skip
    values = {one.what: one.value for one in held}
    assert values["ring"] == "8 stages"
    assert values["weight"] == "61.0 MB, 7168 records"
    assert "ring" not in {one.what for one in vis.snapshot(recording(), device(), FP16, 1)}


FIGURES = {
    "blocks": lambda: vis.plot_blocks(recording(), 1),
    "phases": lambda: vis.plot_phases(recording(), LOWER, 1),
    "phase shares": lambda: vis.plot_phase_shares(recording()),
    "stalls": lambda: vis.plot_stalls(recording()),
    "tensor cores": lambda: vis.plot_tensor_activity(recording()),
    "snapshot": lambda: vis.plot_snapshot(recording(), device(), 1),
    "run": lambda: vis.plot_watched_run(recordings.find("monitoring")[0], "one thread"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_have_the_style_of_the_house(name: str) -> None:
    draw: Any = FIGURES[name]
    assert isinstance(draw(), Figure)
    assert_house_style(draw)
