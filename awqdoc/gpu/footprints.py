"""What the kernels of our ladder, and Marlin, ask of an SM: what a compiler said, so that a page needs none."""

from __future__ import annotations

from typing import NamedTuple


class Footprint(NamedTuple):
    """A launch of a kernel: blocks of the grid, threads of a block, registers of a thread, shared memory of a block.

    The bytes of shared memory are static and dynamic together.
    """

    grid: int
    threads: int
    regs: int
    smem: int


SHAPE = "28672x4096"
# One token times a layer of this shape, group size 128 with zero points, on a GPU with 132 SMs and 227 KiB of shared
# memory for a block; compiled for sm_90a by NVRTC 13.0. tests/test_occupancy.py compiles them again.
LADDER = {
    "cuda_dequantize": Footprint(28 * 4096, 128, 26, 0),
    "cuda_fused": Footprint(112, 256, 48, 8192),
    "cuda_tensor_cores": Footprint(224, 256, 64, 4096),
    "cuda_pipeline": Footprint(224, 256, 76, 89088),
    "cuda_stripes": Footprint(132, 256, 127, 93184),
    "cuda_warpgroups": Footprint(112, 384, 168, 205952),
    "cuda_small_batch": Footprint(132, 288, 106, 99456),
}
# Marlin as published (2f6d7c1): its kernel for 16 tokens, tiles of 128 x 128 and groups of 128, compiled for sm_90a by
# nvcc 13.0. Its grid is one block for each SM, here of 132, its shared memory a constant of its source.
MARLIN = Footprint(132, 256, 126, 96 << 10)
