"""Do our times agree with Nsight Compute's and with Triton's ``do_bench``? The same calls, by every clock."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from awqdoc import gpu, profiling
from awqdoc.errors import AwqdocError
from awqdoc.experiments import works
from awqdoc.profiling.graphs import Call

AXES: dict[str, tuple[Any, ...]] = {
    "work": (
        "matmul",
        "fp16 28672x4096 512",
        "triton_fused 28672x4096 256",
        "read 57344x16384",
        "fp16 57344x16384 1",
        "fp16 28672x4096 1",
        "triton_fused 28672x4096 1",
        "read 28672x4096",
        "fp16 4096x4096 1",
        "triton_fused 4096x4096 1",
        "read 4096x4096",
        "nothing",
    )
}
CPU = False
CLOCK = "CUDA events, Triton's do_bench, Nsight Compute's gpu__time_duration"
SAMPLES = 50
PAUSE = 0.5
PROFILED = 10
UNITS = {"ns": 1e-9, "nsecond": 1e-9, "us": 1e-6, "usecond": 1e-6, "ms": 1e-3, "msecond": 1e-3}

check = works.check


def missing() -> str | None:
    """Say what else than a GPU is missing, or return None."""
    return None if shutil.which("ncu") else "Nsight Compute (ncu) is not on the PATH"


def forget() -> None:
    """Free the memory that the last weight holds."""
    works.random_weight.cache_clear()


def run(device: str, work: str) -> list[dict[str, Any]]:
    """Time one work by every clock.

    Returns
    -------
    list of dict
        ``way``, ``seconds`` of every sample, ``kernels``, how many Nsight Compute saw in a call, and the GPU's clocks,
        power and clock-event reasons right after the samples, but for Nsight Compute's process. The ways, and what
        each finds in the L2 cache: ``graph`` (copies of the weight in turn, each cold), ``read`` (the cache emptied by
        reading), ``write`` (emptied by writing, so that it is full of lines that must first be written back),
        ``do_bench`` (by writing, too; with ``short`` for 10 ms instead of 100, before the power limit is felt), ``ncu``
        (emptied and invalidated, ``--cache-control all``).
    """
    import triton

    calls = works.calls(work, device)
    call = calls[0]
    ways: dict[str, Callable[[], list[float]]] = {
        "graph": lambda: profiling.interleave({work: calls}, device, SAMPLES)[work],
        "read": lambda: list(profiling.Benchmarker(SAMPLES, device=device).benchmark_function(call, work).seconds),
        "write": lambda: _written(call),
        "do_bench": lambda: [1e-3 * ms for ms in triton.testing.do_bench(call, return_mode="all")],
        "do_bench, short": lambda: [1e-3 * ms for ms in triton.testing.do_bench(call, 1, 10, return_mode="all")],
    }
    rows = []
    for way, timed in ways.items():
        time.sleep(PAUSE)  # as much rest before each, for power and clock
        rows.append({"way": way, "seconds": works.kept(timed()), **gpu.state()})
    seconds, kernels = _profiled(work)
    rows.append({"way": "ncu", "seconds": works.kept(seconds)})
    return [{**row, "kernels": kernels} for row in rows]


def _written(call: Call) -> list[float]:
    buffer = torch.empty(1 << 28, dtype=torch.uint8, device="cuda")  # as many bytes as do_bench
    samples = []
    for _ in range(SAMPLES):
        buffer.zero_()
        with profiling.CUDATimer("cuda") as timer:
            call()
        samples.append(timer.elapsed_ms / 1e3)
    return samples


def _profiled(work: str) -> tuple[list[float], int]:
    """Let Nsight Compute time a process of its own: seconds of each call, all its kernels added, and their number."""
    options = ["--profile-from-start", "off", "--cache-control", "all", "--clock-control", "none"]
    options += ["--metrics", "gpu__time_duration.sum", "--csv"]
    program = [sys.executable, "-m", "awqdoc.experiments.agreement", work]
    done = subprocess.run(["ncu", *options, *program], capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("==ERROR==")]
        raise AwqdocError(f"Nsight Compute could not time {work!r}: {' '.join(said) or 'it ended without a word'}.")
    return parse(done.stdout, PROFILED)


def parse(text: str, calls: int) -> tuple[list[float], int]:
    """Read the durations out of what ``ncu --csv`` prints for a number of equal calls.

    Raises
    ------
    AwqdocError
        If it names no kernel, or not the same number for each call.
    """
    table = [line for line in text.splitlines() if line.startswith('"')]
    rows = list(csv.DictReader(table))
    durations = [float(row["Metric Value"].replace(",", "")) * UNITS[row["Metric Unit"]] for row in rows]
    kernels, rest = divmod(len(durations), calls)
    if not kernels or rest:
        raise AwqdocError(f"Nsight Compute saw {len(durations)} kernels in {calls} equal calls.")
    return [sum(durations[i : i + kernels]) for i in range(0, len(durations), kernels)], kernels


def _be_profiled(work: str) -> None:
    call = works.calls(work, "cuda")[0]
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    torch.cuda.profiler.start()
    for _ in range(PROFILED):
        call()
    torch.cuda.synchronize()
    torch.cuda.profiler.stop()


if __name__ == "__main__":
    _be_profiled(sys.argv[1])
