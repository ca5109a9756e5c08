"""The memory hierarchy of a GPU, drawn from its device report."""

from __future__ import annotations

from matplotlib.figure import Figure

from awqdoc.formats import Problem
from awqdoc.recordings import Recording
from awqdoc.visualization.style import colour, describe, new_figure, si, styled
from awqdoc.visualization.tables import Table

# Layers of Llama-3-8B (N, K) whose weights are drawn beside the memories that might hold them.
LAYERS = ((4096, 4096), (28672, 4096))


@styled
def plot_hierarchy(recording: Recording) -> Figure:
    """Draw each level's capacity over the whole GPU and, on the same axis, what one layer's weight needs."""
    facts = {row["fact"]: row["value"] for row in recording.rows}
    sms = facts["SMs"]
    levels = {
        "registers": 4 * facts["registers per SM"] * sms,
        "L1 + shared": facts.get("L1 cache and shared memory per SM", facts["shared memory per SM"]) * sms,
        "L2 cache": facts["L2 cache"],
        "memory": facts["memory"],
    }
    weights = {
        f"{n} × {k} {kind}": Problem(1, n, k).weight_bytes(bits)
        for n, k in LAYERS
        for kind, bits in (("INT4", 4), ("FP16", 16))
    }
    figure, axes = new_figure(f"{recording.provenance['gpu']}: what fits where (whole GPU, log scale)", height=4.0)
    for row, (name, size) in enumerate([*levels.items(), *weights.items()]):
        is_level = name in levels
        axes.barh(row, size, left=1, height=0.62, color=colour("blue" if is_level else "orange"))
        axes.text(size * 1.25, row, si(size, "B", binary=True), va="center", fontsize=9)
    axes.set_xscale("log")
    axes.set_xlim(2e6, 3e12)
    ticks = [2**power for power in (24, 28, 32, 36)]
    axes.set_xticks(ticks, [si(tick, "B", binary=True) for tick in ticks], fontsize=8.5)
    axes.minorticks_off()
    axes.set_yticks(range(len(levels) + len(weights)), [*levels, *weights], fontsize=9)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    parts = [f"{name} {si(size, 'B', binary=True)}" for name, size in [*levels.items(), *weights.items()]]
    return describe(
        figure,
        f"Capacities on a log scale, beside the weights of single layers: {'; '.join(parts)}.",
        recording,
    )


def device_table(recording: Recording) -> Table:
    """Tabulate the device report: each fact with its unit and where it comes from."""
    rows = []
    for row in recording.rows:
        value, unit = row["value"], row["unit"]
        if isinstance(value, list):
            value = ", ".join(value) or "none"
        if unit == "B":
            value, unit = si(value, "B", binary=True), ""
        elif isinstance(value, float):
            value, unit = si(value, unit), ""
        rows.append([row["fact"], f"{value} {unit}".strip(), row["source"]])
    return Table(["fact", "value", "source"], rows, recording)
