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
    sizes = {**levels, **weights}
    rows, labels = range(len(sizes)), [si(size, "B", binary=True) for size in sizes.values()]
    figure, axes = new_figure(f"{recording.provenance['gpu']}: what fits where", height=4.0)
    # A log axis has no zero for a bar to begin at, so sizes are dots.
    split = len(levels)
    axes.plot(list(levels.values()), rows[:split], "o", markersize=8, color=colour("blue"))
    axes.plot(list(weights.values()), rows[split:], "s", markersize=8, color=colour("orange"))
    axes.axvline(levels["L2 cache"], color=colour("blue"), linestyle=":", linewidth=1.2)
    axes.set_xscale("log")
    axes.set_xlim(2**22, 2**39)
    ticks = [2**power for power in (24, 28, 32, 36)]
    axes.set_xticks(ticks, [si(tick, "B", binary=True) for tick in ticks], fontsize=8.5)
    axes.minorticks_off()
    axes.set_xlabel("size, all SMs together (log)")
    axes.set_yticks(rows, list(sizes), fontsize=9)
    axes.set_ylim(len(sizes) - 0.5, -0.5)
    beside = axes.secondary_yaxis("right")
    beside.set_yticks(rows, labels, fontsize=9)
    beside.tick_params(length=0)
    beside.spines["right"].set_visible(False)
    parts = "; ".join(f"{name} {label}" for name, label in zip(sizes, labels, strict=True))
    alt = f"Capacities on a log scale, beside the weights of single layers: {parts}."
    return describe(figure, alt, recording)


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
