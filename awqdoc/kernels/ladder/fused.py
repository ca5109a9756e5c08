"""Step 2: dequantized where it is multiplied, on the CUDA cores (``cuda/fused.cu``)."""

from __future__ import annotations

import torch

from awqdoc import compile
from awqdoc.kernels.ladder.dequantize import prepare

__all__ = ["matmul", "prepare"]

MOST_TOKENS = 4


def matmul(x: torch.Tensor, prepared: dict[str, torch.Tensor]) -> torch.Tensor:
    """Compute X @ W, float16 [M, N]; X float16 [M, K]."""
    m, k = x.shape
    words = prepared["qweight"].shape[1]
    tokens = next(size for size in (1, 2, MOST_TOKENS) if size >= min(m, MOST_TOKENS))
    kernel = compile.kernel("fused.cu", TOKENS=tokens, GROUP=k // prepared["scales"].shape[0])
    y = torch.empty(m, 8 * words, dtype=torch.float16, device=x.device)
    compile.launch(
        kernel, (-(-words // 32), -(-m // tokens)), 256, 0,
        prepared["qweight"], prepared["qzeros"], prepared["scales"], x, y, m, 8 * words, k,
    )  # fmt: skip
    return y
