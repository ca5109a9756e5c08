"""The roofline: the time that bytes and operations allow on a GPU, and how far from it the kernels of the sweep are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from awqdoc.errors import AwqdocError
from awqdoc.formats import Problem
from awqdoc.gpu.datasheets import DATA_SHEETS, DataSheet
from awqdoc.kernels import BACKENDS
from awqdoc.kernels.floors import FLOORS
from awqdoc.kernels.table import KERNELS
from awqdoc.recordings import Recording, slug
from awqdoc.visualization.all_kernels import TOP, times_by_m
from awqdoc.visualization.decoding import decode_title
from awqdoc.visualization.prediction import Rates, predicted_seconds
from awqdoc.visualization.style import colour, describe, legend, log_axis, new_figure, si, styled
from awqdoc.visualization.sweep import LOOKS, problem, speedups, timed
from awqdoc.visualization.tables import Table

# The four products of a Llama-3-8B layer, N x K, as the interactive page names them.
LAYERS = {
    "28672x4096": "Llama-3-8B: gate and up",
    "4096x14336": "Llama-3-8B: down",
    "6144x4096": "Llama-3-8B: query, key and value",
    "4096x4096": "Llama-3-8B: attention output",
}
LARGER = {
    "57344x8192": "Llama-3-70B: gate and up",
    "8192x28672": "Llama-3-70B: down",
    "10240x8192": "Llama-3-70B: query, key and value",
}
# What the interactive page shows of the experiment `kernels`, beside the sweep: backend -> hue.
STRONG = {"fp16": LOOKS["fp16"][0], TOP: "green", "gptqmodel_marlin": "ochre", "gptqmodel_machete_best": "ink"}
# Rows of a group that share a scale and a zero point; -1 is one group for each column, as AutoAWQ and Marlin write it.
GROUP_SIZES = (128, 64, 32, -1)


@dataclass(frozen=True)
class Roofs:
    """What one GPU was measured to do at most.

    Attributes
    ----------
    gpu : str
        Its name.
    bandwidth : float
        Bytes per second.
    peak : float
        FLOP per second.
    floor : str
        Which of `awqdoc.kernels.floors.FLOORS` reached that bandwidth.
    """

    gpu: str
    bandwidth: float
    peak: float
    floor: str

    @property
    def ridge(self) -> float:
        """FLOP per byte above which the compute roof is the lower one."""
        return self.peak / self.bandwidth


def has_floors(recording: Recording) -> bool:
    """Whether a sweep measured the floors from which the roofs are taken."""
    return all(_rates(recording, name) for name in FLOORS)


def measured_roofs(recording: Recording) -> Roofs:
    """Return the roofs of a sweep: the fastest reading or copying in it, and the median of its large products.

    Raises
    ------
    AwqdocError
        If the sweep was recorded before it measured floors.
    """
    if not has_floors(recording):
        raise AwqdocError(
            f"The sweep on {recording.provenance['gpu']} holds no floors ({', '.join(FLOORS)}), from which the roofs "
            "are taken: measure it again with `awqdoc record batch-sweep`."
        )
    fastest = {name: max(_rates(recording, name)) for name in ("read", "copy")}
    floor = max(fastest, key=fastest.__getitem__)
    return Roofs(recording.provenance["gpu"], fastest[floor], median(_rates(recording, "matmul")), floor)


def _rates(recording: Recording, name: str) -> list[float]:
    """Return the median rate of a floor in each cell that measured it, in bytes or FLOP per second."""
    return [
        row["flops" if name == "matmul" else "bytes"] / median(row["seconds"])
        for row in recording.rows
        if row["backend"] == name and "seconds" in row
    ]


def data_sheet(gpu: str) -> DataSheet | None:
    """Return the data sheet of the GPU that the driver calls so, or None if we have none."""
    return next((sheet for sheet in DATA_SHEETS if sheet.reported == gpu), None)


def intensity(size: Problem, bits: int) -> float:
    """Return the FLOP of a product per byte that it has to move."""
    return size.flops / size.bytes(bits)


def turning_batch(size: Problem, bits: int, gpu: Rates) -> float:
    """Return the M above which the operations of a layer take longer than its bytes; infinity if they never do."""
    weight = size.weight_bytes(bits)
    token = (size.bytes(bits) - weight) / size.m  # bytes that each further token brings
    gain = size.flops / size.m / gpu.peak - token / gpu.bandwidth
    return weight / gpu.bandwidth / gain if gain > 0 else math.inf


def distances(recording: Recording, backend: str, shape: str) -> dict[int, float]:
    """Return, for each batch size, a backend's median time over the time that the measured roofs allow."""
    roofs, bits = measured_roofs(recording), BACKENDS[backend].bits
    return {
        row["m"]: median(row["seconds"]) / predicted_seconds(problem(row), bits, roofs)
        for row in timed(recording, backend, shape)
    }


@styled
def plot_roofline(recording: Recording, shape: str) -> Figure:
    """Draw what each backend reaches on one layer, joined along M, below the measured roofs and the data sheet's."""
    roofs = measured_roofs(recording)
    figure, axes = new_figure(f"Roofline, {shape.replace('x', ' × ')} (N × K), {roofs.gpu}", height=4.4)
    parts, reached = [], [roofs.ridge]
    for name, backend in BACKENDS.items():
        rows = timed(recording, name, shape)
        if not rows:
            continue
        x = [intensity(problem(row), backend.bits) for row in rows]
        y = [problem(row).flops / median(row["seconds"]) / 1e12 for row in rows]
        hue, marker = LOOKS[name]
        axes.plot(x, y, marker=marker, color=colour(hue), label=backend.title)
        reached += x
        ends = [f"{y[i]:.1f} TFLOP/s at M = {rows[i]['m']}" for i in dict.fromkeys((0, len(rows) - 1))]
        parts.append(f"{backend.title}: {', '.join(ends)}")
    edges = (min(reached) / 1.6, max(reached) * 1.6)
    _roof(axes, edges, roofs, "ink", "-", "roofs, measured")
    sheet = data_sheet(roofs.gpu)
    if sheet is not None:
        _roof(axes, edges, sheet, "muted", ":", "data sheet (modelled)")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ticks = [4**i for i in range(-2, 9) if edges[0] <= 4**i <= edges[1]]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=9)
    log_axis(axes.yaxis)
    axes.minorticks_off()
    axes.set_xlim(edges)
    axes.set_xlabel("FLOP per useful byte (log)")
    axes.set_ylabel("TFLOP/s (log)")
    legend(axes)
    return describe(
        figure,
        f"Roofline of a {shape} layer: the roofs rise with {si(roofs.bandwidth, 'B/s')} to "
        f"{si(roofs.peak, 'FLOP/s')} and meet at {roofs.ridge:.0f} FLOP per byte. {'; '.join(parts)}.",
        recording,
    )


def _roof(axes: Axes, edges: tuple[float, float], gpu: Rates, hue: str, style: str, label: str) -> None:
    ridge = gpu.peak / gpu.bandwidth
    x = [edges[0], ridge, edges[1]]
    y = [min(gpu.bandwidth * at, gpu.peak) / 1e12 for at in x]
    axes.plot(x, y, color=colour(hue), linestyle=style, linewidth=1.4, label=label)


@styled
def plot_distance(recording: Recording, shape: str) -> Figure:
    """Draw how many times the allowed time each backend takes, by batch size."""
    roofs = measured_roofs(recording)
    figure, axes = new_figure(f"Time over the time that the roofs allow, {shape.replace('x', ' × ')} (N × K)")
    parts, batches = [], set()
    for name, backend in BACKENDS.items():
        found = distances(recording, name, shape)
        if not found:
            continue
        hue, marker = LOOKS[name]
        axes.plot(list(found), list(found.values()), marker=marker, color=colour(hue), label=backend.title)
        batches |= set(found)
        parts.append(f"{backend.title}: {min(found.values()):.2f} to {max(found.values()):.2f}")
    axes.axhline(1, color=colour("ink"), linewidth=1, label="the roofs")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sorted(batches), [str(m) for m in sorted(batches)], fontsize=9)
    log_axis(axes.yaxis)
    axes.minorticks_off()
    axes.set_xlabel("batch size M (tokens at a time)")
    axes.set_ylabel("measured / allowed (log)")
    legend(axes)
    alt = (
        f"Measured time of a {shape} layer over the time that the measured roofs of {roofs.gpu} allow, over all batch "
        f"sizes. {'; '.join(parts)}. 1 is the roofline itself."
    )
    return describe(figure, alt, recording)


def roofs_table(recording: Recording) -> Table:
    """Tabulate the measured roofs, each with what measured it, beside the data sheet's, which are modelled."""
    roofs = measured_roofs(recording)
    sheet = data_sheet(roofs.gpu)

    found = (
        ("memory", roofs.bandwidth, FLOORS[roofs.floor].title, "B/s"),
        ("compute", roofs.peak, FLOORS["matmul"].title, "FLOP/s"),
        ("ridge", roofs.ridge, "compute over memory", "FLOP/B"),
    )
    rows = [[name, si(measured, unit), by] for name, measured, by, unit in found]
    if sheet is not None:
        promised = (sheet.bandwidth, sheet.peak, sheet.ridge)
        for row, (_, measured, _, unit), most in zip(rows, found, promised, strict=True):
            row += [si(most, unit), f"{measured / most:.0%}"]
    columns = ["roof", "measured", "by"] + ([] if sheet is None else ["data sheet (modelled)", "share"])
    return Table(columns, rows, recording, f"Roofs of {roofs.gpu}")


def allowed_table(recording: Recording, shape: str) -> Table:
    """Tabulate by batch size the time that the roofs allow FP16 and INT4, which binds, and the speed-up beside ours.

    The measured speed-up is that of the fastest INT4 backend of each batch size, from medians of paired rounds.
    """
    roofs = measured_roofs(recording)
    ratios = {name: speedups(recording, name, shape) for name, backend in BACKENDS.items() if backend.bits == 4}
    rows = []
    for row in timed(recording, "fp16", shape):
        size = problem(row)
        found = {name: median(by_batch[size.m]) for name, by_batch in ratios.items() if size.m in by_batch}
        best = max(found, key=found.__getitem__, default=None)
        allowed = {bits: predicted_seconds(size, bits, roofs) for bits in (16, 4)}
        binds = {bits: "memory" if size.m < turning_batch(size, bits, roofs) else "compute" for bits in (16, 4)}
        rows.append([
            size.m, f"{1e6 * allowed[16]:.1f}", binds[16], f"{1e6 * allowed[4]:.1f}", binds[4],
            f"{allowed[16] / allowed[4]:.2f}", f"{found[best]:.2f}" if best else "",
            BACKENDS[best].title.removeprefix("INT4 ") if best else "",
        ])  # fmt: skip
    columns = [
        "M", "FP16 may take µs", "bound by", "INT4 may take µs", "bound by", "speed-up allowed", "measured", "by",
    ]  # fmt: skip
    return Table(columns, rows, recording, f"{shape} (N x K): allowed by the measured roofs, and measured")


def roofline_data(sweeps: list[Recording], kernels: list[Recording]) -> dict[str, Any]:
    """Return what the interactive roofline knows: GPUs, formats and layers, as JSON can hold it.

    Parameters
    ----------
    sweeps, kernels : list of Recording
        Of the experiments ``batch-sweep`` and ``kernels``, the preferred one of a GPU first. Sweeps without floors, and
        kernels on a GPU without a sweep, are left out.
    """
    gpus: dict[str, dict[str, Any]] = {}
    strong = {recording.provenance["gpu"]: recording for recording in reversed(kernels)}
    for recording in filter(has_floors, sweeps):
        roofs, points, label = measured_roofs(recording), _points(recording), recording.label
        if beside := strong.get(roofs.gpu):
            known = {(point["n"], point["k"], point["m"]) for point in points if point["bits"] == 16}
            # By M, for the page joins the points of a backend as they come.
            points = sorted([*points, *_strong_points(beside, known)], key=lambda point: int(point["m"]))
            label += f"; ladder, Marlin and Machete: {beside.label}"
        gpus.setdefault(slug(roofs.gpu), {
            "name": roofs.gpu, "kind": "measured", "label": label, "by": FLOORS[roofs.floor].title,
            "bandwidth": roofs.bandwidth, "peak": roofs.peak, "points": points,
        })  # fmt: skip
    for sheet in DATA_SHEETS:
        gpus[slug(sheet.name)] = {
            "name": sheet.name, "kind": "modelled", "label": "data sheet, modelled", "by": "",
            "bandwidth": sheet.bandwidth, "peak": sheet.peak, "points": [],
        }  # fmt: skip
    return {
        "gpus": [{"key": key, **gpu} for key, gpu in gpus.items()],
        "formats": [_format(16, None), *(_format(4, group) for group in GROUP_SIZES)],
        "layers": [
            {"n": size.n, "k": size.k, "title": title}
            for shape, title in (LAYERS | LARGER).items()
            for size in [Problem.parse(shape, 1)]
        ],
    }


def _points(recording: Recording) -> list[dict[str, Any]]:
    """Return the median times of the backends."""
    return [
        _point(name, LOOKS[name][0], problem(row), median(row["seconds"]))
        for name in BACKENDS
        for shape in recording.parameters["shape"]
        for row in timed(recording, name, shape)
    ]


def _strong_points(recording: Recording, known: set[tuple[int, int, int]]) -> list[dict[str, Any]]:
    """Return the median times of the fastest kernels on weights with zero points; FP16 only where it is not `known`."""
    return [
        _point(name, hue, size, seconds)
        for shape in recording.parameters["shape"]
        for times in [times_by_m(recording, shape, True)]
        for name, hue in STRONG.items()
        for m, seconds in times.get(name, {}).items()
        for size in [Problem.parse(shape, m, GROUP_SIZES[0])]
        if name != "fp16" or (size.n, size.k, size.m) not in known
    ]


def _point(name: str, hue: str, size: Problem, seconds: float) -> dict[str, Any]:
    return {
        "backend": BACKENDS[name].title if name in BACKENDS else decode_title((name, "fp16")),
        "bits": KERNELS[name].bits, "hue": hue,
        "n": size.n, "k": size.k, "group": size.group_size, "m": size.m, "seconds": seconds,
    }  # fmt: skip


def _format(bits: int, group: int | None) -> dict[str, Any]:
    """Describe a format by the bits of a column of W: ``bits`` for each of its K weights and ``column_bits`` once.

    With groups of a fixed size, scales and zero points are part of the first; with one group for each column they
    are the second. Both are taken from `Problem`, which knows what they weigh.
    """

    def column(k: int) -> float:
        return 8 * Problem(1, 1, k, k if group in (None, -1) else group or k).weight_bytes(bits)

    span = 128
    per_weight = (column(2 * span) - column(span)) / span
    names = {None: ("fp16", "FP16"), -1: ("int4-channelwise", "INT4, channelwise (-1)")}
    key, title = names.get(group, (f"int4-g{group}", f"INT4, groups of {group}"))
    return {
        "key": key, "title": title, "width": bits, "group": group,
        "bits": per_weight, "column_bits": column(span) - span * per_weight,
    }  # fmt: skip
