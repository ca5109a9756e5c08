"""Step 1: the weight written out as FP16, then multiplied by cuBLAS (``cuda/dequantize.cu``)."""

from __future__ import annotations

import torch

from awqdoc import compile
from awqdoc.formats import QuantizedWeight
from awqdoc.packing import pack

THREADS = 128


def prepare(weight: QuantizedWeight) -> dict[str, torch.Tensor]:
    """Return AutoAWQ's ``qweight``, ``qzeros`` and ``scales``."""
    return pack(weight, "awq")


def matmul(x: torch.Tensor, prepared: dict[str, torch.Tensor]) -> torch.Tensor:
    """Write W as float16 [K, N] and compute X @ W, float16 [M, N]."""
    k, words = prepared["qweight"].shape
    n = 8 * words
    weight = torch.empty(k, n, dtype=torch.float16, device=x.device)
    group_size = k // prepared["scales"].shape[0]
    compile.launch(
        compile.kernel("dequantize.cu"), (-(-words // THREADS), k), THREADS, 0,
        prepared["qweight"], prepared["qzeros"], prepared["scales"], weight, k, n, group_size,
    )  # fmt: skip
    return x @ weight
