"""The experiment ``xray``: its rows, and what they say of each kernel as tables; every value names its source."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

from awqdoc.gpu.counters import STALL
from awqdoc.gpu.diagnosis import OTHERS, Report, Value, diagnose, warp_spans
from awqdoc.gpu.footprints import SHAPE
from awqdoc.recordings import Recording, Row
from awqdoc.visualization.measured_hierarchy import measured_levels
from awqdoc.visualization.style import si
from awqdoc.visualization.tables import Table

NAMES = {"cuda_overlapped": "step 8", "cuda_pipeline": "step 4", "fp16": "FP16, cuBLAS"}


def xray_rows(recording: Recording, kernel: str, m: int, what: str | None = None) -> list[Row]:
    """Return the rows of a kernel at a batch size, of one kind or of all."""
    rows = [row for row in recording.rows if row["kernel"] == kernel and row["m"] == m]
    return [row for row in rows if what is None or row["what"] == what]


def xray_counter(recording: Recording, kernel: str, m: int, metric: str) -> float | None:
    """Return the value of one of Nsight Compute's metrics, or None if it gave none."""
    found = [row["value"] for row in xray_rows(recording, kernel, m, "counter") if row["metric"] == metric]
    return found[0] if found else None


def xray_report(recording: Recording, kernel: str, m: int, hierarchy: Recording | None = None) -> Report:
    """Diagnose a kernel; the limit of bandwidth is what `hierarchy` measured, if it is of the same GPU."""
    gpu, limit = recording.provenance["gpu"], None
    if hierarchy is not None and hierarchy.provenance["gpu"] == gpu:
        memory = next(level for level in measured_levels(hierarchy) if level.name == "memory")
        limit = Value(memory.bandwidth, "B/s", "the experiment hierarchy, on this GPU")
    return diagnose(xray_rows(recording, kernel, m), gpu, SHAPE, 16 if kernel == "fp16" else 4, limit)


def kernels_with(recording: Recording, what: str) -> list[str]:
    """Return the kernels that have rows of a kind."""
    has = {row["kernel"] for row in recording.rows if row["what"] == what}
    return [kernel for kernel in recording.parameters["kernel"] if kernel in has]


def xray_launch_table(recording: Recording, m: int, hierarchy: Recording | None = None) -> Table:
    """Tabulate how each kernel was launched, its occupancy by formula and by counter, and when its blocks ran."""
    kernels = kernels_with(recording, "cost")
    launches = [xray_rows(recording, kernel, m, "launch")[0] for kernel in kernels]
    reports = [xray_report(recording, kernel, m, hierarchy) for kernel in kernels]
    asked = {
        "kernel": [row["kernel_name"] for row in launches],
        "grid; block": [f"{'x'.join(map(str, row['grid']))}; {row['block']}" for row in launches],
        "registers of a thread": [row["registers"] for row in launches],
        "shared bytes of a block": [(row["shared_static"] or 0) + (row["shared_dynamic"] or 0) for row in launches],
    }
    source = ", ".join(dict.fromkeys(row["source"] for row in launches))
    rows: list[list[Any]] = [[fact, *values, source] for fact, values in asked.items()]
    names = (
        "blocks per SM", "waves", "theoretical occupancy", "achieved occupancy", "SMs with a block", "ramp", "tail",
        "idle SM time", "cost of the marks",
    )  # fmt: skip
    rows += _value_rows(reports, names)
    return Table(["fact", *(NAMES[kernel] for kernel in kernels), "source"], rows, recording, f"{SHAPE}, M = {m}")


def _value_rows(reports: Sequence[Report], names: Iterable[str]) -> list[list[str]]:
    rows = []
    for name in names:
        values = [report.values.get(name) for report in reports]
        sources = dict.fromkeys(value.source for value in values if value)
        if sources:
            rows.append([name, *("–" if value is None else _shown(value) for value in values), "; ".join(sources)])
    return rows


def _shown(value: Value) -> str:
    """Write a value of a report: shares in %, counts as they are, the rest with unit and prefix."""
    if value.unit == "ns":
        return f"{value.value / 1000:.2f} µs"
    if value.unit == "s":
        return f"{1e6 * value.value:.1f} µs"
    if value.unit == "":
        return f"{value.value:.1%}" if isinstance(value.value, float) else str(value.value)
    return f"{value.value:.1f}" if value.unit == "sectors" else si(value.value, value.unit)


def report_table(recording: Recording, m: int, hierarchy: Recording | None = None) -> Table:
    """Tabulate throughput, share of the limits, phases and counters of each kernel, each with its source."""
    kernels = kernels_with(recording, "cost")
    reports = [xray_report(recording, kernel, m, hierarchy) for kernel in kernels]
    launch = ("blocks per SM", "waves", "theoretical occupancy", "achieved occupancy", "SMs with a block", "ramp")
    left_out = {*launch, "tail", "idle SM time", "cost of the marks", "limit of bandwidth", "span", "FLOP", "bytes"}
    names = dict.fromkeys(name for report in reports for name in report.values if name not in left_out)
    rows = _value_rows(reports, names)
    held = [report.stalls[0] if report.stalls else None for report in reports]
    if any(held):
        cells = ["–" if stall is None else f"{stall[0]}, {stall[1].value:.1f} warps" for stall in held]
        rows.append(["most held by", *cells, STALL.format("…")])
    limits = [report.values["limit of bandwidth"] for report in reports if "limit of bandwidth" in report.values]
    title = f"{SHAPE}, M = {m}" + (f"; bandwidth of {si(limits[0].value, 'B/s')}: {limits[0].source}" if limits else "")
    return Table(["value", *(NAMES[kernel] for kernel in kernels), "source"], rows, recording, title)


def bottleneck_table(recording: Recording, hierarchy: Recording | None = None) -> Table:
    """Say of each kernel and batch size what limits it, by which rule of `awqdoc.gpu.diagnosis`, and what to change."""
    rows = []
    for m in recording.parameters["m"]:
        for kernel in kernels_with(recording, "cost"):
            case = xray_report(recording, kernel, m, hierarchy).bottleneck
            rows.append([f"{NAMES[kernel]}, M = {m}", f"{case.name}: {case.rule}. {case.change}"])
    return Table(["kernel", "bottleneck, its rule, and what to change"], rows, recording, "The first rule that holds")


def turn_ns(recording: Recording, kernel: str, m: int) -> float:
    """Return the median time from one arrival of data to the next that a multiplying warp sees, in ns."""
    steps = []
    for spans in warp_spans(xray_rows(recording, kernel, m)).values():
        arrivals = [begin for phase, (begin, _) in spans if phase in (1, OTHERS)]
        steps += [later - earlier for earlier, later in pairwise(arrivals)]
    return median(steps)
