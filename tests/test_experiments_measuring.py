"""The experiments about measuring, as far as they go without a GPU: names, refusals, and Nsight Compute's table."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from awqdoc import experiments
from awqdoc.errors import AwqdocError
from awqdoc.experiments import agreement, batch_sweep, mistakes, restless, works
from awqdoc.kernels import floors
from awqdoc.packing import pack
from awqdoc.recordings import Recording

TABLE = """==PROF== Connected to process 7
==PROF== Profiling "gemv" - 0: 0%....100% - 1 pass
"ID","Process ID","Kernel Name","Metric Name","Metric Unit","Metric Value"
"0","7","gemv","gpu__time_duration.sum","ns","1,234"
"1","7","sum","gpu__time_duration.sum","us","2.5"
"2","7","gemv","gpu__time_duration.sum","nsecond","1,236"
"3","7","sum","gpu__time_duration.sum","usecond","2.6"
==PROF== Disconnected from process 7
"""


def test_the_kernels_of_each_call_are_added() -> None:
    seconds, kernels = agreement.parse(TABLE, calls=2)
    assert seconds == pytest.approx([3.734e-6, 3.836e-6])
    assert kernels == 2


@pytest.mark.parametrize(("text", "calls", "seen"), [(TABLE, 3, 4), ("==PROF== nothing\n", 10, 0)])
def test_a_table_that_does_not_divide_by_the_calls_is_refused(text: str, calls: int, seen: int) -> None:
    with pytest.raises(AwqdocError, match=f"saw {seen} kernels in {calls} equal calls"):
        agreement.parse(text, calls)


def test_an_error_of_nsight_compute_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    words = "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access NVIDIA GPU Performance Counters"
    monkeypatch.setattr(
        subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1, stdout=f"a\n{words}\n", stderr="")
    )
    with pytest.raises(AwqdocError, match="could not time 'matmul': ==ERROR== ERR_NVGPUCTRPERM"):
        agreement._profiled("matmul")


def test_published_works_and_mistakes_are_accepted() -> None:
    for work in agreement.AXES["work"]:
        agreement.check(work)
    for mistake in mistakes.AXES["mistake"]:
        mistakes.check(mistake)


@pytest.mark.parametrize(
    ("work", "words"),
    [
        ("sort", "A work is nothing, copy, matmul, 'read NxK' or 'BACKEND NxK M'"),
        ("copy 4096x4096", "found 'copy 4096x4096'"),
        ("fp16 4096x4096", "found 'fp16 4096x4096'"),
        ("fp16 4096x4096 many", "found 'fp16 4096x4096 many'"),
        ("read 4096x100", "K must be a multiple of the group size 128; K is 100"),
        ("fp16 4096x4096 0", "Sizes must be 1 or more"),
    ],
)
def test_a_work_that_there_is_not_is_refused(work: str, words: str) -> None:
    with pytest.raises(AwqdocError) as refusal:
        works.check(work)
    assert words in str(refusal.value)


def test_a_mistake_that_we_do_not_make_is_refused() -> None:
    with pytest.raises(AwqdocError, match="must be one of no synchronization, launch gaps"):
        mistakes.check("optimism")


def test_works_compute_what_they_say() -> None:
    (call,) = works.calls("fp16 128x256 3", "cpu")
    weight = works.random_weight(128, 256, works.GROUP_SIZE, "cpu")
    wanted = works.activations(3, 256, "cpu").float() @ weight.dequantize().float()
    found = call()
    assert isinstance(found, torch.Tensor)
    assert float((found.float() - wanted).norm() / wanted.norm()) < 1e-3


def test_the_read_floor_has_the_bytes_that_autoawqs_layer_stores() -> None:
    weight = works.random_weight(128, 256, works.GROUP_SIZE, "cpu")
    words = floors.packed_bytes(weight)
    assert words.nbytes == sum(tensor.nbytes for tensor in pack(weight, "awq").values())
    assert words.sum() == sum(tensor.flatten().view(torch.int32).sum() for tensor in pack(weight, "awq").values())


# A GPU that fails, and samples that are restless.

PROVENANCE = {"gpu": "NVIDIA H100", "date": "2026-11-25T12:00:00+00:00", "commit": "0", "sources": "sha256:none"}


CELL: dict[str, list[Any]] = {"shape": ["64x128"], "group_size": [128], "m": [1]}


def recording(*rows: dict[str, Any]) -> Recording:
    return Recording("batch-sweep", {"m": [1]}, PROVENANCE, [{"m": 1, "backend": "fp16", **row} for row in rows])


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: unspecified launch failure\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.",
        "CUDA driver error: device lost.",
    ],
)
def test_a_gpu_that_vanishes_is_one_sentence(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def vanish(*_: Any, **__: Any) -> None:
        raise RuntimeError(said)

    monkeypatch.setattr(batch_sweep, "run", vanish)
    with pytest.raises(AwqdocError) as refusal:
        experiments.run(experiments.lookup("batch-sweep"), CELL, "cpu", None)
    assert str(refusal.value) == (
        f"The GPU failed at shape 64x128, group_size 128, m 1 ({said.splitlines()[0].rstrip('.')}): see with "
        "nvidia-smi whether it still answers, then run the same command again."
    )


def test_an_error_of_another_kind_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(batch_sweep, "run", fail)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        experiments.run(experiments.lookup("batch-sweep"), CELL, "cpu", None)


QUIET = [1e-5] * 20


def test_quiet_samples_at_the_highest_clock_give_no_doubt() -> None:
    capped = {"seconds": QUIET, "sm_clock_mhz": 1965, "throttle_reasons": ["software power cap"]}
    others = ({"seconds": QUIET, "sm_clock_mhz": 1980}, {"seconds": 3.0}, {"skipped": "no"})
    assert restless(recording(capped, *others)) is None


def test_a_gpu_that_throttles_is_told_with_the_rows_that_it_touched() -> None:
    slow = {"seconds": QUIET, "sm_clock_mhz": 1410, "throttle_reasons": ["hardware thermal slowdown"]}
    assert restless(recording({"seconds": QUIET, "sm_clock_mhz": 1980}, slow)) == (
        "1 of 2 rows are doubtful; the first, m 1, backend fp16: the clock was held down (hardware thermal slowdown)"
    )


def test_a_row_that_drifts_is_told_on_a_cpu_too() -> None:
    assert restless(recording({"seconds": [1e-5] * 10 + [2e-5] * 10})) == (
        "1 of 1 rows are doubtful; the first, m 1, backend fp16: the middle half of the samples spans 67% of their "
        "median"
    )


# Ctrl-C.


def test_ctrl_c_in_a_sweep_keeps_the_finished_rows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], no_gpu: None
) -> None:
    run = batch_sweep.run

    def interrupted(device: str, **cell: Any) -> list[dict[str, Any]]:
        if cell["m"] == 3:
            raise KeyboardInterrupt
        return run(device, **cell)

    monkeypatch.setattr(batch_sweep, "run", interrupted)
    found = experiments.measure("batch-sweep", shape="64x128", m=[1, 2, 3, 4])
    assert found.parameters["m"] == [1, 2]
    assert {row["m"] for row in found.rows} == {1, 2}
    assert "Interrupted: what follows holds 2 of 4 cells." in capsys.readouterr().err
    with pytest.raises(KeyboardInterrupt):
        experiments.measure("batch-sweep", shape="64x128", m=[3, 4])
