"""The report of an X-ray: what rows of the experiment ``xray`` say, what limits the kernel, and what to change.

Every value names the counter, clock or API call that it came from, or says that it is modelled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median
from typing import Any

from awqdoc.errors import AwqdocError
from awqdoc.formats import Problem
from awqdoc.gpu import occupancy
from awqdoc.gpu.counters import REASONS, STALL
from awqdoc.gpu.datasheets import DATA_SHEETS

Row = Mapping[str, Any]
Span = tuple[float, float]
# Marks of awqdoc.gpu.xray.PHASES; after 1 to 3 a warp dequantizes and multiplies.
LOAD, ARRIVED, WAIT, WORK = 0, 1, 6, (1, 2, 3)
# A phase that has no mark of its own. In pipeline.cu a barrier of all warps stands before mark 1, and the clock is read
# before it lets go (BAR.SYNC.DEFER_BLOCKING): there what follows mark 1 is the wait for the other warps.
OTHERS, WITH_BARRIER = 8, "pipeline"
MODELLED = "modelled"
EVENTS = "CUDA events around a graph replay, median"
CLOCK = "clock64, aligned by globaltimer"
MARKS = "clock64 at the marks"


@dataclass(frozen=True)
class Value:
    """One value of the report, its unit, and its source."""

    value: float
    unit: str
    source: str


@dataclass(frozen=True)
class Case:
    """A bottleneck: its name, the rule that decides it, and what to change."""

    name: str
    rule: str
    change: str
    holds: Callable[[Mapping[str, Value]], bool]


def _at_least(name: str, share: float) -> Callable[[Mapping[str, Value]], bool]:
    return lambda values: name in values and values[name].value >= share


# The first that holds is the bottleneck.
CASES = (
    Case(
        "memory bandwidth", "the bytes that must be moved, over the time, are 70 % of the memory's bandwidth or more",
        "Move fewer bytes: only a smaller format, or more tokens for the same weight, can help.",
        _at_least("share of bandwidth", 0.70),
    ),
    Case(
        "tensor cores", "the tensor pipes are active in 60 % of all cycles or more",
        "Use the instruction with the highest rate, and tiles without empty columns; memory is not what it waits for.",
        _at_least("tensor pipes active", 0.60),
    ),
    Case(
        "issue slots", "warps issue an instruction in 60 % of the cycles or more",
        "Issue fewer instructions for each weight: cheaper dequantization, wider loads, fewer address computations.",
        _at_least("issue slots used", 0.60),
    ),
    Case(
        "idle SMs", "ramp, tail and gaps leave the SMs without a block for 20 % of the time or more",
        "Cut the work into equal parts, one for each SM, and let the next launch begin before this one has ended.",
        _at_least("idle SM time", 0.20),
    ),
    Case(
        "latency of memory", "chosen warps wait for data for 40 % of their time or more, and no rule above holds",
        "Have more bytes on their way: more stages in the ring, or more blocks on an SM.",
        _at_least("waiting", 0.40),
    ),
    Case(
        "issuing of loads", "warps that multiply start loads for 40 % of their time or more, and no rule above holds",
        "Let one thread fetch whole records by bulk copies, and the others only multiply.",
        _at_least("issuing loads", 0.40),
    ),
    Case(
        "latency of instructions", "chosen warps work for 40 % of their time or more, and no rule above holds",
        "Give each scheduler more warps that are ready, or each warp more independent instructions.",
        _at_least("working", 0.40),
    ),
    Case(
        "not decided", "no rule holds with what could be measured here",
        "Measure where the counters may be read.", lambda values: True,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Report:
    """What a cell's rows say.

    Attributes
    ----------
    values : dict of Value
        By name; what could not be measured is left out.
    stalls : list of (str, Value)
        Why warps issued nothing: reason, mean number of warps held by it for each cycle that issues; most first.
    phases : dict
        Phase number, or `OTHERS` -> share of the chosen warps' time, from 0 to 1; without those that only load.
    loading : dict
        The same of the warps that issue loads and do nothing else.
    bottleneck : Case
        What limits the kernel.
    """

    values: dict[str, Value]
    stalls: list[tuple[str, Value]]
    phases: dict[int, float]
    loading: dict[int, float]
    bottleneck: Case


def diagnose(rows: Sequence[Row], gpu: str, shape: str, bits: int, bandwidth: Value | None = None) -> Report:
    """Make the report of one kernel at one batch size.

    Parameters
    ----------
    rows : list of dict
        Of one cell of the experiment ``xray``.
    gpu : str
        The GPU's name as the driver gives it: ``NVIDIA H200``.
    shape : str
        ``28672x4096``, N x K.
    bits : int
        Bits of a weight that the kernel reads: 16 or 4.
    bandwidth : Value or None
        Bytes per second that the memory can give, with its source; None: the data sheet's.

    Raises
    ------
    AwqdocError
        If the rows hold no time of the plain kernel.
    """
    plain = [row for row in rows if row["what"] == "cost" and row["way"] == "plain"]
    if not plain:
        raise AwqdocError("A report needs the time of the plain kernel; these rows have none: record `xray` again.")
    problem = Problem.parse(shape, plain[0]["m"])
    values = _throughput(problem, median(plain[0]["seconds"]), bits, gpu, bandwidth)
    values |= _cost(rows, values["time"].value)
    values |= _occupancy(rows, gpu)
    values |= _counters(rows)
    values |= _blocks(rows, gpu)
    warps = warp_spans(rows)
    loaders = {key: spans for key, spans in warps.items() if not any(phase in WORK for phase, _ in spans)}
    workers = {key: spans for key, spans in warps.items() if key not in loaders}
    phases = _shares(workers)
    if phases:
        values |= _waiting(workers, {row["block"]: row["begin_ns"] for row in rows if row["what"] == "block"})
        values["waiting for other warps"] = Value(phases.get(OTHERS, 0.0), "", MARKS)
        values["issuing loads"] = Value(phases.get(LOAD, 0.0), "", MARKS)
        values["working"] = Value(sum(phases.get(phase, 0.0) for phase in WORK), "", MARKS)
        values["overlap of load and multiply"] = Value(_overlap(warps), "", MARKS)
    bottleneck = next(case for case in CASES if case.holds(values))
    return Report(values, _stalls(rows), phases, _shares(loaders), bottleneck)


def _throughput(problem: Problem, seconds: float, bits: int, gpu: str, bandwidth: Value | None) -> dict[str, Value]:
    moved, flop = problem.bytes(bits), problem.flops
    values = {
        "time": Value(seconds, "s", EVENTS),
        "bytes": Value(moved, "B", MODELLED),
        "FLOP": Value(flop, "FLOP", MODELLED),
        "bandwidth": Value(moved / seconds, "B/s", f"bytes, {MODELLED}, over time by {EVENTS}"),
        "FLOP rate": Value(flop / seconds, "FLOP/s", f"FLOP, {MODELLED}, over time by {EVENTS}"),
    }
    sheet = next((sheet for sheet in DATA_SHEETS if sheet.reported == gpu), None)
    if bandwidth is None and sheet:
        bandwidth = Value(sheet.bandwidth, "B/s", "data sheet")
    if bandwidth:
        values["limit of bandwidth"] = bandwidth
        share = values["bandwidth"].value / bandwidth.value
        values["share of bandwidth"] = Value(share, "", f"bandwidth over that of: {bandwidth.source}")
    if sheet:
        share = values["FLOP rate"].value / sheet.peak
        values["share of peak"] = Value(share, "", "FLOP rate over that of: data sheet")
    return values


def _cost(rows: Sequence[Row], seconds: float) -> dict[str, Value]:
    marked = [median(row["seconds"]) for row in rows if row["what"] == "cost" and row["way"] == "marked"]
    return {"cost of the marks": Value(marked[0] / seconds - 1, "", f"{EVENTS}: marked over plain")} if marked else {}


def _occupancy(rows: Sequence[Row], gpu: str) -> dict[str, Value]:
    """Compute the theoretical occupancy from what the launch takes; the achieved one is a counter."""
    launch = next((row for row in rows if row["what"] == "launch"), None)
    if launch is None or launch.get("registers") is None or all(sheet.reported != gpu for sheet in DATA_SHEETS):
        return {}
    shared = (launch["shared_static"] or 0) + (launch["shared_dynamic"] or 0)
    found = occupancy.launch(tuple(launch["grid"]), (launch["block"],), launch["registers"], shared, gpu)
    source = f"{MODELLED} from {launch['source']}"
    return {
        "theoretical occupancy": Value(found.occupancy, "", source),
        "blocks per SM": Value(found.blocks_per_sm, "", source),
        "waves": Value(found.waves, "", source),
    }


SECTORS = "l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_ld.ratio"
# Name in the report -> metric, factor to its unit, unit.
_COUNTED = {
    "achieved occupancy": ("sm__warps_active.avg.pct_of_peak_sustained_active", 0.01, ""),
    "bytes read from memory": ("dram__bytes_read.sum", 1, "B"),
    "bytes written to memory": ("dram__bytes_write.sum", 1, "B"),
    "memory throughput": ("dram__throughput.avg.pct_of_peak_sustained_elapsed", 0.01, ""),
    "L2 hit rate": ("lts__t_sector_hit_rate.pct", 0.01, ""),
    "tensor pipes active": ("sm__pipe_tensor_op_hmma_cycles_active.avg.pct_of_peak_sustained_elapsed", 0.01, ""),
    "issue slots used": ("smsp__issue_active.avg.pct_of_peak_sustained_active", 0.01, ""),
    "sectors per load": (SECTORS, 1, "sectors"),
}


def _counters(rows: Sequence[Row]) -> dict[str, Value]:
    counted = {row["metric"]: row["value"] for row in rows if row["what"] == "counter"}
    return {
        name: Value(factor * counted[metric], unit, metric)
        for name, (metric, factor, unit) in _COUNTED.items()
        # A ratio over no requests is reported as 0, and is none.
        if metric in counted and (metric != SECTORS or counted[metric] > 0)
    }


def _stalls(rows: Sequence[Row]) -> list[tuple[str, Value]]:
    counted = {row["metric"]: row["value"] for row in rows if row["what"] == "counter"}
    found = [
        (reason.replace("_", " "), Value(counted[metric], "warps", metric))
        for reason in REASONS
        if reason != "selected" and (metric := STALL.format(reason)) in counted
    ]
    return sorted(found, key=lambda stall: -stall[1].value)


def _blocks(rows: Sequence[Row], gpu: str) -> dict[str, Value]:
    """Find when SMs got their first and lost their last block, and for how much of the time they had none."""
    spans: dict[int, list[Span]] = {}
    for row in rows:
        if row["what"] == "block":
            spans.setdefault(row["sm"], []).append((row["begin_ns"], row["end_ns"]))
    if not spans:
        return {}
    sms = next((sheet.sms for sheet in DATA_SHEETS if sheet.reported == gpu), len(spans))
    begins = [min(begin for begin, _ in found) for found in spans.values()]
    ends = [max(end for _, end in found) for found in spans.values()]
    span = max(ends) - min(begins)
    busy = sum(_length(_union(found)) for found in spans.values())
    return {
        "span": Value(span, "ns", CLOCK),
        "SMs with a block": Value(len(spans), "", "smid"),
        "ramp": Value(max(begins) - min(begins), "ns", f"{CLOCK}: from the first SM's first block to the last's"),
        "tail": Value(max(ends) - min(ends), "ns", f"{CLOCK}: from the first SM without a block to the end"),
        "idle SM time": Value(1 - busy / (span * max(sms, len(spans))), "", CLOCK),
    }


def warp_spans(rows: Sequence[Row]) -> dict[tuple[int, int], list[tuple[int, Span]]]:
    """Turn the marks of a cell into (block, warp) -> (phase, from when to when, in ns), in order of time."""
    barrier = any(row["what"] == "launch" and row.get("kernel_name") == WITH_BARRIER for row in rows)
    marks: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for row in rows:
        if row["what"] == "mark":
            marks.setdefault((row["block"], row["warp"]), []).append(
                (row["at_ns"], OTHERS if barrier and row["phase"] == ARRIVED else row["phase"])
            )
    return {
        warp: [(phase, (at, then)) for (at, phase), (then, _) in pairwise(sorted(found, key=lambda mark: mark[0]))]
        for warp, found in marks.items()
    }


def _waiting(workers: Mapping[tuple[int, int], list[tuple[int, Span]]], begun: Mapping[int, int]) -> dict[str, Value]:
    """Say when the first data was there, and for how much of their time warps that multiply wait.

    A wait for what is there already takes time too, that of asking and of the mark. What waits would take if each were
    as short as the shortest is told apart; only the rest was for the memory.
    """
    arrived = [
        begin - begun.get(block, 0)
        for (block, _), spans in workers.items()
        for begin in [begin for phase, (begin, _) in spans if phase in (ARRIVED, OTHERS)][:1]
    ]
    waits = [end - begin for spans in workers.values() for phase, (begin, end) in spans if phase == WAIT]
    total = sum(end - begin for spans in workers.values() for _, (begin, end) in spans)
    found = {"waiting": Value(sum(waits) / total, "", MARKS)}
    if arrived:
        found = {"first data seen": Value(median(arrived), "ns", f"{MARKS}: since its block began, median"), **found}
    if waits:
        least = f"{MARKS}: if each wait were as short as the shortest, {min(waits)} ns"
        found["waiting at least"] = Value(min(waits) * len(waits) / total, "", least)
    return found


def _shares(warps: Mapping[tuple[int, int], list[tuple[int, Span]]]) -> dict[int, float]:
    times: dict[int, float] = {}
    for spans in warps.values():
        for phase, (begin, end) in spans:
            times[phase] = times.get(phase, 0) + end - begin
    total = sum(times.values())
    return {phase: time / total for phase, time in sorted(times.items())} if total else {}


def _overlap(warps: Mapping[tuple[int, int], list[tuple[int, Span]]]) -> float:
    """Share of the time while a block loads in which one of its chosen warps multiplies, mean over blocks.

    A block loads from its first load to the last arrival of data that a chosen warp saw.
    """
    shares = []
    for block in {block for block, _ in warps}:
        spans = [span for (owner, _), found in warps.items() if owner == block for span in found]
        loads = [begin for phase, (begin, _) in spans if phase == LOAD]
        arrivals = [begin for phase, (begin, _) in spans if phase in (ARRIVED, OTHERS)]
        if loads and arrivals and max(arrivals) > min(loads):
            begin, end = min(loads), max(arrivals)
            working = [(max(b, begin), min(e, end)) for phase, (b, e) in spans if phase in WORK]
            shares.append(_length(_union([span for span in working if span[0] < span[1]])) / (end - begin))
    return fmean(shares) if shares else 0.0


def _union(spans: Sequence[Span]) -> Iterator[Span]:
    """Join spans that overlap."""
    current: Span | None = None
    for begin, end in sorted(spans):
        if current is None or begin > current[1]:
            if current is not None:
                yield current
            current = begin, end
        else:
            current = current[0], max(current[1], end)
    if current is not None:
        yield current


def _length(spans: Iterator[Span]) -> float:
    return sum(end - begin for begin, end in spans)
