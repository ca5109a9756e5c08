"""The same quantization by several programs: how far the results lie apart, and how long each takes."""

from __future__ import annotations

from statistics import median
from typing import Any

from matplotlib.figure import Figure

from awqdoc.recordings import Recording
from awqdoc.visualization.style import colour, describe, legend, log_axis, new_figure, styled
from awqdoc.visualization.tables import Table

Row = dict[str, Any]
TOOLS = {
    "awqdoc": ("awqdoc", "blue", "o"), "autoawq": ("AutoAWQ", "orange", "D"), "gptqmodel": ("GPTQModel", "green", "^"),
}  # fmt: skip
"""Name, colour and marker of each program."""


def compared(recording: Recording, method: str) -> list[Row]:
    """Return the rows of the programs that quantized with a method, in the order of `TOOLS`."""
    rows = [row for row in recording.rows if row["method"] == method and "skipped" not in row]
    return sorted(rows, key=lambda row: list(TOOLS).index(row["tool"]))


@styled
def plot_tools(recording: Recording) -> Figure:
    """Draw the KL divergence of each program's result with its standard error, a line for each method and program."""
    rows = [(method, row) for method in recording.parameters["method"] for row in compared(recording, method)]
    figure, axes = new_figure("The same model, text and options by several programs", height=1.6 + 0.38 * len(rows))
    for place, (_, row) in enumerate(rows):
        _, hue, marker = TOOLS[row["tool"]]
        axes.errorbar(
            [row["kl"]], [place], xerr=[row["kl_error"]], fmt=marker, color=colour(hue), capsize=3, markersize=5
        )
    axes.set_yticks(range(len(rows)), [f"{method.upper()}, {TOOLS[row['tool']][0]}" for method, row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("KL divergence to FP16, nats (± standard error)")
    told = "; ".join(
        f"{method.upper()} by {TOOLS[row['tool']][0]} {row['kl']:.4f} ± {row['kl_error']:.4f}" for method, row in rows
    )
    return describe(figure, f"KL divergence to FP16 by method and program. {told}.", recording)


def tools_table(recording: Recording) -> Table:
    """Tabulate what each program got and how long it took, or why it is left out."""
    rows: list[list[str]] = []
    for row in recording.rows:
        name = [row["method"].upper(), TOOLS[row["tool"]][0]]
        if "skipped" in row:
            rows.append([*name, f"left out: {row['skipped']}", "", "", "", ""])
        else:
            rows.append([
                *name, f"{row['kl']:.4f}", f"{row['kl_error']:.4f}", f"{row['kl_99']:.3f}", f"{row['agreement']:.2%}",
                f"{median(row['seconds']):.1f}",
            ])  # fmt: skip
    columns = ["method", "program", "KL to FP16", "standard error", "KL, 99th percentile", "same top token", "seconds"]
    return Table(columns, rows, recording, title="The shipped model, INT4, group size 128")


def blocks_timed(recording: Recording, quantizer: str) -> list[Row]:
    """Return the rows of the blocks that a program quantized, in the order in which it did."""
    rows = [row for row in recording.rows if row["quantizer"] == quantizer and "skipped" not in row]
    return sorted(rows, key=lambda row: (row["round"], row["block"]))


def block_seconds(recording: Recording, quantizer: str) -> list[float]:
    """Return the seconds of each of these blocks."""
    return [median(row["seconds"]) for row in blocks_timed(recording, quantizer)]


def block_ratios(recording: Recording, key: str) -> list[float]:
    """Return AutoAWQ's value over ours for each block that both quantized; ``"seconds"`` or one of the losses."""
    ours, theirs = (
        {(row["shape"], row["round"], row["block"]): row[key] for row in blocks_timed(recording, name)}
        for name in ("awqdoc", "autoawq")
    )
    values = [(ours[block], theirs[block]) for block in ours if block in theirs]
    return [b / a for a, b in ((_single(x), _single(y)) for x, y in values)]


def _single(value: float | list[float]) -> float:
    return median(value) if isinstance(value, list) else value


@styled
def plot_block_seconds(recording: Recording) -> Figure:
    """Draw the seconds of every block as points, a line for each program, on a log axis."""
    figure, axes = new_figure("AWQ on one block of Llama-3-8B's shape", height=3.0)
    names = [name for name in ("awqdoc", "autoawq") if blocks_timed(recording, name)]
    parts = []
    for place, name in enumerate(names):
        title, hue, marker = TOOLS[name]
        rows = blocks_timed(recording, name)
        for i, row in enumerate(rows):
            # One below the other: points of the same time would hide one another.
            height = place + 0.5 * ((i + 0.5) / len(rows) - 0.5)
            axes.plot(
                [median(row["seconds"])], [height], linestyle="none", marker=marker, markersize=5.5, color=colour(hue),
                markerfacecolor="none" if row["block"] == 0 else colour(hue),
            )  # fmt: skip
        seconds = block_seconds(recording, name)
        axes.plot([median(seconds)] * 2, [place - 0.3, place + 0.3], color=colour(hue), linewidth=1.2)
        listed = ", ".join(f"{value:.3g}" for value in seconds)
        parts.append(f"{title}: {listed} s, median {median(seconds):.3g} s")
    for filled, text in ((False, "block 0"), (True, "block 1")):
        fill = colour("ink") if filled else "none"
        axes.plot([], [], linestyle="none", marker="o", color=colour("ink"), markerfacecolor=fill, label=text)
    axes.plot([], [], color=colour("ink"), linewidth=1.2, label="median")
    axes.set_yticks(range(len(names)), [TOOLS[name][0] for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.margins(x=0.12)
    log_axis(axes.xaxis)
    axes.set_xlabel("seconds for one block (log)")
    legend(axes, columns=3)
    return describe(figure, f"Seconds to quantize one block. {'; '.join(parts)}.", recording)


def phases_table(recording: Recording) -> Table:
    """Tabulate which part of each block's seconds AutoAWQ spends on what."""
    parts = {
        "seconds_inputs": "collect inputs", "seconds_scales": "search scales", "seconds_clip": "search thresholds",
        "seconds_pack": "round and pack",
    }  # fmt: skip
    rows = []
    for row in blocks_timed(recording, "autoawq"):
        total = median(row["seconds"])
        rest = total - sum(row[part] for part in parts)
        cells = [f"{seconds:.2f} ({seconds / total:.0%})" for seconds in (*(row[part] for part in parts), rest)]
        rows.append([row["round"], row["block"], f"{total:.2f}", *cells])
    columns = ["round", "block", "seconds", *parts.values(), "all else"]
    return Table(columns, rows, recording, title="AutoAWQ's seconds for each block")


def speed_table(recording: Recording) -> Table:
    """Tabulate seconds and output error of each block by each program, or why one is left out."""
    rows: list[list[Any]] = []
    for row in recording.rows:
        name = [row["round"], TOOLS[row["quantizer"]][0]]
        if "skipped" in row:
            rows.append([*name, "", f"left out: {row['skipped']}", "", ""])
        else:
            rows.append([
                *name, row["block"], f"{median(row['seconds']):.2f}", f"{row['loss']:.3%}",
                f"{row['loss_held_out']:.3%}",
            ])  # fmt: skip
    columns = ["round", "program", "block", "seconds", "error, calibration tokens", "error, other tokens"]
    return Table(columns, rows, recording, title="In the order run; error as a share of what the block adds")
