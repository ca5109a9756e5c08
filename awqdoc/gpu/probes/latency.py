"""Latency: chains of loads, each of which waits for the one before it."""

from __future__ import annotations

import numpy
import torch

from awqdoc import compile
from awqdoc.gpu.probes import Probed, kernel

LINE = 128  # bytes from one element of a chain to the next
LOADS = 64  # between two readings of the clock
CHAINS = 64  # samples, each of LOADS loads
MOST_WARM = 1 << 19  # loads, a line each: 64 MiB, as much as the largest L2 cache of today's chips and some more
# In shared memory, both odd: behind an odd number of loads each lane is at the other one of its two words.
SHARED_LOADS, SHARED_SAMPLES = 63, 65
ARRAY = 1024  # words, as in ``chase_shared.cu``


def chase(footprint: int, memory: torch.Tensor) -> Probed:
    """Follow a random cycle through the first `footprint` bytes of memory, one element in each 128 bytes.

    Parameters
    ----------
    footprint : int
        Bytes, a multiple of 128.
    memory : torch.Tensor
        int64, `footprint` bytes or more, overwritten.

    Returns
    -------
    Probed
        Cycles per load, each sample the mean of 64 loads; no seconds.
    """
    lines = footprint // LINE
    order = torch.randperm(lines, generator=torch.Generator("cuda").manual_seed(lines), device="cuda")
    addresses = memory.data_ptr() + LINE * order
    # Of a footprint that fits into the L2 cache this leaves everything there.
    memory[: lines * LINE // 8].view(lines, LINE // 8)[order, 0] = addresses.roll(-1)
    cycles = torch.zeros(CHAINS, dtype=torch.int64, device="cuda")
    last = torch.zeros(1, dtype=torch.int64, device="cuda")
    warm = min(2 * lines, MOST_WARM)
    first = numpy.uint64(addresses[0].item())
    compile.launch(kernel("chase.cu", LOADS=LOADS), (1,), 1, 0, first, warm, CHAINS, cycles, last)
    right = last.item() == addresses[(warm + CHAINS * LOADS) % lines].item()
    return Probed(right, [count / LOADS for count in cycles.tolist()])


def chase_shared(stride: int, chains: int) -> Probed:
    """Let a warp load words of shared memory that lie `stride` words apart, in `chains` places at a time.

    Returns
    -------
    Probed
        Cycles per load of the warp, each sample the mean of 63 loads in each place; no seconds.
    """
    cycles = torch.zeros(SHARED_SAMPLES, dtype=torch.int64, device="cuda")
    last = torch.zeros(chains, 32, dtype=torch.int32, device="cuda")
    found = kernel("chase_shared.cu", CHAINS=chains, LOADS=SHARED_LOADS)
    compile.launch(found, (1,), 32, 0, stride, SHARED_SAMPLES, cycles, last)
    lanes = torch.arange(32) * stride + ARRAY
    wanted = torch.arange(chains)[:, None] * 2 * ARRAY + lanes
    return Probed(torch.equal(last.cpu().long(), wanted), [count / SHARED_LOADS / chains for count in cycles.tolist()])
