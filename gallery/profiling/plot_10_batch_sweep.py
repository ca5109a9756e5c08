r"""
Is INT4 faster? A first sweep
=============================

A weight in INT4 has a quarter of the bytes, so at small batch sizes, where a linear
layer waits for its weight, multiplying by it should take about a quarter of the time.
Should. This page takes three ways to multiply by an INT4 weight, none of them exotic,
and measures them against plain FP16 on the four products of a layer of Llama-3-8B:
query, key and value together; output; gate and up together; down.
"""

# %%
# Predict
# -------
# Before you look: which of these, if any, is faster than FP16 on the largest layer at
# batch size 1, and by how much?
#
# - **dequantize + matmul**: write the weight out as FP16, then multiply as always;
# - **fused Triton**: our first kernel, which dequantizes in registers, so that only the
#   packed weight is read;
# - **AutoAWQ Triton**: the kernel that AutoAWQ uses where its CUDA extension is missing,
#   for fewer than 1024 tokens. (At 1024 it would dequantize and multiply; we show the
#   kernel throughout.)
#
# Bytes alone say this (4 bits, and for each group of 128 a 16-bit scale and a 4-bit zero
# point):

from statistics import median

import awqdoc
from awqdoc import recordings, script
from awqdoc import visualization as vis
from awqdoc.formats import Problem

layer = Problem(m=1, n=28672, k=4096)
read, written = layer.weight_bytes(4), layer.weight_bytes(16)
print(f"fused:               {written / read:.2f} times fewer bytes than FP16")
moved = read + 2 * written  # read INT4, write FP16, read FP16
print(f"dequantize + matmul: {moved / written:.2f} times as many bytes as FP16")

# %%
# Measure
# -------
# Each backend first has to be right: its result is compared with a float32 product of the
# same dequantized weight, and one that is wrong gets no time. Then all run in turn, round
# after round, so that a drifting clock meets them alike. Each sample is the replay of a
# CUDA graph that multiplies by several copies of the weight in turn, together eight times
# as large as the L2 cache, divided by their number: no Python, no launch gaps, cold
# weights. Every sample is kept. Weights and inputs are random, with the spread of trained
# ones. A kernel that only reads the packed weight, a large copy, and after them a large
# FP16 product show what this GPU can do at all, by the same clock.

parser = script.parser("Measure FP16 against INT4 over batch sizes.", "figures and a CSV")
layers = parser.add_mutually_exclusive_group()
layers.add_argument(
    "--shapes", nargs="+", default=["28672x4096"], metavar="NxK", help="the first is drawn"
)
layers.add_argument("--model-dim", type=int, metavar="D", help="instead of shapes: DxD")
parser.add_argument("--batch-sizes", nargs="+", type=int, metavar="M")
options = script.parse(parser)

# Without options, everything that is published; with one, only what it names.
shapes = options.shapes if (d := options.model_dim) is None else [f"{d}x{d}"]
chosen = {"shape": shapes, "m": options.batch_sizes} if options.batch_sizes else {}
if shapes is not parser.get_default("shapes"):
    chosen["shape"] = shapes
sweep = awqdoc.measure("batch-sweep", **chosen)
print(sweep.label)
script.keep("performance_results.csv", vis.results_csv(sweep), options.output_dir)

# After Ctrl-C the sweep holds the finished sizes only.
finished = sweep.parameters["shape"]
shape = next((name for name in shapes if name in finished), finished[0])
for row in sweep.skipped:
    print(f"{row['backend']} at {row['shape']}, M = {row['m']}: skipped, {row['skipped']}")

# %%
# Lines are medians. The band behind each, mostly thinner than the line, spans all samples.
# Dotted: the kernel that only reads the INT4 weight. No INT4 kernel can be below it.

latency = vis.plot_latency(sweep, shape)

# %%
# The same as speed-up over FP16. Above 1 INT4 wins; dotted: what the bytes allow.

speedup = vis.plot_speedup(sweep, shape)

# %%
# The verdict in words, from the data:

INT4 = ("dequantize", "triton_fused", "autoawq_triton")
for backend in INT4:
    ratios = {m: median(r) for m, r in vis.speedups(sweep, backend, shape).items()}
    if ratios:
        best = max(ratios, key=ratios.__getitem__)
        wins = ", ".join(str(m) for m in ratios if ratios[m] > 1) or "none"
        print(f"{backend:<15} best at M = {best}: {ratios[best]:.2f}; faster at M: {wins}")

# If a newer recording of the H200 proves the text below wrong, the build fails.
gains = {
    (backend, layer_shape, m): median(ratios)
    for backend in INT4
    for layer_shape in sweep.parameters["shape"]
    for m, ratios in vis.speedups(sweep, backend, layer_shape).items()
}
published = not chosen and sweep.origin == "recorded"
assert not published or max(gains.values()) < 0.85, max(gains.values())

# %%
# What surprised us
# -----------------
# On the H200 none of the three wins, for any layer and any batch size. The kernels that
# read a quarter of the bytes are slower than the library that reads all of them; not one
# comes near the dotted line.
#
# *Dequantize + matmul* moves more than twice the bytes of FP16 on this layer, so at small
# M it could not win; the column of useful bytes below hides how busy it keeps the memory.
# On a layer whose FP16 copy fits in the L2 cache it loses less.
#
# The two fused kernels use less than a quarter of the bandwidth that FP16 reaches, so
# bandwidth is not what stops them; two GPUs side by side, below, prove it. At small M they
# are flat because they pad: M = 1 runs the same tile as M = 16 (ours) or 32 (AutoAWQ's).
# Is it too few reads in flight, the instructions for each weight, the way through shared
# memory to the right lane, or the pass that adds the parts of K? This table cannot say; a
# profiler can (:ref:`sphx_glr_gallery_gpu_plot_50_xray.py`).

rows = vis.results(sweep)
rates = {(r["backend"], r["shape"], r["m"]): r.get("useful_gb_per_s") for r in rows}
fused = [rates[c] / rates["fp16", *c[1:]] for c in gains if c[0] != "dequantize"]
assert not published or all(share < 1 / 4 for share in fused), max(fused)

measured = sweep.parameters["m"]
shown = measured if chosen else [m for m in measured if m in (1, 16, 64, 256, 1024)]
script.display(vis.summary(sweep, shape, shown))

# %%
# *Of the roofline* is the time that the measured limits allow over the time taken:
# :ref:`sphx_glr_gallery_profiling_plot_20_roofline.py`. Fewer bytes only make speed
# possible. Whether a kernel gets it depends on where each nibble lies and on how many
# instructions stand between the memory and the tensor core; Marlin was designed around
# these two.
#
# All shapes together
# -------------------
# The four products of one layer, times 32 layers, computed from the medians. With all else,
# measured: :ref:`sphx_glr_gallery_profiling_plot_32_whole_model.py`.

script.display(vis.layers_table(sweep, layers=32))

# %%
# On other GPUs
# -------------
# Every GPU recorded, and this one (to add yours: :doc:`/recordings`):

others = recordings.find("batch-sweep")
script.display(vis.gpus_table(sweep, others, shape))

# %%
# The H100 has as many SMs as the H200 and slower memory. On this layer at M = 1 the H200
# needs of the H100's time:

by_gpu = {one.provenance["gpu"]: one for one in others}
pair = [by_gpu[gpu] for gpu in ("NVIDIA H200", "NVIDIA H100 80GB HBM3")]
for name in ("read", "fp16", "triton_fused", "autoawq_triton"):
    here, there = (vis.timed(one, name, "28672x4096")[0]["seconds"] for one in pair)
    share = median(here) / median(there)
    print(f"{name:<14} {share:.2f}")
    assert abs(share - 1) < 0.03 if name in INT4 else share < 0.8, share

# %%
# FP16 gains what reading gains: it waits for memory. The fused kernels gain nothing. So the
# same kernel, ours, wins there (up to M = 16) and loses here. *"INT4 is faster"* and *"INT4
# is slower"* can both be true.
#
# Under which conditions
# ----------------------
# A GPU at its power limit lowers its clock, here by little. NVML, right after the samples:

if clocks := [row["sm_clock_mhz"] for row in sweep.rows if row.get("sm_clock_mhz")]:
    held = {(row["shape"], row["m"]) for row in sweep.rows if row.get("throttle_reasons")}
    cells = {(row["shape"], row["m"]) for row in sweep.rows}
    told = f"held down in {len(held)} of {len(cells)} cells"
    print(f"SM clock {min(clocks)} to {max(clocks)} MHz; {told}")

# %%
# Limits
# ------
# - *Useful GB/s* counts the fewest bytes that the product needs, each once.
# - Each kernel of a CUDA graph takes a microsecond or two to start and end; backends need
#   different numbers: FP16 mostly one, dequantize + matmul two, ours one or three
#   (product, sum over the parts of K, rounding), AutoAWQ's two (clearing the output,
#   product). On the small layers that matters.
# - Only the weights are cold; inputs and outputs stay in the L2 cache.
# - FP16 has the weight as [N, K], as ``torch.nn.Linear``; dequantize + matmul writes it as
#   [K, N], for which cuBLAS chooses other kernels.
# - *Fused Triton* is a first attempt, with tile sizes from a small search, not what Triton
#   can do at best. All others: :ref:`sphx_glr_gallery_marlin_plot_40_all_kernels.py`.

figures = {"throughput_scaling": speedup, "latency_comparison": latency}
script.show(figures, options.output_dir)
