"""The X-ray: marks that are comments, a buffer of marks, Nsight Compute's CSV, and the report, from known answers."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from awqdoc import compile
from awqdoc.errors import AwqdocError
from awqdoc.experiments import xray as experiment
from awqdoc.gpu import counters, diagnosis, xray

TOOLS = Path(torch.__file__).parents[1] / "triton/backends/nvidia/bin"
MARKED = sorted(path.name for path in compile.SOURCES.glob("*.cu") if "//XRAY xray_begin();" in path.read_text())
OWN = {"small_batch.cu": {"EARLY": 6}, "warpgroups.cu": {"TOKENS": 64, "PAIRS": 0}}


def test_a_mark_is_a_comment_until_it_is_switched_on() -> None:
    text = "a;  // why\n    //XRAY xray_mark<1>();\nb;  //XRAY xray_end();\n"
    assert xray.switched_on(text) == "a;  // why\n    xray_mark<1>();\nb;  xray_end();\n"
    for path in compile.SOURCES.glob("*.cu*"):
        assert "xray" not in re.sub("//.*", "", path.read_text()), path.name


@pytest.mark.skipif(not (TOOLS / "cuobjdump").exists(), reason="cuobjdump comes with triton, for Linux")
@pytest.mark.parametrize("name", MARKED)
def test_an_instrumented_source_compiles_reads_the_clock_more_often_and_does_not_spill(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    defines = {"TOKENS": 8, "STAGES": 6, "GROUP": 128, "ZEROS": 1, **OWN.get(name, {})}
    xray.write_sources(tmp_path, 0x7F00_0000_0000, 8)
    clocks = []
    for folder in (compile.SOURCES, tmp_path):
        monkeypatch.setattr(compile, "SOURCES", folder)
        monkeypatch.setattr(compile, "cubin", cache(compile.cubin.__wrapped__))
        code = tmp_path / "kernel.cubin"
        code.write_bytes(compile.cubin(name, "sm_90a", **defines).code)
        said = subprocess.run([TOOLS / "cuobjdump", "-res-usage", "-sass", code], capture_output=True, text=True).stdout
        assert "STACK:0 " in said
        clocks.append(said.count("SR_CLOCKLO"))
    marks = (tmp_path / name).read_text().count("xray_mark<")
    assert clocks[0] == 0
    assert clocks[1] >= 2 + marks  # and those of its headers


def test_a_marked_call_sees_the_marked_sources_and_nobody_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xray, "_require", lambda: None)
    before = (compile.SOURCES, compile.cubin, compile.kernel)
    with xray.instrumented(torch.zeros(8, xray.WORDS)) as marked:
        text = str(marked(lambda: (compile.SOURCES / "pipeline.cu").read_text())())
        assert (compile.SOURCES, compile.cubin, compile.kernel) == before
    assert "    xray_begin();" in text


def buffer(marks: int = 2) -> np.ndarray:
    """Two SMs at 2 cycles a ns, the second 100 ns late, and a timer of steps of 32 ns; three blocks, two on one SM."""
    words = np.zeros((8, xray.WORDS), np.int64)
    now, start = 1_764_000_000_000_000_000, {3: 5_000_000, 7: 40}  # ns since 1970; what the SMs' clocks were then

    def tick(ns: int) -> int:
        return (now + ns) // 32 * 32

    for block, sm, begin, ends in ((0, 3, 0, (1000, 980)), (1, 7, 100, (900, 0)), (4, 3, 1000, (1600, 0))):
        words[block, :3] = 1 << 32 | sm, tick(begin), start[sm] + 2 * begin
        for warp, end in enumerate(ends):
            if end:
                words[block, 3 + 3 * warp :][:3] = tick(end), start[sm] + 2 * end, marks
                clock = start[sm] + 2 * (begin + np.arange(min(marks, 256)) * 10)
                words[block, 32 + 256 * warp :][: len(clock)] = 6 << 60 | clock
    return words


def test_a_buffer_is_read_into_times_that_all_sms_have_in_common() -> None:
    trace = xray.read(buffer())
    assert trace.tick_ns == 32
    assert trace.sm_clock_hz == pytest.approx(2e9, rel=0.05)  # no better: a step is 2 % of 1600 ns
    assert [(block.block, block.sm) for block in trace.blocks] == [(0, 3), (1, 7), (4, 3)]
    for block, span in zip(trace.blocks, ((0, 1000), (100, 900), (1000, 1600)), strict=True):
        assert (block.begin_ns, block.end_ns) == pytest.approx(span, abs=64)
    assert [(m.phase, m.at_ns) for m in trace.marks if (m.block, m.warp) == (0, 4)] == [
        (6, 0), (6, pytest.approx(10, abs=1)), (xray.END, pytest.approx(980, abs=64)),
    ]  # fmt: skip


def test_marks_that_do_not_fit_are_counted_and_dropped() -> None:
    trace = xray.read(buffer(marks=300))
    assert (trace.dropped, len(trace.marks)) == (4 * 44, 4 * (256 + 1))


def test_an_empty_buffer_and_a_missing_gpu_are_one_sentence() -> None:
    with pytest.raises(AwqdocError, match="No block left a mark: only kernels with"):
        xray.read(np.zeros((8, xray.WORDS), np.int64))
    with pytest.raises(AwqdocError, match="An X-ray is made on a GPU: torch sees none here"):
        xray.trace([lambda: None])
    with pytest.raises(AwqdocError, match="The kernel must be one of cuda_overlapped, cuda_pipeline, fp16; found 'x'"):
        experiment.check("x", 1)


# Written by hand after Nsight Compute's documentation of `--csv --page raw`: names, units, then a row for each launch.
CSV = """==PROF== Connected to process 12
==PROF== Profiling "small_batch" - 0: 0%....50%....100% - 20 passes
"ID","Process ID","Kernel Name","Block Size","Grid Size","dram__bytes_read.sum","lts__t_sector_hit_rate.pct","dram__x"
"","","","","","byte","%",""
"0","12","small_batch","(288, 1, 1)","(132, 1, 1)","61,865,984","12.5","n/a"
"""


def test_nsight_computes_csv_is_read() -> None:
    values = {"dram__bytes_read.sum": (61865984, "byte"), "lts__t_sector_hit_rate.pct": (12.5, "%")}
    assert counters.parse(CSV) == [counters.Kernel("small_batch", "(132, 1, 1)", "(288, 1, 1)", values)]
    assert counters.parse("==PROF== Connected\n") == []


def let_ncu_answer(monkeypatch: pytest.MonkeyPatch, *answers: tuple[int, str, str]) -> list[list[str]]:
    """Put answers (exit code, output, errors) in place of Nsight Compute's; return for which metrics it was asked."""
    asked: list[list[str]] = []

    def run(command: list[str], timeout: float) -> tuple[int, str, str]:
        asked.append(command[command.index("--metrics") + 1].split(","))
        return answers[len(asked) - 1]

    monkeypatch.setattr(counters.shutil, "which", lambda name: name)
    monkeypatch.setattr(counters, "_run", run)
    return asked


def test_a_metric_that_ncu_does_not_know_is_dropped_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = ("dram__bytes_read.sum", "lts__t_sector_hit_rate.pct", "dram__x", "sm__new.avg")
    refused = (9, "", "==ERROR== Failed to find metric sm__new.avg\n")
    asked = let_ncu_answer(monkeypatch, refused, (0, CSV, ""))
    found = counters.count(["python"], metrics)
    assert asked == [list(metrics), list(metrics[:3])]
    assert (found.dropped, found.skipped) == (["dram__x", "sm__new.avg"], None)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((1, "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission", ""), "only an administrator"),
        ((1, "", "==ERROR== LibraryNotLoaded\n"), "Nsight Compute refused: LibraryNotLoaded"),
        ((0, "==WARNING== No kernels were profiled.\n", ""), "read no kernel: ==WARNING== No kernels"),
    ],
)
def test_why_there_are_no_counters_is_one_line(
    answer: tuple[int, str, str], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_ncu_answer(monkeypatch, answer)
    assert reason in str(counters.count(["python"], ("dram__bytes_read.sum",)).skipped)


def rows(seconds: float = 30e-6, **counted: float) -> list[dict[str, Any]]:
    """Two blocks on two of an H200's SMs; a warp that fetches, and one that waits for 30 of 100 ns and works for 60."""
    marks = {0: [(0, 0), (0, 20), (6, 40), (7, 50)], 4: [(6, 0), (1, 30), (4, 90), (7, 100)]}
    return [
        {"what": "launch", "grid": [132], "block": 288, "registers": 96, "shared_static": 4096,
         "shared_dynamic": 98304, "source": "cuKernelGetAttribute"},
        {"what": "cost", "way": "plain", "m": 1, "seconds": [seconds, seconds, 1.0]},
        {"what": "cost", "way": "marked", "m": 1, "seconds": [1.1 * seconds]},
        {"what": "block", "block": 0, "sm": 0, "begin_ns": 0, "end_ns": 100},
        {"what": "block", "block": 1, "sm": 1, "begin_ns": 20, "end_ns": 60},
        *({"what": "mark", "block": 0, "warp": warp, "phase": phase, "at_ns": at}
          for warp, found in marks.items() for phase, at in found),
        *({"what": "counter", "metric": name, "value": value, "unit": ""} for name, value in counted.items()),
    ]  # fmt: skip


def test_a_report_of_rows_whose_answers_are_known() -> None:
    stalls = {diagnosis.STALL.format("wait"): 1.5, diagnosis.STALL.format("long_scoreboard"): 4.0}
    found = diagnosis.diagnose(rows(**stalls), "NVIDIA H200", "28672x4096", 4)
    moved = 28672 * 4096 * (4 + 20 / 128) / 8 + 2 * (4096 + 28672)
    wanted = {
        "time": 30e-6, "bytes": moved, "FLOP": 2 * 28672 * 4096, "share of bandwidth": moved / 30e-6 / 4800e9,
        "cost of the marks": 0.1, "theoretical occupancy": 18 / 64, "ramp": 20, "tail": 40, "span": 100,
        "idle SM time": 1 - 140 / (132 * 100), "waiting": 0.3, "working": 0.6, "overlap of load and multiply": 0.0,
    }  # fmt: skip
    assert {name: found.values[name].value for name in wanted} == pytest.approx(wanted)
    assert found.phases == pytest.approx({1: 0.6, 4: 0.1, 6: 0.3})
    assert found.loading == pytest.approx({0: 0.8, 6: 0.2})
    assert [reason for reason, _ in found.stalls] == ["long scoreboard", "wait"]
    assert all(value.source for value in found.values.values())


@pytest.mark.parametrize(
    ("seconds", "counted", "case"),
    [
        (18e-6, {}, "memory bandwidth"),
        (30e-6, {"sm__pipe_tensor_op_hmma_cycles_active.avg.pct_of_peak_sustained_elapsed": 70.0}, "tensor cores"),
        (30e-6, {"smsp__issue_active.avg.pct_of_peak_sustained_active": 65.0}, "issue slots"),
        (30e-6, {}, "idle SMs"),
    ],
)
def test_the_bottleneck_is_the_first_rule_that_holds(seconds: float, counted: dict[str, float], case: str) -> None:
    assert diagnosis.diagnose(rows(seconds, **counted), "NVIDIA H200", "28672x4096", 4).bottleneck.name == case
