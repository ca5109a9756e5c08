"""AutoAWQ's CUDA GEMM (casper-hansen/AutoAWQ_kernels 0.0.9, ``awq_ext/quantization/gemm_cuda_gen.cu``).

Its Linear layer calls it for fewer than 1024 tokens, and from there on dequantizes and multiplies instead. The kernel
asks for N in multiples of 64 and of the group size, K in multiples of 32, and a group size in multiples of 32.
"""

from __future__ import annotations

import torch
from awq_ext import gemm_forward_cuda

from awqdoc.formats import QuantizedWeight
from awqdoc.packing import pack

# What WQLinear_GEMM passes: as many float16 results of parts of K are written, then added.
SPLIT_K = 8


def prepare(weight: QuantizedWeight) -> dict[str, torch.Tensor]:
    """Return AutoAWQ's ``qweight``, ``qzeros`` and ``scales``."""
    return pack(weight, "awq")


def matmul(x: torch.Tensor, prepared: dict[str, torch.Tensor]) -> torch.Tensor:
    """Compute X @ W, float16 [M, N]."""
    y: torch.Tensor = gemm_forward_cuda(x, prepared["qweight"], prepared["scales"], prepared["qzeros"], SPLIT_K)
    return y
