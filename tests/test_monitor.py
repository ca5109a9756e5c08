"""Watching a GPU, with a driver that answers, refuses, or loses its GPU when we tell it to."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
import time
from collections.abc import Iterator
from typing import Any

import pynvml
import pytest
from fake_nvml import GPM, FakeNvml, FakeTime, number_of, raises

from awqdoc import monitor as command
from awqdoc.cli import main
from awqdoc.errors import AwqdocError
from awqdoc.gpu import monitor
from awqdoc.gpu.monitor import METRICS, Monitor, Probe

GPM_KEYS = [
    "graphics_active_percent", "sm_active_percent", "sm_occupancy_percent", "tensor_active_percent",
    "dram_bandwidth_percent",
]  # fmt: skip


@pytest.fixture(autouse=True)
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPUs of this machine are those of the pretended driver."""
    monkeypatch.setitem(sys.modules, "torch", None)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNvml]:
    fake = FakeNvml(monkeypatch)
    yield fake
    assert fake.calls["Init"] == fake.calls["Shutdown"], "NVML was left open"
    assert fake.calls["GpmSampleAlloc"] == fake.calls["GpmSampleFree"], "samples were left allocated"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime()
    monkeypatch.setattr(monitor, "time", fake)
    monkeypatch.setattr(command, "time", fake)
    return fake


def lost_at(call: int, code: int = pynvml.NVML_ERROR_GPU_IS_LOST) -> Any:
    """Return an answer for the power, in mW, that fails from its n-th call on."""
    calls = iter(range(1, 1000))

    def power(_: Any) -> int:
        if next(calls) >= call:
            raise pynvml.NVMLError(code)
        return 100_000

    return power


def json_samples(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


# One sample.


def test_a_sample_is_what_nvml_tells_in_the_units_that_its_keys_name(driver: FakeNvml) -> None:
    with Probe() as probe:
        sample = probe.sample()
    assert {key: sample[key] for key in METRICS} == {
        "utilization_percent": 100, "memory_busy_percent": 41,
        "memory_used_bytes": 3 << 30, "memory_total_bytes": 80 << 30,
        "power_w": 612.5, "temperature_c": 48, "sm_clock_mhz": 1755, "memory_clock_mhz": 2619,
        "throttle_reasons": ["software power cap", "software thermal slowdown"],
        "graphics_active_percent": 77.0, "sm_active_percent": 70.5, "sm_occupancy_percent": 10.0,
        "tensor_active_percent": 68.25, "dram_bandwidth_percent": 12.0,
        "pcie_sent_bytes_per_s": 2 << 20, "pcie_received_bytes_per_s": 1 << 19,
    }  # fmt: skip
    assert sample["gpu"] == 0
    assert 0 <= sample["cost_s"] < 1
    assert sample["time"].endswith("+00:00")
    assert (probe.name, probe.lacking) == ("NVIDIA Pretended 0", {})


def test_each_reading_of_the_counters_begins_where_the_one_before_ended(driver: FakeNvml) -> None:
    spans = []

    def spy(request: Any) -> Any:
        spans.append([number_of(request.sample1), number_of(request.sample2)])
        return driver.GpmMetricsGet(request)

    driver.answer("GpmMetricsGet", spy)
    with Probe() as probe:
        for _ in range(4):
            probe.sample()
    assert spans == [[1, 2], [2, 3], [3, 4], [4, 5]]


def test_pcie_is_not_waited_for_where_its_counters_can_be_read(driver: FakeNvml) -> None:
    with Probe() as probe:
        probe.sample()
    assert driver.calls["DeviceGetPcieThroughput"] == 0


def test_before_hopper_nvml_tells_of_pcie_and_the_rest_is_lacking_with_the_reason(driver: FakeNvml) -> None:
    driver.answer("GpmQueryDeviceSupport", lambda _: type("Support", (), {"isSupportedDevice": 0}))
    with Probe() as probe:
        sample = probe.sample()
    assert (sample["pcie_sent_bytes_per_s"], sample["pcie_received_bytes_per_s"]) == (7000, 8000)
    assert all(sample[key] is None for key in GPM_KEYS)
    reason = "Not Supported (GPM metrics begin with Hopper, compute capability 9.0)"
    assert probe.lacking == dict.fromkeys(GPM_KEYS, reason)


@pytest.mark.parametrize("function", ["GpmQueryDeviceSupport", "GpmSampleGet", "GpmMetricsGet"])
def test_counters_that_may_not_be_read_are_lacking_with_the_reason(function: str, driver: FakeNvml) -> None:
    driver.answer(function, raises(pynvml.NVML_ERROR_NO_PERMISSION))
    with Probe() as probe:
        sample = probe.sample()
    assert probe.lacking == dict.fromkeys(GPM_KEYS, "Insufficient Permissions")
    assert (sample["power_w"], sample["pcie_sent_bytes_per_s"]) == (612.5, 7000)


def test_a_single_counter_may_be_lacking(driver: FakeNvml) -> None:
    driver.gpm[pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL] = pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    driver.gpm[pynvml.NVML_GPM_METRIC_SM_UTIL] = math.nan
    with Probe() as probe:
        sample = probe.sample()
    assert sample["dram_bandwidth_percent"] is sample["sm_active_percent"] is None
    assert sample["tensor_active_percent"] == GPM[pynvml.NVML_GPM_METRIC_ANY_TENSOR_UTIL]
    assert probe.lacking["dram_bandwidth_percent"] == "Not Supported"
    assert set(probe.lacking) == {"dram_bandwidth_percent", "sm_active_percent"}


@pytest.mark.parametrize(
    ("function", "keys"),
    [
        ("DeviceGetUtilizationRates", {"utilization_percent", "memory_busy_percent"}),
        ("DeviceGetMemoryInfo", {"memory_used_bytes", "memory_total_bytes"}),
        ("DeviceGetPowerUsage", {"power_w"}),
        ("DeviceGetTemperature", {"temperature_c"}),
        ("DeviceGetClockInfo", {"sm_clock_mhz", "memory_clock_mhz"}),
        ("DeviceGetCurrentClocksEventReasons", {"throttle_reasons"}),
    ],
)
@pytest.mark.parametrize(
    ("code", "reason"),
    [(pynvml.NVML_ERROR_NO_PERMISSION, "Insufficient Permissions"), (pynvml.NVML_ERROR_NOT_SUPPORTED, "Not Supported")],
)
def test_what_is_not_permitted_or_not_supported_leaves_the_rest(
    function: str, keys: set[str], code: int, reason: str, driver: FakeNvml
) -> None:
    driver.answer(function, raises(code))
    with Probe() as probe:
        sample = probe.sample()
    assert {key for key in METRICS if sample[key] is None} == keys
    assert probe.lacking == dict.fromkeys(keys, reason)


def test_no_permission_may_end(driver: FakeNvml) -> None:
    driver.answer("DeviceGetPowerUsage", raises(pynvml.NVML_ERROR_NO_PERMISSION))
    with Probe() as probe:
        assert probe.sample()["power_w"] is None
        driver.answer("DeviceGetPowerUsage", lambda _: 5000)
        assert probe.sample()["power_w"] == 5.0


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED])
@pytest.mark.parametrize("function", ["DeviceGetUtilizationRates", "GpmSampleGet", "GpmMetricsGet"])
def test_a_gpu_that_goes_away_is_one_sentence(function: str, code: int, driver: FakeNvml, clock: FakeTime) -> None:
    with Probe() as probe:
        clock.sleep(2.5)
        probe.sample()
        driver.answer(function, raises(code))
        driver.answer("GpmSampleFree", raises(code))
        with pytest.raises(AwqdocError, match=r"^GPU 0 went away after 2\.5 s and 1 samples \(GPU .+\): see .+\.$"):
            probe.sample()


def test_a_gpu_that_goes_away_may_be_told_by_one_counter_alone(driver: FakeNvml) -> None:
    driver.gpm[pynvml.NVML_GPM_METRIC_SM_UTIL] = pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
    with Probe() as probe, pytest.raises(AwqdocError, match="went away"):
        probe.sample()


# When.


@pytest.mark.parametrize(
    ("arguments", "times"),
    [
        (["3"], [1, 2, 3]),
        (["1.9"], [1]),
        (["1", "--interval", "0.25"], [0.25, 0.5, 0.75, 1]),
        (["0.3", "--interval", "0.1"], [0.1, 0.2, 0.3]),
    ],
)
@pytest.mark.usefixtures("driver", "clock")
def test_it_samples_at_each_interval_until_the_time_is_over(
    arguments: list[str], times: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["monitor", *arguments, "--json"]) == 0
    assert [sample["seconds"] for sample in json_samples(capsys.readouterr().out)] == pytest.approx(times)


def test_samples_do_not_drift_and_late_ones_are_not_made_up_for(
    driver: FakeNvml, clock: FakeTime, capsys: pytest.CaptureFixture[str]
) -> None:
    costs = iter([0.3, 2.4, 0.3, 0.3])

    def slow(_: Any) -> int:
        clock.now += next(costs)
        return 1000

    driver.answer("DeviceGetPowerUsage", slow)
    assert main(["monitor", "6", "--json"]) == 0
    out, err = capsys.readouterr()
    assert [sample["seconds"] for sample in json_samples(out)] == pytest.approx([1, 2, 5, 6])
    assert [sample["cost_s"] for sample in json_samples(out)] == pytest.approx([0.3, 2.4, 0.3, 0.3])
    assert err.splitlines()[-1] == "4 samples of GPU 0; each took 825.00 ms on average."


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--interval", "0.05"], "must be 0.1 s or more, for a GPU's counters are refreshed no faster; found 0.05 s."),
        (["--interval", "0"], "found 0 s."),
        (["--interval", "nan"], "found nan s."),
        (["--interval", "inf"], "found inf s."),
        (["0"], "must take at least one interval, 1 s; found 0 s"),
        (["-5"], "found -5 s"),
        (["nan"], "found nan s"),
        (["inf"], "found inf s"),
        (["2", "--interval", "3"], "at least one interval, 3 s; found 2 s"),
        (["1", "--device", "1"], "There is no GPU 1 to watch; there are 1, numbered from 0."),
        (["1", "--device", "-1"], "There is no GPU -1 to watch"),
    ],
)
@pytest.mark.usefixtures("driver", "clock")
def test_what_cannot_be_watched_is_one_sentence(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["monitor", *arguments]) == 1
    out, err = capsys.readouterr()
    assert words in err
    assert out == ""
    assert err.startswith("awqdoc: ")
    assert err.count("\n") == 1


def test_without_a_driver_it_is_refused(driver: FakeNvml, capsys: pytest.CaptureFixture[str]) -> None:
    driver.answer("Init", raises(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))
    assert main(["monitor", "10"]) == 1
    assert capsys.readouterr() == (
        "",
        "awqdoc: Watching a GPU needs an NVIDIA driver; NVML found none (NVML Shared Library Not Found): "
        "do it on a machine with a GPU.\n",
    )
    driver.calls.clear()


# For machines.


def test_csv_is_a_head_and_a_line_for_each_sample(
    driver: FakeNvml, clock: FakeTime, capsys: pytest.CaptureFixture[str]
) -> None:
    driver.answer("DeviceGetPowerUsage", raises(pynvml.NVML_ERROR_NO_PERMISSION))
    assert main(["monitor", "2", "--csv"]) == 0
    out, err = capsys.readouterr()
    first, second = csv.DictReader(io.StringIO(out))
    assert list(first) == ["time", "seconds", "gpu", *METRICS, "cost_s"]
    assert (float(first["seconds"]), float(second["seconds"])) == (1, 2)
    assert float(second["tensor_active_percent"]) == 68.25
    assert second["throttle_reasons"] == "software power cap; software thermal slowdown"
    assert first["power_w"] == second["power_w"] == ""
    assert err.splitlines() == [
        "GPU 0 does not tell power_w: Insufficient Permissions",
        "2 samples of GPU 0; each took 0.00 ms on average.",
    ]


def test_json_is_an_object_on_each_line(driver: FakeNvml, clock: FakeTime, capsys: pytest.CaptureFixture[str]) -> None:
    driver.answer("GpmSampleGet", raises(pynvml.NVML_ERROR_NO_PERMISSION))
    assert main(["monitor", "2", "--json"]) == 0
    out, err = capsys.readouterr()
    first, second = json_samples(out)
    assert list(first) == list(second) == ["time", "seconds", "gpu", *METRICS, "cost_s"]
    assert second["throttle_reasons"] == ["software power cap", "software thermal slowdown"]
    assert second["sm_active_percent"] is None
    assert err.splitlines()[0] == f"GPU 0 does not tell {', '.join(GPM_KEYS)}: Insufficient Permissions"
    assert len(err.splitlines()) == 2


def test_several_gpus_are_watched_in_turn(
    driver: FakeNvml, clock: FakeTime, capsys: pytest.CaptureFixture[str]
) -> None:
    driver.count = 3
    assert main(["monitor", "2", "--json", "--device", "2", "--device", "0", "--device", "2"]) == 0
    out, err = capsys.readouterr()
    samples = json_samples(out)
    assert [sample["gpu"] for sample in samples] == [2, 0, 2, 0]
    assert [sample["power_w"] for sample in samples] == [612.502, 612.5, 612.502, 612.5]
    assert [line[:18] for line in err.splitlines()] == ["2 samples of GPU 2", "2 samples of GPU 0"]


@pytest.mark.parametrize("form", ["--csv", "--json"])
def test_a_gpu_that_goes_away_leaves_what_was_sampled(
    form: str, driver: FakeNvml, clock: FakeTime, capsys: pytest.CaptureFixture[str]
) -> None:
    driver.answer("DeviceGetPowerUsage", lost_at(3))
    assert main(["monitor", "10", form]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2 + (form == "--csv")
    assert err.splitlines()[0].startswith("2 samples of GPU 0")
    assert err.splitlines()[1] == (
        "awqdoc: GPU 0 went away after 3.0 s and 2 samples (GPU is lost): see with nvidia-smi whether it still answers."
    )


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_ctrl_c_ends_it_with_the_last_line_and_130(
    form: list[str], driver: FakeNvml, clock: FakeTime, capsys: pytest.CaptureFixture[str]
) -> None:
    def sleep(seconds: float) -> None:
        if clock.now >= 1002:
            raise KeyboardInterrupt
        clock.now += seconds

    clock.sleep = sleep  # type: ignore[method-assign]
    assert main(["monitor", *form]) == 130
    out, err = capsys.readouterr()
    assert (err if form else out).splitlines()[-1].startswith("2 samples of GPU 0; each took")
    assert "Traceback" not in err


@pytest.mark.usefixtures("driver")
def test_ctrl_c_before_the_first_sample(clock: FakeTime, capsys: pytest.CaptureFixture[str]) -> None:
    def sleep(_: float) -> None:
        raise KeyboardInterrupt

    clock.sleep = sleep  # type: ignore[method-assign]
    assert main(["monitor", "--json"]) == 130
    assert capsys.readouterr() == ("", "No sample of GPU 0 was taken.\n")


# For people.


def test_where_there_is_no_terminal_people_get_plain_lines(
    driver: FakeNvml, clock: FakeTime, capsys: pytest.CaptureFixture[str]
) -> None:
    driver.answer("DeviceGetTemperature", raises(pynvml.NVML_ERROR_NOT_SUPPORTED))
    assert main(["monitor", "2"]) == 0
    out, err = capsys.readouterr()
    head, units, _, second, summary = out.splitlines()
    assert "\x1b" not in out
    titles = head.replace(" clk", "_clk").split()
    shown = dict(zip(titles, second.split(), strict=False))
    assert shown["seconds"] == "2.0"
    assert (shown["util"], shown["SM"], shown["tensor"]) == ("100", "70.5", "68.2")
    assert (shown["used"], shown["power"], shown["temp"], shown["sent"]) == ("3.0", "612.5", "-", "2.1")
    assert second.endswith("  software power cap, software thermal slowdown")
    assert units.split()[-6:] == ["W", "°C", "MHz", "MHz", "MB/s", "MB/s"]
    assert summary.startswith("2 samples of GPU 0")
    assert err == "GPU 0 does not tell temperature_c: Not Supported\n"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A screen of 100 x 40."""
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda _: True)
    for name, value in {"COLUMNS": "100", "LINES": "40", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)


def screen(out: str) -> list[str]:
    """What stands on a terminal after it has obeyed the two sequences that we send it."""
    lines: list[str] = []
    row = 0
    for piece in out.splitlines():
        if piece.startswith("\x1b[") and "A" in piece[:6]:
            up, piece = piece[2:].split("A", 1)
            row -= int(up)
        lines[row : row + 1] = [piece.removesuffix("\x1b[K")]
        row += 1
    return lines


@pytest.mark.usefixtures("terminal")
def test_a_terminal_shows_one_block_with_the_history(
    driver: FakeNvml, clock: FakeTime, capsys: pytest.CaptureFixture[str]
) -> None:
    activity = iter([0.0, 50.0, 100.0])

    def moving(request: Any) -> Any:
        driver.gpm[pynvml.NVML_GPM_METRIC_SM_UTIL] = next(activity)
        return driver.GpmMetricsGet(request)

    powers = iter([100_000, 400_000, 200_000])
    driver.answer("GpmMetricsGet", moving)
    driver.answer("DeviceGetPowerUsage", lambda _: next(powers))
    driver.answer("DeviceGetTemperature", raises(pynvml.NVML_ERROR_NO_PERMISSION))
    assert main(["monitor", "3"]) == 0
    lines = screen(capsys.readouterr().out)
    assert lines[0] == "GPU 0  NVIDIA Pretended 0  3.0 s"
    rows = {line[2:20].strip(): line[20:] for line in lines}
    assert rows["SM activity"].split() == ["100.0", "%", "▁▅█"]
    assert rows["utilization"].split() == ["100", "%", "███"]
    assert rows["power"].split() == ["200.0", "W", "▃█▅"]
    assert rows["temperature"].split() == ["-", "°C", "Insufficient", "Permissions"]
    assert lines[-2] == "  clocks held down by: software power cap, software thermal slowdown"
    assert lines[-1].startswith("3 samples of GPU 0")
    assert len(lines) == len(command.SHOWN) + 3


@pytest.mark.usefixtures("terminal", "clock")
def test_a_terminal_shows_several_gpus_one_below_the_other(
    driver: FakeNvml, capsys: pytest.CaptureFixture[str]
) -> None:
    driver.count = 2
    driver.answer("DeviceGetTemperature", lambda handle, _: 40 + handle)
    assert main(["monitor", "2", "--device", "0", "--device", "1"]) == 0
    lines = screen(capsys.readouterr().out)
    assert [line for line in lines if line.startswith("GPU")] == [
        "GPU 0  NVIDIA Pretended 0  2.0 s", "GPU 1  NVIDIA Pretended 1  2.0 s",
    ]  # fmt: skip
    assert [line.split()[1] for line in lines if "temperature" in line] == ["40", "41"]
    assert len(lines) == 2 * (len(command.SHOWN) + 2) + 2


@pytest.mark.parametrize(("variable", "value"), [("LINES", "10"), ("TERM", "dumb")])
@pytest.mark.usefixtures("terminal", "driver", "clock")
def test_a_terminal_that_cannot_hold_a_block_gets_lines(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, value)
    assert main(["monitor", "2"]) == 0
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.usefixtures("terminal", "driver", "clock")
def test_no_line_is_wider_than_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    assert main(["monitor", "3"]) == 0
    assert max(map(len, screen(capsys.readouterr().out)[:-1])) == 29


# In a thread.


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No counters have to be refreshed: a thread need not wait for them."""
    monkeypatch.setattr(monitor, "SHORTEST_INTERVAL", 0.001)


def wait_for(monitor: Monitor, samples: int) -> None:
    until = time.monotonic() + 10
    while len(monitor.samples) < samples and time.monotonic() < until:
        time.sleep(0.001)


@pytest.mark.usefixtures("driver", "quick")
def test_a_block_is_watched_from_a_thread() -> None:
    with Monitor(interval=0.001) as watched:
        assert watched.cost_s is None or watched.samples
        wait_for(watched, 3)
    taken = len(watched.samples)
    assert taken >= 3
    assert watched.samples[-1]["power_w"] == 612.5
    assert watched.cost_s == pytest.approx(sum(sample["cost_s"] for sample in watched.samples) / taken)
    time.sleep(0.005)
    assert len(watched.samples) == taken, "it goes on after the block"


@pytest.mark.usefixtures("driver")
def test_the_end_of_a_block_does_not_wait_for_the_next_sample() -> None:
    start = time.monotonic()
    with Monitor(interval=60) as watched:
        pass
    assert time.monotonic() - start < 5
    assert watched.samples == []
    assert watched.cost_s is None


@pytest.mark.usefixtures("quick")
def test_a_gpu_that_goes_away_ends_the_block_with_a_sentence_and_leaves_the_samples(driver: FakeNvml) -> None:
    driver.answer("DeviceGetPowerUsage", lost_at(3))
    with pytest.raises(AwqdocError, match="GPU 0 went away"), Monitor(interval=0.001) as watched:
        watched._thread.join(10)
    assert len(watched.samples) == 2


@pytest.mark.usefixtures("quick")
def test_an_error_of_the_block_is_not_hidden_by_one_of_the_monitor(driver: FakeNvml) -> None:
    driver.answer("DeviceGetPowerUsage", lost_at(1))
    with pytest.raises(ZeroDivisionError), Monitor(interval=0.001) as watched:
        _ = watched._thread.join(10) or 1 / 0


@pytest.mark.usefixtures("driver")
def test_a_monitor_of_no_gpu_or_of_no_interval_is_refused() -> None:
    with pytest.raises(AwqdocError, match=r"must be 0\.1 s or more"):
        Monitor(interval=0.01)
    with pytest.raises(AwqdocError, match="There is no GPU 1"), Monitor(1):
        pass
