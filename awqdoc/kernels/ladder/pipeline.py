"""Step 4: copies that run ahead (``cuda/pipeline.cu``)."""

from __future__ import annotations

import torch

from awqdoc import compile
from awqdoc.kernels.ladder import records
from awqdoc.kernels.ladder.records import prepare

__all__ = ["matmul", "prepare", "ring"]

MOST_TOKENS = 64


def ring(m: int, prepared: dict[str, torch.Tensor]) -> tuple[int, int]:
    """Choose the tokens of a launch and the records of its ring: what is of use, and fits into shared memory."""
    room = records.shared_memory(prepared["records"].device)
    for tokens in (records.tokens(m, MOST_TOKENS), 32):
        # The sums that two teams exchange have 128 floats for each token; stripes.cu has them twice.
        stages = (room - 2 * 128 * 4 * tokens) // records.stage_bytes(prepared, tokens) // 2 * 2
        if stages >= 6 or tokens <= 32:
            break
    return tokens, min(stages, 8 if tokens <= 32 else 6)


def matmul(x: torch.Tensor, prepared: dict[str, torch.Tensor]) -> torch.Tensor:
    """Compute X @ W, float16 [M, N]; X float16 [M, K]."""
    m, size = x.shape[0], records.sizes(prepared)
    tokens, stages = ring(m, prepared)
    shared = stages * records.stage_bytes(prepared, tokens)
    kernel = compile.kernel("pipeline.cu", shared, TOKENS=tokens, STAGES=stages, **size.defines)
    y = torch.empty(m, size.n, dtype=torch.float16, device=x.device)
    grid = (size.n // records.SIDE, -(-m // tokens))
    compile.launch(kernel, grid, 256, shared, prepared["records"], x, y, m, size.n, size.k)
    return y
