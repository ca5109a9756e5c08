"""Famous claims about INT4, AWQ and Marlin, and verdicts on them that follow from recorded numbers or from bytes."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import product, takewhile
from statistics import mean, median
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from awqdoc.errors import AwqdocError
from awqdoc.formats import Problem
from awqdoc.gpu.datasheets import DATA_SHEETS
from awqdoc.kernels.table import KERNELS, LADDER
from awqdoc.models.decoding import llama_3_8b
from awqdoc.models.decoding.budget import head_bytes, linear_bytes, model_bytes, step_bytes
from awqdoc.profiling import ratios
from awqdoc.recordings import Parameters, Recording
from awqdoc.visualization.accuracy import accuracy_row
from awqdoc.visualization.all_kernels import brief, spans, timed_rows
from awqdoc.visualization.calibration import calibrated
from awqdoc.visualization.decoding import decode_title, step_ceilings, step_samples
from awqdoc.visualization.paired import paired_difference
from awqdoc.visualization.salient import kl_removed
from awqdoc.visualization.side_by_side import block_seconds
from awqdoc.visualization.style import WIDTH, colour, describe, legend, new_figure, styled
from awqdoc.visualization.tables import Table

TOP = LADDER[-1]
NEAR = 0.9
"""Nine tenths or more is what verdicts mean by near."""
IDEAL = 3.87
"""The speed-up that 4 bits and a 16-bit scale for 128 weights allow, as Marlin's README has it."""
MARLINS = ("marlin_ist", "gptqmodel_marlin", TOP)
"""Backends that Marlin's claims are held to, as published, in vLLM, and our last step, which is no Marlin."""
_LOOKS = {"marlin_ist": ("green", "^"), "gptqmodel_marlin": ("blue", "o"), TOP: ("orange", "D")}
_MODELS = {"embedded": "as trained", "embedded+outliers": "with outliers"}
_UNMEASURED = "not measured here"


@dataclass(frozen=True)
class Claim:
    """What is said, by whom and where, and under which conditions it was found there."""

    words: str
    by: str
    conditions: str


@dataclass(frozen=True)
class Finding:
    """What became of a claim here: numbers, a verdict that follows from them, and their recording (None: modelled)."""

    found: str
    verdict: str
    source: Recording | None

    def __str__(self) -> str:
        return "\n".join(_wrapped(line, 80) for line in (f"found: {self.found}", f"verdict: {self.verdict}"))


def _wrapped(line: str, width: int) -> str:
    return textwrap.fill(line, width, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)


CLAIMS = {
    "memory": Claim("Four times less memory", "the original tutorial", "a model of 16 GB, 4 GB afterwards"),
    "memory 3": Claim("Three times less memory", "AutoAWQ's README", "none stated"),
    "loss": Claim("Less than 1 % of accuracy lost", "the original tutorial", "no measure stated"),
    "peak": Claim(
        "3.87 times as fast, up to 16 to 32 tokens", "Marlin's README",
        "A10; one large layer, symmetric, groups of 128; not yet optimized for Hopper",
    ),
    "decline": Claim("Less, but still a gain, up to 64 to 128 tokens", "the Marlin paper", "single layers, Ampere"),
    "always": Claim("INT4 is always faster", "often heard", "none"),
    "gemm": Claim(
        "GEMM much faster than FP16 at batch sizes below 8", "AutoAWQ's README", "whole models (benchmarks: RTX 4090)",
    ),
    "step": Claim(
        "2.8 times as fast as a whole: 10.5 ms a token become 3.7",
        "the original tutorial; the Marlin paper says up to 2.8",
        "A100; in the paper several GPUs and models, in vLLM",
    ),
    "chat": Claim(
        "More than 3 times as fast as FP16 in Hugging Face", "the AWQ paper's abstract, of TinyChat",
        "one user; FP16 not tuned",
    ),
    "salient": Claim(
        "1 % of the channels matter most, and activations tell which", "the AWQ paper, table 1",
        "OPT of 1.3 to 13 B parameters, INT3",
    ),
    "text": Claim("A tenth of GPTQ's calibration text is enough", "the AWQ paper, figure 8", "OPT-6.7B, INT3"),
    "robust": Claim("The wrong calibration text costs AWQ less than GPTQ", "the same figure", "OPT-6.7B, INT3"),
    "order": Claim(
        "AWQ loses less than rounding and than GPTQ", "the AWQ paper, table 4", "Llama and Llama-2, 7 to 70 B",
    ),
    "minutes": Claim("10 to 15 minutes to quantize 7 B parameters", "AutoAWQ's README", "no GPU stated"),
}  # fmt: skip
"""Key -> claim, in the order in which the page takes them."""


def complete_recording(recording: Recording, axes: Parameters) -> Recording:
    """Return a recording that holds every combination of the values of its axes, as verdicts need it.

    Raises
    ------
    AwqdocError
        If some are missing, as after Ctrl-C.
    """
    cells = list(product(*axes.values()))
    found = {tuple(row[axis] for axis in axes) for row in recording.rows}
    missing = sum(cell not in found for cell in cells)
    if missing:
        raise AwqdocError(
            f"A verdict needs all {len(cells)} cells of the experiment {recording.experiment}; {missing} are missing: "
            "let it run to its end."
        )
    return recording


def verdict_of(passed: Mapping[str, bool], word: str = "for") -> str:
    """Say what a claim holds for and what not, of the named things that it was tried on."""
    held, lost = ([name for name, yes in passed.items() if yes is wanted] for wanted in (True, False))
    if not held or not lost:
        return "holds" if held else "not here" if lost else _UNMEASURED
    return f"holds {word} {' and '.join(held)}; not {word} {' nor '.join(lost)}"


def verdict_on(passed: Collection[bool], unit: str = "layers") -> str:
    """Say on how many of the cases that it was tried on a claim holds."""
    if not passed or all(passed) or not any(passed):
        return verdict_of({str(number): yes for number, yes in enumerate(passed)})
    return f"holds on {sum(passed)} of {len(passed)} {unit}"


def verdict_up_to(gains: Mapping[int, float], least: float, claimed: int) -> str:
    """Say up to which batch size, from the smallest measured, gains reach `least`, if not up to the `claimed` one."""
    if not gains:
        return _UNMEASURED
    run = list(takewhile(lambda m: gains[m] >= least, sorted(gains)))
    if not run:
        return f"not here (at most {max(gains.values()):.2f})"
    return "holds" if run[-1] >= claimed else f"holds up to M = {run[-1]}"


def kernel_gains(recording: Recording, backend: str, shape: str, zero_points: bool) -> dict[int, float]:
    """Return M -> FP16's time over a backend's, the median over the rounds, where both got a time."""
    rows = timed_rows(recording, shape, zero_points)
    both = {m: rows["fp16"][m] for m in sorted(rows.get(backend, {})) if m in rows.get("fp16", {})}
    return {m: median(ratios(fp16["seconds"], rows[backend][m]["seconds"])) for m, fp16 in both.items()}


def ends(recording: Recording) -> tuple[str, str]:
    """Return the shapes with most and with fewest weights."""
    sizes = {shape: Problem.parse(shape, 1).weight_bytes(16) for shape in recording.parameters["shape"]}
    return max(sizes, key=sizes.__getitem__), min(sizes, key=sizes.__getitem__)


def memory_finding(config: Any, claimed: float) -> Finding:
    """Judge "so many times less memory" by the bytes of a Llama whose embedding and lm_head stay in FP16."""
    before, after = (model_bytes(config, bits) for bits in (16, 4))
    layers, model = linear_bytes(config, 16) / linear_bytes(config, 4), before / after
    found = (
        f"Llama-3-8B {before / 1e9:.1f} to {after / 1e9:.1f} GB: {model:.2f} times less; its linear layers "
        f"{layers:.2f} times"
    )
    tried = {"the linear layers": layers, "the model": model}
    return Finding(found, verdict_of({name: times >= NEAR * claimed for name, times in tried.items()}), None)


def loss_finding(recording: Recording, groups: tuple[int, ...] = (128, 32), most: float = 0.01) -> Finding:
    """Judge "less than 1 %" by what AWQ at INT4 adds to perplexity and to bits per byte, for some group sizes."""
    added = {}
    for group in groups:
        extra = accuracy_row(recording, 4, group, "awq")["extra_nll"]
        before = mean(accuracy_row(recording, 4, group, "fp16")["nll_windows"])
        added[f"perplexity (G = {group})"] = math.expm1(extra)
        added[f"bits per byte (G = {group})"] = extra / before
    other = 1 - accuracy_row(recording, 4, groups[0], "awq")["agreement"]
    told = ", ".join(f"{name} {value:+.1%}" for name, value in added.items())
    found = f"{told}; another likeliest token at {other:.1%} of the places"
    return Finding(found, verdict_of({name: value < most for name, value in added.items()}, "by"), recording)


def peak_finding(recording: Recording, claimed: int = 16, near: float = NEAR) -> Finding:
    """Judge Marlin's speed-up, near the ideal up to 16 tokens, by `MARLINS` on the largest layer, symmetric."""
    shape, _ = ends(recording)
    asked = [m for m in recording.parameters["m"] if m <= claimed]
    found, verdicts = [], []
    for name in MARLINS:
        gains = kernel_gains(recording, name, shape, False)
        lacking = [m for m in asked if m not in gains]
        verdict = f"no time at M = {spans(lacking, asked)}" if lacking else verdict_up_to(gains, near * IDEAL, claimed)
        verdicts.append(f"{brief(name)}: {verdict}")
        some = [m for m in (asked[0], asked[-1], 2 * claimed) if m in gains]
        found += [f"{brief(name)} {', '.join(f'{gains[m]:.2f} at M = {m}' for m in some)}"] if some else []
    return Finding(f"{shape}: {'; '.join(found) or 'no time'}", "; ".join(verdicts), recording)


def decline_finding(recording: Recording, backend: str = "gptqmodel_marlin") -> Finding:
    """Judge "still a gain up to 64 to 128 tokens" by a backend's speed-up at both, on every layer, symmetric."""
    gains = [kernel_gains(recording, backend, shape, False) for shape in recording.parameters["shape"]]
    found, verdicts = [], []
    for m in (64, 128):
        values = [one[m] for one in gains if m in one]
        found += [f"{min(values):.2f} to {max(values):.2f} at M = {m}"] if values else []
        verdicts.append(f"M = {m}: {verdict_on([value > 1 for value in values])}")
    return Finding(f"{brief(backend)}, by layer: {'; '.join(found) or 'no time'}", "; ".join(verdicts), recording)


def always_finding(recording: Recording) -> Finding:
    """Judge "always faster" by every INT4 kernel in every cell, weights with zero points; of our ladder the last."""
    cells: dict[tuple[str, int], list[float]] = {}
    for shape in recording.parameters["shape"]:
        for name in timed_rows(recording, shape, True).keys() - {"fp16", "read", *LADDER[:-1]}:
            for m, gain in kernel_gains(recording, name, shape, True).items():
                cells.setdefault((shape, m), []).append(gain)
    every = [gain > 1 for gains in cells.values() for gain in gains]
    lost = len(every) - sum(every)
    verdict = f"not here: slower in {lost} of {len(every)} cases" if lost else verdict_on(every)
    # The least over the layers of the best kernel's gain.
    best = {m: min(max(gains) for (_, n), gains in cells.items() if n == m) for m in sorted({m for _, m in cells})}
    led = list(takewhile(lambda m: best[m] > 1, best))
    found = f"a case is a kernel, layer and M; on every layer some kernel is faster up to M = {led[-1] if led else 0}"
    return Finding(found, verdict, recording)


def gemm_finding(recording: Recording, backend: str = "awq_cuda", below: int = 8) -> Finding:
    """Judge "faster at batch sizes below 8" by a backend on each layer, weights with zero points."""
    gains = [kernel_gains(recording, backend, shape, True) for shape in recording.parameters["shape"]]
    few = [[gain for m, gain in one.items() if m < below] for one in gains if one]
    told = f"{min(map(min, few)):.2f} to {max(map(max, few)):.2f} times FP16's speed, by layer and M" if few else ""
    return Finding(
        f"single layers: {told or 'no time'}", f"faster at all: {verdict_on([min(one) > 1 for one in few])}", recording
    )


def salient_finding(recording: Recording, share: float = 0.01) -> Finding:
    """Judge "1 % matters most, and activations tell which" by the KL divergence that keeping them in FP16 removes."""
    models = recording.parameters["model"]
    removed = {
        pick: [[gain for gain, _ in kl_removed(recording, model, share, pick)] for model in models]
        for pick in ("activation", "weight", "random")
    }
    told = {pick: [gain for gains in by_model for gain in gains] for pick, by_model in removed.items()}
    found = "kept in FP16 they remove, picked " + ", ".join(
        f"by {pick} {min(gains):.1%} to {max(gains):.1%}" if pick != "random" else f"at random at most {max(gains):.1%}"
        for pick, gains in told.items()
    )
    ahead = all(a[0] > max(*w, *r) for a, w, r in zip(*removed.values(), strict=True))
    passed = {"which they are": ahead, "how much they matter": min(told["activation"]) > 0.5}
    return Finding(f"{found} of rounding's KL divergence", verdict_of(passed, "in"), recording)


def text_finding(recording: Recording) -> Finding:
    """Judge "a tenth of the text" on matched text: by AWQ's own KL divergence with all of it, and by GPTQ's."""
    windows = sorted(recording.parameters["windows"])
    few = max(count for count in windows if 10 * count <= windows[-1])
    told, own, ahead = [], [], []
    for text in ("code", "docs"):
        awq, gptq = ({row["windows"]: row for row in calibrated(recording, m, text, text)} for m in ("awq", "gptq"))
        gap, error = paired_difference(awq[few], gptq[windows[-1]])
        own.append(awq[windows[-1]]["kl"] >= NEAR * awq[few]["kl"])
        ahead.append(gap < -2 * error)
        values = (row[count]["kl"] for row in (awq, gptq) for count in (few, windows[-1]))
        told.append("{}: AWQ {:.3f}, {:.3f}, GPTQ {:.3f}, {:.3f}".format(text, *values))
    found = f"KL divergence with {few} and {windows[-1]} windows, {'; '.join(told)}"
    passed = {"coming near what AWQ can do": all(own), f"beating GPTQ with {windows[-1]}": all(ahead)}
    return Finding(found, verdict_of(passed), recording)


def robust_finding(recording: Recording) -> Finding:
    """Judge "the wrong text costs AWQ less" by what it adds to either's KL divergence, beyond twice the error."""
    most, passed = max(recording.parameters["windows"]), {}
    costs: dict[str, list[float]] = {"awq": [], "gptq": []}
    for text, wrong in (("code", "docs"), ("docs", "code")):
        found = {}
        for method in costs:
            wrongly, rightly = (calibrated(recording, method, domain, text)[-1] for domain in (wrong, text))
            found[method] = paired_difference(wrongly, rightly)
            costs[method].append(found[method][0])
        gap, error = found["gptq"][0] - found["awq"][0], math.hypot(*(error for _, error in found.values()))
        passed[text] = gap > 2 * error
    told = ", ".join(f"{m.upper()} {min(c):+.3f} to {max(c):+.3f}" for m, c in costs.items())
    return Finding(f"KL divergence, {most} windows: {told}", verdict_of(passed, "on"), recording)


def order_finding(recording: Recording, group: int = 128) -> Finding:
    """Judge "AWQ loses less" by KL divergence at INT4 and INT3, window by window, beyond twice the error."""
    told, passed = [], {"rounding": True}
    for model in recording.parameters["model"]:
        part, name = recording.select(model=[model]), _MODELS.get(model, model)
        ahead = {"rtn": True, "gptq": True}
        for bits in recording.parameters["bits"]:
            awq = accuracy_row(part, bits, group, "awq")
            others = {method: accuracy_row(part, bits, group, method) for method in ahead}
            for method, row in others.items():
                gap, error = paired_difference(awq, row)
                ahead[method] &= gap < -2 * error
            values = ", ".join(f"{row['kl']:.3f}" for row in (*others.values(), awq))
            told.append(f"INT{bits} {name} {values}")
        passed["rounding"] &= ahead["rtn"]
        passed[f"GPTQ ({name})"] = ahead["gptq"]
    found = f"KL divergence by rounding, GPTQ, AWQ: {'; '.join(told)}"
    return Finding(found, verdict_of(passed, "against"), recording)


def minutes_finding(recording: Recording, blocks: int = 32, most: float = 15) -> Finding:
    """Judge AutoAWQ's minutes by so many times the median block that it quantized."""
    seconds = block_seconds(recording, "autoawq")
    if not seconds:
        return Finding("", _UNMEASURED, recording)
    minutes = blocks * median(seconds) / 60
    found = f"{blocks} times the median block of Llama-3-8B's shape: {minutes:.0f} minutes (modelled from it)"
    return Finding(found, "holds" if minutes <= most else "not here", recording)


def step_finding(
    recording: Recording, claimed: float, seconds: tuple[float, float] | None = None, near: float = NEAR
) -> Finding:
    """Judge a speed-up of a whole model for one user by the step of each INT4 model over that of each FP16 one.

    Parameters
    ----------
    recording : Recording
        Of the experiment ``decode``; its batch of 1 counts.
    claimed : float
        Times as fast as FP16.
    seconds : tuple of float or None
        The claim's own seconds a token in FP16 and INT4, on an A100: what bytes alone take there stands beside them.
    near : float
        The share of `claimed` that counts as reached.
    """
    steps = {model: own[1] for model, own in step_samples(recording).items() if 1 in own}
    names = {model: decode_title(model).partition(", ")[2] for model in steps}
    bases = {model: f"FP16 by {names[model]}" for model in steps if KERNELS[model[0]].bits == 16}
    ceilings = step_ceilings(recording)
    found = ["ms a token: " + ", ".join(f"{base} {1e3 * median(steps[model]):.2f}" for model, base in bases.items())]
    verdicts = []
    for model in steps:
        if model in bases:
            continue
        gains = {base: median(ratios(steps[other], steps[model])) for other, base in bases.items()}
        times = " and ".join(f"{gain:.2f}" for gain in gains.values())
        allowed = f"(the bytes allow {ceilings[model][1]:.2f})"
        found.append(f"{names[model]} {1e3 * median(steps[model]):.2f}, so {times} times as fast {allowed}")
        verdict = verdict_of({base: gain >= near * claimed for base, gain in gains.items()}, "over")
        verdicts.append(f"{names[model]}: {verdict.replace('; ', ', ')}")
    if seconds is not None:
        found.append(_possible_times(seconds))
    return Finding("; ".join(found), "; ".join(verdicts) or _UNMEASURED, recording)


def _possible_times(seconds: tuple[float, float]) -> str:
    """Say whether an A100 can read a Llama-3-8B's weights in FP16 and in INT4 in so many seconds."""
    sheet = next(sheet for sheet in DATA_SHEETS if sheet.name.startswith("A100"))
    least = [step_bytes(llama_3_8b(), 1, 0, bits) / sheet.bandwidth for bits in (16, 4)]
    word = "possible" if all(own >= bound for own, bound in zip(seconds, least, strict=True)) else "not possible"
    return f"on an {sheet.name} the bytes take {1e3 * least[0]:.1f} or {1e3 * least[1]:.1f} ms or more: {word} there"


class ClaimsTable(Table):
    """A table of sentences: its cells wrap on a page, and are one below the other in a terminal."""

    def __repr__(self) -> str:
        blocks = [self.caption]
        for row in self.rows:
            lines = [f"{column}: {cell}" for column, cell in zip(self.columns[1:], row[1:], strict=True)]
            blocks.append("\n".join([row[0], *(_wrapped(line, 88) for line in lines)]))
        return "\n\n".join(blocks)

    def _repr_html_(self) -> str:
        cell = '<td style="white-space: normal; min-width: 7rem; vertical-align: top">'
        return super()._repr_html_().replace("<td>", cell)


def claims_table(judged: Mapping[str, Finding]) -> ClaimsTable:
    """Tabulate claims with verdict, what was found here, who makes them, the conditions there, and our GPU."""
    rows = []
    for key, one in judged.items():
        claim = CLAIMS[key]
        place = "modelled" if one.source is None else one.source.provenance["gpu"].removeprefix("NVIDIA ")
        rows.append([claim.words, one.verdict, one.found, claim.by, claim.conditions, place])
    # The verdict is beside its claim, for a phone shows no more columns at a time.
    columns = ["claim", "verdict", "what we found", "who says it", "conditions there", "on"]
    table = ClaimsTable(columns, rows, None, "Claims, checked")
    labels = dict.fromkeys(one.source.label for one in judged.values() if one.source is not None)
    table.caption = "; ".join(["Claims, checked", *labels, "where it says so modelled, from bytes and a data sheet"])
    return table


@styled
def plot_memory_parts(config: Any) -> Figure:
    """Draw the bytes of a Llama by part, in FP16, in INT4, and with lm_head in INT4 too, and a quarter of FP16's."""
    figure, axes = new_figure("Llama-3-8B in memory: weights, by part", height=3.2)
    kinds = {"FP16": (16, 16), "INT4": (4, 16), "INT4,\nlm_head too": (4, 4)}
    whole = model_bytes(config, 16)
    told = []
    for place, (title, (bits, head_bits)) in enumerate(kinds.items()):
        parts = {"linear layers": linear_bytes(config, bits), "lm_head": head_bytes(config, head_bits)}
        parts["embedding, norms"] = model_bytes(config, bits, head_bits) - sum(parts.values())
        start = 0.0
        for (part, size), hue in zip(parts.items(), ("blue", "orange", "green"), strict=True):
            label = part if place == 0 else None
            axes.barh(place, size / 1e9, left=start, height=0.6, color=colour(hue), label=label)
            start += size / 1e9
        axes.annotate(f"{start:.1f}", (start, place), (4, 0), textcoords="offset points", va="center", fontsize=9)
        sizes = ", ".join(f"{part} {size / 1e9:.2f}" for part, size in parts.items())
        told.append(
            f"{title.replace(chr(10), ' ')}: {sizes}, together {start:.2f} GB, a {1e9 * start / whole:.0%} part"
        )
    axes.axvline(whole / 4e9, color=colour("ink"), linestyle=":", linewidth=1.4, label="a quarter")
    axes.set_yticks(range(len(kinds)), list(kinds))
    axes.set_ylim(len(kinds) - 0.5, -0.5)
    axes.set_xlabel("GB")
    axes.margins(x=0.09)
    legend(axes)
    return describe(figure, f"Bytes of Llama-3-8B. {'; '.join(told)}. A quarter is {whole / 4e9:.2f} GB.", None)


@styled
def plot_claimed_speed(recording: Recording) -> Figure:
    """Draw the speed-up of `MARLINS` over M on the largest and the smallest layer, symmetric, with Marlin's claim."""
    figure, panels = plt.subplots(2, 1, figsize=(WIDTH, 5.6), sharex=True, sharey=True)
    figure.suptitle("Times as fast as FP16, and what Marlin's README says", x=0.02, ha="left", fontsize=11)
    told = [
        f"{shape}: {_draw_claimed(axes, recording, shape)}" for axes, shape in zip(panels, ends(recording), strict=True)
    ]
    batches = [m for m in recording.parameters["m"] if m & (m - 1) == 0]
    panels[1].set_xscale("log", base=2)
    panels[1].set_xticks(batches, [str(m) for m in batches], fontsize=9)
    panels[1].minorticks_off()
    panels[1].set_xlabel("batch size M (tokens at a time)")
    panels[0].set_ylim(bottom=0)
    figure.supylabel("times as fast as FP16", fontsize=10)
    legend(panels[0])
    alt = f"Speed-up over FP16 by batch size beside the claim of {IDEAL} up to 16 to 32 tokens. {'. '.join(told)}."
    return describe(figure, alt, recording)


def _draw_claimed(axes: Axes, recording: Recording, shape: str) -> str:
    axes.plot([1, 16], [IDEAL, IDEAL], color=colour("ink"), linewidth=2.2, label=f"the claim: {IDEAL}, to 16 …")
    axes.plot([16, 32], [IDEAL, IDEAL], ":", color=colour("ink"), linewidth=2.2, label="… to 32")
    axes.axhline(1, color=colour("muted"), linewidth=1)
    told = []
    for name in MARLINS:
        gains = kernel_gains(recording, name, shape, False)
        if gains:
            hue, marker = _LOOKS[name]
            axes.plot(list(gains), list(gains.values()), marker=marker, color=colour(hue), label=brief(name))
            listed = ", ".join(f"{gain:.2f} at M = {m}" for m, gain in gains.items() if m & (m - 1) == 0)
            told.append(f"{brief(name)} {listed}")
    title = f"{shape.replace('x', ' × ')} (N × K), symmetric"
    axes.text(0.99, 0.97, title, transform=axes.transAxes, ha="right", va="top", fontsize=9)
    return "; ".join(told)
