"""What is timed, by name: ``nothing``, ``copy``, ``matmul``, ``read 28672x4096`` (the INT4 weight of a layer, N x K).

Or a backend on a layer at a batch size M: ``fp16 28672x4096 1``. Weights and inputs are random, with the spread of
trained ones: zeros, or a constant, would draw less power.
"""

from __future__ import annotations

from functools import lru_cache, partial

import torch

from awqdoc import gpu
from awqdoc.errors import AwqdocError
from awqdoc.experiments import SEED
from awqdoc.formats import Problem, QuantizedWeight
from awqdoc.kernels import BACKENDS, Backend, adapter, floors, why_not
from awqdoc.profiling.graphs import Call
from awqdoc.quantize import round_to_nearest

GROUP_SIZE = 128
# Copies of a weight that are read in turn: together eight times the L2 cache, so that each is cold.
L2_MULTIPLE = 8


def check(work: str) -> None:
    """Refuse a work that there is not."""
    name, *sizes = work.split()
    if name in ("nothing", "copy", "matmul") and not sizes:
        return
    if (name == "read" and len(sizes) == 1) or (name in BACKENDS and len(sizes) == 2 and sizes[1].isdecimal()):
        reason = why_not(BACKENDS["dequantize"], _problem(*sizes), None)
        if reason is None:
            return
        raise AwqdocError(f"The work {work!r} cannot be measured: {reason}.")
    raise AwqdocError(
        "A work is nothing, copy, matmul, 'read NxK' or 'BACKEND NxK M', where BACKEND is one of "
        f"{', '.join(BACKENDS)}; found {work!r}."
    )


def _problem(shape: str, m: str = "1") -> Problem:
    return Problem.parse(shape, int(m), GROUP_SIZE)


def calls(work: str, device: str) -> list[Call]:
    """Return calls that do a work, on a GPU on so many copies of the weight that each finds its own cold."""
    name, *sizes = work.split()
    if name == "nothing":  # a kernel that reads one word
        return [partial(floors.read, torch.zeros(1, dtype=torch.int32, device=device))]
    if name in ("copy", "matmul"):
        return [{"copy": floors.copy, "matmul": floors.matmul}[name](device)[0]]
    problem = _problem(*sizes)
    weight = random_weight(problem.n, problem.k, GROUP_SIZE, device)
    if name == "read":
        return [partial(floors.read, part["words"]) for part in copies({"words": floors.packed_bytes(weight)}, device)]
    backend = adapter(BACKENDS[name])
    x = activations(problem.m, problem.k, device)
    return [partial(backend.matmul, x, prepared) for prepared in copies(backend.prepare(weight), device)]


def why_not_here(backend: Backend, problem: Problem, device: str) -> str | None:
    """Say why a backend cannot be timed on this machine, or return None if it can."""
    reason = why_not(backend, problem, gpu.capability(device))
    if reason is None:
        try:  # an installed package may still not load, as AutoAWQ beside some releases of transformers
            adapter(backend)
        except ImportError as error:
            reason = f"it cannot be imported ({error})"
    return reason


@lru_cache(maxsize=1)
def random_weight(n: int, k: int, group_size: int, device: str) -> QuantizedWeight:
    """Quantize a random weight."""
    weight = torch.randn(k, n, generator=torch.Generator(device).manual_seed(SEED), device=device) * 0.02
    return round_to_nearest(weight, group_size)


def activations(m: int, k: int, device: str) -> torch.Tensor:
    """Return a random X, float16 [M, K]."""
    return torch.randn(m, k, generator=torch.Generator().manual_seed(SEED + m)).half().to(device)


def copies(tensors: dict[str, torch.Tensor], device: str) -> list[dict[str, torch.Tensor]]:
    """Return the tensors and as many copies of them as a GPU's L2 cache asks for; on a CPU the tensors alone."""
    if device == "cpu":
        return [tensors]
    size = sum(tensor.nbytes for tensor in tensors.values())
    count = -(-L2_MULTIPLE * gpu.l2_bytes(device) // size)
    return [tensors, *({key: tensor.clone() for key, tensor in tensors.items()} for _ in range(count))]


def kept(seconds: list[float]) -> list[float]:
    """Round samples to the six digits that a recording keeps."""
    return [float(f"{sample:.6g}") for sample in seconds]
