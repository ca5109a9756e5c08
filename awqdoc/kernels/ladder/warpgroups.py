"""Step 6: Hopper's warpgroup instruction, for more tokens (``cuda/warpgroups.cu``)."""

from __future__ import annotations

from functools import cache

import torch

from awqdoc import compile
from awqdoc.formats import QuantizedWeight
from awqdoc.kernels.ladder import records

SIZES = (32, 64, 96, 128)  # tokens that it is made for
SHARED = 224 << 10  # bytes of a block


def prepare(weight: QuantizedWeight) -> dict[str, torch.Tensor]:
    """Return the records, and partial sums and flags for blocks that share a tile."""
    partials, flags = workspace(weight.codes.device)
    return {**records.prepare(weight), "board": partials, "flags": flags}


@cache
def workspace(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return sums float32 [SMs, 256 rows, 128 tokens] and flags int32 [SMs, 2 warpgroups], zero between launches."""
    blocks = torch.cuda.get_device_properties(device).multi_processor_count
    partials = torch.empty(blocks, 2 * records.SIDE, SIZES[-1], dtype=torch.float32, device=device)
    return partials, torch.zeros(blocks, 2, dtype=torch.int32, device=device)


def matmul(x: torch.Tensor, prepared: dict[str, torch.Tensor], overlap: bool = False) -> torch.Tensor:
    """Compute X @ W, float16 [M, N]; X float16 [M, K]. More than 128 tokens are several launches."""
    m, size = x.shape[0], records.sizes(prepared)
    y = torch.empty(m, size.n, dtype=torch.float16, device=x.device)
    blocks = min(prepared["board"].shape[0], size.n * size.k // (2 * records.SIDE**2))
    record = -(-prepared["records"].shape[2] // 128) * 128
    for first in range(0, m, SIZES[-1]):
        part = x[first : first + SIZES[-1]]
        tokens = next(size for size in SIZES if size >= part.shape[0])
        stage = -(-(tokens * 2 * records.SIDE + 2 * record) // 1024) * 1024
        stages = min(8, SHARED // stage)
        kernel = compile.kernel("warpgroups.cu", stages * stage + 1024, TOKENS=tokens, STAGES=stages, **size.defines)
        compile.launch(
            kernel, (blocks,), 384, stages * stage + 1024,
            prepared["records"], compile.tensor_map(part, (tokens, 64)), y[first:],
            prepared["board"], prepared["flags"], part.shape[0], size.n, size.k, overlap=overlap,
        )  # fmt: skip
    return y
