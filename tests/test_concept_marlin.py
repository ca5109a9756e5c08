"""The concept page on Marlin: its words fit the recording, its numbers follow it, and none of them is typed."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import pytest

import awqdoc
from awqdoc import recordings, visualization
from awqdoc.formats import Problem
from awqdoc.kernels.table import KERNELS
from awqdoc.recordings import Recording

PAGE = (Path(__file__).parents[1] / "docs" / "concepts" / "marlin.md").read_text(encoding="utf-8")
CELL = re.compile(r"^```\{code-cell\} ipython3\n(?::[^\n]*\n)*(.*?)^```\n", re.MULTILINE | re.DOTALL)
PROSE = CELL.sub("", PAGE).split("---\n", 2)[2]
PROVENANCE = {
    "commit": "0123456789", "sources": "sha256:now", "date": "2026-11-25T12:00:00+00:00", "clock": "a clock",
    "gpu": "NVIDIA H100", "sm_count": 100,
}  # fmt: skip
SHAPES = ["4096x4096", "6144x4096", "28672x4096"]
# Fixed µs and TB/s of a made-up kernel; those not named have no time.
MADE_UP = {
    "read": (2, 3.2), "fp16": (8, 0.8), "cuda_dequantize": (16, 0.4), "cuda_fused": (8, 0.4),
    "cuda_tensor_cores": (2, 1.6), "cuda_stripes": (4, 1.6), "cuda_overlapped": (3, 3.0),
}  # fmt: skip


def run(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, str], dict[str, Any]]:
    """Run the page's cells on a recording; return what they glued, and what they left."""
    glued: dict[str, str] = {}
    notebook = ModuleType("myst_nb")
    notebook.glue = lambda name, value, display: glued.update({name: value})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "myst_nb", notebook)
    probes = recordings.find("hierarchy")[0]
    monkeypatch.setattr(awqdoc, "measure", lambda name, **_: {"kernels": recording, "hierarchy": probes}[name])
    left: dict[str, Any] = {}
    exec("\n".join(CELL.findall(PAGE)), left)
    return glued, left


def made_up(**others: tuple[float, float]) -> Recording:
    rows = []
    for shape in SHAPES:
        for m in (1, 16, 32, 64, 128):
            for zero_points in (True, False):
                cell = {"shape": shape, "zero_points": zero_points, "m": m, "sm_clock_mhz": 1600}
                size = Problem.parse(shape, 1).weight_bytes(4)
                for name, (fixed, rate) in {**MADE_UP, **others}.items():
                    seconds = fixed * 1e-6 + size / (rate * 1e12)
                    rows.append(
                        {**cell, "backend": name, "bytes": size, "seconds": [seconds * drift for drift in (0.5, 1, 2)]}
                    )
    parameters = {"shape": SHAPES, "zero_points": [True, False], "m": [1, 16, 32, 64, 128]}
    return Recording("kernels", parameters, PROVENANCE, rows, origin="measured")


def test_the_words_fit_the_recording_that_ships(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page asserts what it says; and its ratios are those of the medians, but for noise."""
    newest = recordings.find("kernels")[0]
    glued, _ = run(newest, monkeypatch)

    def time(name: str, shape: str, m: int) -> float:
        cell = {"backend": name, "shape": shape, "m": m, "zero_points": True}
        (row,) = (row for row in newest.rows if row.items() >= cell.items())
        return median(row["seconds"])

    for name, of, over, shape, m in (
        ("tensor_cores_gain", "cuda_fused", "cuda_tensor_cores", "28672x4096", 1),
        ("pipeline_gain_64", "cuda_tensor_cores", "cuda_pipeline", "28672x4096", 64),
        ("stripes_small", "cuda_pipeline", "cuda_stripes", "4096x4096", 1),
        ("bulk_large", "cuda_stripes", "cuda_small_batch", "28672x4096", 1),
        ("allowed", "fp16", "read", "28672x4096", 1),
    ):
        assert float(glued[name]) == pytest.approx(time(of, shape, m) / time(over, shape, m), rel=0.05), name


def test_every_number_in_the_text_is_computed_and_every_computed_one_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    glued, _ = run(made_up(), monkeypatch)
    assert set(re.findall(r"\{glue:text\}`(\w+)`", PROSE)) == set(glued)


def test_no_measured_number_is_typed() -> None:
    """A factor is glued; a number with a unit of time or rate too, or its paragraph names a source."""
    assert re.findall(r"\d\.\d\d", PROSE) == []
    for paragraph in re.split(r"\n\n", PROSE):
        typed = re.findall(r"\d[\d.,]*\s*(?:µs|ms|ns|[TG]B/s|TFLOP|times as|%)", paragraph)
        sourced = any(source in paragraph for source in ("{cite}", "](https://", "by 10 % or more"))
        assert sourced or not typed, paragraph


def test_the_numbers_follow_the_recording(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(visualization, "in_flight_needed", lambda probes: 9600.0)
    glued, left = run(made_up(), monkeypatch)
    # 28672 x 4096 in groups of 128 with zero points: 4.15625 bits for each weight, 61.01 MB.
    read, fused, cores = (fixed + 61.01 / rate for fixed, rate in ((2, 3.2), (8, 0.4), (2, 1.6)))
    assert float(glued["tensor_cores_gain"]) == pytest.approx(fused / cores, abs=0.006)
    assert glued["warps"] == "19"  # of 512 bytes each
    printed = capsys.readouterr().out
    assert "9 KiB under way on each SM" in printed
    # 400 schedulers at 1.6 GHz, 458752 words of a warp.
    assert f"{read * 1e-6 * 1.6e9 * 400 / 458752:.0f} instructions for 8 weights" in printed
    fixed, rate, off = left["line"]("cuda_stripes", False)
    assert (fixed, rate) == pytest.approx((4e-6, 1.6e12))
    assert off < 1e-9


def test_a_kernel_without_a_time_leaves_no_number_and_a_further_one_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    glued, left = run(made_up(), monkeypatch)
    assert glued["bulk_large"] == "(not on this GPU)"
    monkeypatch.setitem(KERNELS, "some_marlin", KERNELS["cuda_fused"])
    _, more = run(made_up(some_marlin=(6, 2.0)), monkeypatch)
    assert (len(more["straight"]), len(more["rows"])) == (len(left["straight"]) + 1, len(left["rows"]) + 1)


def test_steps_are_called_as_in_the_table() -> None:
    titles = " ".join(kernel.title.lower() for kernel in KERNELS.values())
    named = re.findall(r"(?<!\*)\*([A-Za-z][a-z ]+)\*(?!\*)", PROSE)
    assert len(named) > 8
    assert [name for name in named if name.lower() not in titles] == []
