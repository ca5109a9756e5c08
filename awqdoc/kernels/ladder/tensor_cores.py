"""Step 3: tensor cores, fed straight from the layout (``cuda/tensor_cores.cu``)."""

from __future__ import annotations

import torch

from awqdoc import compile
from awqdoc.kernels.ladder import records
from awqdoc.kernels.ladder.records import prepare

__all__ = ["matmul", "prepare"]

MOST_TOKENS = 64


def matmul(x: torch.Tensor, prepared: dict[str, torch.Tensor]) -> torch.Tensor:
    """Compute X @ W, float16 [M, N]; X float16 [M, K]."""
    m, size = x.shape[0], records.sizes(prepared)
    tokens = records.tokens(m, MOST_TOKENS)
    shared = 2 * tokens * 2 * records.SIDE  # X of two records
    kernel = compile.kernel("tensor_cores.cu", shared, TOKENS=tokens, **size.defines)
    y = torch.empty(m, size.n, dtype=torch.float16, device=x.device)
    grid = (size.n // records.SIDE, -(-m // tokens))
    compile.launch(kernel, grid, 256, shared, prepared["records"], x, y, m, size.n, size.k)
    return y
