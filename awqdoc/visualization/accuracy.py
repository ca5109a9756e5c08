"""What quantization costs in accuracy: windows before and after, KL divergence by bits, tables of loss and bytes."""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.figure import Figure

from awqdoc.models import bits_per_byte, perplexity
from awqdoc.recordings import Recording
from awqdoc.visualization.paired import paired_difference
from awqdoc.visualization.style import colour, describe, legend, log_axis, new_figure, si, styled
from awqdoc.visualization.tables import Table

Row = dict[str, Any]
# Name, colour and marker of each method: lines that cross stay apart without colour too.
METHODS = {"rtn": ("rounding", "muted", "o"), "gptq": ("GPTQ", "orange", "D"), "awq": ("AWQ", "blue", "s")}
_OUTLIERS = {"embedded+outliers": ", outliers added"}
_BITS = {4: ("blue", "o"), 3: ("orange", "D")}


def accuracy_row(recording: Recording, bits: int, group_size: int, method: str) -> Row:
    """Return one row of the accuracy recording: of its first model, if it holds several."""
    wanted = {"model": recording.parameters["model"][0], "bits": bits, "group_size": group_size, "method": method}
    return next(row for row in recording.rows if all(row[key] == value for key, value in wanted.items()))


@styled
def plot_windows(recording: Recording, group_size: int, method: str = "awq") -> Figure:
    """Draw every window's NLL after quantization over that before it, for each number of bits."""
    name, *_ = METHODS[method]
    figure, axes = new_figure(f"Loss of each window, FP16 and {name}, group size {group_size}", height=4.2)
    parts = []
    for bits in recording.parameters["bits"]:
        row, original = (accuracy_row(recording, bits, group_size, which) for which in (method, "fp16"))
        before, after = (one["nll_windows"] for one in (original, row))
        hue, marker = _BITS[bits]
        axes.plot(
            before, after, linestyle="none", marker=marker, markersize=3, alpha=0.6, color=colour(hue),
            label=f"INT{bits}",
        )  # fmt: skip
        mean, error = paired_difference(row, original, "nll")
        parts.append(f"INT{bits} lies {mean:.3f} nats above the diagonal on average, give or take {error:.4f}")
    low, high = min(before), max(before)
    axes.plot([low, high], [low, high], color=colour("ink"), linewidth=1, label="no loss")
    axes.set_xlabel("FP16: NLL per token, nats")
    axes.set_ylabel(f"{name}: NLL per token, nats")
    axes.set_aspect("equal")
    legend(axes)
    alt = (
        f"Loss of each of {len(before)} windows with {name} over that of FP16. The windows run from {low:.2f} to "
        f"{high:.2f} nats per token, along the diagonal. {'; '.join(parts)}."
    )
    return describe(figure, alt, recording)


@styled
def plot_kl_by_bits(recording: Recording) -> Figure:
    """Draw the KL divergence to FP16 over bits per weight: a line through the group sizes for each method and bits."""
    model = recording.parameters["model"][0]
    figure, axes = new_figure(f"KL divergence to FP16 by bits per weight{_OUTLIERS.get(model, '')}")
    groups = recording.parameters["group_size"]
    parts = []
    for bits in recording.parameters["bits"]:
        for method, (name, hue, marker) in METHODS.items():
            rows = [accuracy_row(recording, bits, group_size, method) for group_size in groups]
            rows.sort(key=lambda row: float(row["bits_per_weight"]))
            x, y, errors = ([row[key] for row in rows] for key in ("bits_per_weight", "kl", "kl_error"))
            label = name if bits == recording.parameters["bits"][0] else None
            axes.errorbar(x, y, yerr=errors, marker=marker, color=colour(hue), label=label)
            told = ", ".join(f"{kl:.3g} at {at:.2f} bits" for at, kl in zip(x, y, strict=True))
            parts.append(f"INT{bits} {name}: {told}")
            if method == "rtn":
                for row in rows:
                    axes.annotate(
                        _group(row["group_size"]), (row["bits_per_weight"], row["kl"]), (3, 7), fontsize=8,
                        textcoords="offset points", ha="center",
                    )  # fmt: skip
                axes.annotate(
                    f"INT{bits}", (x[-1], y[-1]), (9, 0), textcoords="offset points", va="center", fontweight="bold"
                )
    axes.set_yscale("log")
    log_axis(axes.yaxis)
    axes.margins(x=0.15, y=0.1)
    axes.set_xlabel("bits per weight of the linear layers (group size at the points)")
    axes.set_ylabel("KL divergence to FP16, nats (log)")
    legend(axes)
    alt = f"KL divergence to FP16 over bits per weight with scales and zero points. {'. '.join(parts)}."
    return describe(figure, alt, recording)


def accuracy_table(recording: Recording, group_size: int) -> Table:
    """Tabulate one group size: perplexity and bits per byte by themselves, and the paired distances to FP16.

    Each with its standard error over the windows.
    """
    rows: list[list[Any]] = []
    for bits in recording.parameters["bits"]:
        for method in ("fp16", *METHODS):
            if method == "fp16" and rows:
                continue
            row = accuracy_row(recording, bits, group_size, method)
            nll = torch.tensor(row["nll_windows"], dtype=torch.float64) * row["predicted"]
            alone = [
                _with_error(*perplexity(nll, row["predicted"]), digits=2),
                _with_error(*bits_per_byte(nll, row["text_bytes"]), digits=3),
            ]
            if method == "fp16":
                rows.append(["", "FP16", *alone, "", "", ""])
                continue
            paired = [
                _with_error(
                    *paired_difference(row, accuracy_row(recording, bits, group_size, "fp16"), "nll"), digits=4
                ),
                _with_error(row["kl"], row["kl_error"], digits=4),
                f"{row['agreement']:.1%}",
            ]
            rows.append([f"INT{bits}", METHODS[method][0], *alone, *paired])
    columns = ["", "method", "perplexity", "bits per byte", "extra NLL, paired", "KL to FP16", "same top token"]
    return Table(columns, rows, recording, title=f"Group size {group_size}; ± is a standard error over the windows")


def order_table(recording: Recording, group_size: int) -> Table:
    """Tabulate the KL divergence of every method for each model and number of bits, and by how much AWQ beats GPTQ."""
    rows = []
    for model in recording.parameters["model"]:
        part = recording.select(model=[model])
        for bits in recording.parameters["bits"]:
            found = {method: accuracy_row(part, bits, group_size, method) for method in METHODS}
            gap = _with_error(*paired_difference(found["awq"], found["gptq"]), digits=4)
            rows.append([model, f"INT{bits}", *(f"{row['kl']:.4f}" for row in found.values()), gap])
    columns = ["model", "", *(name for name, *_ in METHODS.values()), "AWQ - GPTQ, paired"]
    return Table(columns, rows, recording, title=f"KL divergence to FP16 in nats, group size {group_size}")


def memory_table(recording: Recording) -> Table:
    """Tabulate bits per weight of the linear layers, and bytes of the whole model in memory and on disk.

    The methods do not differ in this, so there is one row for each number of bits and group size.
    """
    bits_axis, groups = (recording.parameters[axis] for axis in ("bits", "group_size"))
    original = accuracy_row(recording, bits_axis[0], groups[0], "fp16")
    rows = [["FP16", "", "16", si(original["memory_bytes"], "B"), "1.00", si(original["file_bytes"], "B")]]
    for bits in bits_axis:
        for group_size in groups:
            row = accuracy_row(recording, bits, group_size, "awq")
            rows.append([
                f"INT{bits}", _group(group_size), f"{row['bits_per_weight']:.3f}", si(row["memory_bytes"], "B"),
                f"{original['memory_bytes'] / row['memory_bytes']:.2f}",
                si(row["file_bytes"], "B") if row["file_bytes"] else "",
            ])  # fmt: skip
    columns = ["", "group size", "bits per weight", "whole model in memory", "times smaller", "file"]
    return Table(columns, rows, recording, title="What the model takes")


def _group(size: int) -> str:
    return "all K" if size == -1 else str(size)


def _with_error(value: float, error: float, digits: int) -> str:
    return f"{value:.{digits}f} ± {error:.{digits}f}"
