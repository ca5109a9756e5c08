"""The experiment ``decode``: a whole model's step in time, in parts and in memory, held against bytes and kernels."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from contextlib import suppress
from statistics import median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from awqdoc.errors import AwqdocError
from awqdoc.kernels.table import KERNELS
from awqdoc.models.decoding import budget, llama_3_8b
from awqdoc.profiling import ratios
from awqdoc.recordings import Recording, Row
from awqdoc.visualization.all_kernels import TOP, brief, spans
from awqdoc.visualization.style import colour, describe, legend, log_axis, new_figure, styled
from awqdoc.visualization.tables import Table

Model = tuple[str, str]  # the backend of the layers' products, and that of lm_head
Samples = dict[Model, dict[int, list[float]]]  # model -> batch -> of each round
Values = dict[Model, dict[int, float]]
Parts = dict[Model, dict[str, float]]
FP16: Model = ("fp16", "fp16")
# In this order, with these colours and markers; a model that is not among them comes last.
LOOKS: dict[Model, tuple[str, str]] = {
    FP16: ("muted", "o"), ("fp16_stream", "fp16_stream"): ("green", "P"), ("cuda_overlapped", "fp16"): ("orange", "D"),
    ("cuda_overlapped", "cuda_overlapped"): ("purple", "s"), ("gptqmodel_marlin", "fp16"): ("blue", "^"),
}  # fmt: skip
# Kind of work -> its colour. Gaps are not filled but hatched: nothing ran in them.
KIND_HUES = {
    "embedding": "ink", "norm": "green", "linear": "blue", "attention": "orange", "activation": "ochre",
    "lm_head": "purple", "sampling": "muted", "gaps": "muted",
}  # fmt: skip
MEMORY_HUES = {"weights": "blue", "cache": "orange", "working": "ochre"}


def decode_title(model: Model) -> str:
    """Name a model, (backend, backend of lm_head), for readers."""
    layers, head = _bits(model)
    if layers == 16:
        return "FP16, cuBLAS" if model == FP16 else "FP16, our kernel"
    kernel = "our top step" if model[0] == TOP else brief(model[0])
    return f"INT4, {kernel}" + ("" if head == 16 else ", lm_head too")


def _bits(model: Model) -> tuple[int, int]:
    """Return the bits of a weight in the layers and in lm_head."""
    layers, head = (KERNELS[name].bits if name in KERNELS else 4 for name in model)
    return layers, head


def _rows(recording: Recording, what: str) -> dict[Model, list[Row]]:
    """Return the rows of each model that hold what was measured, the models in the order of `LOOKS`."""
    found: dict[Model, list[Row]] = {}
    for row in recording.rows:
        if row["what"] == what and "skipped" not in row:
            found.setdefault((row["backend"], row["lm_head"]), []).append(row)
    return {model: found[model] for model in dict.fromkeys([*LOOKS, *found]) if model in found}


def step_samples(recording: Recording) -> Samples:
    """Return model -> batch -> seconds of each step; without the batches at which the model got no time."""
    return {model: {row["batch"]: row["seconds"] for row in own} for model, own in _rows(recording, "step").items()}


def step_speedups(recording: Recording) -> Samples:
    """Return model -> batch -> how many times as fast as FP16, round by round of the interleaved run."""
    found = step_samples(recording)
    return {model: {m: ratios(found[FP16][m], one) for m, one in own.items()} for model, own in found.items()}


def kind_floors(recording: Recording, batch: int) -> Parts:
    """Return model -> kind of work -> seconds that reading its bytes takes, at the rate of the reads beside the steps.

    Attention reads the cache. The kinds that are not there read next to nothing.
    """
    config, part, found = llama_3_8b(), recording.select(batch=[batch]), Parts()
    reads = [row["bytes"] / median(row["seconds"]) for row in part.rows if row["what"] == "read"]
    for model, (row,) in _rows(part, "step").items():
        layers, head = _bits(model)
        cache = budget.cache_bytes(config, batch, row["context"])
        sizes = {"linear": budget.linear_bytes(config, layers), "attention": cache}
        sizes["lm_head"] = budget.head_bytes(config, head)
        found[model] = {kind: size / reads[0] for kind, size in sizes.items()}
    return found


def step_floors(recording: Recording) -> Values:
    """Return model -> batch -> seconds that reading a step's bytes takes, at the rate of the reads beside the steps."""
    found = Values()
    for batch in recording.parameters["batch"]:
        for model, floors in kind_floors(recording, batch).items():
            found.setdefault(model, {})[batch] = sum(floors.values())
    return found


def step_ceilings(recording: Recording) -> Values:
    """Return model -> batch -> how many times as fast as FP16 it can be if bytes alone took time."""
    found = step_floors(recording)
    return {model: {m: found[FP16][m] / floor for m, floor in own.items()} for model, own in found.items()}


def pays_until(recording: Recording) -> dict[Model, int | None]:
    """Return INT4 model -> the largest batch at which its step is faster than FP16's; None if it never is."""
    found = step_speedups(recording).items()
    won = {model: [m for m, gain in own.items() if median(gain) > 1] for model, own in found if _bits(model)[0] == 4}
    return {model: max(batches, default=None) for model, batches in won.items()}


def kind_seconds(recording: Recording, batch: int) -> Parts:
    """Return model -> kind of work -> its seconds in a step under the profiler."""
    rows = _rows(recording.select(batch=[batch]), "kind")
    return {model: {row["kind"]: row["seconds"] for row in own} for model, own in rows.items()}


def decode_memory(recording: Recording, batch: int) -> Parts:
    """Return model -> the bytes of ``weights``, ``cache`` and ``working``, all else at the peak of a step."""
    rows = _rows(recording.select(batch=[batch]), "memory")
    return {model: {part: own[0][part] for part in MEMORY_HUES} for model, own in rows.items()}


def predicted_steps(recording: Recording, kernels: Recording) -> Values:
    """Return model -> batch -> predicted seconds: recorded products, lm_head by its bytes, and the measured remainder.

    `kernels` is a recording of the experiment of that name. The remainder is all that the profiler charged neither to
    the products nor to lm_head. Where the products were not recorded, nothing is predicted.

    Raises
    ------
    AwqdocError
        If the two are of different GPUs.
    """
    wanted, gpu = recording.provenance["gpu"], kernels.provenance["gpu"]
    if gpu != wanted:
        raise AwqdocError(f"The kernels must be of the steps' GPU, {wanted}; found {gpu}: measure both on one.")
    found: Values = {model: {} for model in step_samples(recording)}
    for m in recording.parameters["batch"]:
        for model, kinds in kind_seconds(recording, m).items():
            rest = sum(seconds for kind, seconds in kinds.items() if kind not in ("linear", "lm_head"))
            with suppress(AwqdocError):  # not recorded
                found[model][m] = budget.predicted_seconds(kernels, llama_3_8b(), model[0], m, rest, _bits(model)[1])
    return found


def _table(recording: Recording, columns: list[str], title: str, cells: Callable[[Model, int], list[Any]]) -> Table:
    """Tabulate what `cells` returns for each batch and each model that got a time there."""
    timed = step_samples(recording)
    lines = [(m, model) for m in recording.parameters["batch"] for model, own in timed.items() if m in own]
    rows = [[m, decode_title(model), *cells(model, m)] for m, model in lines]
    return Table(["batch", "model", *columns], rows, recording, title)


def step_table(recording: Recording) -> Table:
    """Tabulate a step by batch and model: ms, what the bytes allow, tokens/s, speed-up over FP16 and its ceiling."""
    samples, floors = step_samples(recording), step_floors(recording)
    gains, ceilings = step_speedups(recording), step_ceilings(recording)

    def cells(model: Model, m: int) -> list[str]:
        seconds, floor, gain = median(samples[model][m]), floors[model][m], median(gains[model][m])
        times = [f"{1e3 * seconds:.3f}", f"{1e3 * floor:.3f}", f"{floor / seconds:.0%}"]
        return [*times, f"{1 / seconds:.1f}", f"{m / seconds:.0f}", f"{gain:.2f}", f"{ceilings[model][m]:.2f}"]

    columns = ["ms", "bytes allow, ms", "share", "tokens/s per user", "in all", "times as fast as FP16", "bytes allow"]
    return _table(recording, columns, "A step, medians; what the bytes allow is modelled at the rate of a read", cells)


def step_prediction_table(recording: Recording, kernels: Recording) -> Table:
    """Tabulate by batch and model the predicted and the measured step, and what both make of the speed-up."""
    predicted, samples, gains = predicted_steps(recording, kernels), step_samples(recording), step_speedups(recording)

    def cells(model: Model, m: int) -> list[str]:
        seconds, expected, base = median(samples[model][m]), predicted[model].get(m), predicted[FP16].get(m)
        told = [f"{1e3 * expected:.3f}", f"{seconds / expected:.2f}"] if expected else ["", ""]
        gain = f"{base / expected:.2f}" if base and expected else ""
        return [told[0], f"{1e3 * seconds:.3f}", told[1], gain, f"{median(gains[model][m]):.2f}"]

    columns = ["predicted ms", "measured ms", "measured over predicted", "speed-up predicted", "speed-up measured"]
    title = f"Predicted (modelled) from kernels {kernels.label}, and the remainder measured with the steps"
    return _table(recording, columns, title, cells)


def decode_memory_table(recording: Recording) -> Table:
    """Tabulate memory in GB (10^9 bytes) by batch and model, FP16's beside it."""

    def cells(model: Model, m: int) -> list[str]:
        own, base = (decode_memory(recording, m)[one] for one in (model, FP16))
        whole, other = sum(own.values()), sum(base.values())
        sizes = [f"{size / 1e9:.2f}" for size in (*own.values(), whole, other)]
        return [*sizes, f"{base['weights'] / own['weights']:.2f}", f"{other / whole:.2f}"]

    columns = [*MEMORY_HUES, "together", "FP16", "weights: times smaller", "together: times smaller"]
    return _table(recording, columns, "Memory of a step, GB", cells)


def kinds_table(recording: Recording, batch: int) -> Table:
    """Tabulate the ms of each kind of work in a step, by model, with the linear layers' share and the timed step."""
    parts, timed = kind_seconds(recording, batch), step_samples(recording)
    rows = [[kind, *(f"{1e3 * part[kind]:.3f}" for part in parts.values())] for kind in KIND_HUES]
    rows.append(["together", *(f"{1e3 * sum(part.values()):.3f}" for part in parts.values())])
    rows.append(["share of linear layers", *(f"{part['linear'] / sum(part.values()):.0%}" for part in parts.values())])
    rows.append(["without a profiler", *(f"{1e3 * median(timed[model][batch]):.3f}" for model in parts)])
    return Table(["", *map(decode_title, parts)], rows, recording, f"A step under the profiler, ms, batch {batch}")


def kind_calls_table(recording: Recording, batch: int) -> Table:
    """Tabulate the µs of each call, by kind and model, with the share of it that its bytes take where it must read."""
    config, parts, floors = llama_3_8b(), kind_seconds(recording, batch), kind_floors(recording, batch)
    layers = config.num_hidden_layers
    each = {"norm": 2 * layers + 1, "linear": len(budget.shapes(config)) * layers, "attention": layers}
    each |= {"activation": layers, "embedding": 1, "lm_head": 1, "sampling": 1}

    def cell(model: Model, kind: str) -> str:
        share = f" ({floors[model][kind] / parts[model][kind]:.0%})" if kind in floors[model] else ""
        return f"{1e6 * parts[model][kind] / each[kind]:.1f}{share}"

    kinds = [kind for kind in KIND_HUES if kind in each]
    rows = [[kind, each[kind], *(cell(model, kind) for model in parts)] for kind in kinds]
    title = f"µs of a call, batch {batch}, and the share that its bytes take at the rate of a read (modelled)"
    return Table(["", "calls", *map(decode_title, parts)], rows, recording, title)


def kind_gains_table(recording: Recording, batches: Sequence[int]) -> Table:
    """Tabulate how many times as fast a step would be if only the bytes of some kinds took time."""
    rows = []
    for batch in batches:
        floors = kind_floors(recording, batch)
        for model, parts in kind_seconds(recording, batch).items():
            whole, own = sum(parts.values()), floors[model]
            attention = parts["attention"] - own["attention"]
            small = sum(seconds for kind, seconds in parts.items() if kind not in own)
            saved = (attention, small, attention + small, whole - sum(own.values()))
            gains = [f"{whole / (whole - seconds):.2f}" for seconds in saved]
            rows.append([batch, decode_title(model), f"{1e3 * whole:.3f}", *gains])
    columns = ["batch", "model", "ms", "attention by its bytes", "small kinds, gaps: none", "both", "all by bytes"]
    return Table(columns, rows, recording, "Modelled: times as fast as it is under the profiler, if …")


def prefill_table(recording: Recording) -> Table:
    """Tabulate reading a prompt of one sequence, launched from Python: ms, ms per 1000 tokens, speed-up over FP16."""
    found, rows = _rows(recording, "prefill"), []
    base = {row["tokens"]: row["seconds"] for row in found.get(FP16, [])}
    for model, own in found.items():
        for row in own:
            tokens, ms = row["tokens"], 1e3 * median(row["seconds"])
            gain = f"{median(ratios(base[tokens], row['seconds'])):.2f}"
            rows.append([decode_title(model), tokens, f"{ms:.2f}", f"{1000 * ms / tokens:.2f}", gain])
    columns = ["model", "tokens", "ms", "ms per 1000 tokens", "times as fast as FP16"]
    return Table(columns, rows, recording, "Prefill of one prompt, launched from Python, medians")


def decode_left_out_table(recording: Recording) -> Table:
    """Tabulate the models without a time: at which batches, and why."""
    found: dict[tuple[str, str], list[int]] = {}
    for row in recording.skipped:
        found.setdefault((decode_title((row["backend"], row["lm_head"])), row["skipped"]), []).append(row["batch"])
    batches = recording.parameters["batch"]
    rows = [[title, spans(missing, batches), reason] for (title, reason), missing in found.items()]
    return Table(["model", "batch", "reason"], rows, recording, "Without a time")


def decode_untimed(recording: Recording) -> str:
    """Say of each model that got no time at any batch why, a line for each; empty if all got one."""
    timed, reasons = step_samples(recording), dict[Model, str]()
    for row in recording.skipped:
        reasons.setdefault((row["backend"], row["lm_head"]), row["skipped"])  # that of the smallest batch
    untimed = [model for model in reasons if model not in timed]
    return "".join(f"{decode_title(model)}, without a time: {reasons[model]}\n" for model in untimed)


@styled
def plot_step_times(recording: Recording) -> Figure:
    """Draw ms per step over batch, with what the bytes allow."""
    return _over_batch(recording, "A whole model, ms per step", step_samples(recording), step_floors(recording), 1e3)


@styled
def plot_step_speedup(recording: Recording) -> Figure:
    """Draw how many times as fast as FP16 a step is, over batch, with what the bytes allow."""
    gains, ceilings = step_speedups(recording), step_ceilings(recording)
    return _over_batch(recording, "A whole model, times as fast as FP16", gains, ceilings, 1)


def _over_batch(recording: Recording, title: str, samples: Samples, bounds: Values, factor: float) -> Figure:
    """Draw medians as lines, all samples as bands, what the bytes allow dotted, and tell the ends."""
    figure, axes = new_figure(title, height=4.4)
    told, batches = [], recording.parameters["batch"]
    for model, found in samples.items():
        hue, marker = LOOKS.get(model, ("green", "v"))
        low, middle, high = ([factor * of(own) for own in found.values()] for of in (min, median, max))
        axes.fill_between(list(found), low, high, color=colour(hue), alpha=0.25, linewidth=0)
        axes.plot(list(found), middle, marker=marker, color=colour(hue), label=decode_title(model))
        axes.plot(list(bounds[model]), [factor * one for one in bounds[model].values()], ":", color=colour(hue))
        for m in dict.fromkeys((min(found), max(found))):
            values = f"{factor * median(found[m]):.2f}, the bytes allow {factor * bounds[model][m]:.2f}"
            told.append(f"{decode_title(model)} at batch {m}: {values}")
    axes.plot([], [], ":", color=colour("ink"), label="the bytes allow (modelled)")
    axes.set_ylim(bottom=0)
    _batch_axis(axes, batches)
    legend(axes)
    return describe(figure, f"{title}, by batch. {'; '.join(told)}.", recording)


def _batch_axis(axes: Axes, batches: list[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(batches, [str(m) for m in batches], fontsize=9)
    axes.minorticks_off()
    axes.set_xlabel("batch (sequences decoded together)")


@styled
def plot_users(recording: Recording) -> Figure:
    """Draw tokens/s of all over tokens/s of each user, a point for each batch."""
    figure, axes = new_figure("Tokens/s: what each user gets, and what all get", height=4.4)
    fastest, told = dict[int, float](), []
    for model, samples in step_samples(recording).items():
        hue, marker = LOOKS.get(model, ("green", "v"))
        each = {m: 1 / median(own) for m, own in samples.items()}
        whole = [m * rate for m, rate in each.items()]
        axes.plot(list(each.values()), whole, marker=marker, color=colour(hue), label=decode_title(model))
        fastest |= {m: max(rate, fastest.get(m, 0)) for m, rate in each.items()}
        ends = [f"{each[m]:.0f} and {m * each[m]:.0f} at batch {m}" for m in dict.fromkeys((min(each), max(each)))]
        told.append(f"{decode_title(model)}: {', '.join(ends)}")
    for m, rate in fastest.items():
        axes.annotate(f"batch {m}", (rate, m * rate), (7, -3), textcoords="offset points", fontsize=8.5)
    axes.set(xscale="log", yscale="log", xlabel="of each user (log)", ylabel="of all (log)")
    axes.set_xlim(right=1.3 * max(fastest.values()))  # room for the words
    for axis in (axes.xaxis, axes.yaxis):
        log_axis(axis)
    legend(axes)
    return describe(figure, f"Tokens per second of each user and of all. {'; '.join(told)}.", recording)


@styled
def plot_kinds(recording: Recording, batch: int) -> Figure:
    """Draw the ms of each kind of work in a step, a bar for each model; gaps are hatched."""
    title = f"Where the time of a step goes, batch {batch}"
    return _stacked(recording, title, kind_seconds(recording, batch), KIND_HUES, "ms")


@styled
def plot_kind_floors(recording: Recording) -> Figure:
    """Draw over batch the per cent of each kind's time that its bytes take: FP16 dashed, our top step drawn through."""
    figure, axes = new_figure("Of each kind's time, what its bytes take (modelled), %", height=4.4)
    batches, told = recording.parameters["batch"], []
    found = {m: (kind_floors(recording, m), kind_seconds(recording, m)) for m in batches}
    for model, style in ((FP16, "--"), ((TOP, "fp16"), "-")):
        timed = [m for m in batches if model in found[m][1]]
        for kind in ("linear", "lm_head", "attention") if timed else ():
            shares = [100 * found[m][0][model][kind] / found[m][1][model][kind] for m in timed]
            name = f"{kind}, {decode_title(model)}"
            axes.plot(timed, shares, style, marker=LOOKS[model][1], color=colour(KIND_HUES[kind]), label=name)
            told.append(f"{name}: from {shares[0]:.0f} at batch {timed[0]} to {shares[-1]:.0f} at {timed[-1]}")
    axes.set_ylim(0, 105)
    _batch_axis(axes, batches)
    legend(axes)
    alt = f"Per cent of each kind's time that its bytes take at the rate of a read, by batch. {'; '.join(told)}."
    return describe(figure, alt, recording)


@styled
def plot_decode_memory(recording: Recording, batch: int) -> Figure:
    """Draw the GB (10^9 bytes) of weights, cache and all else in a step, a bar for each model."""
    title = f"What a step holds in memory, batch {batch}"
    return _stacked(recording, title, decode_memory(recording, batch), MEMORY_HUES, "GB")


def _stacked(recording: Recording, title: str, bars: Parts, hues: dict[str, str], unit: str) -> Figure:
    figure, axes = new_figure(title, height=1.9 + 0.5 * len(bars))
    factor, ends, told = {"ms": 1e3, "GB": 1e-9}[unit], [0.0] * len(bars), []
    for part, hue in hues.items():
        sizes = [factor * parts[part] for parts in bars.values()]
        fill: dict[str, Any] = {"color": colour(hue), "linewidth": 0}
        fill = {"color": "none", "edgecolor": colour(hue), "hatch": "//////"} if part == "gaps" else fill
        axes.barh(range(len(bars)), sizes, left=ends, height=0.6, label=part, **fill)
        ends = [end + size for end, size in zip(ends, sizes, strict=True)]
    for place, (model, end) in enumerate(zip(bars, ends, strict=True)):
        axes.annotate(f"{end:.2f}", (end, place), (4, 0), textcoords="offset points", va="center", fontsize=9)
        parts = ", ".join(f"{part} {factor * bars[model][part]:.3g}" for part in hues)
        told.append(f"{decode_title(model)}: {end:.2f} {unit}, of it {parts}")
    axes.set_yticks(range(len(bars)), [textwrap.fill(decode_title(model), 20) for model in bars], fontsize=9)
    axes.set(xlim=(0, 1.14 * max(ends)), ylim=(len(bars) - 0.5, -0.5), xlabel=unit)
    axes.grid(visible=False, axis="y")
    legend(axes, columns=3)
    return describe(figure, f"{title}. {'. '.join(told)}.", recording)
