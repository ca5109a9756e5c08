"""The memory hierarchy of a GPU, drawn from its device report."""

from __future__ import annotations

from matplotlib.figure import Figure

from awqdoc.formats import Problem
from awqdoc.recordings import Recording
from awqdoc.visualization.style import colour, describe, new_figure, si

# Layers of Llama-3-8B (N, K) whose weights are drawn beside the memories that might hold them.
LAYERS = ((4096, 4096), (28672, 4096))


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
    figure, axes = new_figure(height=4.0)
    for row, (name, size) in enumerate([*levels.items(), *weights.items()]):
        is_level = name in levels
        axes.barh(row, size, left=1, height=0.62, color=colour("blue" if is_level else "orange"))
        axes.text(size * 1.25, row, si(size, "B", binary=True), va="center", fontsize=9)
    axes.set_xscale("log")
    axes.set_xlim(2e6, 3e12)
    axes.set_xticks([1e7, 1e8, 1e9, 1e10, 1e11], ["10 MB", "100 MB", "1 GB", "10 GB", "100 GB"], fontsize=8.5)
    axes.minorticks_off()
    axes.set_yticks(range(len(levels) + len(weights)), [*levels, *weights], fontsize=9)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_title(f"{recording.provenance['gpu']}: what fits where (whole GPU, log scale)", x=-0.3)
    parts = [f"{name} {si(size, 'B', binary=True)}" for name, size in [*levels.items(), *weights.items()]]
    return describe(figure, f"Capacities on a log scale, beside the weights of single layers: {'; '.join(parts)}.", recording)
