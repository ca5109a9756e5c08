"""The opponent at its best: FP16 with one token by a kernel of ours (``cuda/fp16_stream.cu``)."""

from __future__ import annotations

import torch

from awqdoc import compile
from awqdoc.kernels import fp16

WARPS, PIECE = 8, 1024  # of a block; elements of a row of the weight that one copy brings
# Copies in flight of each warp, 112 KB of a block. Two blocks must not fit on an SM: where launches overlap, one SM
# would get two and another none (with 5 a whole model was 20 % slower than with 7).
STAGES = 7

prepare = fp16.prepare


def matmul(x: torch.Tensor, prepared: dict[str, torch.Tensor]) -> torch.Tensor:
    """Compute X @ W, float16 [1, N]; X float16 [1, K], K a multiple of 1024."""
    weight = prepared["weight"]
    n, k = weight.shape
    shared = 2 * (WARPS * STAGES * PIECE + k)
    kernel = compile.kernel("fp16_stream.cu", shared, STAGES=STAGES, PIECES=k // PIECE)
    blocks = torch.cuda.get_device_properties(x.device).multi_processor_count
    y = torch.empty(1, n, dtype=torch.float16, device=x.device)
    compile.launch(kernel, (blocks,), 32 * WARPS, shared, weight, x.contiguous(), y, n, overlap=True)
    return y
