"""Floors: what no kernel can beat on this machine, measured beside the kernels and by the same clock.

A share of a data sheet's bandwidth compares a kernel with a promise. These three say what this GPU does today.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import torch

from awqdoc.formats import QuantizedWeight
from awqdoc.packing import pack
from awqdoc.profiling.graphs import Call

COPIED = {"cuda": 1 << 28, "cpu": 1 << 26}  # bytes: more than any L2 cache holds
SIDE = {"cuda": 8192, "cpu": 512}  # of the square matrices


@dataclass(frozen=True)
class Floor:
    """One floor: its name in recordings, its title for readers, and what limit it measures."""

    name: str
    title: str
    limit: str


_TABLE = (
    Floor("read", "read floor", "memory, the weight's bytes read once"),
    Floor("copy", "large copy", "memory, as much written as read"),
    Floor("matmul", "large FP16 matmul", "tensor cores"),
)
FLOORS = {floor.name: floor for floor in _TABLE}


def packed_bytes(weight: QuantizedWeight) -> torch.Tensor:
    """All that AutoAWQ's format stores of a weight (codes, zero points, scales), one after the other, as int32."""
    return torch.cat([tensor.flatten().view(torch.int32) for tensor in pack(weight, "awq").values()])


def read(words: torch.Tensor) -> torch.Tensor:
    """Read int32 words once, and do nothing with them but what it takes to have read them."""
    if words.is_cuda and importlib.util.find_spec("triton"):
        from awqdoc.kernels import triton_read

        return triton_read.read(words)
    return words.sum()


def copy(device: str) -> tuple[Call, dict[str, int]]:
    """Return a copy of many bytes to call, and how many it reads and writes."""
    source = torch.randint(0, 256, (COPIED[device],), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source), {"bytes": 2 * source.numel()}


def matmul(device: str) -> tuple[Call, dict[str, int]]:
    """Return a product of large square FP16 matrices of random numbers to call, and how many operations it takes."""
    side = SIDE[device]
    a, b = (torch.randn(side, side, device=device).half() for _ in range(2))
    result = torch.empty_like(a)
    return lambda: torch.matmul(a, b, out=result), {"flops": 2 * side**3}
