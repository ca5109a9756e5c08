"""NVML's GPU performance metrics (GPM), from Hopper on: what the hardware counted between two readings."""

from __future__ import annotations

import math
from typing import Any

import pynvml

from awqdoc.nvml import ask

# Key of a sample -> NVML's number of the metric, and what its value is multiplied by for the unit that the key names.
METRICS = {
    "graphics_active_percent": (pynvml.NVML_GPM_METRIC_GRAPHICS_UTIL, 1),
    "sm_active_percent": (pynvml.NVML_GPM_METRIC_SM_UTIL, 1),
    "sm_occupancy_percent": (pynvml.NVML_GPM_METRIC_SM_OCCUPANCY, 1),
    "tensor_active_percent": (pynvml.NVML_GPM_METRIC_ANY_TENSOR_UTIL, 1),
    "dram_bandwidth_percent": (pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL, 1),
    "pcie_sent_bytes_per_s": (pynvml.NVML_GPM_METRIC_PCIE_TX_PER_SEC, 1 << 20),
    "pcie_received_bytes_per_s": (pynvml.NVML_GPM_METRIC_PCIE_RX_PER_SEC, 1 << 20),
}


class Counters:
    """The counters of one GPU, while NVML is open: each `read` tells what happened since the one before.

    Two readings should be more than 0.1 s apart: NVML refreshes what it reads no faster (NVML's reference,
    ``nvmlGpmMetricsGet``). Where a GPU has no such counters, or this user may not read them, pynvml's error is raised.
    """

    def __init__(self, handle: Any) -> None:
        if not pynvml.nvmlGpmQueryDeviceSupport(handle).isSupportedDevice:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        self._handle = handle
        self._before, self._now = (pynvml.nvmlGpmSampleAlloc() for _ in range(2))
        try:
            pynvml.nvmlGpmSampleGet(handle, self._before)
        except pynvml.NVMLError:
            self.close()
            raise

    def read(self) -> dict[str, float | Exception]:
        """Return the value of each of `METRICS`, or pynvml's error in its place."""
        pynvml.nvmlGpmSampleGet(self._handle, self._now)
        request = pynvml.c_nvmlGpmMetricsGet_t()
        request.version = pynvml.NVML_GPM_METRICS_GET_VERSION
        request.numMetrics = len(METRICS)
        request.sample1, request.sample2 = self._before, self._now
        for place, (number, _) in enumerate(METRICS.values()):
            request.metrics[place].metricId = number
        pynvml.nvmlGpmMetricsGet(request)
        self._before, self._now = self._now, self._before
        return {key: _value(request.metrics[place], factor) for place, (key, (_, factor)) in enumerate(METRICS.items())}

    def close(self) -> None:
        """Give back what NVML has allocated; a GPU that is lost may have done so itself."""
        for sample in (self._before, self._now):
            ask(pynvml.nvmlGpmSampleFree, sample)


def _value(metric: Any, factor: int) -> float | Exception:
    code = metric.nvmlReturn
    if code == pynvml.NVML_SUCCESS and not math.isfinite(metric.value):  # two readings within one refresh
        code = pynvml.NVML_ERROR_NO_DATA
    if code != pynvml.NVML_SUCCESS:
        error: Exception = pynvml.NVMLError(code)
        return error
    return float(round(metric.value * factor, 3))
