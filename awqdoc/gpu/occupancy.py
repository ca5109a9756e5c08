"""How many blocks of a kernel an SM holds at once, and how a grid of them fills a GPU.

The formula is that of NVIDIA's ``cuda_occupancy.h``, which comes with the CUDA toolkit. The sizes in `LIMITS` are those
of the CUDA C++ Programming Guide, technical specifications per compute capability.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from awqdoc.errors import AwqdocError
from awqdoc.gpu.datasheets import DATA_SHEETS

WARP = 32
MOST_THREADS = 1024  # of a block
REGISTERS = 1 << 16  # of an SM, and of a block
MOST_REGISTERS = 255  # of a thread
PARTITIONS = 4  # of an SM, each with a quarter of the registers
REGISTER_UNIT = 256  # registers are given to warps in pieces of this many
MOST_BARRIERS = 16  # of a block
MOST_GRID = (2**31 - 1, 65535, 65535)
MOST_BLOCK = (1024, 1024, 64)


@dataclass(frozen=True)
class Limits:
    """What an SM of one compute capability holds.

    Attributes
    ----------
    warps, blocks : int
        Resident at once.
    shared : int
        Bytes of shared memory, at the largest share that it may take of the array that it has in common with the L1.
    reserved : int
        Bytes of shared memory that the system takes with each block.
    unit : int
        Bytes: shared memory is given to blocks in pieces of this size.
    barriers : int or None
        Block barriers; None where they are not counted, before Hopper.
    """

    warps: int
    blocks: int
    shared: int
    reserved: int = 1024
    unit: int = 128
    barriers: int | None = None

    @property
    def block_shared(self) -> int:
        """Bytes of shared memory that a block may ask for, static and dynamic together."""
        return self.shared - self.reserved


LIMITS = {
    (7, 5): Limits(32, 16, 64 << 10, reserved=0, unit=256),
    (8, 0): Limits(64, 32, 164 << 10),
    (8, 6): Limits(48, 16, 100 << 10),
    (8, 7): Limits(48, 16, 164 << 10),
    (8, 9): Limits(48, 24, 100 << 10),
    (9, 0): Limits(64, 32, 228 << 10, barriers=64),
    (10, 0): Limits(64, 32, 228 << 10, barriers=64),
    (10, 1): Limits(48, 24, 228 << 10, barriers=24),  # the name that 11.0 had before CUDA 13
    (10, 3): Limits(64, 32, 228 << 10, barriers=64),
    (11, 0): Limits(48, 24, 228 << 10, barriers=24),
    (12, 0): Limits(48, 24, 100 << 10, barriers=24),
}


class Chip(NamedTuple):
    """What of a GPU decides how a grid fills it."""

    name: str
    capability: tuple[int, int]
    sms: int


@dataclass(frozen=True)
class Launch:
    """A launch on a GPU: what its blocks take, how many fit on an SM, and how the grid fills the GPU.

    Waves are a model: all blocks take the same time, so that they come and go in step.

    Attributes
    ----------
    chip : Chip
        The GPU.
    blocks, threads : int
        Of the grid; of a block.
    warps, registers, shared : int
        What a block is given: warps, 32-bit registers and bytes of shared memory, rounded up as the GPU does.
    fits : dict
        Resource -> how many blocks an SM holds by it: ``warps``, ``registers``, ``shared memory``, ``block slots`` and
        ``barriers``. What a block takes none of, or the GPU does not count, is left out.
    """

    chip: Chip
    blocks: int
    threads: int
    warps: int
    registers: int
    shared: int
    fits: dict[str, int]

    @property
    def blocks_per_sm(self) -> int:
        """Blocks that an SM holds at once."""
        return min(self.fits.values())

    @property
    def limiters(self) -> tuple[str, ...]:
        """The resources that let no further block onto an SM."""
        return tuple(name for name, blocks in self.fits.items() if blocks == self.blocks_per_sm)

    @property
    def resident_warps(self) -> int:
        """Warps on an SM that holds as many blocks as fit."""
        return self.blocks_per_sm * self.warps

    @property
    def occupancy(self) -> float:
        """Resident warps over the most that an SM could hold, the theoretical occupancy."""
        return self.resident_warps / LIMITS[self.chip.capability].warps

    @property
    def slots(self) -> int:
        """Blocks that the whole GPU holds at once."""
        return self.chip.sms * self.blocks_per_sm

    @property
    def waves(self) -> int:
        """Waves of blocks, the last of which may be a tail."""
        return -(-self.blocks // self.slots)

    @property
    def last_wave(self) -> int:
        """Blocks in the last wave."""
        return self.blocks - (self.waves - 1) * self.slots

    @property
    def lost(self) -> float:
        """Share of all places, over all waves, that the tail leaves empty, which is SM time lost in this model."""
        return 1 - self.blocks / (self.waves * self.slots)

    @property
    def grid_occupancy(self) -> float:
        """Occupancy in the first wave, mean of all SMs, less than `occupancy` where the grid has too few blocks."""
        warps = min(self.blocks, self.slots) * self.warps
        return warps / (self.chip.sms * LIMITS[self.chip.capability].warps)


def launch(grid: tuple[int, ...], block: tuple[int, ...], regs: int, smem: int, gpu: str, barriers: int = 1) -> Launch:
    """Compute how a kernel's blocks fill a GPU.

    Parameters
    ----------
    grid, block : tuple of int
        Blocks of the grid and threads of a block, in one to three dimensions.
    regs : int
        Registers of a thread, as the compiler says.
    smem : int
        Bytes of shared memory of a block, static and dynamic together.
    gpu : str
        As `chip` takes it: ``H100 SXM``, or ``8.6x28``.
    barriers : int
        Block barriers that the kernel uses, as the compiler says; ``__syncthreads()`` is one.

    Raises
    ------
    AwqdocError
        If no GPU of this kind could launch it; the sentence says what is legal.
    """
    found = chip(gpu)
    limits = LIMITS[found.capability]
    _check_shape("blocks", grid, MOST_GRID, prod(MOST_GRID))
    _check_shape("threads", block, MOST_BLOCK, MOST_THREADS)
    threads = prod(block)
    _check_range("A thread has {} registers; found {}.", regs, MOST_REGISTERS)
    name = "{}.{}".format(*found.capability)
    text = f"A block has {{}} bytes of shared memory on compute capability {name}; found {{}}."
    _check_range(text, smem, limits.block_shared)
    _check_range("A block has {} barriers; found {}.", barriers, MOST_BARRIERS)
    warps = -(-threads // WARP)
    registers, shared = _round_up(WARP * regs, REGISTER_UNIT), _round_up(smem + limits.reserved, limits.unit)
    # The hardware checks as if a block's warps were dealt out to all partitions alike.
    most = REGISTERS // _round_up(warps, PARTITIONS) // REGISTER_UNIT * REGISTER_UNIT // WARP
    if regs > most:
        raise AwqdocError(f"A thread has at most {most} registers in a block of {threads} threads; found {regs}.")
    fits = {"warps": limits.warps // warps}
    if registers:
        fits["registers"] = REGISTERS // PARTITIONS // registers * PARTITIONS // warps
    if shared:
        fits["shared memory"] = limits.shared // shared
    fits["block slots"] = limits.blocks
    if barriers and limits.barriers:
        fits["barriers"] = limits.barriers // barriers
    return Launch(found, prod(grid), threads, warps, registers * warps, shared, fits)


def chip(gpu: str) -> Chip:
    """Find a GPU by its name in `awqdoc.gpu.datasheets`, or take its compute capability and number of SMs: ``8.6x28``.

    Raises
    ------
    AwqdocError
        If there is no such name or capability.
    """
    for sheet in DATA_SHEETS:
        if gpu.strip().lower() in (sheet.name.lower(), sheet.reported.lower()):
            return Chip(sheet.name, sheet.capability, sheet.sms)
    found = re.fullmatch(r"\s*(\d+)\.(\d+)\s*x\s*(\d+)\s*", gpu)
    capability = (int(found[1]), int(found[2])) if found else None
    if found and capability in LIMITS and int(found[3]) > 0:
        return Chip(f"a GPU of compute capability {found[1]}.{found[2]}", capability, int(found[3]))
    names = ", ".join(sheet.name for sheet in DATA_SHEETS)
    known = ", ".join(f"{major}.{minor}" for major, minor in LIMITS)
    raise AwqdocError(
        f"A GPU is one of {names}, or a compute capability ({known}) and a number of SMs, such as 8.6x28; "
        f"found {gpu!r}."
    )


def kernel_config(text: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Read grid and block from a command line: ``"128,4,1;256,1,1"``.

    Raises
    ------
    AwqdocError
        If it is malformed. Whether its numbers are legal, `launch` says.
    """
    found = re.fullmatch(r"\s*(\d+),(\d+),(\d+);(\d+),(\d+),(\d+)\s*", text.replace(" ", ""))
    if not found:
        raise AwqdocError(
            "A kernel configuration is the three sizes of the grid, a semicolon and the three of a block, such as "
            f'"128,4,1;256,1,1"; found {text!r}.'
        )
    sizes = tuple(map(int, found.groups()))
    return sizes[:3], sizes[3:]


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def _check_range(text: str, value: int, most: int) -> None:
    if not 0 <= value <= most:
        raise AwqdocError(text.format(f"0 to {most}", value))


def _check_shape(unit: str, shape: tuple[int, ...], most: tuple[int, int, int], in_all: int) -> None:
    legal = 1 <= len(shape) <= 3 and all(1 <= size <= limit for size, limit in zip(shape, most, strict=False))
    if not legal or prod(shape) > in_all:
        kind = "A grid" if unit == "blocks" else f"A block (of at most {in_all} threads)"
        limits = "{}, {} and {}".format(*most)
        found = "x".join(map(str, shape)) or "none"
        raise AwqdocError(f"{kind} has 1 to 3 sizes, each from 1 to at most {limits} {unit}; found {found}.")
