"""The experiment ``xray`` drawn: blocks on SMs, phases of warps, what holds them, and tensor cores at work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from awqdoc.gpu.counters import REASONS, STALL
from awqdoc.gpu.diagnosis import warp_spans
from awqdoc.recordings import Recording, Row
from awqdoc.visualization.style import colour, describe, new_figure, styled
from awqdoc.visualization.xray import NAMES, kernels_with, xray_counter, xray_report, xray_rows

# Phase -> what readers call it, and its colour. With wgmma, 1 is reading a record from shared memory, 2 the first of
# its dequantizations, and 3 its products and the other dequantizations, which overlap.
PHASES = {
    0: ("issue a load", "orange"),
    6: ("wait for data or room", "muted"),
    8: ("wait for other warps", "ochre"),
    1: ("dequantize, multiply", "blue"),
    2: ("dequantize, multiply", "blue"),
    3: ("dequantize, multiply", "blue"),
    4: ("reduction", "purple"),
    5: ("write back", "green"),
}
# What a warp is held by -> Nsight Compute's reasons, and its colour. What is left is "other".
STALLS = {
    "issues": (("selected",), "blue"),
    "not chosen": (("not_selected",), "green"),
    "memory": (("long_scoreboard", "lg_throttle"), "orange"),
    "barrier": (("barrier", "membar"), "purple"),
    "fixed latency": (("wait",), "muted"),
    "busy pipe, wgmma": (("math_pipe_throttle", "dispatch_stall", "gmma", "tex_throttle"), "ochre"),
}
PIPE = "sm__pipe_tensor_op_hmma_cycles_active.{}.pct_of_peak_sustained_elapsed"


def _panels(title: str, number: int, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels below each other, all on one time axis."""
    figure, first = new_figure(title, height)
    first.remove()
    return figure, [figure.add_subplot(number, 1, place + 1) for place in range(number)]


def most_at_once(blocks: Sequence[Row]) -> int:
    """Return how many blocks an SM has at once, at most."""
    steps = [(row[when], step, row["sm"]) for row in blocks for when, step in (("begin_ns", 1), ("end_ns", -1))]
    now, most = Counter[int](), 0
    for _, step, sm in sorted(steps):  # an end before a begin at the same time
        now[sm] += step
        most = max(most, now[sm])
    return most


@styled
def plot_blocks(recording: Recording, m: int) -> Figure:
    """Draw which SM had a block when, in a panel for each kernel with marks, on one time axis.

    A line for each SM: where SMs have several blocks at times, one alone is fainter.
    """
    kernels, sms = kernels_with(recording, "block"), recording.provenance["sm_count"]
    figure, panels = _panels(f"Blocks on SMs, M = {m}", len(kernels), 0.9 + 2.0 * len(kernels))
    told, end = [], 0.0
    for axes, kernel in zip(panels, kernels, strict=True):
        values = xray_report(recording, kernel, m).values
        span, ramp, tail = (values[name].value / 1000 for name in ("span", "ramp", "tail"))
        blocks = xray_rows(recording, kernel, m, "block")
        alpha = 1 if most_at_once(blocks) == 1 else 0.45
        for row in blocks:
            axes.barh(
                row["sm"], (row["end_ns"] - row["begin_ns"]) / 1000, left=row["begin_ns"] / 1000, height=1,
                align="edge", linewidth=0, color=colour("blue"), alpha=alpha,
            )  # fmt: skip
        for at in (ramp, span - tail):
            axes.axvline(at, color=colour("ink"), linestyle=":", linewidth=1.1)
        idle = sms - len({row["sm"] for row in blocks})
        text = f"{NAMES[kernel]}: ramp {ramp:.2f} µs, tail {tail:.1f} of {span:.1f} µs"
        text += f", {idle} SMs without a block" if idle else ""
        axes.set_title(text, fontsize=8.5, loc="left")
        axes.set_ylim(sms, 0)
        axes.set_ylabel("SM")
        axes.grid(visible=False)
        told.append(text)
        end = max(end, span)
    for axes in panels:
        axes.set_xlim(0, 1.02 * end)
    panels[-1].set_xlabel("µs since the first block began")
    alt = f"When each SM had a block; stronger where an SM has more at once. {'; '.join(told)}."
    return describe(figure, alt, recording)


@styled
def plot_phases(recording: Recording, kernel: str, m: int, zoom: float = 4.0) -> Figure:
    """Draw the phases of the chosen warps of the first block: its first µs, then all of its time."""
    found = warp_spans(xray_rows(recording, kernel, m))
    first = min(block for block, _ in found)
    warps = {warp: spans for (block, warp), spans in found.items() if block == first}
    figure, panels = _panels(f"{NAMES[kernel]}, M = {m}: what warps of block {first} do", 2, 1.75 + 0.5 * len(warps))
    end = max(stop for spans in warps.values() for _, (_, stop) in spans) / 1000
    for axes, until in zip(panels, (zoom, end), strict=True):
        for place, spans in enumerate(warps[warp] for warp in sorted(warps)):
            for phase, (begin, stop) in spans:
                if begin / 1000 < until:
                    shown_end = min(stop / 1000, until)
                    axes.barh(place, shown_end - begin / 1000, left=begin / 1000, height=0.75, linewidth=0,
                              color=colour(PHASES[phase][1]))  # fmt: skip
        axes.set_yticks(range(len(warps)), [f"warp {warp}" for warp in sorted(warps)])
        axes.set_ylim(len(warps) - 0.5, -0.5)
        axes.set_xlim(0, until)
        axes.grid(visible=False)
    panels[1].set_xlabel("µs since the first block began")
    _phase_legend(panels[0], {phase for spans in warps.values() for phase, _ in spans})
    told = "; ".join(f"warp {warp}: {_sequence(warps[warp])}" for warp in sorted(warps))
    return describe(figure, f"Phases by clock. First phases, in ns: {told}.", recording)


def _sequence(spans: Sequence[tuple[int, tuple[float, float]]]) -> str:
    return ", ".join(f"{PHASES[phase][0]} {end - begin:.0f}" for phase, (begin, end) in spans[:8])


def _phase_legend(axes: Axes, phases: set[int], alpha: float = 1.0) -> None:
    hues = dict(PHASES[phase] for phase in PHASES if phase in phases)
    _above(axes, hues, alpha)


def _above(axes: Axes, hues: dict[str, str], alpha: float = 1.0) -> None:
    """Explain fills between title and axes."""
    handles = [Patch(facecolor=colour(hue), alpha=alpha, label=name) for name, hue in hues.items()]
    columns = 3 if max(map(len, hues)) < 18 else 2
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(-0.02, 1), fontsize=8.5, ncols=columns,
                columnspacing=0.9, handlelength=1.2)  # fmt: skip


def _stack(axes: Axes, place: int, parts: Iterable[tuple[float, str]]) -> None:
    """Draw shares as one bar, those that are wide enough with their number."""
    left = 0.0
    for share, hue in parts:
        axes.barh(place, share, left=left, height=0.6, color=colour(hue), alpha=0.55, linewidth=0)
        if share >= 6:
            axes.text(left + share / 2, place, f"{share:.0f}", ha="center", va="center", fontsize=8)
        left += share


@styled
def plot_phase_shares(recording: Recording) -> Figure:
    """Draw what share of their time chosen warps spend in which phase, beside how far load and multiply overlap."""
    bars: list[tuple[str, dict[int, float]]] = []
    for m in recording.parameters["m"]:
        for kernel in kernels_with(recording, "mark"):
            report = xray_report(recording, kernel, m)
            overlap = report.values["overlap of load and multiply"].value
            bars.append((f"{NAMES[kernel]}, M = {m}\noverlap {overlap:.0%}", report.phases))
            if report.loading:
                bars.append(("its fetching\nthread", report.loading))
    figure, axes = new_figure("Where the time of a warp goes, %", height=1.3 + 0.55 * len(bars))
    for place, (_, shares) in enumerate(bars):
        hues = dict.fromkeys(hue for _, hue in PHASES.values())
        parts = {hue: sum(share for phase, share in shares.items() if PHASES[phase][1] == hue) for hue in hues}
        _stack(axes, place, ((100 * share, hue) for hue, share in parts.items()))
    axes.set_yticks(range(len(bars)), [name for name, _ in bars], fontsize=8.5)
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.grid(visible=False)
    _phase_legend(axes, {phase for _, shares in bars for phase in shares}, 0.55)
    told = "; ".join(
        " ".join(name.split()) + ": " + ", ".join(f"{PHASES[p][0]} {share:.0%}" for p, share in shares.items())
        for name, shares in bars
    )
    return describe(figure, f"Shares of the chosen warps' time. {told}.", recording)


def stall_shares(recording: Recording, kernel: str, m: int) -> dict[str, float]:
    """Return what share of the warps, on average over cycles that issue, each group of reasons holds, in %."""
    counted = {reason: xray_counter(recording, kernel, m, STALL.format(reason)) or 0.0 for reason in REASONS}
    total = sum(counted.values())
    if not total:
        return {}
    shares = {name: 100 * sum(counted[one] for one in reasons) / total for name, (reasons, _) in STALLS.items()}
    return {**shares, "other": 100 - sum(shares.values())}


@styled
def plot_stalls(recording: Recording) -> Figure:
    """Draw what holds the warps, in groups of Nsight Compute's stall reasons, for each kernel and batch size."""
    cells = [(kernel, m) for m in recording.parameters["m"] for kernel in kernels_with(recording, "counter")]
    bars = [(f"{NAMES[kernel]}\nM = {m}", stall_shares(recording, kernel, m)) for kernel, m in cells]
    bars = [(name, shares) for name, shares in bars if shares]
    figure, axes = new_figure("What a warp is doing, or held by, %", height=1.5 + 0.5 * max(1, len(bars)))
    hues = {**{name: hue for name, (_, hue) in STALLS.items()}, "other": "grid"}
    for place, (_, shares) in enumerate(bars):
        _stack(axes, place, ((share, hues[name]) for name, share in shares.items()))
    axes.set_yticks(range(len(bars)), [name for name, _ in bars], fontsize=8.5)
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.grid(visible=False)
    _above(axes, hues, 0.55)
    told = "; ".join(
        " ".join(name.split()) + ": " + ", ".join(f"{reason} {share:.0f} %" for reason, share in shares.items())
        for name, shares in bars
    )
    return describe(figure, f"Shares of warps by stall reason. {told}.", recording)


@styled
def plot_tensor_activity(recording: Recording) -> Figure:
    """Draw the tensor pipes' active share of all cycles: the least, the mean and the most of all SMs."""
    cells = [(kernel, m) for m in recording.parameters["m"] for kernel in kernels_with(recording, "counter")]
    figure, axes = new_figure("Tensor cores at work: least, mean and most of all SMs", height=1.1 + 0.42 * len(cells))
    told = []
    for place, (kernel, m) in enumerate(cells):
        values = [xray_counter(recording, kernel, m, PIPE.format(over)) for over in ("min", "avg", "max")]
        if any(value is None for value in values):
            continue
        least, mean, most = (value or 0.0 for value in values)
        axes.plot([least, most], [place, place], color=colour("grid"), linewidth=6, solid_capstyle="butt")
        axes.plot([least, most], [place, place], "|", color=colour("ink"), markersize=11, markeredgewidth=2)
        axes.plot([mean], [place], "o", color=colour("blue"), markersize=7)
        axes.annotate(f"{mean:.0f}", (max(most, mean), place), xytext=(8, -3), textcoords="offset points", fontsize=9)
        told.append(f"{NAMES[kernel]} at M = {m}: {least:.1f}, {mean:.1f}, {most:.1f} %")
    axes.set_yticks(range(len(cells)), [f"{NAMES[kernel]}, M = {m}" for kernel, m in cells], fontsize=9)
    axes.set_ylim(len(cells) - 0.5, -0.5)
    axes.set_xlim(-1, 100)
    axes.set_xlabel("% of all cycles")
    return describe(figure, f"Active share of the tensor pipes, least, mean and most of all SMs. {'; '.join(told)}.",
                    recording)  # fmt: skip
