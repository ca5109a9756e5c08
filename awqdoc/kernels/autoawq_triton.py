"""AutoAWQ's own Triton GEMM (autoawq 0.2.9, ``awq/modules/triton/gemm.py``).

Its Linear layer calls it, where the CUDA extension is missing, for fewer than 1024 tokens; from there on it
dequantizes and multiplies instead.
"""

from __future__ import annotations

import warnings

import torch

from awqdoc.formats import QuantizedWeight
from awqdoc.packing import pack

with warnings.catch_warnings(record=True):  # its banner says that it is deprecated; the pages say so too
    from awq.modules.triton.gemm import awq_gemm_triton

# What WQLinear_GEMM passes.
SPLIT_K = 8


def prepare(weight: QuantizedWeight) -> dict[str, torch.Tensor]:
    """Return AutoAWQ's ``qweight``, ``qzeros`` and ``scales``."""
    return pack(weight, "awq")


def matmul(x: torch.Tensor, prepared: dict[str, torch.Tensor]) -> torch.Tensor:
    """Compute X @ W, float16 [M, N]."""
    y: torch.Tensor = awq_gemm_triton(x, prepared["qweight"], prepared["scales"], prepared["qzeros"], SPLIT_K)
    return y
