r"""
What does 100 % utilization mean?
=================================

*"nvidia-smi says 100 %, so my GPU is used to the full."* It says that some kernel ran, all
of the time. A single thread is enough. From Hopper on the hardware also counts what its
parts do: SMs, tensor cores, memory. This page sets that one figure beside the others while
a GPU does nothing, nearly nothing, an INT4 layer for one token, and a large product in
FP16.

As a program, ``--monitor 10`` first shows for ten seconds what your own GPU is doing, live;
``awqdoc monitor`` does the same, until Ctrl-C, and writes CSV or JSON lines.
"""

# %%
# Predict
# -------
# One thread that counts in a loop, on a GPU with over a hundred SMs: what does nvidia-smi
# call that? And an INT4 layer for one token is limited by memory: how much of the time do
# the tensor cores work, and how much do they in a product that is limited by them?

from statistics import median

import awqdoc
from awqdoc import script
from awqdoc import visualization as vis
from awqdoc.formats import Problem
from awqdoc.gpu.report import TENSOR_FLOP_PER_CLOCK_AND_SM
from awqdoc.monitor import watch

parser = script.parser("Show what a GPU tells of itself while it idles and works.")
parser.add_argument(
    "--monitor", type=float, metavar="SECONDS", help="first watch this GPU, live"
)
options = script.parse(parser)
if options.monitor is not None:
    watch(options.monitor)

# %%
# Watch
# -----
# A thread asks the GPU five times a second, while graphs of kernels are replayed without a
# gap. *Activity* is the share of time, averaged over SMs, in which a part had something to
# do; *occupancy* is warps over places for warps; DRAM bandwidth is bytes over the most that
# the memory can move.

seen = awqdoc.measure("monitoring")
published = seen.origin == "recorded"  # then the build fails if the text is wrong
idle, thread, int4, fp16 = works = seen.parameters["work"]
figure = vis.plot_watched(seen)
script.display(vis.watched_table(seen))

# %%
# One thread: utilization 100 %, SM activity one SM of all, occupancy one warp of all. The
# two works that use the GPU to the full have the same utilization as that thread.

sms = seen.provenance["sm_count"]
activity = vis.watched_median(seen, thread, "sm_active_percent")
occupancy = vis.watched_median(seen, thread, "sm_occupancy_percent")
print(f"one SM of {sms} is {1 / sms:.2%}, one warp of {64 * sms} is {1 / (64 * sms):.3%}")
if published:
    assert abs(activity * sms / 100 - 1) < 0.01
    assert abs(occupancy * 64 * sms / 100 - 1) < 0.05
    busy = [vis.watched_median(seen, work, "utilization_percent") for work in works[1:]]
    assert busy == [100, 100, 100]
    assert vis.watched_median(seen, thread, "power_w") < 150

# %%
# Power tells them apart at once, and needs no counters: a GPU at 100 % and a fifth of its
# power limit is waiting for its program.
#
# Are the counters right?
# -----------------------
# Where we know what was done, they can be checked. The INT4 layer read its weight once in
# each call; its bytes over its time, as a share of the data sheet's bandwidth:


def seconds(work: str) -> float:
    """Median time of one call while it was watched."""
    row = next(
        row for row in seen.rows if row["work"] == work and row.get("way") == "watched"
    )
    return median(row["seconds"]) / row["calls"]


sheet = vis.data_sheet(seen.provenance["gpu"])
_, shape, m = int4.split()
layer = Problem.parse(shape, int(m))
ran = {work for work in works if vis.watched_samples(seen, work)}  # INT4 needs Hopper
dram = vis.watched_median(seen, int4, "dram_bandwidth_percent")
if sheet and int4 in ran:
    read = layer.weight_bytes(4) / seconds(int4) / sheet.bandwidth
    print(f"DRAM bandwidth: {read:.1%} by bytes and time, {dram:.1f} % by the counter")
    assert not published or abs(100 * read - dram) < 2 < 90 - dram

# %%
# The counter agrees. It also shows what utilization hides: this kernel leaves a part of the
# memory's rate unused, launches and the sum at each end included.
#
# Active is not full
# ------------------
# Tensor activity is harder to read. What the tensor cores could do at the clock of that
# moment is known, so the useful products can be set beside it:

capability = tuple(map(int, seen.provenance["compute_capability"].split(".")))
per_cycle = TENSOR_FLOP_PER_CLOCK_AND_SM.get(capability)
useful = {}
for work, flop in ((int4, layer.flops), (fp16, 2 * 8192**3)):
    clock = vis.watched_median(seen, work, "sm_clock_mhz")
    if work in ran and per_cycle and clock:
        useful[work] = flop / seconds(work) / (per_cycle * sms * clock * 1e6)
        active = vis.watched_median(seen, work, "tensor_active_percent")
        counted = "not told" if active is None else f"{active:.1f} %"
        print(f"{vis.watched_work(work)}: useful {useful[work]:.1%}, active {counted}")
if published:
    assert useful[int4] < 0.015
    assert useful[fp16] < 0.87
    assert vis.watched_median(seen, int4, "tensor_active_percent") > 10 * 100 * useful[int4]
    assert vis.watched_median(seen, fp16, "tensor_active_percent") > 90

# %%
# For one token the tensor cores are active ten times as long as the useful products need.
# An ``mma`` takes eight tokens, so seven of eight products are of nothing; and by
# ``mma.sync`` they do less per cycle
# (:ref:`measured <sphx_glr_gallery_gpu_plot_30_hierarchy.py>`). Even in the large product a
# part of the active time does less than the instruction set allows.
#
# So ask for the limit that binds: DRAM bandwidth for few tokens, tensor activity for many.
# SM activity near 100 % says that the grid fills the GPU. Low occupancy is no fault
# (:ref:`why <sphx_glr_gallery_gpu_plot_20_launches.py>`): all that works here has it.

for work in (int4, fp16):
    held = [row["throttle_reasons"] for row in vis.watched_samples(seen, work)]
    watts = vis.watched_median(seen, work, "power_w")
    clock = vis.watched_median(seen, work, "sm_clock_mhz")
    reasons = sorted({reason for reasons in held for reason in reasons})
    if work in ran:
        print(
            f"{vis.watched_work(work)}: {watts:.0f} W, {clock:.0f} MHz, held by {reasons}"
        )
    assert not published or reasons == ["software power cap"]

# %%
# Both run at the power limit, reading no less than multiplying; the product gives up more
# of its clock for it.
#
# Does watching disturb?
# ----------------------
# The same work was timed before, while and after it was watched.

for work in [work for work in works[1:] if work in ran]:
    cost = 1e3 * vis.watched_median(seen, work, "cost_s")
    slower = vis.watching_slows(seen, work)
    print(
        f"{vis.watched_work(work)}: {slower:.3f} of its time, a sample took {cost:.1f} ms"
    )
    assert not published or abs(slower - 1) < 0.02
lacking = {row["lacking"]: row["reason"] for row in seen.rows if "lacking" in row}
print(f"what this GPU does not tell: {lacking or 'nothing'}")
assert not published or not lacking

# %%
# Less than two per cent. A sample costs the host some milliseconds, the GPU none that we
# could see. Sampling faster than ten times a second is refused: the counters are not
# refreshed more often.
#
# Limits
# ------
# - Before Hopper there are no such counters, and a container or a driver may not permit
#   them: then the monitor shows a dash, says once which and why, and goes on.
# - Counters are averages over the time between two samples; utilization is one over a
#   period of NVML's own. No single kernel of microseconds can be told apart in either.
# - The counters say which part is busy, never why: that is for a profiler.
# - On a GPU cut by MIG, or shared with others, they are those of the whole or of a part.

script.show({"watched": figure}, options.output_dir)
