"""Step 5: equal work for every SM (``cuda/stripes.cu``)."""

from __future__ import annotations

import torch

from awqdoc import compile
from awqdoc.formats import QuantizedWeight
from awqdoc.kernels.ladder import records
from awqdoc.kernels.ladder.pipeline import ring


def prepare(weight: QuantizedWeight) -> dict[str, torch.Tensor]:
    """Return the records, and the board on which blocks leave what they share."""
    return {**records.prepare(weight), "board": records.board(weight.codes.device)}


def matmul(x: torch.Tensor, prepared: dict[str, torch.Tensor]) -> torch.Tensor:
    """Compute X @ W, float16 [M, N]; X float16 [M, K]. More than 64 tokens are several launches."""
    m, size = x.shape[0], records.sizes(prepared)
    y = torch.empty(m, size.n, dtype=torch.float16, device=x.device)
    most, _ = ring(m, prepared)
    for first in range(0, m, most):
        part = x[first : first + most]
        tokens, stages = ring(part.shape[0], prepared)
        shared = stages * records.stage_bytes(prepared, tokens)
        kernel = compile.kernel("stripes.cu", shared, TOKENS=tokens, STAGES=stages, **size.defines)
        compile.launch(
            kernel, (size.blocks(prepared),), 256, shared,
            prepared["records"], part, y[first:], prepared["board"],
            part.shape[0], size.n, size.k,
        )  # fmt: skip
    return y
