r"""
What does the GPU do while a kernel runs?
=========================================

*"My kernel reaches 80 % of the bandwidth. Where is the rest?"* A time does not say. Here
the top step of :ref:`the ladder <sphx_glr_gallery_marlin_plot_30_ladder.py>` is X-rayed:
its own source, compiled with marks, writes down when each block ran on which SM and what
some warps did when; Nsight Compute reads the hardware's counters. Beside it stand a lower
step and cuBLAS in FP16.

As a program it takes ``--device 0``, ``--snapshot``, ``--visualize``, ``--benchmark``,
``--monitor 10`` and ``--kernel-config "132,1,1;288,1,1"``, and shows that alone.
"""

# %%
# Predict
# -------
# One token times a layer of 28672 x 4096, in INT4. When does the first weight arrive? Do
# the warps that multiply wait for the memory after that? And which of the three kernels
# waits most?

from statistics import median

import awqdoc
from awqdoc import doctor, gpu, script
from awqdoc import visualization as vis
from awqdoc.errors import AwqdocError
from awqdoc.experiments import lookup
from awqdoc.gpu import diagnosis, footprints, occupancy
from awqdoc.monitor import watch
from awqdoc.script import display

parser = script.parser("Show what a GPU does while a kernel runs; without options, all.")
parser.add_argument("--device", type=int, metavar="INDEX", help="what this GPU is")
parser.add_argument("--snapshot", action="store_true", help="what lies in which memory")
parser.add_argument("--visualize", action="store_true", help="blocks and phases, drawn")
parser.add_argument("--benchmark", action="store_true", help="measure here, and report")
parser.add_argument("--monitor", type=float, metavar="SECONDS", help="watch this GPU")
parser.add_argument("--kernel-config", metavar="GX,GY,GZ;BX,BY,BZ", help="step 8, so cut")
options = script.parse(parser)
given = {key for key, it in vars(options).items() if it is not None and it is not False}
given, parts = given - {"output_dir"}, {"visualize", "snapshot", "benchmark"}
asked, figures = given or parts, {}
if options.benchmark and (lack := gpu.why_not_suitable() or lookup("xray").missing()):
    raise AwqdocError(f"--benchmark measures on a GPU, but {lack}.")
if options.device is not None:
    print(*doctor.lines(facts := gpu.facts(options.device)), sep="\n")
    if any((row["fact"], row["value"]) == ("MIG", "on") for row in facts):
        print("MIG is on: put a slice's name, by nvidia-smi -L, in CUDA_VISIBLE_DEVICES.")
if options.monitor is not None:
    watch(options.monitor)
device, asks = awqdoc.measure("device"), footprints.LADDER["cuda_small_batch"]
if options.kernel_config:
    shape, chip = occupancy.kernel_config(options.kernel_config), device.provenance
    name = f"{chip['compute_capability']}x{chip['sm_count']}"
    launch = occupancy.launch(*shape, asks.regs, asks.smem, name)
    print(vis.launch_table(launch))
    figures["launch"] = vis.plot_launch(launch)

# %%
# Launch
# ------
# A mark reads the SM's clock and stores it. *Cost of the marks* is the time of the marked
# build over that of the plain one, both timed in turn, on cold weights.

published = False
if asked & parts:
    seen, names = awqdoc.measure("xray"), ("hierarchy", "device")
    bounds, device = (awqdoc.measure(name, beside=seen) for name in names)
    published = seen.origin == "recorded" and not given  # then fail if the text is wrong
    top = vis.kernels_with(seen, "block")[0]
display(vis.xray_launch_table(seen, 1, bounds)) if "benchmark" in asked else None

# %%
# Blocks on SMs
# -------------

if "visualize" in asked:
    figures |= {f"blocks_{m}": vis.plot_blocks(seen, m) for m in (1, 64)}
if published:
    for kernel in ("cuda_overlapped", "fp16"):  # at 64 tokens both leave 20 SMs idle
        assert vis.xray_counter(seen, kernel, 64, "sm__ctas_launched.sum") == 112
    two = vis.xray_report(seen, "cuda_pipeline", 64).values
    assert 0.45 < two["tail"].value / two["span"].value < 0.55

# %%
# All SMs begin within a fraction of a microsecond, and in step 8 end nearly together. In
# step 4 a block that has its SM for itself (fainter) is done first. For 64 tokens step 8
# has 112 tiles of 256 rows, and a block for each: 20 SMs have none
# (:ref:`how work is cut <sphx_glr_gallery_marlin_plot_50_cutting.py>`). cuBLAS launches 112
# blocks too. Step 4 has 224, one at a time on an SM: half of its time is a tail.
#
# Phases
# ------
# Warp 8 fetches, the others multiply; above the first microseconds, below all of them.

if "visualize" in asked:
    figures["phases"] = vis.plot_phases(seen, top, 1)
if published:
    warps = diagnosis.warp_spans(vis.xray_rows(seen, top, 1))
    loads = [begin for phase, (begin, _) in warps[0, 8] if phase == 0]
    data = vis.xray_report(seen, top, 1).values["first data seen"].value
    each = (loads[7] - loads[2]) / 5
    print(f"block 0 asks for a record every {each:.0f} ns, for the 8th at {loads[7]} ns;")
    print(f"first data seen after {data:.0f} ns, the median of the warps")
    assert loads[7] < data
    assert 0.12 < data / vis.xray_report(seen, top, 1).values["span"].value < 0.15
    lower = vis.xray_report(seen, "cuda_pipeline", 1).values
    assert 0.4 < lower["issuing loads"].value < 0.5 < 3 * lower["working"].value

# %%
# **An eighth of the time is over before the first data is there.** All that the ring can
# hold is asked for by then, X behind six records. Alone that is a loss; but step 8 begins
# before the launch ahead has ended, and in a whole model asking early paid (not recorded).
# Step 4 has no thread for fetching: its warps start the loads themselves.

if "visualize" in asked:
    figures["phases_step_4"] = vis.plot_phases(seen, "cuda_pipeline", 1, zoom=6)
    figures["phase_shares"] = vis.plot_phase_shares(seen)

# %%
# A warp of step 4 spends nearly half of its time on starting loads, and those that have
# fewer of them wait for the rest at a barrier. *Overlap*: while a block loads, how much of
# the time one of its chosen warps multiplies.
#
# Who waits for whom?
# -------------------
# In step 8 the warps that multiply wait for a fifth of their time. But a wait for what is
# there takes time too, that of asking and of the mark; the first wait is the ramp.

if published:
    report = vis.xray_report(seen, top, 1, bounds).values
    work = [w for w in warps.values() if any(phase == 1 for phase, _ in w)]
    waits = [[end - begin for phase, (begin, end) in w if phase == 6] for w in work]
    later = [wait for one in waits for wait in one[1:]]
    print(f"later waits: shortest {min(later)} ns, median {median(later):.0f} ns")
    record, size = 8192 + 256 + 64, 28672 * 4096 // 128**2  # bytes; records
    turn = vis.turn_ns(seen, top, 1) / 2  # two teams take records in turn
    could = 1e9 * record * 132 / report["limit of bandwidth"].value
    marks = 1e9 * report["cost of the marks"].value * report["time"].value / (size / 132)
    print(f"a record on each SM every {turn:.0f} ns; {marks:.0f} of it may be the marks")
    print(f"the memory could give one every {could:.0f} ns")
    assert 0.18 < report["waiting"].value < 0.25
    assert median(later) < 1.4 * min(later)
    assert (turn - marks) / 1.05 < could < turn

# %%
# **Once the ring is full, data is there whenever a warp asks for it.** In this trace the
# warps that multiply set the pace. The memory could be a little faster, by less than what
# the marks may cost. The report below goes by the plain build's time, and names the memory.
#
# The counters, which need no marks, say what holds the warps. Beside them what NVML told,
# live, while step 8 ran for seconds, launch after launch.

if "visualize" in asked and vis.stall_shares(seen, "fp16", 1):
    figures["stalls"] = vis.plot_stalls(seen)
    figures["tensor_activity"] = vis.plot_tensor_activity(seen)
if "visualize" in asked:
    run, live = "cuda_overlapped 28672x4096 1", awqdoc.measure("monitoring")
    if vis.watched_samples(live, run):  # INT4 needs Hopper
        figures["live"] = vis.plot_watched_run(live, run)
if published:
    waiting = {k: vis.stall_shares(seen, k, 1)["memory"] for k in seen.parameters["kernel"]}
    nearest = vis.xray_report(seen, "fp16", 1, bounds).values["share of bandwidth"].value
    print("% held by memory:", {name: round(share) for name, share in waiting.items()})
    assert waiting["fp16"] == max(waiting.values()) > 80
    assert nearest > 0.9

# %%
# **The kernel that waits most is nearest to its limit.** cuBLAS's warps wait for memory
# most of the time, at over 90 % of the measured bandwidth: it has less to do for each byte.
# Waiting is no fault; it is one to have nothing under way.
#
# For one token the tensor cores are no limit. For 64 the least is 0: an SM without a block.
#
# Report
# ------

display(vis.report_table(seen, 1, bounds)) if "benchmark" in asked else None

# %%

display(vis.bottleneck_table(seen, bounds)) if "benchmark" in asked else None

# %%
# Where the bytes are (:ref:`more <sphx_glr_gallery_gpu_plot_55_memory_snapshot.py>`):

if "snapshot" in asked:
    figures["snapshot"] = vis.plot_snapshot(seen, device, 1, top)
    print(vis.snapshot_table(seen, device, 1, top)) if given else None

# %%
# Limits
# ------
# - The trace is of one launch alone; in the times, launches overlap. Clocks of two SMs are
#   aligned by a timer with steps of 32 ns. Every fourth warp of six blocks is kept.
# - cuBLAS has no marks, only counters. Counters are of other launches than the times, many
#   of them, each with cold caches. Where they may not be read, what needs them is left out.

script.show(figures, options.output_dir)
