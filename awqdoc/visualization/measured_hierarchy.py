"""The experiment ``hierarchy``: how far away each level of memory is, what it delivers, and what must be in flight."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd, sqrt
from statistics import median
from typing import Any

from matplotlib.figure import Figure

from awqdoc.gpu.datasheets import DATA_SHEETS, DataSheet
from awqdoc.gpu.plateaus import Plateau, plateaus
from awqdoc.recordings import Recording, Row
from awqdoc.visualization.style import colour, describe, legend, log_axis, new_figure, si, styled
from awqdoc.visualization.tables import Table

HUES = {"L1 cache": "green", "L2 cache": "blue", "memory": "orange"}
# Latencies in cycles that Luo et al. (arXiv:2402.13499) measured, by compute capability: an A100 and an H800.
PUBLISHED = {
    "8.0": {"shared memory": 29.0, "L2 cache": 261.5, "memory": 466.0},
    "9.0": {"shared memory": 29.0, "L2 cache": 263.0, "memory": 478.8},
}
# Bytes that shared memory and L1, which are one array, give an SM in a cycle: 4 from each of 32 banks.
PER_CYCLE = 128


@dataclass(frozen=True)
class Level:
    """One level of memory, as measured.

    Attributes
    ----------
    name : str
        What it is called.
    cycles : float
        Latency of a load, in cycles of the SM's clock.
    bandwidth : float
        Bytes per second that all SMs together read.
    per_cycle : float
        Bytes that an SM reads in a cycle.
    reach : str
        From which footprint to which it was found, or what was read.
    """

    name: str
    cycles: float
    bandwidth: float
    per_cycle: float
    reach: str


def probe_rows(recording: Recording, what: str, **sizes: Any) -> list[Row]:
    """Return the rows of one thing that was probed, of given sizes, without those that were skipped."""
    rows = [row for row in recording.rows if row["what"] == what and "skipped" not in row]
    return [row for row in rows if all(row[key] == value for key, value in sizes.items())]


def chip(recording: Recording) -> Row:
    """Return what the GPU said of itself: ``sms``, ``l1_bytes`` (with shared memory, of an SM), ``l2_bytes``."""
    return probe_rows(recording, "chip")[0]


def clock(recording: Recording) -> float:
    """Return the SM's clock in Hz right after the latencies were measured, as NVML told it."""
    return 1e6 * float(chip(recording)["sm_clock_mhz"])


def rate(row: Row, amount: str = "bytes") -> float:
    """Return bytes, or FLOP, per second of a row: what a launch did over its median time."""
    return float(row[amount] / median(row["seconds"]))


def chased(recording: Recording) -> dict[int, float]:
    """Return footprint -> median cycles of a load."""
    return {row["footprint"]: median(row["cycles"]) for row in probe_rows(recording, "chase")}


def named_plateaus(recording: Recording) -> list[tuple[str, Plateau]]:
    """Find the plateaus of latency, and name each by the cache that its middle (of the logarithm) fits into."""
    found, facts = chased(recording), chip(recording)
    named = []
    for plateau in plateaus(list(found), list(found.values())):
        middle = sqrt(plateau.first * plateau.last)
        name = "L1 cache" if middle <= (facts["l1_bytes"] or 0) else "memory"
        named.append(("L2 cache" if name == "memory" and middle <= facts["l2_bytes"] else name, plateau))
    return named


@styled
def plot_chased(recording: Recording) -> Figure:
    """Draw cycles per load over footprint, the plateaus that the code found, and where the L2 cache ends."""
    found = chased(recording)
    figure, axes = new_figure("One load after the other: how long each takes", height=3.8)
    axes.plot(list(found), list(found.values()), "o", markersize=3, color=colour("muted"), label="measured")
    told = []
    for name, plateau in named_plateaus(recording):
        axes.plot(
            [plateau.first, plateau.last], [plateau.cycles] * 2, linewidth=4, alpha=0.7, color=colour(HUES[name]),
            solid_capstyle="butt",
        )  # fmt: skip
        axes.annotate(  # to the upper left of its end, where a staircase leaves room
            f"{name}: {plateau.cycles:.0f}", (plateau.last, plateau.cycles), xytext=(0, 11), ha="right",
            textcoords="offset points", fontsize=9, color=colour(HUES[name]),
        )  # fmt: skip
        span = f"{si(plateau.first, 'B', binary=True)} to {si(plateau.last, 'B', binary=True)}"
        told.append(f"{name}, {span}: {plateau.cycles:.0f} cycles")
    l2 = chip(recording)["l2_bytes"]
    axes.axvline(l2, ymax=0.85, color=colour("ink"), linestyle=":", linewidth=1.2, label="size of L2")
    axes.set_xscale("log")
    ticks = [2**power for power in range(12, 30, 4)]
    axes.set_xticks(ticks, [si(tick, "B", binary=True) for tick in ticks], fontsize=9)
    axes.minorticks_off()
    axes.set_xlabel("footprint (log)")
    axes.set_ylabel("cycles per load")
    axes.set_ylim(0, 1.15 * max(found.values()))
    legend(axes)
    return describe(figure, f"Latency over footprint, with plateaus. {'; '.join(told)}.", recording)


def measured_levels(recording: Recording) -> list[Level]:
    """Return shared memory, L1, L2 and memory, with latency and with the bandwidth at a footprint of their own.

    Of several plateaus that one level has, the nearest counts, that of the smallest footprints. L1 is read with the
    slice that gives most, L2 past L1 at a quarter of its size, memory with the largest slice.
    """
    sms, l2 = chip(recording)["sms"], chip(recording)["l2_bytes"]
    (shared,) = probe_rows(recording, "read shared memory")
    (near,) = probe_rows(recording, "load", stride=1, chains=1)
    past = probe_rows(recording, "read past L1")
    reads = {
        "L1 cache": max(probe_rows(recording, "read"), key=rate),
        "L2 cache": min(past, key=lambda row: abs(row["slice"] * sms - l2 / 4)),
        "memory": max(past, key=lambda row: row["slice"]),
    }
    levels = [
        Level("shared memory", median(near["cycles"]), rate(shared), _per_cycle(shared, sms), "a warp, no conflict")
    ]
    for name, row in reads.items():
        mine = [plateau for called, plateau in named_plateaus(recording) if called == name]
        if mine:
            nearest = mine[0]
            reach = f"{si(nearest.first, 'B', binary=True)} to {si(nearest.last, 'B', binary=True)}"
            levels.append(Level(name, nearest.cycles, rate(row), _per_cycle(row, sms), reach))
    return levels


def _per_cycle(row: Row, sms: int) -> float:
    return float(row["bytes"] / sms / median(row["cycles"]))


def level_sizes(recording: Recording, device: Recording) -> dict[str, str]:
    """Return the size of each level as a device report tells it, for readers; none if that is of another GPU."""
    if device.provenance["gpu"] != recording.provenance["gpu"]:
        return {}
    facts = {row["fact"]: row["value"] for row in device.rows}
    sizes = {
        "shared memory": (facts.get("shared memory per SM"), " per SM"),
        "L1 cache": (facts.get("L1 cache and shared memory per SM"), " per SM\nwith shared memory"),
        "L2 cache": (facts.get("L2 cache"), ""),
        "memory": (facts.get("memory"), ""),
    }
    return {name: si(size, "B", binary=True) + where for name, (size, where) in sizes.items() if size}


@styled
def plot_distances(recording: Recording, device: Recording) -> Figure:
    """Draw the hierarchy as it was measured: each level's distance in cycles, with its size and bandwidth beside it."""
    levels, sizes = measured_levels(recording), level_sizes(recording, device)
    figure, axes = new_figure(f"{recording.provenance['gpu']}: how far away is the memory?", height=3.6)
    places = range(len(levels))
    axes.hlines(list(places), 10, [level.cycles for level in levels], color=colour("grid"), linewidth=6)
    axes.plot([level.cycles for level in levels], list(places), "o", markersize=8, color=colour("blue"))
    for place, level in zip(places, levels, strict=True):
        axes.annotate(f"{level.cycles:.0f}", (level.cycles, place), xytext=(8, -3), textcoords="offset points")
    axes.set_xscale("log")
    axes.set_xlim(10, 2.6 * max(level.cycles for level in levels))
    ticks = [10, 30, 100, 300, 1000]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("cycles until a load has its value (log)")
    named = [f"{level.name}\n{sizes.get(level.name, '')}".strip() for level in levels]
    axes.set_yticks(list(places), named, fontsize=9)
    axes.set_ylim(len(levels) - 0.5, -0.5)
    beside = axes.secondary_yaxis("right")
    rates = [f"{si(level.bandwidth, 'B/s')}\n{level.per_cycle:.0f} B/cycle/SM" for level in levels]
    beside.set_yticks(list(places), rates, fontsize=9)
    beside.tick_params(length=0)
    beside.spines["right"].set_visible(False)
    told = "; ".join(
        f"{x.name} {sizes.get(x.name, '')} {x.cycles:.0f} cycles, {si(x.bandwidth, 'B/s')}, "
        f"{x.per_cycle:.0f} bytes per cycle and SM"
        for x in levels
    )
    return describe(figure, f"Size, latency and bandwidth by level: {' '.join(told.split())}.", recording)


def data_sheet(recording: Recording) -> DataSheet | None:
    """Return the data sheet of the GPU that was probed, or None if we have none."""
    name = recording.provenance["gpu"]
    return next((sheet for sheet in DATA_SHEETS if sheet.reported == name), None)


def levels_table(recording: Recording) -> Table:
    """Tabulate the levels: latency beside the published one, bandwidth in all and per SM and cycle, the promise."""
    hertz, sheet = clock(recording), data_sheet(recording)
    published = PUBLISHED.get(str(recording.provenance.get("compute_capability")), {})
    rows = []
    for level in measured_levels(recording):
        promised = f"{PER_CYCLE} B/cycle/SM" if level.name in ("shared memory", "L1 cache") else ""
        if sheet and level.name == "memory":
            promised = si(sheet.bandwidth, "B/s")
        rows.append(
            [
                level.name, level.reach, f"{level.cycles:.0f}", f"{published.get(level.name, '')}",
                f"{1e9 * level.cycles / hertz:.0f}", si(level.bandwidth, "B/s"),
                f"{level.per_cycle:.0f}", promised,
            ]
        )  # fmt: skip
    columns = [
        "level", "found at", "latency, cycles", "published, cycles", "ns", "bandwidth", "B/cycle/SM",
        "promised",
    ]  # fmt: skip
    title = f"ns at {si(hertz, 'Hz')}; published: Luo et al.; promised: bytes by 32 banks, TB/s by the data sheet"
    return Table(columns, rows, recording, title)


@styled
def plot_conflicts(recording: Recording) -> Figure:
    """Draw the cycles of a warp's load from shared memory over the stride, alone and with others under way."""
    figure, axes = new_figure("Bank conflicts: 32 lanes, words so far apart", height=3.4)
    told = []
    for chains, hue, label in ((1, "blue", "each waits for the one before"), (4, "orange", "four under way")):
        rows = probe_rows(recording, "load", chains=chains)
        points = {row["stride"]: median(row["cycles"]) for row in rows}
        axes.plot(list(points), list(points.values()), "o-", color=colour(hue), label=label)
        told.append(f"{label}: {points[1]:.0f} cycles at stride 1, {points[32]:.0f} at 32")
    axes.set_xticks([1, 4, 8, 12, 16, 20, 24, 28, 32])
    axes.set_xlabel("stride, words of 4 bytes")
    axes.set_ylabel("cycles per load")
    axes.set_ylim(0, None)
    legend(axes)
    return describe(figure, f"Cycles per shared-memory load over stride; {'; '.join(told)}.", recording)


def conflict_cost(recording: Recording) -> tuple[float, float]:
    """Return what each further lane on the same bank adds to a load, in cycles: alone, and with four under way.

    A stride puts gcd(stride, 32) lanes on a bank. The slope is that from one to 32 of them.
    """
    costs = []
    for chains in (1, 4):
        points = {row["stride"]: median(row["cycles"]) for row in probe_rows(recording, "load", chains=chains)}
        lanes = {stride: gcd(stride, 32) for stride in points}
        fewest = median(points[stride] for stride in points if lanes[stride] == 1)
        costs.append((points[32] - fewest) / 31)
    return costs[0], costs[1]


@styled
def plot_read_bandwidth(recording: Recording) -> Figure:
    """Draw bytes per second that all SMs read over what they read again and again, through L1 and past it."""
    sms, sheet = chip(recording)["sms"], data_sheet(recording)
    figure, axes = new_figure("Every SM reads its own slice, again and again", height=3.8)
    told = []
    for what, hue, label in (("read", "green", "through L1"), ("read past L1", "blue", "past L1")):
        points = {row["slice"] * sms: rate(row) / 1e12 for row in probe_rows(recording, what)}
        axes.plot(list(points), list(points.values()), "o-", color=colour(hue), label=label)
        told.append(f"{label} {max(points.values()):.1f} TB/s at most, {points[max(points)]:.1f} from memory")
    axes.axvline(chip(recording)["l2_bytes"], color=colour("ink"), linestyle=":", linewidth=1.2, label="size of L2")
    if sheet:
        axes.axhline(sheet.bandwidth / 1e12, color=colour("orange"), linewidth=1.2, label="data sheet, memory")
    axes.set_xscale("log")
    axes.set_yscale("log")
    log_axis(axes.yaxis)
    ticks = [2**power for power in range(22, 31, 2)]
    axes.set_xticks(ticks, [si(tick, "B", binary=True) for tick in ticks], fontsize=9)
    axes.minorticks_off()
    axes.set_xlabel("footprint of all SMs together (log)")
    axes.set_ylabel("TB/s (log)")
    legend(axes)
    return describe(figure, f"Read bandwidth over footprint: {'; '.join(told)}.", recording)


def in_flight_needed(recording: Recording) -> float:
    """Return the bytes that each SM must have in flight by Little's law: memory's bandwidth times its latency."""
    memory = next(level for level in measured_levels(recording) if level.name == "memory")
    return memory.bandwidth * memory.cycles / clock(recording) / float(chip(recording)["sms"])


@styled
def plot_in_flight(recording: Recording) -> Figure:
    """Draw the bandwidth of cold memory over the bytes that an SM has in flight, beside Little's law."""
    figure, axes = new_figure("Bandwidth is bytes in flight over latency", height=3.8)
    memory = next(level for level in measured_levels(recording) if level.name == "memory")
    needed = in_flight_needed(recording)
    told = []
    for what, hue, marker in (("loads", "blue", "o"), ("bulk copies", "orange", "D")):
        rows = probe_rows(recording, what)
        points = [(row["in_flight"] / 1024, rate(row) / 1e12) for row in rows]
        if points:
            axes.plot(*zip(*points, strict=True), marker, color=colour(hue), label=what)
            told.append(f"{what} reach {max(y for _, y in points):.2f} TB/s")
    line = [0.5 * 2 ** (i / 8) for i in range(65)]
    law = [min(1, 1024 * kib / needed) * memory.bandwidth / 1e12 for kib in line]
    axes.plot(line, law, color=colour("ink"), linewidth=1.2, label="Little's law, from the latency")
    axes.set_xscale("log", base=2)
    ticks = [0.5, 1, 2, 4, 8, 16, 32, 64, 128]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=9)
    axes.minorticks_off()
    axes.set_xlabel("KiB in flight on each SM (log)")
    axes.set_ylabel("TB/s")
    axes.set_ylim(0, None)
    legend(axes)
    alt = f"Bandwidth over bytes in flight; Little's law asks for {needed / 1024:.0f} KiB; {'; '.join(told)}."
    return describe(figure, alt, recording)
