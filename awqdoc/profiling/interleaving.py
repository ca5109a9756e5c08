"""Competitors timed in turn, on a GPU as replays of CUDA graphs over copies of their weights."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence

from awqdoc.profiling.graphs import Call, captured

GRAPH_CLOCK = "CUDA events around a graph replay, cold weights"
CPU_CLOCK = "time.perf_counter, warm weights"


def clock_name(device: str) -> str:
    """Name the clock that `interleave` uses on `device`, for the label of what it measures."""
    return CPU_CLOCK if device == "cpu" else GRAPH_CLOCK


def interleave(competitors: Mapping[str, Sequence[Call]], device: str, rounds: int = 20) -> dict[str, list[float]]:
    """Time competitors in turn, so that a drifting clock or a hot chip meets all of them alike.

    Parameters
    ----------
    competitors : dict
        Name -> calls that do the same work on different copies of its weight. On a GPU the copies together
        must exceed the L2 cache several times, so that each call finds its weight cold.
    device : str
        ``"cuda"``: the calls of a competitor are captured in one CUDA graph and a replay is timed with
        events, so that Python and launch gaps do not count (an empty graph node costs about a microsecond,
        which does). ``"cpu"``: each call is timed with ``time.perf_counter``.
    rounds : int
        Samples for each competitor.

    Returns
    -------
    dict
        Name -> seconds per call, one for each round, in the order in which they were taken.
    """
    timers = {
        name: _host_timer(calls) if device == "cpu" else _graph_timer(calls) for name, calls in competitors.items()
    }
    samples: dict[str, list[float]] = {name: [] for name in timers}
    names = list(timers)
    if not names:
        return samples
    for number in range(rounds):
        # Another order in each round, the same in every run: none is always timed behind the same neighbour.
        for name in random.Random(number).sample(names, len(names)):
            samples[name].append(timers[name]())
    return samples


def _graph_timer(calls: Sequence[Call]) -> Callable[[], float]:
    import torch

    for _ in range(3):  # compile, autotune and fill workspaces outside the capture
        calls[0]()
    replay = captured(calls)
    before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

    def timed() -> float:
        # The GPU spins (about half a millisecond) while the host launches: else the first node waits for the launch
        # between the two events, and a competitor with few copies carries more of it for each call.
        torch.cuda._sleep(1_000_000)
        before.record()
        replay()
        after.record()
        after.synchronize()
        return before.elapsed_time(after) / 1000 / len(calls)

    return timed


def _host_timer(calls: Sequence[Call]) -> Callable[[], float]:
    calls[0]()

    def timed() -> float:
        start = time.perf_counter()
        for call in calls:
            call()
        return (time.perf_counter() - start) / len(calls)

    return timed
