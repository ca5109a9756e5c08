"""Rung 1: write the whole weight out as FP16, then multiply. What a model does that has no INT4 kernel."""

from __future__ import annotations

import torch

from awqdoc.formats import QuantizedWeight
from awqdoc.packing import pack, unpack


def prepare(weight: QuantizedWeight) -> dict[str, torch.Tensor]:
    """Return AutoAWQ's ``qweight``, ``qzeros`` and ``scales``."""
    return pack(weight, "awq")


def matmul(x: torch.Tensor, prepared: dict[str, torch.Tensor]) -> torch.Tensor:
    """Dequantize (a Triton kernel on a GPU, torch operations on a CPU) and compute X @ W, float16 [M, N]."""
    if x.is_cuda:
        from awqdoc.kernels.triton_fused import dequantize

        return x @ dequantize(prepared)
    group_size = prepared["qweight"].shape[0] // prepared["qzeros"].shape[0]
    weight = unpack(prepared, "awq", group_size=group_size).dequantize()
    # On a CPU torch multiplies FP16 by a weight stored [N, K] up to 60 times faster than by one stored [K, N].
    return torch.nn.functional.linear(x, weight.t().contiguous())
