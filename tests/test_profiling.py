"""Timers and the benchmarker, with a clock that we turn; on a GPU against work whose time is known."""

from __future__ import annotations

import time
from statistics import median

import pytest

from awqdoc import profiling
from awqdoc.errors import AwqdocError
from awqdoc.profiling import Benchmarker, CUDATimer, Measurement, profile_scope


class Clock:
    """The host's clock, which goes only when told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.log: list[str] = []
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def work(self, name: str, *seconds: float) -> None:
        self.log.append(name)
        self.now += seconds[min(self.log.count(name), len(seconds)) - 1]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_timer_tells_its_milliseconds_and_its_clock(clock: Clock) -> None:
    with CUDATimer("cpu") as timer:
        clock.now += 0.25
    assert (timer.elapsed_ms, timer.clock) == (250.0, "time.perf_counter")
    timer.start()
    clock.now += 1.0
    assert timer.stop() == timer.elapsed_ms == 1000.0


def test_a_timer_without_a_time_says_what_is_missing() -> None:
    timer = CUDATimer("cpu")
    with pytest.raises(AwqdocError, match="no time yet: start and stop it first"):
        _ = timer.elapsed_ms
    with pytest.raises(AwqdocError, match="not started: call start"):
        timer.stop()


def test_work_that_fails_has_no_time(clock: Clock) -> None:
    timer = CUDATimer("cpu")
    with pytest.raises(ZeroDivisionError), timer:
        _ = 1 / 0
    with pytest.raises(AwqdocError):
        _ = timer.elapsed_ms


def test_a_scope_prints_its_name_time_and_clock(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with profile_scope("attention", device="cpu") as timer:
        clock.now += 0.0015
    assert capsys.readouterr().out == "attention: 1.500 ms (time.perf_counter)\n"
    assert timer.elapsed_ms == pytest.approx(1.5)


def test_a_scope_stands_under_its_name_in_torchs_profiler(capsys: pytest.CaptureFixture[str]) -> None:
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as profiler, profile_scope("attention", device="cpu"):
        pass
    assert "attention" in {event.key for event in profiler.key_averages()}


def test_every_sample_is_kept_and_warming_up_is_not_one(clock: Clock) -> None:
    bench = Benchmarker(num_iterations=4, device="cpu")
    found = bench.benchmark_function(lambda: clock.work("f", 9.0, 9.0, 9.0, 1.0, 2.0, 3.0, 4.0), "f")
    assert found.seconds == (1.0, 2.0, 3.0, 4.0)
    assert found.summary.median == 2.5
    assert bench.results == [found]
    assert found.conditions == "time.perf_counter, caches as the call before left them"


def test_competitors_run_in_turn_in_changing_order(clock: Clock) -> None:
    names = "abc"
    Benchmarker(20, device="cpu").compare({name: lambda name=name: clock.work(name, 1.0) for name in names})
    timed = clock.log[9:]
    rounds = [tuple(timed[i : i + 3]) for i in range(0, 60, 3)]
    assert all(sorted(each) == list(names) for each in rounds)
    assert len(set(rounds)) >= 4


def test_results_are_printed_with_spread_conditions_and_doubts(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = Benchmarker(8, device="cpu")
    bench.compare({"steady": lambda: clock.work("s", 0.001), "restless": lambda: clock.work("r", *[0.001, 0.002] * 6)})
    bench.print_results()
    out = capsys.readouterr().out
    assert out.splitlines()[1] == "steady    1.0000     1.0000 .. 1.0000   1.0000 .. 1.0000    8"
    assert "1.0000 .. 2.0000" in out.splitlines()[2]
    assert "time.perf_counter, caches as the call before left them" in out
    assert "doubtful: restless: the middle half of the samples spans 67% of their median" in out
    assert "doubtful: steady" not in out


def test_few_samples_are_printed_without_an_interval(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    bench = Benchmarker(2, device="cpu")
    bench.benchmark_function(lambda: clock.work("f", 1.0), "f")
    bench.print_results()
    assert "too few" in capsys.readouterr().out


def test_nothing_measured_prints_a_heading(capsys: pytest.CaptureFixture[str]) -> None:
    Benchmarker(device="cpu").print_results()
    assert capsys.readouterr().out.startswith("name")


def test_no_iterations_and_a_graph_on_a_cpu_are_refused() -> None:
    with pytest.raises(AwqdocError, match="num_iterations must be 1 or more; found 0"):
        Benchmarker(0, device="cpu")
    with pytest.raises(AwqdocError, match="A CUDA graph needs a GPU"):
        Benchmarker(graph=True, device="cpu")


def test_a_gpu_that_torch_does_not_see_and_other_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(AwqdocError, match="'cuda' needs a GPU, and torch sees none"):
        Benchmarker(device="cuda")
    with pytest.raises(AwqdocError, match="must be 'cuda' or 'cpu'; found 'cuda:1'"):
        Benchmarker(device="cuda:1")


def test_a_measurement_doubts_what_its_states_say() -> None:
    states = ({"throttle_reasons": []}, {"throttle_reasons": ["hardware thermal slowdown"]})
    (doubt,) = Measurement("f", (1.0,) * 10, "a clock", states).doubts
    assert doubt == "the clock was held down (hardware thermal slowdown)"


# On a GPU.


@pytest.mark.gpu
def test_a_gpu_timer_agrees_with_a_spin_of_known_length() -> None:
    """The GPU spins for a number of its own cycles; twice as many take twice as long."""
    import torch

    times = []
    for cycles in (2_000_000, 4_000_000):
        torch.cuda._sleep(cycles)
        with CUDATimer() as timer:
            torch.cuda._sleep(cycles)
        assert timer.clock == "CUDA events"
        times.append(timer.elapsed_ms)
    assert 0.5 < times[0] < 4  # 1 ms at 2 GHz
    assert times[1] / times[0] == pytest.approx(2, rel=0.1)


@pytest.mark.gpu
@pytest.mark.parametrize("graph", [False, True])
def test_a_cold_cache_costs_a_read_of_a_small_weight_its_time(graph: bool) -> None:
    import torch

    from awqdoc.kernels.floors import read

    words = torch.zeros(1 << 22, dtype=torch.int32, device="cuda")  # 16 MB: warm in the L2 of any card since Ampere
    cold = Benchmarker(50, graph=graph).benchmark_function(lambda: read(words), "cold")
    warm = Benchmarker(50, graph=graph, cold=False).benchmark_function(lambda: read(words), "warm")
    assert "emptied before each" in cold.conditions
    assert "warm" in warm.conditions
    assert "graph" in cold.conditions or not graph
    assert all(state["sm_clock_mhz"] for state in cold.states)
    if graph:  # from Python the gap before the kernel may be longer than the kernel
        assert median(cold.seconds) > 1.2 * median(warm.seconds)


@pytest.mark.gpu
def test_the_read_floor_reads_every_word_and_takes_its_bytes_time() -> None:
    import torch

    from awqdoc.kernels.floors import read

    words = torch.randint(-(2**31), 2**31 - 1, (40_000_001,), dtype=torch.int32, device="cuda")
    assert int(read(words).sum(dtype=torch.int32)) == int(words.sum(dtype=torch.int32))
    (found,) = profiling.interleave({"read": [lambda: read(words)]}, "cuda").values()
    assert words.nbytes / median(found) < 9e12  # no card reads 160 MB faster: it has not been left out
