"""The experiment ``monitoring``, with a pretended driver and without a GPU."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch
from fake_nvml import FakeNvml, FakeTime, raises

from awqdoc import gpu
from awqdoc.errors import AwqdocError
from awqdoc.experiments import monitoring
from awqdoc.gpu import monitor
from awqdoc.gpu.monitor import METRICS

IDLE, THREAD, INT4, MATMUL = monitoring.AXES["work"]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    monkeypatch.setattr("awqdoc.nvml._handle", lambda index: index)
    monkeypatch.setattr(monitor, "SHORTEST_INTERVAL", 0.001)
    monkeypatch.setattr(monitoring, "INTERVAL", 0.002)
    monkeypatch.setattr(monitoring, "PAUSE", 0.0)
    monkeypatch.setattr(monitoring, "SECONDS", 0.02)
    return FakeNvml(monkeypatch)


@pytest.fixture
def done(driver: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What was done, on a Hopper that does it at once."""
    done: list[Any] = []

    def keep_busy(replay: Any, seconds: float) -> list[float]:
        done.append(replay)
        time.sleep(seconds)
        return [float(done.count(replay))] * 3

    monkeypatch.setattr(gpu, "capability", lambda _: (9, 0))
    monkeypatch.setattr("awqdoc.kernels.table._has_cuda_core", lambda: True)
    monkeypatch.setattr(monitoring, "captured", lambda calls: f"graph of {len(calls)}")
    monkeypatch.setattr(monitoring, "_calls", lambda work, _: [lambda: done.append(work)] * 2)
    monkeypatch.setattr(monitoring, "_keep_busy", keep_busy)
    return done


def test_published_works_are_accepted_and_others_refused() -> None:
    for work in monitoring.AXES["work"]:
        monitoring.check(work)
    with pytest.raises(AwqdocError, match=r"The work must be one of idle, one thread, .*; found 'sleep'"):
        monitoring.check("sleep")


@pytest.mark.parametrize("work", [THREAD, INT4, MATMUL])
def test_a_work_is_done_before_while_and_after_it_is_watched(work: str, done: list[Any]) -> None:
    rows = monitoring.run("cuda", work)
    assert done == [work, work, *["graph of 2"] * 3]
    ways = {row["way"]: row for row in rows if "way" in row}
    assert {way: row["seconds"] for way, row in ways.items()} == {
        "before": [1.0] * 3, "watched": [2.0] * 3, "after": [3.0] * 3,
    }  # fmt: skip
    assert {row["calls"] for row in ways.values()} == {2}


@pytest.mark.parametrize("work", [IDLE, MATMUL])
def test_a_row_for_each_sample(work: str, done: list[Any]) -> None:
    samples = [row for row in monitoring.run("cuda", work) if "at_s" in row]
    assert len(samples) >= 2
    assert all(set(row) == {"at_s", *METRICS, "cost_s"} for row in samples)
    assert samples[0]["sm_active_percent"] == 70.5
    assert [row["at_s"] for row in samples] == sorted(row["at_s"] for row in samples)


def test_idling_does_nothing(done: list[Any]) -> None:
    assert all("at_s" in row for row in monitoring.run("cuda", IDLE))
    assert done == []


def test_what_the_gpu_does_not_tell_is_a_row_with_the_reason(driver: FakeNvml, done: list[Any]) -> None:
    driver.answer("DeviceGetPowerUsage", raises(pynvml.NVML_ERROR_NO_PERMISSION))
    rows = monitoring.run("cuda", IDLE)
    assert [row for row in rows if "lacking" in row] == [{"lacking": "power_w", "reason": "Insufficient Permissions"}]
    assert rows[0]["power_w"] is None


def test_a_gpu_without_our_top_step_skips_it_with_the_reason(done: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "capability", lambda _: (8, 0))
    assert monitoring.run("cuda", INT4) == [{"skipped": "it needs compute capability 9.0; this GPU has 8.0"}]
    assert done == []


def test_every_call_of_the_top_step_has_a_copy_of_its_weight_but_the_same_workspace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    board = torch.zeros(4)
    kernel = SimpleNamespace(prepare=lambda _: {"records": torch.ones(1 << 20), "board": board}, matmul=object)
    monkeypatch.setattr(monitoring, "adapter", lambda _: kernel)
    monkeypatch.setattr(monitoring.works, "random_weight", lambda *_: None)
    monkeypatch.setattr(monitoring.works, "activations", lambda *_: None)
    monkeypatch.setattr(gpu, "l2_bytes", lambda _: 1 << 20)
    calls = monitoring._calls(INT4, "cuda")
    assert len(calls) == monitoring.INT4_CALLS
    given = [call.args[1] for call in calls]  # type: ignore[attr-defined]
    assert {prepared["board"].data_ptr() for prepared in given} == {board.data_ptr()}
    pointers = [prepared["records"].data_ptr() for prepared in given]
    # 8 times the L2 cache of 1 MiB is two further copies of 4 MiB.
    assert len(set(pointers)) == 3
    assert pointers[:3] == pointers[3:6]


def test_one_thread_spins_and_products_are_products(monkeypatch: pytest.MonkeyPatch) -> None:
    (call,) = monitoring._calls(THREAD, "cuda")
    assert call.func is torch.cuda._sleep  # type: ignore[attr-defined]
    monkeypatch.setattr(monitoring.works, "calls", lambda work, device: [f"{work} on {device}"])
    assert monitoring._calls(MATMUL, "cuda") == ["matmul on cuda"] * monitoring.PRODUCTS


class FakeGpu:
    """Runs replays of 10 ms one after the other; the host waits only where it synchronizes."""

    def __init__(self, clock: FakeTime) -> None:
        self.clock = clock
        self.free = clock.now
        self.waiting: list[int] = []
        self.replays = 0

    def replay(self) -> None:
        self.free = max(self.free, self.clock.now) + 0.01
        self.replays += 1
        self.waiting.append(round((self.free - self.clock.now) / 0.01))

    def event(self, **_: Any) -> Any:
        gpu = self

        class Event:
            def record(self) -> None:
                self.at = max(gpu.free, gpu.clock.now)

            def synchronize(self) -> None:
                gpu.clock.now = max(gpu.clock.now, self.at)

            def elapsed_time(self, other: Any) -> float:
                return 1000 * float(other.at - self.at)

        return Event()


def test_the_gpu_is_never_without_work_and_the_host_never_far_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeTime()
    fake = FakeGpu(clock)
    monkeypatch.setattr(monitoring, "time", clock)
    monkeypatch.setattr(torch.cuda, "Event", fake.event)
    seconds = monitoring._keep_busy(fake.replay, 1.0)
    assert seconds == pytest.approx([0.01] * fake.replays)
    assert fake.waiting[1:] == [2] * (fake.replays - 1)
    assert fake.free - 1000 == pytest.approx(clock.now - 1000) == pytest.approx(1.0, abs=0.03)
