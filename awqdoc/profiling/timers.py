"""The time of one piece of work, on a GPU by its own clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from awqdoc.errors import AwqdocError


class CUDATimer:
    """Times what stands between start and stop: on a GPU with two CUDA events, elsewhere with a clock of the host.

    ::

        with CUDATimer() as timer:
            y = x @ w
        print(timer.elapsed_ms, timer.clock)

    On a GPU this is the time between two points of the current stream. It holds every gap in which the GPU waited for
    Python; a CUDA graph, or `Benchmarker` with ``graph=True``, leaves those out.

    Parameters
    ----------
    device : str or None
        ``"cuda"`` or ``"cpu"``; None: a GPU if torch sees one.
    """

    def __init__(self, device: str | None = None) -> None:
        self.device = device or default_device()
        self._ms: float | None = None
        self._start: Any = None

    @property
    def clock(self) -> str:
        """Name the clock that it uses."""
        return "time.perf_counter" if self.device == "cpu" else "CUDA events"

    @property
    def elapsed_ms(self) -> float:
        """Milliseconds from start to stop.

        Raises
        ------
        AwqdocError
            If it was not started and stopped.
        """
        if self._ms is None:
            raise AwqdocError("The timer has no time yet: start and stop it first, or use it in a with statement.")
        return self._ms

    def start(self) -> None:
        """Begin."""
        self._ms = None
        self._start = self._now()

    def stop(self) -> float:
        """End, wait for the GPU, and return the milliseconds."""
        if self._start is None:
            raise AwqdocError("The timer was stopped but not started: call start() first.")
        end = self._now()
        if self.device == "cpu":
            self._ms = 1e3 * (end - self._start)
        else:
            end.synchronize()
            self._ms = self._start.elapsed_time(end)
        self._start = None
        return self._ms

    def _now(self) -> Any:
        if self.device == "cpu":
            return time.perf_counter()
        import torch

        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def __enter__(self) -> CUDATimer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.stop()


@contextmanager
def profile_scope(name: str, device: str | None = None) -> Iterator[CUDATimer]:
    """Time a block, print its name and time, and show it under its name in torch's profiler and in Nsight.

    Waits for the GPU at the end. Yields the timer. A block that fails has no time.
    """
    from torch.autograd.profiler import record_function

    timer = CUDATimer(device)
    on_gpu = timer.device != "cpu"
    if on_gpu:
        import torch

        torch.cuda.nvtx.range_push(name)
    try:
        with record_function(name), timer:
            yield timer
    finally:
        if on_gpu:
            torch.cuda.nvtx.range_pop()
    print(f"{name}: {timer.elapsed_ms:.3f} ms ({timer.clock})")


def default_device() -> str:
    """Return ``"cuda"`` if torch sees a GPU, else ``"cpu"``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
