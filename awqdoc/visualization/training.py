"""How the shipped model learned."""

from __future__ import annotations

import math

from matplotlib.figure import Figure

from awqdoc.recordings import Recording, Row
from awqdoc.visualization.style import colour, describe, legend, new_figure, styled
from awqdoc.visualization.tables import Table


def training_result(recording: Recording) -> Row:
    """Return the last row of the experiment ``training``: what became of the run."""
    return recording.rows[-1]


@styled
def plot_training(recording: Recording) -> Figure:
    """Draw the loss on training text and on held-out text over the tokens seen, in bits per byte, beside xz."""
    steps = [row for row in recording.rows if "loss" in row]
    result = training_result(recording)
    # Nats per token to bits per byte, with the bytes of an average token of the corpus.
    to_bits = result["corpus_tokens"] / result["corpus_bytes"] / math.log(2)
    watched = [row for row in steps if "held_out" in row]
    figure, axes = new_figure("The shipped model's loss while it learned")
    axes.plot(
        [row["tokens"] / 1e6 for row in steps],
        [row["loss"] * to_bits for row in steps],
        color=colour("blue"),
        label="training text",
    )
    axes.plot(
        [row["tokens"] / 1e6 for row in watched],
        [row["held_out"] for row in watched],
        "o--",
        color=colour("orange"),
        label="held-out calibration text",
    )
    xz = result["xz_bits_per_byte_both"]
    axes.axhline(xz, color=colour("muted"), linestyle=":", label="xz -9e, evaluation text")
    axes.set_xlabel("tokens seen, millions")
    axes.set_ylabel("bits per byte")
    axes.set_ylim(0, 1.2 * steps[0]["loss"] * to_bits if len(steps) == 1 else max(3.0, 1.1 * xz))
    legend(axes)
    last = watched[-1]["held_out"] if watched else float("nan")
    return describe(
        figure,
        f"Bits per byte over tokens seen. On training text {steps[0]['loss'] * to_bits:.2f} at first and "
        f"{steps[-1]['loss'] * to_bits:.2f} at the end; on held-out text {last:.2f} at the end; xz needs {xz:.2f}.",
        recording,
    )


def training_table(recording: Recording) -> Table:
    """Return bits per byte of the model and of xz on the evaluation texts, and their ratio."""
    result = training_result(recording)
    rows = []
    for key, name in (("code", "source code"), ("docs", "documentation"), ("both", "both")):
        model, xz = result[f"bits_per_byte_{key}"], result[f"xz_bits_per_byte_{key}"]
        rows.append([name, f"{model:.3f}", f"{xz:.3f}", f"{model / xz:.2f}"])
    return Table(["evaluation text", "model", "xz -9e", "ratio"], rows, recording, "Bits per byte, less is better")
