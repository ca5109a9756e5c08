"""Why is INT4 slower? What bytes, operations and a fixed cost predict, beside what the experiment ``kernels`` shows."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import linear_regression, median

from matplotlib.figure import Figure

from awqdoc.errors import AwqdocError
from awqdoc.formats import Problem
from awqdoc.kernels.table import LADDER
from awqdoc.models.decoding import llama_3_8b
from awqdoc.profiling import ratios
from awqdoc.recordings import Recording
from awqdoc.visualization.all_kernels import TOP, brief, kind, spans, timed_rows, times_by_m, top_step
from awqdoc.visualization.decoding import decode_title
from awqdoc.visualization.roofline import LAYERS
from awqdoc.visualization.style import colour, describe, legend, log_axis, new_figure, styled
from awqdoc.visualization.tables import Table

# Backends that write the weight out as FP16 and then multiply.
UNPACKING = ("dequantize", "cuda_dequantize")
# Kernels that the figure of a whole layer shows where they got times, and how.
CURVES = {
    TOP: ("orange", "D"),
    "gptqmodel_machete": ("green", "P"),
    "gptqmodel_marlin": ("blue", "^"),
    "triton_fused": ("purple", "s"),
    "dequantize": ("ochre", "v"),
    "autoawq_triton": ("muted", "o"),
}


@dataclass(frozen=True)
class Costs:
    """What bytes, operations and a launch cost on the GPU of a recording.

    Attributes
    ----------
    bandwidth : float
        Bytes per second that each further byte is read with.
    peak : float
        FLOP per second.
    launch : float
        Seconds that a kernel takes even if it reads next to nothing.
    residual : float
        Largest distance of a read from the line that gave `bandwidth` and `launch`, seconds.
    """

    bandwidth: float
    peak: float
    launch: float
    residual: float


@dataclass(frozen=True)
class Prediction:
    """A predicted time in its parts, all in seconds.

    Attributes
    ----------
    launches, bytes, operations : float
        The fixed cost of all its kernels; of the product, moving its bytes and doing its operations.
    unpacking : float
        Reading the packed weight and writing it as FP16 beforehand, for backends that do.
    """

    launches: float
    unpacking: float
    bytes: float
    operations: float

    @property
    def seconds(self) -> float:
        """All of it, where only the bytes and the operations of a product overlap."""
        return self.launches + self.unpacking + max(self.bytes, self.operations)

    @property
    def largest(self) -> str:
        """The part that takes longest."""
        parts = {"launches": self.launches, "unpacking": self.unpacking}
        bound = {"operations": self.operations} if self.operations > self.bytes else {"bytes": self.bytes}
        return max((parts | bound).items(), key=lambda part: part[1])[0]


@dataclass(frozen=True)
class Situation:
    """A backend on one layer, under a name that a reader knows it by."""

    title: str
    backend: str
    shape: str
    m: int


def kernel_costs(recording: Recording) -> Costs:
    """Take the costs from a recording's own rows: a line through the read floors' times over bytes, the best of FP16.

    Raises
    ------
    AwqdocError
        If it holds reads of fewer than two sizes, or no FP16 product.
    """
    rows = [row for row in recording.rows if "seconds" in row]
    reads = [(row["bytes"], median(row["seconds"])) for row in rows if row["backend"] == "read"]
    rates = [
        Problem.parse(row["shape"], row["m"]).flops / median(row["seconds"]) for row in rows if row["backend"] == "fp16"
    ]
    sizes = len({size for size, _ in reads})
    if sizes < 2 or not rates:
        raise AwqdocError(
            f"Costs are taken from reads of two sizes or more and FP16 products; found {sizes} sizes and {len(rates)} "
            "products: measure more shapes with `awqdoc run kernels`."
        )
    slope, launch = linear_regression(*zip(*reads, strict=True))
    residual = max(abs(seconds - launch - slope * size) for size, seconds in reads)
    return Costs(1 / slope, max(rates), launch, residual)


def predict_kernel(size: Problem, backend: str, costs: Costs) -> Prediction:
    """Predict a backend's time from what it must do: FP16, INT4 in one kernel, or unpacking and then FP16.

    Nothing of how good a kernel is enters: it is the time of one that waits for nothing else.
    """
    fp16, unpacks = backend == "fp16", backend in UNPACKING
    moved = size.weight_bytes(4) + size.weight_bytes(16) if unpacks else 0.0
    return Prediction(
        launches=(2 if unpacks else 1) * costs.launch,
        unpacking=moved / costs.bandwidth,
        bytes=size.bytes(16 if fp16 or unpacks else 4) / costs.bandwidth,
        operations=size.flops / costs.peak,
    )


def prediction_distances(recording: Recording, backend: str, zero_points: bool = True) -> list[float]:
    """Return measured over predicted time of a backend, in every cell of a recording in which it got a time."""
    found = kernel_costs(recording)
    return [
        median(row["seconds"]) / predict_kernel(Problem.parse(row["shape"], row["m"]), backend, found).seconds
        for row in recording.rows
        if row["backend"] == backend and row["zero_points"] == zero_points and "seconds" in row
    ]


def prediction_table(size: Problem, costs: Costs, recording: Recording) -> Table:
    """Tabulate the parts of the predicted time of one product in µs, for FP16 and both ways to use an INT4 weight."""
    ways = {"fp16": "FP16", TOP: "INT4, one kernel", "dequantize": "INT4 written as FP16 first"}
    base = predict_kernel(size, "fp16", costs).seconds
    rows = []
    for backend, title in ways.items():
        found = predict_kernel(size, backend, costs)
        parts = (found.launches, found.unpacking, found.bytes, found.operations, found.seconds)
        rows.append([title, *(f"{1e6 * part:.1f}" for part in parts), f"{base / found.seconds:.2f}"])
    columns = ["", "launches", "unpacking", "bytes", "or operations", "together", "times as fast as FP16"]
    title = f"Predicted, µs: {size.n}x{size.k} (N x K), M = {size.m}; costs {recording.label}"
    return Table(columns, rows, None, title)


def situation_gains(recording: Recording, situation: Situation, zero_points: bool = True) -> tuple[float, float | None]:
    """Return how many times as fast as FP16 a situation is, predicted and measured; None if it got no time."""
    found, size = kernel_costs(recording), Problem.parse(situation.shape, situation.m)
    predicted = predict_kernel(size, "fp16", found).seconds / predict_kernel(size, situation.backend, found).seconds
    rows = timed_rows(recording, situation.shape, zero_points)
    pair = [rows.get(name, {}).get(situation.m) for name in ("fp16", situation.backend)]
    measured = median(ratios(pair[0]["seconds"], pair[1]["seconds"])) if pair[0] and pair[1] else None
    return predicted, measured


@styled
def plot_situations(recording: Recording, situations: tuple[Situation, ...], zero_points: bool = True) -> Figure:
    """Draw the speed-up over FP16 of each situation, predicted (open) and measured (filled)."""
    figure, axes = new_figure("INT4 against FP16, predicted and measured", height=1.6 + 0.5 * len(situations))
    axes.axvline(1, color=colour("ink"), linewidth=1)
    told = []
    for place, situation in enumerate(situations):
        predicted, measured = situation_gains(recording, situation, zero_points)
        if measured is not None:
            axes.plot([predicted, measured], [place, place], color=colour("muted"), linewidth=1.2, zorder=1)
            axes.plot(measured, place, "D", color=colour("orange"), markersize=6)
        axes.plot(predicted, place, "o", color=colour("blue"), markersize=8, markerfacecolor="none")
        told.append(f"{situation.title}: {predicted:.2f} predicted, {_number(measured) or 'not'} measured")
    axes.plot([], [], "o", color=colour("blue"), markersize=8, markerfacecolor="none", label="predicted (modelled)")
    axes.plot([], [], "D", color=colour("orange"), markersize=6, label="measured")
    labels = [f"{one.title}\n{one.shape.replace('x', ' × ')}, M = {one.m}" for one in situations]
    axes.set_yticks(range(len(situations)), labels, fontsize=8.5)
    axes.set_ylim(len(situations) - 0.5, -0.5)
    axes.set_xscale("log")
    log_axis(axes.xaxis)
    axes.set_xlabel("times as fast as FP16 (log)")
    legend(axes)
    return describe(figure, f"Speed-up over FP16, predicted and measured. {'; '.join(told)}.", recording)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def situations_table(recording: Recording, situations: tuple[Situation, ...], zero_points: bool = True) -> Table:
    """Tabulate each situation's µs and speed-up over FP16, predicted and measured, and the largest predicted part."""
    found, rows = kernel_costs(recording), []
    for one in situations:
        predicted, measured = situation_gains(recording, one, zero_points)
        parts = predict_kernel(Problem.parse(one.shape, one.m), one.backend, found)
        taken = times_by_m(recording, one.shape, zero_points).get(one.backend, {}).get(one.m)
        rows.append([
            one.title, brief(one.backend), one.shape, one.m, f"{1e6 * parts.seconds:.1f}",
            "" if taken is None else f"{1e6 * taken:.1f}", parts.largest, f"{predicted:.2f}", _number(measured),
        ])  # fmt: skip
    columns = [
        "situation", "kernel", "N x K", "M", "predicted µs", "measured µs", "most of it", "speed-up predicted",
        "measured",
    ]  # fmt: skip
    return Table(columns, rows, recording, f"Against FP16, {kind(zero_points)}; what is predicted is modelled")


def layer_times(recording: Recording, zero_points: bool = True) -> dict[str, dict[int, float]]:
    """Return backend -> M -> seconds of the four products of a Llama-3-8B layer, where all four got a time."""
    by_shape = [times_by_m(recording, shape, zero_points) for shape in LAYERS]
    found: dict[str, dict[int, float]] = {}
    for name in by_shape[0]:
        for m in recording.parameters["m"]:
            parts = [times.get(name, {}).get(m) for times in by_shape]
            whole = [part for part in parts if part is not None]
            if len(whole) == len(parts):
                found.setdefault(name, {})[m] = sum(whole)
    return found


def prompt_table(recording: Recording, kernels: Recording) -> Table:
    """Tabulate the experiment ``prefill``: ms of a prompt, those in which the GPU worked, their share, and launches.

    Beside them what the products of all layers take alone, where `kernels`, a recording of the experiment of that name,
    holds them of the same GPU.
    """
    same = kernels.provenance["gpu"] == recording.provenance["gpu"]
    alone, rows = layer_times(kernels) if same else {}, []
    for row in recording.rows:
        if "skipped" in row:
            continue
        tokens, ms, busy = row["tokens"], 1e3 * median(row["seconds"]), 1e3 * row["busy"]
        seconds = alone.get(row["backend"], {}).get(tokens)
        products = f"{1e3 * llama_3_8b().num_hidden_layers * seconds:.1f}" if seconds else ""
        told = [f"{ms:.1f}", f"{busy:.1f}", f"{busy / ms:.0%}", str(row["launches"]), products]
        rows.append([str(tokens), decode_title((row["backend"], "fp16")), *told])
    columns = ["tokens", "model", "ms", "GPU busy, ms", "share", "launches", "products alone, ms"]
    return Table(columns, rows, recording, "A prompt launched from Python; busy: under a profiler, in a run of its own")


def predicted_layer(recording: Recording, backend: str) -> dict[int, float]:
    """Return M -> predicted seconds of the same four products."""
    found = kernel_costs(recording)
    return {
        m: sum(predict_kernel(Problem.parse(shape, m), backend, found).seconds for shape in LAYERS)
        for m in recording.parameters["m"]
    }


@styled
def plot_layer(recording: Recording, zero_points: bool = True) -> Figure:
    """Draw the speed-up of a Llama-3-8B layer's four products over FP16, by M, and what is predicted of one kernel."""
    times = layer_times(recording, zero_points)
    fp16, batches = times.get("fp16", {}), recording.parameters["m"]
    base, best = predicted_layer(recording, "fp16"), predicted_layer(recording, TOP)
    figure, axes = new_figure(f"The linear layers of one Llama-3-8B layer, {kind(zero_points)}", height=4.4)
    axes.plot(batches, [base[m] / best[m] for m in batches], ":", color=colour("ink"), label="predicted (modelled)")
    axes.axhline(1, color=colour("ink"), linewidth=1)
    told = [f"predicted: {base[batches[0]] / best[batches[0]]:.2f} at M = {batches[0]}"]
    for name, (hue, marker) in ({top_step(recording): CURVES[TOP]} | CURVES).items():
        gain = {m: fp16[m] / seconds for m, seconds in times.get(name, {}).items() if m in fp16}
        if gain:
            axes.plot(list(gain), list(gain.values()), marker=marker, color=colour(hue), label=brief(name))
            ends = dict.fromkeys((min(gain), max(gain)))
            told.append(f"{brief(name)}: " + ", ".join(f"{gain[m]:.2f} at M = {m}" for m in ends))
    shown = [m for m in batches if m & (m - 1) == 0]
    axes.set_xscale("log", base=2)
    axes.set_xticks(shown, [str(m) for m in shown], fontsize=9)
    axes.minorticks_off()
    axes.set_xlabel("batch size M (tokens at a time)")
    axes.set_yscale("log")
    log_axis(axes.yaxis)
    axes.set_ylabel("times as fast as FP16 (log)")
    legend(axes)
    return describe(figure, f"Speed-up of a layer over FP16 by batch size. {'; '.join(told)}.", recording)


def layer_table(recording: Recording, batches: tuple[int, ...], zero_points: bool = True) -> Table:
    """Tabulate the µs of a layer's four products: a line for each kernel, where it is faster than FP16 and its ends.

    Our ladder is represented by its top step. A kernel that lacks a time for one of the four products at an M has none.
    """
    times = layer_times(recording, zero_points)
    fp16, rows = times.get("fp16", {}), []
    for name in ("fp16", top_step(recording), *(name for name in times if name not in (*LADDER, "fp16", "read"))):
        own = times.get(name, {})
        both = [m for m in own if m in fp16]
        won = "" if name == "fp16" or not both else spans([m for m in both if own[m] < fp16[m]], both)
        if own:
            rows.append([brief(name), *(f"{1e6 * own[m]:.0f}" if m in own else "" for m in batches), won])
    bound = predicted_layer(recording, TOP)
    rows.append(["predicted: INT4, one kernel", *(f"{1e6 * bound[m]:.0f}" if m in bound else "" for m in batches), ""])
    columns = ["", *(f"M = {m}" for m in batches), "faster than FP16 at M"]
    title = f"µs of the four products of a Llama-3-8B layer, {kind(zero_points)}; sums of medians"
    return Table(columns, rows, recording, title)
