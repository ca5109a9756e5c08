"""NVIDIA's management library, through nvidia-ml-py: it needs a driver but neither torch nor CUDA."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pynvml

from awqdoc.errors import AwqdocError

# Bits of nvmlDeviceGetCurrentClocksEventReasons (nvml.h), once called throttle reasons.
CLOCK_EVENT_REASONS = {
    0x001: "idle",
    0x002: "application clocks",
    0x004: "software power cap",
    0x008: "hardware slowdown",
    0x010: "sync boost",
    0x020: "software thermal slowdown",
    0x040: "hardware thermal slowdown",
    0x080: "hardware power brake",
    0x100: "display clocks",
}


@contextmanager
def device(index: int = 0) -> Iterator[Any]:
    """Open NVML and yield the handle of one GPU: torch's device `index` where torch sees one, else NVML's.

    Raises
    ------
    AwqdocError
        If there is no NVIDIA driver or no such GPU.
    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise AwqdocError(
            f"An NVIDIA driver is needed to ask the GPU; NVML found none ({error}): install the driver, "
            "or set AWQDOC_MODE=recorded to see a recording."
        ) from None
    try:
        try:
            handle = _handle(index)
        except pynvml.NVMLError as error:
            count = pynvml.nvmlDeviceGetCount()
            raise AwqdocError(f"GPU {index} was asked for; NVML lists {count} ({error}).") from None
        yield handle
    finally:
        pynvml.nvmlShutdown()


def _handle(index: int) -> Any:
    # CUDA_VISIBLE_DEVICES renumbers torch's devices but not NVML's; the UUID names the same one in both.
    try:
        import torch

        if torch.cuda.is_available():
            uuid = torch.cuda.get_device_properties(index).uuid
            return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except (ImportError, AttributeError, AssertionError):
        pass
    return pynvml.nvmlDeviceGetHandleByIndex(index)


def ask(function: Callable[..., Any], *arguments: Any) -> Any | None:
    """Call an NVML function; None where this GPU or this user is not permitted or able to answer."""
    try:
        answer = function(*arguments)
    except pynvml.NVMLError:
        return None
    return answer.decode() if isinstance(answer, bytes) else answer


def driver_versions() -> dict[str, str | None]:
    """Return the version of the driver and of the newest CUDA that it supports; None for both without a driver."""
    try:
        with device():
            cuda = ask(pynvml.nvmlSystemGetCudaDriverVersion)
            return {
                "driver": ask(pynvml.nvmlSystemGetDriverVersion),
                "cuda": None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
            }
    except AwqdocError:
        return {"driver": None, "cuda": None}


def state(index: int = 0) -> dict[str, Any]:
    """Return clocks (MHz), power (W), temperature (degrees C) and clock-event reasons at this moment."""
    with device(index) as handle:
        power = ask(pynvml.nvmlDeviceGetPowerUsage, handle)
        reasons = ask(pynvml.nvmlDeviceGetCurrentClocksEventReasons, handle) or 0
        return {
            "sm_clock_mhz": ask(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM),
            "memory_clock_mhz": ask(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_MEM),
            "power_w": None if power is None else power / 1000,
            "temperature_c": ask(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
            "throttle_reasons": [name for bit, name in CLOCK_EVENT_REASONS.items() if reasons & bit],
        }
