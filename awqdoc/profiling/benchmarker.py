"""A benchmark of a few functions: in turn, with a cold cache, every sample kept, doubts printed beside the times."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from awqdoc import nvml
from awqdoc.errors import AwqdocError
from awqdoc.profiling.graphs import Call, captured
from awqdoc.profiling.statistics import Summary, doubts, summarize
from awqdoc.profiling.timers import CUDATimer, default_device

WARMUP = 3
# As many times the L2 cache is read to empty it of what was there.
FLUSH_MULTIPLE = 4
SPIN = 200_000  # cycles, about 0.1 ms: a graph is launched in less


@dataclass(frozen=True)
class Measurement:
    """What was measured of one function.

    Attributes
    ----------
    name : str
    seconds : tuple of float
        Every sample, in the order in which they were taken, each of one call.
    conditions : str
        The clock, the state of the cache, and how the function was launched.
    states : tuple of dict
        Clocks (MHz), power (W), temperature (degrees C) and clock-event reasons before and after; none on a CPU.
    """

    name: str
    seconds: tuple[float, ...]
    conditions: str
    states: tuple[dict[str, Any], ...] = field(default=())

    @property
    def summary(self) -> Summary:
        """Median, quartiles, extremes and interval, in seconds."""
        return summarize(self.seconds)

    @property
    def doubts(self) -> list[str]:
        """Why these times should not be believed."""
        return doubts(self.seconds, self.states)


class Benchmarker:
    """Times functions and keeps every sample.

    Parameters
    ----------
    num_iterations : int
        Samples of each function, after three calls that do not count.
    cold : bool
        Whether the L2 cache is emptied before each sample, by reading something else; on a CPU caches stay as they are.
    graph : bool
        Whether the function is captured in a CUDA graph and its replay is timed, without Python and launch gaps.
        With ``graph=False`` the flush before each sample hides launches as long as it lasts; with ``cold=False`` too,
        nothing hides them. The function must always use the same tensors.
    device : str or None
        ``"cuda"`` or ``"cpu"``; None: a GPU if torch sees one.

    Raises
    ------
    AwqdocError
        If `num_iterations` is not positive, the device is another, or a GPU or a graph is asked for without a GPU.
    """

    def __init__(
        self, num_iterations: int = 100, *, cold: bool = True, graph: bool = False, device: str | None = None
    ) -> None:
        if num_iterations < 1:
            raise AwqdocError(f"num_iterations must be 1 or more; found {num_iterations}.")
        self.device = device or default_device()
        if self.device not in ("cpu", "cuda"):
            raise AwqdocError(f"The device must be 'cuda' or 'cpu'; found {self.device!r}.")
        if self.device == "cuda" and default_device() != "cuda":
            raise AwqdocError("The device 'cuda' needs a GPU, and torch sees none: use device='cpu'.")
        if graph and self.device == "cpu":
            raise AwqdocError("A CUDA graph needs a GPU, and torch sees none: use graph=False.")
        self.num_iterations = num_iterations
        self.cold = cold and self.device != "cpu"
        self.graph = graph
        self.results: list[Measurement] = []

    @property
    def conditions(self) -> str:
        """Name the clock, the state of the cache, and how functions are launched."""
        clock = CUDATimer(self.device).clock
        if self.device == "cpu":
            return f"{clock}, caches as the call before left them"
        launch = "replays of a CUDA graph" if self.graph else "launched from Python"
        return f"{clock}, L2 cache {'emptied before each' if self.cold else 'warm'}, {launch}"

    def benchmark_function(self, function: Call, name: str) -> Measurement:
        """Time one function, called without arguments. To compare several, `compare` is fairer."""
        return self.compare({name: function})[0]

    def compare(self, functions: Mapping[str, Call]) -> list[Measurement]:
        """Time functions in turn, in another order each round, so that a drifting clock meets all alike."""
        calls = {name: self._prepared(function) for name, function in functions.items()}
        prepare = self._preparation()
        before = self._state()
        samples: dict[str, list[float]] = {name: [] for name in calls}
        for number in range(self.num_iterations):
            for name in random.Random(number).sample(list(calls), len(calls)):
                prepare()
                with CUDATimer(self.device) as timer:
                    calls[name]()
                samples[name].append(timer.elapsed_ms / 1e3)
        states = (*before, *self._state())
        added = [Measurement(name, tuple(seconds), self.conditions, states) for name, seconds in samples.items()]
        self.results += added
        return added

    def print_results(self) -> None:
        """Print a line for each function, the conditions, and what speaks against believing the times."""
        width = max((len(result.name) for result in self.results), default=4)
        print(f"{'name':<{width}}  median ms  middle half        95 % of median      samples")
        for result in self.results:
            s = result.summary
            halves = f"{1e3 * s.low:.4f} .. {1e3 * s.high:.4f}"
            interval = f"{1e3 * s.interval[0]:.4f} .. {1e3 * s.interval[1]:.4f}" if s.interval else "too few"
            print(f"{result.name:<{width}}  {1e3 * s.median:<9.4f}  {halves:<17}  {interval:<18}  {s.count}")
        for conditions in dict.fromkeys(result.conditions for result in self.results):
            print(conditions)
        for result in self.results:
            for doubt in result.doubts:
                print(f"doubtful: {result.name}: {doubt}")

    def _prepared(self, function: Call) -> Call:
        for _ in range(WARMUP):  # compiles, autotunes and allocates
            function()
        return captured([function]) if self.graph else function

    def _preparation(self) -> Call:
        """Return what runs before each sample. Flush and spin keep the GPU busy while the host launches."""
        if self.cold:
            return _flush()
        if self.graph:
            import torch

            return lambda: torch.cuda._sleep(SPIN)
        return lambda: None

    def _state(self) -> tuple[dict[str, Any], ...]:
        return () if self.device == "cpu" else (nvml.state(),)


def _flush() -> Call:
    """Return a function that empties the L2 cache by reading: written lines would be written back in the timed span."""
    import torch

    size: Any = torch.cuda.get_device_properties(0)
    buffer = torch.ones(FLUSH_MULTIPLE * size.L2_cache_size // 4, dtype=torch.int32, device="cuda")
    total = torch.empty((), dtype=torch.int64, device="cuda")
    return lambda: torch.sum(buffer, dim=0, out=total)
