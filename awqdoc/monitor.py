"""`awqdoc monitor`: what a GPU is doing, shown live in a terminal, or written line by line for people or machines."""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple, Protocol

from awqdoc.gpu.monitor import METRICS, Probe, Sample, check, ticks

COLUMNS = ("time", "seconds", "gpu", *METRICS, "cost_s")
BARS = "▁▂▃▄▅▆▇█"
HISTORY = 60  # samples


class Shown(NamedTuple):
    """One value for people: its key in a sample, title, head of a column, unit, and what it is divided by for that."""

    key: str
    title: str
    head: str
    unit: str
    divisor: float = 1


SHOWN = (
    Shown("utilization_percent", "utilization", "util", "%"),
    Shown("memory_busy_percent", "memory busy", "busy", "%"),
    Shown("graphics_active_percent", "graphics activity", "graph", "%"),
    Shown("sm_active_percent", "SM activity", "SM", "%"),
    Shown("sm_occupancy_percent", "SM occupancy", "occup", "%"),
    Shown("tensor_active_percent", "tensor activity", "tensor", "%"),
    Shown("dram_bandwidth_percent", "DRAM bandwidth", "DRAM", "%"),
    Shown("memory_used_bytes", "memory used", "used", "GiB", 1 << 30),
    Shown("power_w", "power", "power", "W"),
    Shown("temperature_c", "temperature", "temp", "°C"),
    Shown("sm_clock_mhz", "SM clock", "SM clk", "MHz"),
    Shown("memory_clock_mhz", "memory clock", "mem clk", "MHz"),
    Shown("pcie_sent_bytes_per_s", "PCIe sent", "sent", "MB/s", 1e6),
    Shown("pcie_received_bytes_per_s", "PCIe received", "recvd", "MB/s", 1e6),
)
HELD_DOWN = "clocks held down by"


class Display(Protocol):
    """Shows samples, one at a time, as they come."""

    def show(self, probe: Probe, sample: Sample) -> None:
        """Show one more sample of a GPU."""


def main(options: argparse.Namespace) -> int:
    """Watch as the command line says; return exit code 0."""
    watch(options.seconds, options.interval, options.device or [0], options.form)
    return 0


def watch(
    seconds: float | None = None, interval: float = 1.0, devices: Sequence[int] = (0,), form: str | None = None
) -> None:
    """Show what GPUs are doing, and at the end how long a sample took on average.

    Parameters
    ----------
    seconds : float or None
        How long; None: until Ctrl-C, which raises KeyboardInterrupt after the last line.
    interval : float
        Seconds between two samples, 0.1 or more.
    devices : sequence of int
        Torch's numbers of the GPUs where torch sees any, else NVML's.
    form : str or None
        ``"csv"`` or ``"json"``: a line for each sample and nothing else on standard output. None: for people, live if
        standard output is a terminal.

    Raises
    ------
    AwqdocError
        If there is no driver or no such GPU, or if one goes away.
    """
    check(interval, seconds)
    with ExitStack() as opened:
        probes = [opened.enter_context(Probe(index)) for index in dict.fromkeys(devices)]
        display = _display(form, probes)
        try:
            for _ in ticks(interval, seconds, time.sleep):
                for probe in probes:
                    display.show(probe, probe.sample())
        finally:
            for probe in probes:
                print(_summary(probe), file=sys.stderr if form else sys.stdout)


def _summary(probe: Probe) -> str:
    if not probe.taken:
        return f"No sample of GPU {probe.index} was taken."
    return f"{probe.taken} samples of GPU {probe.index}; each took {1e3 * probe.spent / probe.taken:.2f} ms on average."


def _display(form: str | None, probes: Sequence[Probe]) -> Display:
    if form == "csv":
        return _Csv()
    if form == "json":
        return _Json()
    height = shutil.get_terminal_size().lines
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and len(probes) * (len(SHOWN) + 2) < height:
        return _Live(probes)
    return _Lines()


class _Telling:
    """Says once, on standard error, what a GPU does not tell."""

    def __init__(self) -> None:
        self._told: set[tuple[int, str]] = set()

    def tell(self, probe: Probe) -> None:
        new: dict[str, list[str]] = {}
        for key, reason in probe.lacking.items():
            if (probe.index, key) not in self._told:
                self._told.add((probe.index, key))
                new.setdefault(reason, []).append(key)
        for reason, keys in new.items():
            print(f"GPU {probe.index} does not tell {', '.join(keys)}: {reason}", file=sys.stderr, flush=True)


class _Json(_Telling):
    def show(self, probe: Probe, sample: Sample) -> None:
        print(json.dumps(sample), flush=True)
        self.tell(probe)


class _Csv(_Telling):
    def __init__(self) -> None:
        super().__init__()
        self._writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
        self._writer.writeheader()

    def show(self, probe: Probe, sample: Sample) -> None:
        reasons = sample["throttle_reasons"]
        self._writer.writerow({**sample, "throttle_reasons": None if reasons is None else "; ".join(reasons)})
        sys.stdout.flush()
        self.tell(probe)


class _Lines(_Telling):
    """A line for each sample, under a head."""

    def __init__(self) -> None:
        super().__init__()
        print("seconds  GPU" + "".join(f"{shown.head:>8}" for shown in SHOWN) + f"  {HELD_DOWN}")
        print("            " + "".join(f"{shown.unit:>8}" for shown in SHOWN), flush=True)

    def show(self, probe: Probe, sample: Sample) -> None:
        values = "".join(f"{_number(shown, sample):>8}" for shown in SHOWN)
        print(f"{sample['seconds']:7.1f}  {probe.index:>3}{values}  {_reasons(sample)}".rstrip(), flush=True)
        self.tell(probe)


class _Live:
    """A block for each GPU that stays where it is: the last value of everything, with its history."""

    def __init__(self, probes: Sequence[Probe]) -> None:
        self._probes = probes
        self._histories: dict[int, deque[Sample]] = {probe.index: deque(maxlen=HISTORY) for probe in probes}
        self._drawn = 0

    def show(self, probe: Probe, sample: Sample) -> None:
        self._histories[probe.index].append(sample)
        lines = [line for each in self._probes for line in _block(each, self._histories[each.index])]
        width = shutil.get_terminal_size().columns - 1
        back = f"\x1b[{self._drawn}A" if self._drawn else ""
        print(back + "".join(f"{line[:width]}\x1b[K\n" for line in lines), end="", flush=True)
        self._drawn = len(lines)


def _block(probe: Probe, history: Sequence[Sample]) -> list[str]:
    """Return as many lines for every GPU at any time."""
    last = history[-1] if history else {}
    lines = [f"GPU {probe.index}  {probe.name}  {last.get('seconds', 0):.1f} s"]
    for shown in SHOWN:
        value = probe.lacking.get(shown.key) if last.get(shown.key) is None else _sparkline(shown, history)
        lines.append(f"  {shown.title:<18} {_number(shown, last):>7} {shown.unit:<4}  {value or ''}")
    reasons = probe.lacking.get("throttle_reasons", "") if last.get("throttle_reasons") is None else _reasons(last)
    return [*lines, f"  {HELD_DOWN}: {reasons or 'nothing'}"]


def _number(shown: Shown, sample: Sample) -> str:
    value = sample.get(shown.key)
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) and shown.divisor == 1 else f"{value / shown.divisor:.1f}"


def _reasons(sample: Sample) -> str:
    return ", ".join(sample["throttle_reasons"] or ())


def _sparkline(shown: Shown, history: Sequence[Sample]) -> str:
    """Draw the history of a value as bars: shares of 100 %, all else against the largest in sight."""
    values = [sample[shown.key] for sample in history]
    full = 100 if shown.unit == "%" else max(value or 0 for value in values)
    return "".join(" " if value is None else BARS[min(7, int(8 * value / (full or 1)))] for value in values)
