"""A kernel that only reads: the least time in which any kernel can have had its weight."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

# Words of a program: 16 KB, each thread with four loads of 16 bytes in flight. Of twelve combinations tried on an H100
# the best within 1 %; with four warps 2 % slower.
BLOCK, WARPS = 4096, 8


@triton.jit
def read_kernel(words, sums, count, BLOCK: tl.constexpr):
    """Add up BLOCK words; a result that nobody needs keeps the compiler from leaving the loads out."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.sum(tl.load(words + place, mask=place < count, other=0))
    tl.store(sums + tl.program_id(0), total)


def read(words: torch.Tensor) -> torch.Tensor:
    """Read int32 [count] once; returns the sum of each block, int32 [count / 4096, rounded up]."""
    count = words.numel()
    programs = triton.cdiv(count, BLOCK)
    sums = torch.empty(programs, dtype=torch.int32, device=words.device)
    read_kernel[(programs,)](words, sums, count, BLOCK=BLOCK, num_warps=WARPS)
    return sums
