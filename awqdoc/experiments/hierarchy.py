"""How far away is the memory, and how fast are the tensor cores? Probes of this GPU, each of which does one thing."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch

from awqdoc import gpu
from awqdoc.compile import missing as missing
from awqdoc.errors import AwqdocError
from awqdoc.experiments import works
from awqdoc.gpu.probes import Probed, bandwidth, latency, sms, tensor

CPU = False
CLOCK = "the SM's clock (clock64) for cycles, CUDA events around a launch for seconds"
KIB = 1 << 10
# Four footprints in each octave from 4 KiB to 512 MiB.
FOOTPRINTS = tuple(round(2 ** (power / 4) / latency.LINE) * latency.LINE for power in range(4 * 12, 4 * 29 + 1))
STRIDES = tuple(range(1, 33))
# What each SM reads of memory, again and again, and what it reads in all.
SLICES = tuple(32 * KIB * n for n in (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 32, 64, 128, 256))
LARGEST_SLICE = SLICES[-1]
READ_IN_ALL = 16 << 20
SHARED_ROUNDS = 512
WARPS = (1, 4, 8, 16)
CHAINS = (1, 2, 4, 8)
TURNS = 4096
COLUMNS = (32, 64, 96, 128, 192, 256)
# wgmmas in a group, groups under way, sums: one, two and four wgmmas in flight; committed by fours; and two by two, as
# step 6 of the ladder does with the two halves of its tile (up to 128 columns: there are no registers for more).
BY_ONE = ((1, 1, 1), (1, 2, 1), (1, 4, 1))
BY_FOUR = (4, 2, 1)
TWO_BY_TWO = (2, 2, 2)
WGMMA_TURNS = 1024
# Bytes that an SM has in flight: by bulk copies, and by loads of 16 bytes for each thread.
IN_FLIGHT = tuple(KIB * n for n in (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96))
THREADS = (32, 64, 128, 256, 512, 1024)
LOADS = (1, 2, 4, 8)
WRONG = "wrong: its result is not what it must be"

Row = dict[str, Any]


def check(kind: str) -> None:
    """Refuse kinds that there are not."""
    if kind not in KINDS:
        raise AwqdocError(f"The kind must be one of {', '.join(KINDS)}; found {kind!r}.")


def forget() -> None:
    """Free the memory that is read."""
    _words.cache_clear()


def run(device: str, kind: str) -> list[Row]:
    """Probe one kind of thing.

    Returns
    -------
    list of dict
        ``what``, the sizes of the probe, and its samples: ``cycles`` (of the SM's clock, for each of what is counted by
        the probe) and ``seconds`` of a launch, in which ``bytes`` were moved or ``flop`` done; or ``skipped`` with the
        reason. Every row has the GPU's clocks, power and clock-event reasons after all of its kind.
    """
    rows = KINDS[kind]()
    state = gpu.state()
    return [{**row, **state} for row in rows]


@lru_cache(maxsize=1)
def _words() -> torch.Tensor:
    """Random int32 words, the largest slice for each SM: one GiB or so, many times any L2 cache."""
    generator = torch.Generator("cuda").manual_seed(0)
    shape = (max(sms() * LARGEST_SLICE, FOOTPRINTS[-1]) // 4,)
    return torch.randint(-(2**31), 2**31, shape, dtype=torch.int32, device="cuda", generator=generator)


def _row(what: str, sizes: Row, probed: Probed, counted: float = 1, **done: int) -> Row:
    """Make a row of a probe's samples; its cycles are divided by what was counted, and it has none if it was wrong."""
    if not probed.right:
        return {"what": what, **sizes, "skipped": WRONG}
    row = {"what": what, **sizes, **done}
    if probed.cycles:
        row["cycles"] = works.kept([cycles / counted for cycles in probed.cycles])
    if probed.seconds:
        row["seconds"] = works.kept(probed.seconds)
    return row


def latencies() -> list[Row]:
    """Chase through each footprint; what the chip says of its caches comes first."""
    facts = {row["fact"]: row["value"] for row in gpu.facts()}
    named = {"sms": "SMs", "l1_bytes": "L1 cache and shared memory per SM", "l2_bytes": "L2 cache"}
    chip = {"what": "chip", **{key: facts.get(fact) for key, fact in named.items()}}
    memory = torch.zeros(FOOTPRINTS[-1] // 8, dtype=torch.int64, device="cuda")
    rows = [_row("chase", {"footprint": size}, latency.chase(size, memory)) for size in FOOTPRINTS]
    return [chip, *rows]


def shared_memory() -> list[Row]:
    """Load with each stride, in one place at a time and in four."""
    sizes = [{"stride": stride, "chains": chains} for chains in (1, 4) for stride in STRIDES]
    return [_row("load", size, latency.chase_shared(**size)) for size in sizes]


def bandwidths() -> list[Row]:
    """Read slices of every size through L1 and past it; copy the largest; read shared memory. Cycles are of a block."""
    rows, blocks = [], sms()
    for cached in (True, False):
        for size in SLICES:
            rounds = max(1, READ_IN_ALL // size)
            found = bandwidth.read(_words(), size, cached, threads=512, loads=4, rounds=rounds)
            what = "read" if cached else "read past L1"
            rows.append(_row(what, {"slice": size}, found, bytes=blocks * size * rounds))
    size = LARGEST_SLICE // 2
    rows.append(_row("copy", {"slice": size}, bandwidth.copy(_words(), size), bytes=2 * blocks * size))
    moved = blocks * bandwidth.SHARED_BYTES * SHARED_ROUNDS
    shared = bandwidth.read_shared(_words(), SHARED_ROUNDS)
    return [*rows, _row("read shared memory", {"slice": bandwidth.SHARED_BYTES}, shared, bytes=moved)]


def mma_sync() -> list[Row]:
    """Multiply by mma.sync m16n8k16. Cycles are the SM's for each of its products."""
    rows = []
    for warps in WARPS:
        for chains in CHAINS:
            count = warps * chains * TURNS
            sizes = {"warps": warps, "chains": chains}
            found = tensor.mma(warps, chains, TURNS)
            rows.append(_row("mma.sync", sizes, found, count, flop=sms() * count * tensor.MMA_FLOP))
    return rows


def wgmma_shapes() -> list[Row]:
    """List what is measured of wgmma: columns, where the left operand is, and how many are under way."""
    shapes = [(columns, way) for columns in COLUMNS for way in (*BY_ONE, BY_FOUR)]
    shapes += [(columns, TWO_BY_TWO) for columns in COLUMNS if columns <= 128]
    shapes += [(columns, BY_ONE[-1]) for columns in (8, 16)]
    return [
        {"columns": columns, "left": left, "together": way[0], "pending": way[1], "adders": way[2]}
        for columns, way in shapes
        for left in tensor.LEFT
    ]


def wgmma() -> list[Row]:
    """Multiply by wgmma m64nNk16. Cycles are the SM's for each of its products."""
    if torch.cuda.get_device_capability()[0] != 9:
        return [{"what": "wgmma", "skipped": "wgmma is an instruction of compute capability 9.x"}]
    rows = []
    for shape in wgmma_shapes():
        for warpgroups in (1, 2):
            turns = WGMMA_TURNS // shape["together"]
            count = 4 * turns * shape["together"] * warpgroups
            found = tensor.wgmma(**shape, warpgroups=warpgroups, turns=turns)
            done = sms() * count * tensor.wgmma_flop(shape["columns"])
            rows.append(_row("wgmma", {**shape, "warpgroups": warpgroups}, found, count, flop=done))
    return rows


def in_flight() -> list[Row]:
    """Read cold memory once with few and with many bytes under way. Cycles are of a block."""
    rows, blocks = [], sms()
    for threads in THREADS:
        for loads in LOADS:
            found = bandwidth.read(_words(), LARGEST_SLICE, False, threads, loads, rounds=1)
            sizes = {"in_flight": 16 * threads * loads, "threads": threads, "loads": loads}
            rows.append(_row("loads", sizes, found, bytes=blocks * LARGEST_SLICE))
    if torch.cuda.get_device_capability()[0] < 9:
        return [*rows, {"what": "bulk copies", "skipped": "bulk copies need compute capability 9.0 or higher"}]
    for size in IN_FLIGHT:
        copies = bandwidth.slots(size)
        moved = LARGEST_SLICE // (size // copies) * (size // copies)
        found = bandwidth.bulk(_words(), LARGEST_SLICE, size)
        rows.append(_row("bulk copies", {"in_flight": size, "copies": copies}, found, bytes=blocks * moved))
    return rows


KINDS: dict[str, Callable[[], list[Row]]] = {
    "latency": latencies,
    "shared memory": shared_memory,
    "bandwidth": bandwidths,
    "in flight": in_flight,
    "mma.sync": mma_sync,
    "wgmma": wgmma,
}
AXES: dict[str, tuple[Any, ...]] = {"kind": tuple(KINDS)}
