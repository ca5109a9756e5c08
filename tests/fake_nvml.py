"""An NVML whose GPUs do what a test tells them to, under pynvml's own names and structures."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

GPM = {
    pynvml.NVML_GPM_METRIC_GRAPHICS_UTIL: 77.0,
    pynvml.NVML_GPM_METRIC_SM_UTIL: 70.5,
    pynvml.NVML_GPM_METRIC_SM_OCCUPANCY: 10.0,
    pynvml.NVML_GPM_METRIC_ANY_TENSOR_UTIL: 68.25,
    pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL: 12.0,
    pynvml.NVML_GPM_METRIC_PCIE_TX_PER_SEC: 2.0,  # MiB/s
    pynvml.NVML_GPM_METRIC_PCIE_RX_PER_SEC: 0.5,
}


def number_of(sample: Any) -> int:
    """Say which reading of the counters a sample holds: 1 is the first of all."""
    return int(ctypes.cast(sample, ctypes.POINTER(ctypes.c_long))[0])


def raises(code: int) -> Callable[..., Any]:
    """Return an NVML function that fails."""

    def function(*_: Any) -> Any:
        raise pynvml.NVMLError(code)

    return function


class FakeNvml:
    """GPUs of one kind; ``answers`` replaces one of the functions below, by name without its ``nvml``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, count: int = 1) -> None:
        self.count = count
        self.calls: Counter[str] = Counter()
        self.gpm: dict[int, Any] = dict(GPM)  # number of a metric -> value, or an error
        self._allocated: list[Any] = []
        self._monkeypatch = monkeypatch
        for name in [name for name in vars(FakeNvml) if name[0].isupper()]:
            self.answer(name, getattr(self, name))

    def answer(self, name: str, function: Callable[..., Any]) -> None:
        def counted(*arguments: Any) -> Any:
            self.calls[name] += 1
            return function(*arguments)

        self._monkeypatch.setattr(pynvml, f"nvml{name}", counted)

    def Init(self) -> None: ...

    def Shutdown(self) -> None: ...

    def DeviceGetCount(self) -> int:
        return self.count

    def DeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def DeviceGetName(self, handle: int) -> str:
        return f"NVIDIA Pretended {handle}"

    def DeviceGetUtilizationRates(self, handle: int) -> Any:
        return SimpleNamespace(gpu=100, memory=41)

    def DeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(used=3 << 30, free=77 << 30, total=80 << 30)

    def DeviceGetPowerUsage(self, handle: int) -> int:
        return 612_500 + handle  # mW

    def DeviceGetTemperature(self, handle: int, sensor: int) -> int:
        assert sensor == pynvml.NVML_TEMPERATURE_GPU
        return 48

    def DeviceGetClockInfo(self, handle: int, clock: int) -> int:
        return {pynvml.NVML_CLOCK_SM: 1755, pynvml.NVML_CLOCK_MEM: 2619}[clock]

    def DeviceGetCurrentClocksEventReasons(self, handle: int) -> int:
        return 0x24

    def DeviceGetPcieThroughput(self, handle: int, counter: int) -> int:
        return {pynvml.NVML_PCIE_UTIL_TX_BYTES: 7, pynvml.NVML_PCIE_UTIL_RX_BYTES: 8}[counter]  # KB/s

    def GpmQueryDeviceSupport(self, handle: int) -> Any:
        return SimpleNamespace(isSupportedDevice=1)

    def GpmSampleAlloc(self) -> Any:
        self._allocated.append(ctypes.c_long(0))
        return ctypes.cast(ctypes.byref(self._allocated[-1]), pynvml.c_nvmlGpmSample_t)

    def GpmSampleFree(self, sample: Any) -> None: ...

    def GpmSampleGet(self, handle: int, sample: Any) -> Any:
        ctypes.cast(sample, ctypes.POINTER(ctypes.c_long))[0] = self.calls["GpmSampleGet"]
        return sample

    def GpmMetricsGet(self, request: Any) -> Any:
        """As NVML: what lies between two samples, of which the second is the later one."""
        assert request.version == pynvml.NVML_GPM_METRICS_GET_VERSION
        assert 0 < number_of(request.sample1) < number_of(request.sample2) == self.calls["GpmSampleGet"]
        for metric in request.metrics[: request.numMetrics]:
            found = self.gpm[metric.metricId]
            failed = isinstance(found, pynvml.NVMLError)
            metric.nvmlReturn = found.value if failed else pynvml.NVML_SUCCESS
            metric.value = 0.0 if failed else found
        return request


class FakeTime:
    """A clock that only waiting, and what a test adds, moves on."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sleeps: list[float] = []

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds
