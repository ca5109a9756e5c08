"""Step 6: Hopper's warpgroup instruction, for more tokens (``cuda/warpgroups.cu``)."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch

from awqdoc import compile
from awqdoc.formats import QuantizedWeight
from awqdoc.kernels.ladder import records

ROWS, FEWEST_TOKENS, MOST_TOKENS = 2 * records.SIDE, 32, 128  # of a block's tile
SHARED = 224 << 10  # bytes of a block
MOST_SPLIT = 8


def prepare(weight: QuantizedWeight) -> dict[str, torch.Tensor]:
    """Return the records, and partial sums and flags for blocks that share a tile."""
    partials, flags = workspace(weight.codes.device)
    return {**records.prepare(weight), "board": partials, "flags": flags}


@cache
def workspace(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return sums float32 [SMs, 256 rows, 128 tokens] and flags int32 [SMs, 2 warpgroups, 8], zero between launches."""
    blocks = torch.cuda.get_device_properties(device).multi_processor_count
    partials = torch.empty(blocks, ROWS, MOST_TOKENS, dtype=torch.float32, device=device)
    return partials, torch.zeros(blocks, 2, MOST_SPLIT, dtype=torch.int32, device=device)


class Schedule(NamedTuple):
    """How the work is cut: tokens of a tile (of 256 rows), blocks, and how many share a tile equally; 0: stripes."""

    tokens: int
    blocks: int
    split: int


def microseconds(m: int, n: int, k: int, sms: int) -> dict[Schedule, float]:
    """Estimate what each possible schedule takes, by lines fitted to 600 times of seven layers on an H200."""
    times = {}
    for tokens in range(FEWEST_TOKENS, MOST_TOKENS + 1, 16):
        tiles, per_tile = n // ROWS * -(-m // tokens), k // records.SIDE
        unit = 0.52 + 0.0057 * tokens  # a record for each warpgroup
        stripe = -(-tiles * per_tile // sms) * unit
        times[Schedule(tokens, min(sms, tiles * per_tile), 0)] = stripe + 2.3 + 0.091 * tokens
        for split in range(1, min(MOST_SPLIT, sms // tiles, per_tile) + 1):
            if split == 2 and tokens == 64:
                continue  # compiled for these, a wgmma waits for the one before
            sharing = {1: 0, 2: 0.0135 * tokens - 0.7}.get(split, 0.044 * tokens - 0.6)
            times[Schedule(tokens, tiles * split, split)] = -(-per_tile // split) * unit + sharing
    return times


@cache
def schedule(m: int, n: int, k: int, sms: int) -> Schedule:
    """Choose the schedule that should take the least time."""
    times = microseconds(m, n, k, sms)
    return min(times, key=times.__getitem__)


def matmul(x: torch.Tensor, prepared: dict[str, torch.Tensor], overlap: bool = False) -> torch.Tensor:
    """Compute X @ W, float16 [M, N]; X float16 [M, K]."""
    m, size = x.shape[0], records.sizes(prepared)
    tokens, blocks, split = schedule(m, size.n, size.k, prepared["board"].shape[0])
    record = -(-prepared["records"].shape[2] // 128) * 128
    stage = -(-(tokens * 2 * records.SIDE + 2 * record) // 1024) * 1024
    stages = min(8, SHARED // stage)
    shared = stages * stage + 1024
    kernel = compile.kernel(
        "warpgroups.cu", shared, TOKENS=tokens, STAGES=stages, PAIRS=int(split == 2), **size.defines
    )
    y = torch.empty(m, size.n, dtype=torch.float16, device=x.device)
    compile.launch(
        kernel, (blocks,), 384, shared,
        prepared["records"], compile.tensor_map(x, (tokens, 64)), y,
        prepared["board"], prepared["flags"], m, size.n, size.k, split, overlap=overlap,
    )  # fmt: skip
    return y
