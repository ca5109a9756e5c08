"""The X-ray of a kernel: its own source, compiled with marks, says when blocks ran and what their warps did when.

Marks stand in the CUDA sources as ``//XRAY code``: a comment in every other build, so that the kernel that is timed is
the source without them. What they write is said in ``kernels/cuda/xray.h``. What they cost, the experiment ``xray``
measures.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from awqdoc import compile
from awqdoc.errors import AwqdocError
from awqdoc.profiling.graphs import Call

# What a warp does from a mark to its next one, by the mark's number. Where it dequantizes and multiplies instruction by
# instruction in turn (mma.sync), both are what follows 1 or 2. With wgmma both are what follows 3, from the first
# product of a record on, and what follows 1 is reading it from shared memory.
PHASES = {
    0: "load issued",
    1: "data arrived",
    2: "dequantize",
    3: "mma",
    4: "reduction",
    5: "write-back",
    6: "wait",
    7: "end",
}
END = 7  # no mark in a source: the warp has come to its last statement
# As in xray.h: marks that are kept of a warp, words before them, chosen warps of a block, one in so many.
MARKS, HEAD, CHOSEN, ONE_IN = 256, 32, 8, 4
WORDS = HEAD + CHOSEN * MARKS
BLOCKS = 1024
_PRESENT, _PHASE_SHIFT = 1 << 32, 60


@dataclass(frozen=True)
class Block:
    """A block: its number in the grid, its SM, and when it began and ended, in ns since the kernel's first block."""

    block: int
    sm: int
    begin_ns: int
    end_ns: int


@dataclass(frozen=True)
class Mark:
    """The begin of a phase of a warp (a number of `PHASES`), in ns since the kernel's first block."""

    block: int
    warp: int
    phase: int
    at_ns: int


@dataclass(frozen=True)
class Trace:
    """What the marks of one launch say.

    Attributes
    ----------
    blocks : list of Block
        Every block of the grid, up to `BLOCKS`.
    marks : list of Mark
        Of every `ONE_IN`-th warp of each block, in order of time.
    dropped : int
        Marks that were made but not kept: all but the first `MARKS` of a warp; its end is always kept.
    tick_ns : int
        The step of the GPU's timer, by which the clocks of SMs are aligned: times of two SMs may be wrong by so much
        against each other, times of one SM are not.
    sm_clock_hz : float
        The SMs' clock during the launch: cycles over the timer's ns, all blocks together.
    """

    blocks: list[Block]
    marks: list[Mark]
    dropped: int
    tick_ns: int
    sm_clock_hz: float


@dataclass(frozen=True)
class Launched:
    """A launch as asked for, and what the driver says of its kernel: `cuKernelGetAttribute`, bytes, for each block."""

    kernel_name: str
    grid: list[int]
    block: int
    registers: int
    shared_static: int
    shared_dynamic: int


def switched_on(source: str) -> str:
    """Turn the marks of a CUDA source into code."""
    return re.sub("//XRAY ?", "", source)


def write_sources(folder: Path, address: int, blocks: int) -> None:
    """Copy `awqdoc.compile.SOURCES` to a folder with the marks switched on, for a buffer of so many blocks there."""
    for path in compile.SOURCES.iterdir():
        (folder / path.name).write_text(switched_on(path.read_text(encoding="utf-8")), encoding="utf-8")
    header = f"constexpr u64 XRAY_BUFFER = {address}ull;\nconstexpr u32 XRAY_BLOCKS = {blocks};\n"
    (folder / "xray_buffer.h").write_text(header, encoding="utf-8")


@contextmanager
def instrumented(buffer: torch.Tensor) -> Iterator[Callable[[Call], Call]]:
    """Make instrumented builds of our CUDA kernels, which write to `buffer`, int64 [blocks, WORDS] on the GPU.

    Yields a function that turns a call of one of our kernels into a call of its instrumented build. Both may be called
    in turn; each is compiled once.

    Raises
    ------
    AwqdocError
        If there is no GPU or no cuda-core.
    """
    _require()
    with TemporaryDirectory() as folder:
        write_sources(Path(folder), buffer.data_ptr(), len(buffer))
        swapped: dict[str, Any] = {
            "SOURCES": Path(folder),
            "cubin": cache(compile.cubin.__wrapped__),
            "kernel": cache(compile.kernel.__wrapped__),
        }

        def marked(call: Call) -> Call:
            def launch() -> object:
                with _swapped(swapped):
                    return call()

            return launch

        yield marked


@contextmanager
def _swapped(values: dict[str, Any]) -> Iterator[None]:
    """Give attributes of `awqdoc.compile` other values: its users look them up there at each call."""
    kept = {name: getattr(compile, name) for name in values}
    try:
        for name, value in values.items():
            setattr(compile, name, value)
        yield
    finally:
        for name, value in kept.items():
            setattr(compile, name, value)


def _require() -> None:
    if not torch.cuda.is_available():
        raise AwqdocError("An X-ray is made on a GPU: torch sees none here; look at a recorded one instead.")
    if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.core") is None:
        raise AwqdocError(
            "CUDA sources are compiled with NVIDIA's cuda-core: install it with `pip install awqdoc[cuda]`."
        )


def new_buffer() -> torch.Tensor:
    """Return a buffer for `instrumented` and `read`: zeros, int64 [BLOCKS, WORDS], 17 MB on the GPU."""
    _require()
    return torch.zeros(BLOCKS, WORDS, dtype=torch.int64, device="cuda")


def trace(calls: Sequence[Call]) -> Trace:
    """Trace the last of several calls, each of which launches one of our kernels once, of the same grid.

    Those before it compile the kernel and, if they are calls on other weights, leave that of the last call cold.

    Raises
    ------
    AwqdocError
        If there is no GPU or no cuda-core, or if the kernel has no marks.
    """
    buffer = new_buffer()
    with instrumented(buffer) as marked:
        *before, last = map(marked, calls)
        for call in before:
            call()
        torch.cuda.synchronize()  # else the last could begin, and write, before the one before it has ended
        last()
        torch.cuda.synchronize()
    return read(buffer.cpu().numpy())


def read(words: np.ndarray) -> Trace:
    """Read a buffer of marks, int64 [blocks, WORDS].

    Each SM counts cycles from a start of its own, and the timer that all have in common goes in steps. So a time is the
    SM's clock divided by its rate, shifted so that no reading of the timer on that SM is later than it, or earlier by a
    step: of the shifts that are left, the middle one. The rate comes from all blocks together, begin to end.

    Raises
    ------
    AwqdocError
        If no block has written.
    """
    rows = np.flatnonzero(words[:, 0] & _PRESENT)
    if not rows.size:
        raise AwqdocError("No block left a mark: only kernels with `//XRAY xray_begin();` can be traced.")
    sms = words[rows, 0] & (_PRESENT - 1)
    begins = words[rows, 1:3]  # timer, clock
    ends = words[rows, 3 : 3 + 3 * CHOSEN].reshape(-1, CHOSEN, 3)  # timer, clock, marks
    latest = ends[np.arange(len(rows)), ends[:, :, 1].argmax(axis=1), :2]
    clocks = _Clocks(sms, begins, ends[:, :, :2], latest)
    blocks, marks, dropped = [], [], 0
    for row, sm, begin, end, warps in zip(rows, sms, begins[:, 1], latest[:, 1], ends, strict=True):
        begin_ns, end_ns = clocks.at(sm, np.array([begin, end]))
        blocks.append(Block(int(row), int(sm), begin_ns, end_ns))
        for warp, (clock, made) in enumerate(warps[:, 1:]):
            found = words[row, HEAD + warp * MARKS :][: min(int(made), MARKS)]
            dropped += max(0, int(made) - MARKS)
            times = clocks.at(sm, found & ((1 << _PHASE_SHIFT) - 1))
            phases = (found >> _PHASE_SHIFT).tolist()
            marks += [Mark(int(row), warp * ONE_IN, *mark) for mark in zip(phases, times, strict=True)]
            if clock:
                marks.append(Mark(int(row), warp * ONE_IN, END, *clocks.at(sm, np.array([clock]))))
    return Trace(blocks, sorted(marks, key=lambda mark: mark.at_ns), dropped, clocks.tick, 1e9 * clocks.rate)


class _Clocks:
    """The SMs' clocks, aligned by the timer: `tick` is its step in ns, `rate` cycles in a ns."""

    def __init__(self, sms: np.ndarray, begins: np.ndarray, ends: np.ndarray, latest: np.ndarray) -> None:
        start = int(begins[:, 0].min())
        read = [begins[:, 0], ends[:, :, 0][ends[:, :, 0] > 0]]
        steps = np.diff(np.unique(np.concatenate(read)))
        self.tick = int(steps.min()) if steps.size else 0
        spent, cycles = (latest - begins).sum(axis=0)
        self.rate = float(cycles / spent) if spent else 1.0
        self._shift: dict[int, tuple[int, float]] = {}
        for sm in np.unique(sms):
            mine = np.concatenate([begins[sms == sm], ends[sms == sm].reshape(-1, 2)])
            mine = mine[mine[:, 0] > 0]
            origin = int(mine[:, 1].min())  # whole numbers first: the timer's do not fit into a float
            late = (mine[:, 0] - start) - (mine[:, 1] - origin) / self.rate
            self._shift[int(sm)] = origin, float(late.max() + late.min() + self.tick) / 2
        self._first = 0.0
        self._first = min(self._ns(int(sm), clock) for sm, clock in zip(sms, begins[:, 1], strict=True))

    def _ns(self, sm: int, clock: Any) -> Any:
        origin, shift = self._shift[sm]
        return (clock - origin) / self.rate + shift - self._first

    def at(self, sm: int, clocks: np.ndarray) -> list[int]:
        """Return ns since the first block's begin for readings of an SM's clock."""
        return [int(when) for when in np.rint(self._ns(int(sm), clocks))]


def launched(call: Call) -> Launched:
    """Call one of our kernels and say how it was launched: the first launch, if there are several."""
    found: list[Launched] = []
    launch = compile.launch

    def noted(kernel: Any, grid: tuple[int, ...], block: int, shared: int, *arguments: Any, **options: Any) -> None:
        found.append(_asked(kernel, grid, block, shared))
        launch(kernel, grid, block, shared, *arguments, **options)

    with _swapped({"launch": noted}):
        call()
    if not found:
        raise AwqdocError("The call launched no kernel of ours: only those of awqdoc.kernels.ladder can be asked.")
    return found[0]


def _asked(kernel: Any, grid: tuple[int, ...], block: int, shared: int) -> Launched:
    from cuda.bindings import driver

    def ask(name: str) -> int:
        attribute = getattr(driver.CUfunction_attribute, f"CU_FUNC_ATTRIBUTE_{name}")
        return int(_checked(driver.cuKernelGetAttribute(attribute, kernel.handle, torch.cuda.current_device())))

    name = _checked(driver.cuKernelGetName(kernel.handle)).decode()
    return Launched(name, list(grid), block, ask("NUM_REGS"), ask("SHARED_SIZE_BYTES"), shared)


def _checked(answer: tuple[Any, Any]) -> Any:
    status, value = answer
    if status != 0:
        raise AwqdocError(f"The driver does not say what its kernel takes ({status}): update the driver.")
    return value
