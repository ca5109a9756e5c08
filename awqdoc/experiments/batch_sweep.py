"""From which batch size on is INT4 slower than FP16? Four shapes of Llama-3-8B, every backend, M to 1024."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import torch

from awqdoc import gpu, profiling
from awqdoc.errors import AwqdocError
from awqdoc.experiments import SEED
from awqdoc.formats import Problem, QuantizedWeight
from awqdoc.kernels import BACKENDS, Backend, adapter, why_not
from awqdoc.quantize import round_to_nearest

# N x K of the four products in a Llama-3-8B layer: q, k and v together; o; gate and up together; down.
SHAPES = ("6144x4096", "4096x4096", "28672x4096", "4096x14336")
AXES: dict[str, tuple[Any, ...]] = {
    "shape": SHAPES,
    "group_size": (128,),
    "m": (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
}
CPU = True
# Copies of a weight that are read in turn: together eight times the L2 cache, so that each is cold.
L2_MULTIPLE = 8
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
    """Time every backend on one shape and batch size, interleaved; check each against float32 first.

    Returns
    -------
    list of dict
        A row for each backend: ``backend``, ``seconds`` (every sample, each the mean of ``calls`` calls),
        ``error`` (relative, against float32), and the GPU's clocks, power and throttle reasons right after
        the samples (power is NVML's mean over about a second, and so includes what ran before); or
        ``skipped`` with the reason.
    """
    problem = Problem.parse(shape, m, group_size)
    n, k = problem.n, problem.k
    x = torch.randn(m, k, generator=torch.Generator().manual_seed(SEED + m)).half().to(device)
    rows: dict[str, dict[str, Any]] = {}
    competitors: dict[str, list[Callable[[], object]]] = {}
    for backend in BACKENDS.values():
        row = rows[backend.name] = {"backend": backend.name}
        reason = why_not(backend, problem, gpu.capability(device)) or _why_not_importable(backend)
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
    samples = profiling.interleave(competitors, device, rounds=20 if device != "cpu" else 5)
    state = gpu.state() if device != "cpu" else {}
    for name, seconds in samples.items():
        kept = [float(f"{sample:.6g}") for sample in seconds]
        rows[name] |= {"seconds": kept, "calls": len(competitors[name]), **state}
    return list(rows.values())


def forget() -> None:
    """Free the memory that the last shape's weights hold."""
    for cached in (_weight, _copies, _reference_weight):
        cached.cache_clear()


def _why_not_importable(backend: Backend) -> str | None:
    """An installed package may still not load, as AutoAWQ beside some releases of transformers."""
    try:
        adapter(backend)
    except ImportError as error:
        return f"it cannot be imported ({error})"
    return None


@lru_cache(maxsize=1)
def _weight(n: int, k: int, group_size: int, device: str) -> QuantizedWeight:
    """A random weight with the spread of a trained one, quantized: zeros, or a constant, would draw less power."""
    weight = torch.randn(k, n, generator=torch.Generator(device).manual_seed(SEED), device=device) * 0.02
    return round_to_nearest(weight, group_size)


@lru_cache(maxsize=len(BACKENDS))
def _copies(backend: Backend, n: int, k: int, group_size: int, device: str) -> list[dict[str, torch.Tensor]]:
    prepared = adapter(backend).prepare(_weight(n, k, group_size, device))
    if device == "cpu":
        return [prepared]
    size = sum(tensor.nbytes for tensor in prepared.values())
    count = -(-L2_MULTIPLE * gpu.l2_bytes(device) // size)
    return [prepared, *({key: t.clone() for key, t in prepared.items()} for _ in range(count))]


@lru_cache(maxsize=1)
def _reference_weight(n: int, k: int, group_size: int, device: str) -> torch.Tensor:
    return _weight(n, k, group_size, device).dequantize().float()


def _reference(x: torch.Tensor, n: int, k: int, group_size: int, device: str) -> torch.Tensor:
    # torch multiplies float32 in float32 unless told to use TF32; nobody here tells it.
    return x.float() @ _reference_weight(n, k, group_size, device)


def _relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float(f"{float((found.float() - wanted).norm() / wanted.norm()):.4g}")
