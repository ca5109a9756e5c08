"""What a GPU is doing, sampled from beside: by NVML and, from Hopper on, by its performance metrics."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import pynvml

from awqdoc import nvml
from awqdoc.errors import AwqdocError
from awqdoc.gpu import gpm

SHORTEST_INTERVAL = 0.1  # seconds; the counters of GPM are refreshed no faster
# A GPU that answers so is not there any more, or not until somebody resets it.
GONE = (pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED)

Sample = dict[str, Any]


def _utilization(handle: Any) -> tuple[int, int]:
    rates = pynvml.nvmlDeviceGetUtilizationRates(handle)
    return rates.gpu, rates.memory


def _memory(handle: Any) -> tuple[int, int]:
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return memory.used, memory.total


def _power(handle: Any) -> tuple[float]:
    return (pynvml.nvmlDeviceGetPowerUsage(handle) / 1000,)


def _temperature(handle: Any) -> tuple[int]:
    return (pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),)


def _sm_clock(handle: Any) -> tuple[int]:
    return (pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),)


def _memory_clock(handle: Any) -> tuple[int]:
    return (pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM),)


def _throttle_reasons(handle: Any) -> tuple[list[str]]:
    bits = pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle)
    return ([name for bit, name in nvml.CLOCK_EVENT_REASONS.items() if bits & bit],)


def _pcie_sent(handle: Any) -> tuple[int]:
    return (1000 * pynvml.nvmlDeviceGetPcieThroughput(handle, pynvml.NVML_PCIE_UTIL_TX_BYTES),)


def _pcie_received(handle: Any) -> tuple[int]:
    return (1000 * pynvml.nvmlDeviceGetPcieThroughput(handle, pynvml.NVML_PCIE_UTIL_RX_BYTES),)


# What a question to NVML answers, and the question. It is asked if GPM has not answered already: to tell of PCIe, NVML
# counts for 20 ms while the caller waits.
QUESTIONS: dict[tuple[str, ...], Callable[[Any], tuple[Any, ...]]] = {
    ("utilization_percent", "memory_busy_percent"): _utilization,
    ("memory_used_bytes", "memory_total_bytes"): _memory,
    ("power_w",): _power,
    ("temperature_c",): _temperature,
    ("sm_clock_mhz",): _sm_clock,
    ("memory_clock_mhz",): _memory_clock,
    ("throttle_reasons",): _throttle_reasons,
    ("pcie_sent_bytes_per_s",): _pcie_sent,
    ("pcie_received_bytes_per_s",): _pcie_received,
}
METRICS = tuple(dict.fromkeys([*(key for keys in QUESTIONS for key in keys), *gpm.METRICS]))
"""The keys of a sample that a GPU may not answer; each ends with its unit."""


class Probe:
    """One GPU, open to be sampled, as a context manager.

    Parameters
    ----------
    index : int
        Torch's number of the GPU where torch sees one, else NVML's.

    Attributes
    ----------
    name : str
        Of the GPU.
    lacking : dict
        Key of `METRICS` -> why it was not answered, the first time that it was not.
    taken : int
        Number of samples.
    spent : float
        Seconds that they took, together.

    Raises
    ------
    AwqdocError
        If there is no NVIDIA driver or no such GPU.
    """

    def __init__(self, index: int = 0) -> None:
        self.index = index
        self.name = ""
        self.lacking: dict[str, str] = {}
        self.taken, self.spent = 0, 0.0

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            try:
                pynvml.nvmlInit()
            except pynvml.NVMLError as error:
                raise AwqdocError(
                    f"Watching a GPU needs an NVIDIA driver; NVML found none ({error}): do it on a machine with a GPU."
                ) from None
            opened.callback(pynvml.nvmlShutdown)
            count = pynvml.nvmlDeviceGetCount()
            if not 0 <= self.index < count:
                raise AwqdocError(f"There is no GPU {self.index} to watch; there are {count}, numbered from 0.")
            self._handle = opened.enter_context(nvml.device(self.index))
            self.name = nvml.ask(pynvml.nvmlDeviceGetName, self._handle) or "a GPU without a name"
            self._start = time.perf_counter()
            self._counters: gpm.Counters | None = None
            self._no_counters = ""
            try:
                self._counters = gpm.Counters(self._handle)
                opened.callback(self._counters.close)
            except pynvml.NVMLError as error:
                self._no_counters = self._still_there(error)
                if error.value == pynvml.NVML_ERROR_NOT_SUPPORTED:
                    self._no_counters += " (GPM metrics begin with Hopper, compute capability 9.0)"
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def sample(self) -> Sample:
        """Ask once.

        Returns
        -------
        dict
            ``time`` (UTC), ``seconds`` since the GPU was opened, ``gpu`` (its index), each of `METRICS` or None, and
            ``cost_s``, the seconds that asking took. What GPM and PCIe counted is a mean over the time since the last
            sample; utilization is one over a period of NVML's own, up to a second; the rest is of this moment, or
            what NVML takes for it.

        Raises
        ------
        AwqdocError
            If the GPU is gone.
        """
        begun = time.perf_counter()
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        found: Sample = {"time": now, "seconds": round(begun - self._start, 3), "gpu": self.index}
        found |= dict.fromkeys(METRICS)
        reasons = self._read_counters(found)
        for keys, question in QUESTIONS.items():
            if found[keys[0]] is None:
                try:
                    found |= zip(keys, question(self._handle), strict=True)
                except pynvml.NVMLError as error:
                    reasons |= dict.fromkeys(keys, self._still_there(error))
        for key in METRICS:
            if found[key] is None:
                self.lacking.setdefault(key, reasons[key])
        found["cost_s"] = round(time.perf_counter() - begun, 6)
        self.taken += 1
        self.spent += found["cost_s"]
        return found

    def _read_counters(self, found: Sample) -> dict[str, str]:
        """Add what GPM counted since the last sample; return why it did not count the rest."""
        if self._counters is None:
            return dict.fromkeys(gpm.METRICS, self._no_counters)
        try:
            answers = self._counters.read()
        except pynvml.NVMLError as error:
            return dict.fromkeys(gpm.METRICS, self._still_there(error))
        found |= {key: answer for key, answer in answers.items() if not isinstance(answer, Exception)}
        return {key: self._still_there(answer) for key, answer in answers.items() if isinstance(answer, Exception)}

    def _still_there(self, error: pynvml.NVMLError) -> str:
        """Return what an error says, unless it says that the GPU is gone."""
        if error.value in GONE:
            seconds = time.perf_counter() - self._start
            raise AwqdocError(
                f"GPU {self.index} went away after {seconds:.1f} s and {self.taken} samples ({error}): "
                "see with nvidia-smi whether it still answers."
            ) from None
        return str(error)


def check(interval: float, seconds: float | None = None) -> None:
    """Refuse an interval that is too short, or a time in which no sample would be taken."""
    if not SHORTEST_INTERVAL <= interval < math.inf:
        raise AwqdocError(
            f"The interval must be {SHORTEST_INTERVAL} s or more, for a GPU's counters are refreshed no faster; "
            f"found {interval:g} s."
        )
    if seconds is not None and not interval <= seconds < math.inf:
        raise AwqdocError(
            f"Watching a GPU must take at least one interval, {interval:g} s; found {seconds:g} s: "
            "watch longer or choose a shorter interval."
        )


def ticks(interval: float, seconds: float | None, wait: Callable[[float], object]) -> Iterator[None]:
    """Yield once every `interval` until `seconds` are over, or `wait` returns something true.

    They do not drift, and those that were missed are not made up for.
    """
    last = math.inf if seconds is None else math.floor(seconds / interval + 1e-9)
    start, number = time.perf_counter(), 1
    while number <= last:
        if wait(max(0.0, start + number * interval - time.perf_counter())):
            return
        yield
        number = max(number + 1, math.ceil((time.perf_counter() - start) / interval))


class Monitor:
    """Sample a GPU in a thread, while what is to be watched runs in a ``with`` block::

        with Monitor(interval=0.2) as monitor:
            work()
        monitor.samples[-1]["sm_active_percent"]

    Parameters
    ----------
    index : int
        Torch's number of the GPU where torch sees one, else NVML's.
    interval : float
        Seconds between two samples, 0.1 or more.

    Attributes
    ----------
    samples : list of dict
        So far, as `Probe.sample` returns them.
    probe : Probe
        Its ``lacking`` says what this GPU does not tell, and why.

    Raises
    ------
    AwqdocError
        If there is no driver or no such GPU; if the GPU has gone away meanwhile, at the end of the block. The samples
        from before are kept.
    """

    def __init__(self, index: int = 0, interval: float = 1.0) -> None:
        check(interval)
        self.samples: list[Sample] = []
        self.probe = Probe(index)
        self._interval = interval
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def cost_s(self) -> float | None:
        """Mean time that a sample took, seconds; None before the first."""
        return self.probe.spent / self.probe.taken if self.probe.taken else None

    def __enter__(self) -> Self:
        self.probe.__enter__()
        self._thread.start()
        return self

    def _run(self) -> None:
        try:
            for _ in ticks(self._interval, None, self._stop.wait):
                self.samples.append(self.probe.sample())
        except Exception as error:  # raised where the block ends: nobody would hear it here
            self._error = error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.probe.__exit__()
        if self._error is not None and kind is None:
            raise self._error
