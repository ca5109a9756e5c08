"""The order and the arithmetic of interleaved timing, with a clock that we turn."""

import time
from collections.abc import Callable

import pytest

from awqdoc import profiling
from awqdoc.profiling import interleave


class World:
    """Competitors that take a known time, and a log of their calls."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def call(self, name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            self.log.append(name)
            self.now += seconds

        return run


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(time, "perf_counter", lambda: world.now)
    return world


def test_every_sample_is_kept_in_seconds_per_call(world: World) -> None:
    samples = interleave({"a": [world.call("a", 2.0)], "b": [world.call("b", 0.5)]}, "cpu", rounds=7)
    assert samples == {"a": [2.0] * 7, "b": [0.5] * 7}


def test_samples_are_in_the_order_in_which_they_were_taken(world: World) -> None:
    durations = iter([9.0, 1.0, 2.0, 3.0])  # the first is the warm-up

    def slower() -> None:
        world.now += next(durations)

    assert interleave({"a": [slower]}, "cpu", rounds=3) == {"a": [1.0, 2.0, 3.0]}


def test_each_is_warmed_up_once_and_no_pair_of_neighbours_dominates(world: World) -> None:
    interleave({name: [world.call(name, 1.0)] for name in "abcd"}, "cpu", rounds=20)
    assert world.log[:4] == list("abcd")
    rounds = [world.log[i : i + 4] for i in range(4, 84, 4)]
    assert all(sorted(names) == list("abcd") for names in rounds)
    timed = world.log[4:]
    followers = [tuple(timed[i : i + 2]) for i in range(79)]
    assert max(followers.count(pair) for pair in set(followers)) <= 12  # a rotation alone: 15 of 20


def test_copies_are_called_in_turn_and_their_time_is_shared(world: World) -> None:
    copies = [world.call("x", 1.0), world.call("y", 2.0), world.call("z", 6.0)]
    assert interleave({"a": copies}, "cpu", rounds=2) == {"a": [3.0, 3.0]}
    assert "".join(world.log) == "x" + "xyz" + "xyz"


def test_nobody_competes_nothing_is_measured() -> None:
    """As where every backend was skipped."""
    assert interleave({}, "cpu") == {}


def test_clock_is_named_by_device() -> None:
    assert profiling.clock_name("cpu") == "time.perf_counter, warm weights"
    assert profiling.clock_name("cuda") == "CUDA events around a graph replay, cold weights"
