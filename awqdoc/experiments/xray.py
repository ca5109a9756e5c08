"""What happens inside a kernel? Blocks and phases by marks in its own source, and counters where they may be read.

``python -m awqdoc.experiments.xray KERNEL M`` is the program that Nsight Compute profiles.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache, partial
from typing import Any

import torch

from awqdoc import gpu, profiling
from awqdoc.compile import missing as missing
from awqdoc.errors import AwqdocError
from awqdoc.experiments import works
from awqdoc.experiments.kernels import COLD_BYTES, LARGEST_ERROR, WORKSPACES
from awqdoc.formats import Problem
from awqdoc.gpu import counters, xray
from awqdoc.kernels import adapter
from awqdoc.kernels.table import KERNELS, why_not
from awqdoc.profiling import trace

SHAPE = "28672x4096"
AXES: dict[str, tuple[Any, ...]] = {"kernel": ("cuda_overlapped", "cuda_pipeline", "fp16"), "m": (1, 64)}
CPU = False
CLOCK = "the SM's clock (clock64) aligned by globaltimer; CUDA events around a graph replay for the cost"
ROUNDS = 12
# Blocks whose marks are kept: the first, the last, and so many in all.
SHOWN = 6

Row = dict[str, Any]


def check(kernel: str, m: int) -> None:
    """Refuse kernels without marks, and sizes that they do not take."""
    if kernel not in AXES["kernel"]:
        raise AwqdocError(f"The kernel must be one of {', '.join(AXES['kernel'])}; found {kernel!r}.")
    Problem.parse(SHAPE, m)


def forget() -> None:
    """Free the memory that the weight and its copies hold."""
    _prepared.cache_clear()
    works.random_weight.cache_clear()


def run(device: str, kernel: str, m: int) -> list[Row]:
    """Look into one kernel at one batch size.

    Returns
    -------
    list of dict
        Told apart by ``what``.
        ``launch``: ``kernel_name``, ``grid``, ``block``, ``registers`` of a thread, ``shared_static`` and
        ``shared_dynamic`` of a block in bytes (the first None where only their sum is known), ``source``.
        ``cost``: ``way`` (``plain``, or ``marked``: the instrumented build), ``seconds`` of each sample, the mean of
        ``calls`` calls on cold weights, ``error`` (relative, against float32), and the GPU's state after them.
        ``trace``: ``tick_ns`` and ``sm_clock_hz`` as in `awqdoc.gpu.xray.Trace`, ``marks`` kept in all, ``dropped``.
        ``block``: ``block``, ``sm``, ``begin_ns``, ``end_ns`` since the first block's begin.
        ``mark``: ``block``, ``warp``, ``phase`` (a number of `awqdoc.gpu.xray.PHASES`), ``at_ns``, of a few blocks.
        ``counter``: ``metric``, ``value``, ``unit``, of the longest launch where there are several; ``dropped``: a
        ``metric`` that Nsight Compute did not give; or ``counters`` with ``skipped``, the reason why there are none.
        A ``launch`` with ``skipped``, and nothing else: why this GPU cannot run the kernel.

    Raises
    ------
    AwqdocError
        If a build's result is wrong.
    """
    reason = why_not(KERNELS[kernel], Problem.parse(SHAPE, m), gpu.capability(device), True)
    if reason is not None:
        return [{"what": "launch", "skipped": reason}]
    x = works.activations(m, Problem.parse(SHAPE, m).k, device)
    calls = _calls(kernel, x, device)
    counted = counters.count([sys.executable, "-m", __name__, kernel, str(m)])
    if kernel == "fp16":
        costs = _costs({"plain": calls}, x, device)
        return [_fp16_launch(counted, calls[0]), *costs, *_counter_rows(counted)]
    launch = {"what": "launch", **asdict(xray.launched(calls[0])), "source": "cuKernelGetAttribute"}
    with xray.instrumented(xray.new_buffer()) as marked:
        costs = _costs({"plain": calls, "marked": [marked(call) for call in calls]}, x, device)
    return [launch, *costs, *_trace_rows(xray.trace(calls)), *_counter_rows(counted)]


def _calls(kernel: str, x: torch.Tensor, device: str) -> list[partial[torch.Tensor]]:
    return [partial(adapter(KERNELS[kernel]).matmul, x, copy) for copy in _prepared(kernel, device)]


@lru_cache(maxsize=1)
def _prepared(kernel: str, device: str, copies: bool = True) -> list[dict[str, torch.Tensor]]:
    """Return the weight laid out for a kernel, and copies of it, so many that each call finds its own cold."""
    problem = Problem.parse(SHAPE, 1)
    weight = works.random_weight(problem.n, problem.k, problem.group_size, device)
    prepared: dict[str, torch.Tensor] = adapter(KERNELS[kernel]).prepare(weight)
    own = {key: tensor for key, tensor in prepared.items() if key not in WORKSPACES}
    count = -(-COLD_BYTES // sum(tensor.nbytes for tensor in own.values())) if copies else 0
    return [prepared, *({**prepared, **{key: own[key].clone() for key in own}} for _ in range(count))]


def _costs(ways: dict[str, Sequence[Any]], x: torch.Tensor, device: str) -> list[Row]:
    """Time the plain and the marked build in turn, after each has been compared with float32."""
    problem = Problem.parse(SHAPE, 1)
    weight = works.random_weight(problem.n, problem.k, problem.group_size, device)
    wanted = x.float() @ weight.dequantize().float()
    errors = {way: float((calls[0]().float() - wanted).norm() / wanted.norm()) for way, calls in ways.items()}
    for way, error in errors.items():
        if not error < LARGEST_ERROR:  # nan too
            raise AwqdocError(f"The {way} build is wrong: its relative error against float32 is {error:.2g}.")
    samples = profiling.interleave(ways, device, ROUNDS)
    state = gpu.state()
    return [
        {
            "what": "cost", "way": way, "seconds": works.kept(seconds), "calls": len(ways[way]),
            "error": float(f"{errors[way]:.4g}"), **state,
        }
        for way, seconds in samples.items()
    ]  # fmt: skip


def _trace_rows(trace: xray.Trace) -> list[Row]:
    numbers = [block.block for block in trace.blocks]
    shown = {numbers[round(i * (len(numbers) - 1) / (SHOWN - 1))] for i in range(SHOWN)}
    head = {"tick_ns": trace.tick_ns, "sm_clock_hz": float(f"{trace.sm_clock_hz:.5g}")}
    return [
        {"what": "trace", **head, "marks": len(trace.marks), "dropped": trace.dropped},
        *({"what": "block", **asdict(block)} for block in trace.blocks),
        *({"what": "mark", **asdict(mark)} for mark in trace.marks if mark.block in shown),
    ]


def _counter_rows(counted: counters.Counted) -> list[Row]:
    if counted.skipped:
        return [{"what": "counters", "skipped": counted.skipped}]
    values = _longest(counted).values
    found = [(metric, *values[metric]) for metric in counters.METRICS if metric in values]
    return [
        *({"what": "counter", "metric": metric, "value": value, "unit": unit} for metric, value, unit in found),
        *({"what": "dropped", "metric": metric} for metric in counted.dropped),
    ]


def _longest(counted: counters.Counted) -> counters.Kernel:
    return max(counted.kernels, key=lambda kernel: kernel.values.get(counters.TIME[0], (0.0, ""))[0])


def _fp16_launch(counted: counters.Counted, call: Any) -> Row:
    """Say how cuBLAS launched its kernel: as Nsight Compute counted it, or else as torch's profiler does."""
    if counted.skipped:
        return {"what": "launch", **_profiled(call)}
    kernel = _longest(counted)
    registers, static, dynamic = (
        int(kernel.values[f"launch__{name}"][0]) if f"launch__{name}" in kernel.values else None
        for name in ("registers_per_thread", "shared_mem_per_block_static", "shared_mem_per_block_dynamic")
    )
    grid, block = ([int(size) for size in text.strip("() ").split(",")] for text in (kernel.grid, kernel.block))
    return {
        "what": "launch", "kernel_name": kernel.name, "grid": grid, "block": block[0] * block[1] * block[2],
        "registers": registers, "shared_static": static, "shared_dynamic": dynamic, "source": "Nsight Compute",
    }  # fmt: skip


def _profiled(call: Any) -> Row:
    longest = max(trace.events(call, "kernel"), key=lambda event: event["dur"])
    said = longest["args"]
    x, y, z = said["block"]
    return {
        "kernel_name": longest["name"], "grid": said["grid"], "block": x * y * z,
        "registers": said.get("registers per thread"), "shared_static": None,
        "shared_dynamic": said.get("shared memory"), "source": "torch.profiler (CUPTI)",
    }  # fmt: skip


def _be_profiled(kernel: str, m: int) -> None:
    """Call a kernel once between profiler start and stop; Nsight Compute empties the caches before it."""
    x = works.activations(m, Problem.parse(SHAPE, m).k, "cuda")
    call = partial(adapter(KERNELS[kernel]).matmul, x, _prepared(kernel, "cuda", copies=False)[0])
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    torch.cuda.profiler.start()
    call()
    torch.cuda.synchronize()
    torch.cuda.profiler.stop()


if __name__ == "__main__":
    _be_profiled(sys.argv[1], int(sys.argv[2]))
