"""How fast is every kernel, and how far from the floor? Ours and other projects', on seven shapes of Llama-3."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from functools import cache, lru_cache, partial
from types import ModuleType
from typing import Any

import torch

from awqdoc import gpu, profiling
from awqdoc.errors import AwqdocError
from awqdoc.experiments import works
from awqdoc.formats import Problem, QuantizedWeight
from awqdoc.kernels import floors
from awqdoc.kernels.table import KERNELS, PEERS, why_not
from awqdoc.kernels.trial import first_line, trial
from awqdoc.packing import pack
from awqdoc.profiling.graphs import Call

# N x K: of Llama-3-8B o, qkv, down, gate and up; of Llama-3-70B qkv, down, gate and up.
SHAPES = ("4096x4096", "6144x4096", "4096x14336", "28672x4096", "10240x8192", "8192x28672", "57344x8192")
AXES: dict[str, tuple[Any, ...]] = {
    "shape": SHAPES,
    "zero_points": (True, False),
    "m": (1, 2, 4, 8, 16, 24, 32, 48, 64, 80, 96, 112, 128, 160, 256, 512, 1024),
}
CPU = False
GROUP_SIZE = 128
# Copies of a weight, together so many bytes: with twenty times the L2 cache no line is left of the round before,
# whatever the hints of a kernel say about which lines should go first.
COLD_BYTES = 1 << 30
ROUNDS = 12
REPEATS = 3
# The largest relative error (Frobenius norm, against float32) that a backend may show and still be given a time.
LARGEST_ERROR = 1e-2
# So many times as long as FP16 a call may take and still be timed.
MOST_TIMES = 50
# A sample of a slow kernel need not call it on all copies: calls of so many seconds will do. They find theirs cold too,
# for other kernels come between two samples.
SAMPLE_SECONDS = 0.01


def check(shape: str, zero_points: bool, m: int) -> None:
    """Refuse sizes that no kernel takes, before anything is measured."""
    reason = why_not(KERNELS["dequantize"], Problem.parse(shape, m, GROUP_SIZE), None)
    if reason:
        raise AwqdocError(f"The shape {shape} cannot be measured: {reason}.")


def forget() -> None:
    """Free the memory that the last weight's copies hold."""
    for cached in (_weight, _reference, _copies, _words):
        cached.cache_clear()


def run(device: str, shape: str, zero_points: bool, m: int) -> list[dict[str, Any]]:
    """Time every kernel and the read floor in turn, after each has been compared with float32 and with itself.

    Returns
    -------
    list of dict
        A row for each of `KERNELS`: ``backend``, ``seconds`` (every sample, each the mean of ``calls`` calls, each on a
        cold weight), ``error`` (relative, against a float32 product of the dequantized weight), ``prepared`` (bytes
        that the layout takes), and the GPU's clocks, power and clock-event reasons right after all samples; or
        ``skipped`` with the reason. A row ``read`` for the read floor, with ``bytes``.
    """
    x = works.activations(m, Problem.parse(shape, m).k, device)
    wanted = x.float() @ _reference(shape, zero_points, device)
    rows: dict[str, dict[str, Any]] = {}
    competitors: dict[str, Sequence[Call]] = {}
    single: dict[str, float] = {}
    for name in KERNELS:
        row = rows[name] = {"backend": name}
        calls, reason = _calls(name, x, shape, zero_points, device)
        if reason is None:
            results = [calls[0]() for _ in range(REPEATS)]
            row["error"] = float(f"{float((results[0].float() - wanted).norm() / wanted.norm()):.4g}")
            row["prepared"] = _bytes(_copies(name, shape, zero_points, device)[0])
            single[name] = _seconds(calls[-1])
            # FP16 is the first of them all.
            reason = _wrong(row["error"], results) or _too_slow(single[name], single["fp16"])
        if reason is None:
            competitors[name] = calls[: max(1, math.ceil(SAMPLE_SECONDS / single[name]))]
        else:
            row["skipped"] = reason
    words = _words(shape, zero_points, device)
    rows["read"] = {"backend": "read", "bytes": words[0].nbytes}
    competitors["read"] = [partial(floors.read, part) for part in words]
    samples = profiling.interleave(competitors, device, ROUNDS)
    state = gpu.state()
    for name, seconds in samples.items():
        rows[name] |= {"seconds": works.kept(seconds), "calls": len(competitors[name]), **state}
    return list(rows.values())


def _calls(
    name: str, x: torch.Tensor, shape: str, zero_points: bool, device: str
) -> tuple[list[partial[torch.Tensor]], str | None]:
    """Return calls of a kernel on copies of the weight, of which the first has been made once; or none, and why not."""
    m = len(x)
    reason = why_not(KERNELS[name], Problem.parse(shape, m, GROUP_SIZE), gpu.capability(device), zero_points)
    if reason is None and KERNELS[name].tried:
        reason = _verdicts(name, shape, zero_points, AXES["m"] if m in AXES["m"] else (m,))[m]
    reason = reason or _why_not_imported(name)
    if reason is not None:
        return [], reason
    try:
        calls = [partial(_adapter(name).matmul, x, copy) for copy in _copies(name, shape, zero_points, device)]
        calls[0]()
    except Exception as error:
        # Ours must not fail; and a GPU that is lost or full is no property of a peer.
        if name not in PEERS or "CUDA error" in str(error) or isinstance(error, torch.OutOfMemoryError):
            raise
        return [], f"it failed ({first_line(error).rstrip('.')})"
    return calls, None


@cache
def _verdicts(name: str, shape: str, zero_points: bool, ms: tuple[int, ...]) -> dict[int, str | None]:
    torch.cuda.empty_cache()  # the other process needs memory too
    problem = Problem.parse(shape, 1, GROUP_SIZE)
    # The largest first: Marlin as published crashes at small M on Hopper, and after two crashes the rest is given up.
    return trial(name, problem.n, problem.k, GROUP_SIZE, zero_points, sorted(ms, reverse=True))


def _seconds(call: Call) -> float:
    """Time a call roughly, the best of three: enough to tell whether, and how often, it should be timed well."""
    return min(_once(call) for _ in range(3))


def _once(call: Call) -> float:
    before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda._sleep(1_000_000)  # meanwhile the host launches
    before.record()
    call()
    after.record()
    after.synchronize()
    return before.elapsed_time(after) / 1000


def _too_slow(seconds: float, fp16: float) -> str | None:
    if seconds <= MOST_TIMES * fp16:
        return None
    return f"it takes {1e3 * seconds:.1f} ms for one call, {seconds / fp16:.0f} times FP16: not timed further"


# Tensors in what `prepare` returns that are not the weight, and are shared by all weights.
WORKSPACES = ("board", "flags", "marks", "workspace")


def _wrong(error: float, results: list[torch.Tensor]) -> str | None:
    if not error < LARGEST_ERROR:  # nan too
        return f"wrong: its relative error against float32 is {error:.2g}"
    if any(not torch.equal(result, results[0]) for result in results):
        return "its results change from call to call"
    return None


def _adapter(name: str) -> ModuleType:
    return importlib.import_module(KERNELS[name].module)


@cache
def _why_not_imported(name: str) -> str | None:
    try:  # an installed package may still not load, as AutoAWQ beside some releases of transformers
        _adapter(name)
    except ImportError as error:
        return f"it cannot be imported ({first_line(error)})"
    return None


@lru_cache(maxsize=1)
def _weight(shape: str, zero_points: bool, device: str) -> QuantizedWeight:
    problem = Problem.parse(shape, 1, GROUP_SIZE)
    weight = works.random_weight(problem.n, problem.k, GROUP_SIZE, device)
    return weight if zero_points else QuantizedWeight(weight.codes, weight.scales, None, GROUP_SIZE)


@lru_cache(maxsize=1)
def _reference(shape: str, zero_points: bool, device: str) -> torch.Tensor:
    return _weight(shape, zero_points, device).dequantize().float()


@lru_cache(maxsize=len(KERNELS))
def _copies(name: str, shape: str, zero_points: bool, device: str) -> list[dict[str, torch.Tensor]]:
    prepared: dict[str, torch.Tensor] = _adapter(name).prepare(_weight(shape, zero_points, device))
    return [prepared, *(_copy(prepared) for _ in range(-(-COLD_BYTES // _bytes(prepared))))]


def _bytes(prepared: dict[str, torch.Tensor]) -> int:
    return sum(tensor.nbytes for key, tensor in prepared.items() if key not in WORKSPACES)


def _copy(prepared: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: tensor if key in WORKSPACES else tensor.clone() for key, tensor in prepared.items()}


@lru_cache(maxsize=1)
def _words(shape: str, zero_points: bool, device: str) -> list[torch.Tensor]:
    weight = _weight(shape, zero_points, device)
    packed = pack(weight, "awq")
    if not zero_points:
        del packed["qzeros"]
    words = torch.cat([tensor.flatten().view(torch.int32) for tensor in packed.values()])
    return [words, *(words.clone() for _ in range(-(-COLD_BYTES // words.nbytes)))]
