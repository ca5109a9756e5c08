"""The opponent: the same weight in FP16, multiplied by torch (cuBLAS on a GPU)."""

from __future__ import annotations

import torch

from awqdoc.formats import QuantizedWeight


def prepare(weight: QuantizedWeight) -> dict[str, torch.Tensor]:
    """Return ``weight``: W as float16, stored [N, K] as `torch.nn.Linear` does."""
    return {"weight": weight.dequantize().t().contiguous()}


def matmul(x: torch.Tensor, prepared: dict[str, torch.Tensor]) -> torch.Tensor:
    """Compute X @ W, float16 [M, N]."""
    return torch.nn.functional.linear(x, prepared["weight"])
