"""From which batch size on is INT4 slower than FP16? Four shapes of Llama-3-8B, all backends and floors, M to 1024."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import torch

from awqdoc import gpu, profiling
from awqdoc.errors import AwqdocError
from awqdoc.experiments import works
from awqdoc.formats import Problem
from awqdoc.kernels import BACKENDS, Backend, adapter, floors, why_not

# N x K of the four products in a Llama-3-8B layer: q, k and v together; o; gate and up together; down.
SHAPES = ("6144x4096", "4096x4096", "28672x4096", "4096x14336")
AXES: dict[str, tuple[Any, ...]] = {
    "shape": SHAPES,
    "group_size": (128,),
    "m": (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
}
CPU = True
# The largest relative error (Frobenius norm, against float32) that a backend may show and still be given a
# time. Kernels that accumulate in float32 show 5e-4; AutoAWQ's, which sums its parts in float16, 3e-3.
LARGEST_ERROR = 1e-2


def check(shape: str, group_size: int, m: int) -> None:
    """Refuse sizes that cannot be measured, before anything is."""
    problem = Problem.parse(shape, m, group_size)
    reason = why_not(BACKENDS["dequantize"], problem, None)
    if reason:
        raise AwqdocError(f"The shape {shape} cannot be measured: {reason}.")


def run(device: str, shape: str, group_size: int, m: int) -> list[dict[str, Any]]:
    """Time every backend and the floors on one shape and batch size, in turn; check each against float32 first.

    Returns
    -------
    list of dict
        A row for each backend: ``backend``, ``seconds`` (every sample, each the mean of ``calls`` calls),
        ``error`` (relative, against float32), and the GPU's clocks, power and throttle reasons right after
        the samples (power is NVML's mean over about a second, and so includes what ran before); or
        ``skipped`` with the reason. A row for each of `awqdoc.kernels.floors.FLOORS`, with ``bytes`` or ``flops``
        instead of an error.
    """
    problem = Problem.parse(shape, m, group_size)
    n, k = problem.n, problem.k
    x = works.activations(m, k, device)
    rows: dict[str, dict[str, Any]] = {}
    competitors: dict[str, list[Callable[[], object]]] = {}
    for backend in BACKENDS.values():
        row = rows[backend.name] = {"backend": backend.name}
        reason = works.why_not_here(backend, problem, device)
        if reason is None:
            matmul = adapter(backend).matmul
            copies = _copies(backend, n, k, group_size, device)
            row["error"] = _relative_error(matmul(x, copies[0]), _reference(x, n, k, group_size, device))
            if row["error"] < LARGEST_ERROR:  # false for nan too
                competitors[backend.name] = [partial(matmul, x, copy) for copy in copies]
            else:
                reason = f"wrong: its relative error against float32 is {row['error']:.2g}"
        if reason is not None:
            row["skipped"] = reason
    words = _words(n, k, group_size, device)
    (copy, copied), (product, operations) = _large("copy", device), _large("matmul", device)
    rows["read"] = {"backend": "read", "bytes": words[0].nbytes}
    rows["copy"], rows["matmul"] = {"backend": "copy", **copied}, {"backend": "matmul", **operations}
    competitors |= {"read": [partial(floors.read, part) for part in words], "copy": [copy]}
    # The large product draws so much power that it would slow what is timed beside it: it comes after the others.
    for turn in (competitors, {"matmul": [product]}):
        samples = profiling.interleave(turn, device, rounds=20 if device != "cpu" else 5)
        state = gpu.state() if device != "cpu" else {}
        for name, seconds in samples.items():
            rows[name] |= {"seconds": works.kept(seconds), "calls": len(turn[name]), **state}
    return list(rows.values())


def forget() -> None:
    """Free the memory that the last shape's weights hold."""
    for cached in (works.random_weight, _copies, _words, _large, _reference_weight):
        cached.cache_clear()


@lru_cache(maxsize=len(BACKENDS))
def _copies(backend: Backend, n: int, k: int, group_size: int, device: str) -> list[dict[str, torch.Tensor]]:
    return works.copies(adapter(backend).prepare(works.random_weight(n, k, group_size, device)), device)


@lru_cache(maxsize=1)
def _words(n: int, k: int, group_size: int, device: str) -> list[torch.Tensor]:
    words = floors.packed_bytes(works.random_weight(n, k, group_size, device))
    return [part["words"] for part in works.copies({"words": words}, device)]


@lru_cache(maxsize=2)
def _large(name: str, device: str) -> tuple[Callable[[], object], dict[str, int]]:
    return {"copy": floors.copy, "matmul": floors.matmul}[name](device)


@lru_cache(maxsize=1)
def _reference_weight(n: int, k: int, group_size: int, device: str) -> torch.Tensor:
    return works.random_weight(n, k, group_size, device).dequantize().float()


def _reference(x: torch.Tensor, n: int, k: int, group_size: int, device: str) -> torch.Tensor:
    # torch multiplies float32 in float32 unless told to use TF32; nobody here tells it.
    return x.float() @ _reference_weight(n, k, group_size, device)


def _relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float(f"{float((found.float() - wanted).norm() / wanted.norm()):.4g}")
