"""Step 4: copies that run ahead (``cuda/pipeline.cu``)."""

from __future__ import annotations

import torch

from awqdoc import compile
from awqdoc.kernels.ladder import records
from awqdoc.kernels.ladder.records import prepare

__all__ = ["matmul", "prepare", "stages"]

MOST_TOKENS = 64


def stages(tokens: int) -> int:
    """Records in shared memory: what fits into the 227 KB of a Hopper block, and no more than is of use."""
    return 8 if tokens <= 32 else 6


def matmul(x: torch.Tensor, prepared: dict[str, torch.Tensor]) -> torch.Tensor:
    """Compute X @ W, float16 [M, N]; X float16 [M, K]."""
    m, size = x.shape[0], records.sizes(prepared)
    tokens = records.tokens(m, MOST_TOKENS)
    shared = stages(tokens) * records.stage_bytes(prepared, tokens)
    kernel = compile.kernel("pipeline.cu", shared, TOKENS=tokens, STAGES=stages(tokens), **size.defines)
    y = torch.empty(m, size.n, dtype=torch.float16, device=x.device)
    grid = (size.n // records.SIDE, -(-m // tokens))
    compile.launch(kernel, grid, 256, shared, prepared["records"], x, y, m, size.n, size.k)
    return y
