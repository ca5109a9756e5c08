"""The tensor cores' rate and latency, by mma.sync and by Hopper's wgmma."""

from __future__ import annotations

from functools import partial

import torch

from awqdoc import compile
from awqdoc.gpu.probes import Probed, kernel, launches, sms

# Where wgmma's left operand comes from, as in ``wgmma_rate.cu``.
LEFT = {"shared memory": 0, "registers": 1, "registers, written anew": 2}
MMA_FLOP = 2 * 16 * 8 * 16
DEPTH = 64  # k of the panels that are multiplied


def wgmma_flop(columns: int) -> int:
    """FLOP of a wgmma m64nNk16."""
    return 2 * 64 * columns * 16


def integers(rows: int, k: int, seed: int) -> torch.Tensor:
    """Return small random integers as float16 [rows, k]: their products and sums are exact in float32."""
    generator = torch.Generator("cuda").manual_seed(seed)
    return torch.randint(-4, 5, (rows, k), generator=generator, device="cuda").half()


def mma(warps: int, chains: int, turns: int) -> Probed:
    """Let each of `warps` warps on each SM do `turns` products into each of `chains` sums.

    Returns
    -------
    Probed
        Cycles of a block, and seconds.
    """
    a, b, blocks = integers(16, 16, 0), integers(8, 16, 1), sms()
    sums = torch.zeros(blocks, warps, chains, 16, 8, device="cuda")
    cycles = torch.zeros(blocks, dtype=torch.int64, device="cuda")
    found = kernel("mma_rate.cu", CHAINS=chains)
    call = partial(compile.launch, found, (blocks,), 32 * warps, 0, a, b, turns, sums, cycles)
    counted, timed = launches(call, cycles)
    wanted = turns * (a.float() @ b.float().T)
    return Probed(bool((sums == wanted).all()), counted, timed)


def wgmma(columns: int, left: str, together: int, pending: int, adders: int, warpgroups: int, turns: int) -> Probed:
    """Let each of `warpgroups` warpgroups on each SM do `turns` times 4 groups of `together` wgmmas (Hopper).

    Parameters
    ----------
    columns : int
        N of m64nNk16.
    left : str
        Of `LEFT`.
    together, pending, adders : int
        wgmmas in a group, groups under way, sums that they add to in turn.

    Returns
    -------
    Probed
        Cycles of a block, and seconds.
    """
    a, b, blocks = integers(64, DEPTH, 0), integers(columns, DEPTH, 1), sms()
    sums = torch.zeros(blocks, warpgroups, adders, 64, columns, device="cuda")
    cycles = torch.zeros(blocks, dtype=torch.int64, device="cuda")
    shared = (64 + columns) * DEPTH * 2 + 1024  # the panels, and what aligning them to 1 KiB may lose
    found = kernel(
        "wgmma_rate.cu", shared, COLUMNS=columns, LEFT=LEFT[left], TOGETHER=together, PENDING=pending, ADDERS=adders
    )
    call = partial(compile.launch, found, (blocks,), 128 * warpgroups, shared, a, b, turns, 0, sums, cycles)
    counted, timed = launches(call, cycles)
    wanted = turns * together // adders * (a.float() @ b.float().T)
    return Probed(bool((sums == wanted).all()), counted, timed)
