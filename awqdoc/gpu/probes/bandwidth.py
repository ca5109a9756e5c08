"""Bandwidth: every SM reads or copies a slice of memory of its own, once or again and again."""

from __future__ import annotations

from functools import partial

import torch

from awqdoc import compile
from awqdoc.gpu.probes import Probed, kernel, launches, sms

MODULUS = 1 << 32  # sums are of 32-bit words, and wrap
SHARED_BYTES = 32 << 10  # that ``read_shared.cu`` reads
MOST_SLOTS = 8  # as in ``bulk.cu``
MOST_IN_FLIGHT = 96 << 10  # bytes of bulk copies
COPIES_AT_ONCE = 4 * 16  # bytes that a thread of ``copy.cu`` has under way


def total(words: torch.Tensor) -> int:
    """Add up int32 words as unsigned ones, modulo 2^32."""
    return int(words.sum(dtype=torch.int64).item()) % MODULUS


def read(words: torch.Tensor, slice_bytes: int, cached: bool, threads: int, loads: int, rounds: int) -> Probed:
    """Let each SM read its own slice of memory `rounds` times.

    Parameters
    ----------
    words : torch.Tensor
        int32, a slice for each SM or more.
    slice_bytes : int
        A multiple of 16 * `threads` * `loads`.
    cached : bool
        Whether through the L1 cache.
    threads, loads : int
        Threads on each SM, and 16-byte loads that each of them has under way.

    Returns
    -------
    Probed
        Cycles of a block for all rounds, and seconds.
    """
    blocks = sms()
    sums = torch.zeros(blocks * threads, dtype=torch.int32, device="cuda")
    cycles = torch.zeros(blocks, dtype=torch.int64, device="cuda")
    found = kernel("read.cu", CACHED=int(cached), LOADS=loads)
    call = partial(compile.launch, found, (blocks,), threads, 0, words, slice_bytes // 16, rounds, sums, cycles)
    counted, timed = launches(call, cycles)
    wanted = rounds * total(words[: blocks * slice_bytes // 4]) % MODULUS
    return Probed(total(sums) == wanted, counted, timed)


def read_shared(words: torch.Tensor, rounds: int) -> Probed:
    """Let each SM read 32 KB of its shared memory `rounds` times; `words` is what lies there, int32.

    Returns
    -------
    Probed
        Cycles of a block for all rounds, and seconds.
    """
    blocks = sms()
    sums = torch.zeros(blocks * 1024, dtype=torch.int32, device="cuda")
    cycles = torch.zeros(blocks, dtype=torch.int64, device="cuda")
    call = partial(compile.launch, kernel("read_shared.cu"), (blocks,), 1024, 0, words, rounds, sums, cycles)
    counted, timed = launches(call, cycles)
    wanted = blocks * rounds * total(words[: SHARED_BYTES // 4]) % MODULUS
    return Probed(total(sums) == wanted, counted, timed)


def copy(words: torch.Tensor, slice_bytes: int) -> Probed:
    """Let each SM copy its own slice of memory to another place.

    Parameters
    ----------
    words : torch.Tensor
        int32, a slice for each SM or more.
    slice_bytes : int
        A multiple of 64 KiB.

    Returns
    -------
    Probed
        Seconds; no cycles.
    """
    blocks, threads = sms(), 1024
    source = words[: blocks * slice_bytes // 4]
    target = torch.zeros_like(source)
    none = torch.zeros(1, dtype=torch.int64, device="cuda")
    call = partial(compile.launch, kernel("copy.cu"), (blocks,), threads, 0, source, target, slice_bytes // 16)
    _, timed = launches(call, none)
    return Probed(torch.equal(source, target), [], timed)


def slots(in_flight: int) -> int:
    """Return into how many bulk copies, of 1 KiB or more, so many bytes are divided."""
    return min(MOST_SLOTS, in_flight >> 10)


def bulk(words: torch.Tensor, slice_bytes: int, in_flight: int) -> Probed:
    """Let one thread on each SM read its slice by bulk copies (Hopper), with so many bytes under way at a time.

    Parameters
    ----------
    words : torch.Tensor
        int32, a slice for each SM or more.
    slice_bytes : int
        What each SM reads, rounded down to whole copies.
    in_flight : int
        Bytes, up to 96 KiB; a multiple of 1 KiB that divides into `slots` copies of a multiple of 16.

    Returns
    -------
    Probed
        Cycles of a block, and seconds.
    """
    blocks, count = sms(), slots(in_flight)
    chunk = in_flight // count
    chunks = slice_bytes // chunk
    sums = torch.zeros(blocks * 32, dtype=torch.int32, device="cuda")
    cycles = torch.zeros(blocks, dtype=torch.int64, device="cuda")
    found = kernel("bulk.cu", shared=MOST_IN_FLIGHT)
    call = partial(compile.launch, found, (blocks,), 32, in_flight, words, chunk, count, chunks, sums, cycles)
    counted, timed = launches(call, cycles)
    each = words[: blocks * chunks * chunk // 4].view(blocks, -1)
    return Probed(total(sums) == total(each[:, -in_flight // 4 :]), counted, timed)
