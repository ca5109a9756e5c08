"""The experiment ``xray``: what of a weight lies where while it is multiplied, and how it gets there."""

from __future__ import annotations

from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from awqdoc.formats import Problem
from awqdoc.gpu.footprints import SHAPE
from awqdoc.kernels.ladder.records import CODE_BYTES, SIDE, tokens
from awqdoc.recordings import Recording
from awqdoc.visualization.monitoring import SHARES, watched_samples, watched_work
from awqdoc.visualization.style import colour, describe, legend, new_figure, si, styled
from awqdoc.visualization.tables import Table
from awqdoc.visualization.xray import NAMES, kernels_with, xray_counter, xray_rows

RECORD = CODE_BYTES + 2 * SIDE + SIDE // 2  # one group: codes, scales, zero points
REGISTER_FILE = 4 << 16
L1 = "l1tex__m_xbar2l1tex_read_bytes"
# Bytes of sums that blocks of a kernel leave for others, as its workspace is allocated; and records in a stage.
WORKSPACE = {"small_batch": 64 * SIDE * 8, "warpgroups": 2 * SIDE * 128 * 4, "pipeline": 0}
TOGETHER = {"small_batch": 1, "warpgroups": 2, "pipeline": 1}


class Held(NamedTuple):
    """One fact of a snapshot: the level or the way that it belongs to, what it is, its value, its source."""

    where: str
    what: str
    value: str
    source: str


def snapshot(recording: Recording, device: Recording, kernel: str, m: int) -> list[Held]:
    """Say what lies in which memory while a kernel runs, and what went from one to the next.

    Parameters
    ----------
    device : Recording
        The device report of the same GPU, for the sizes of L2 and shared memory.

    Returns
    -------
    list of Held
        From memory down to registers.
    """
    launch, problem = xray_rows(recording, kernel, m, "launch")[0], Problem.parse(SHAPE, m)
    name, ours = launch["kernel_name"], launch["kernel_name"] in TOGETHER
    size = si(problem.weight_bytes(4 if ours else 16), "B")
    records = problem.n * problem.k // SIDE**2
    left = WORKSPACE[name] * recording.provenance["sm_count"] if ours else 0
    facts = {row["fact"]: row["value"] for row in device.rows}
    held = [
        Held("memory", "weight", size + (f", {records} records" if ours else ""), "modelled"),
        Held("memory", "X; Y", f"{si(2 * m * problem.k, 'B')}; {si(2 * m * problem.n, 'B')}", "modelled: 2 M K; 2 M N"),
    ]
    if left:
        held.append(Held("memory", "workspace", f"{si(left, 'B')} for sums", "modelled: as allocated"))
    ways = (
        ("memory to L2", "read", "dram__bytes_read.sum"),
        ("memory to L2", "written back", "dram__bytes_write.sum"),
        ("L2", "sectors read that were there", "lts__t_sector_op_read_hit_rate.pct"),
        ("L2 to SMs", "read", f"{L1}.sum"),
        ("L2 to SMs", "of it by bulk copies", f"{L1}_mem_global_op_tma_ld.sum"),
    )
    if device.provenance["gpu"] == recording.provenance["gpu"]:
        held.append(Held("L2", "size", si(facts["L2 cache"], "B", binary=True), "device report: torch"))
    for where, what, metric in ways:
        value = xray_counter(recording, kernel, m, metric)
        if value is not None:
            text = f"{value:.1f} %" if metric.endswith("pct") else si(value, "B")
            held.append(Held(where, what, text, metric))
    held += _in_shared(launch, m)
    registers = launch["block"] * (launch["registers"] or 0) * 4
    share = f"{si(registers, 'B', binary=True)} of {si(REGISTER_FILE, 'B', binary=True)} of an SM"
    held.append(Held("registers", "of a block", share, launch["source"]))
    return held


def _in_shared(launch: dict[str, object], m: int) -> list[Held]:
    """Say what a block has in shared memory: for our kernels the ring and its stages, else only its size."""
    name, source = str(launch["kernel_name"]), str(launch["source"])
    static, dynamic = (int(str(launch[key] or 0)) for key in ("shared_static", "shared_dynamic"))
    held = [Held("shared memory", "of a block", si(static + dynamic, "B", binary=True), source)]
    if name in TOGETHER:
        stage, x = stage_bytes(name, m)
        text = f"{TOGETHER[name]} x {RECORD} B of weight, {si(x, 'B', binary=True)} of X"
        held.append(Held("shared memory", "ring", f"{dynamic // stage} stages", "modelled: as in the kernel's source"))
        held.append(Held("shared memory", "a stage", text, "modelled: as in the kernel's source"))
    return held


def stage_bytes(kernel_name: str, m: int) -> tuple[int, int]:
    """Return bytes of a stage of a kernel's ring, and those of X in it, as its source counts them."""
    unit = 128 if kernel_name == "pipeline" else 1024
    x = 2 * SIDE * tokens(m, 64)
    used = x + TOGETHER[kernel_name] * -(-RECORD // 128) * 128
    return -(-used // unit) * unit, x


def snapshot_table(recording: Recording, device: Recording, m: int, kernel: str = "cuda_overlapped") -> Table:
    """Tabulate a snapshot, each fact with its source."""
    rows = [list(held) for held in snapshot(recording, device, kernel, m)]
    return Table(["where", "what", "value", "source"], rows, recording, f"{NAMES[kernel]}, {SHAPE}, M = {m}")


@styled
def plot_snapshot(recording: Recording, device: Recording, m: int, kernel: str = "cuda_overlapped") -> Figure:
    """Draw the memories as boxes from the farthest to the nearest, with what is in them and what went between."""
    held = snapshot(recording, device, kernel, m)
    boxes = [("memory", "orange"), ("L2", "blue"), ("shared memory", "green"), ("registers", "purple")]
    lines = {where: [_line(one) for one in held if one.where == where] for where, _ in boxes}
    ways = {"memory": "memory to L2", "L2": "L2 to SMs"}
    height = sum(1.0 + len(found) for found in lines.values()) + 1.3 * 3
    figure, axes = new_figure(f"{NAMES[kernel]}, M = {m}: what lies where (* modelled)", height=0.7 + 0.2 * height)
    top = 0.0
    for where, hue in boxes:
        size = 0.7 + len(lines[where])
        axes.add_patch(Rectangle((0, top), 100, size, facecolor=colour(hue), alpha=0.14, linewidth=0))
        axes.add_patch(Rectangle((0, top), 100, size, fill=False, edgecolor=colour(hue), linewidth=1.2))
        axes.text(2, top + size / 2, where, va="center", fontsize=10, color=colour(hue))
        for place, line in enumerate(lines[where]):
            axes.text(33, top + 0.85 + place, line, va="center", fontsize=8.5)
        top += size
        if where != "registers":
            went = [f"{one.value} {one.what}" for one in held if one.where == ways.get(where)]
            _arrow(axes, top, ", ".join(went))
            top += 1.4
    axes.set_xlim(-0.5, 100.5)
    axes.set_ylim(top + 0.2, -0.2)
    axes.axis("off")
    told = "; ".join(f"{one.where}, {one.what}: {one.value}" for one in held)
    return describe(figure, f"What lies in which memory, and what went between them: {told}.", recording)


def _line(one: Held) -> str:
    return f"{one.what}: {one.value}" + (" *" if one.source.startswith("modelled") else "")


def _arrow(axes: Axes, top: float, text: str) -> None:
    arrow = {"arrowstyle": "-|>", "color": colour("muted"), "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (10, top + 1.35), (10, top + 0.05), arrowprops=arrow)
    axes.text(33, top + 0.7, text, va="center", fontsize=8.5, color=colour("ink"))


# Row of the table of transactions -> the counter, and how its value is written.
TRANSACTIONS = {
    "load requests of warps": ("l1tex__t_requests_pipe_lsu_mem_global_op_ld.sum", "{:,.0f}"),
    "sectors of these": ("l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum", "{:,.0f}"),
    "sectors per request": ("l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_ld.ratio", "{:.2f}"),
    "bytes into SMs": (f"{L1}.sum", "{:,.0f}"),
    "of them by bulk copies": (f"{L1}_mem_global_op_tma_ld.sum", "{:,.0f}"),
    "sectors that L2 was asked for": ("lts__t_sectors_op_read.sum", "{:,.0f}"),
    "of them there": ("lts__t_sector_op_read_hit_rate.pct", "{:.1f} %"),
    "bytes read from memory": ("dram__bytes_read.sum", "{:,.0f}"),
    "accesses to shared memory": ("l1tex__data_pipe_lsu_wavefronts_mem_shared.sum", "{:,.0f}"),
    "of them by bank conflicts": ("l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum", "{:,.0f}"),
}


def transactions_table(recording: Recording, m: int) -> Table:
    """Tabulate loads, sectors and bytes on their way to the SMs, and bank conflicts, each with its counter."""
    kernels = kernels_with(recording, "counter")
    rows = []
    for name, (metric, form) in TRANSACTIONS.items():
        values = [xray_counter(recording, kernel, m, metric) for kernel in kernels]
        if metric.endswith(".ratio"):
            values = [value or None for value in values]  # over no requests it is reported as 0
        rows.append([name, *("–" if value is None else form.format(value) for value in values), metric])
    return Table(["what", *(NAMES[kernel] for kernel in kernels), "counter"], rows, recording, f"{SHAPE}, M = {m}")


@styled
def plot_watched_run(recording: Recording, work: str) -> Figure:
    """Draw what a GPU told of itself while one work of the experiment ``monitoring`` ran, over time."""
    samples = watched_samples(recording, work)
    figure, axes = new_figure(watched_work(work), height=3.0)
    for key, (title, hue, _) in SHARES.items():
        points = [(row["at_s"], row[key]) for row in samples if row[key] is not None]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour(hue), label=title)
    axes.set_ylim(0, 105)
    axes.set_xlabel("seconds")
    axes.set_ylabel("%")
    legend(axes)
    told = [
        f"{title} {min(values):.0f} to {max(values):.0f} %"
        for key, (title, _, _) in SHARES.items()
        if (values := [row[key] for row in samples if row[key] is not None])
    ]
    return describe(figure, f"Shares over {len(samples)} samples: {', '.join(told)}.", recording)
