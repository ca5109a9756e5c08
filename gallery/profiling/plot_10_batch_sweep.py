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
# same dequantized weight, and one that is wrong gets no time. That tests the kernel; what
# quantization itself loses is another question. Then all of them run in turn, round after
# round, so that a drifting clock meets them alike. Each sample is the replay of a CUDA
# graph that multiplies by several copies of the weight in turn, together eight times as
# large as the L2 cache, divided by their number: no Python, no launch gaps, cold weights.
# Every sample is kept. Weights and inputs are random, with the spread of trained ones.
# Beside the backends a kernel runs that only reads the packed weight, a large copy, and
# after them a large FP16 product: what this GPU can do at all, by the same clock.

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
# The same as speed-up over FP16. Above 1 INT4 wins; the dotted line is what the bytes
# allow.

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

# The next paragraph says who wins on an H100. A newer recording may prove it wrong; then
# the page must be rewritten, and its build fails until it is.
gains = {
    (backend, layer_shape, m): median(ratios)
    for backend in INT4
    for layer_shape in sweep.parameters["shape"]
    for m, ratios in vis.speedups(sweep, backend, layer_shape).items()
}
won = {cell: gain for cell, gain in gains.items() if gain > 1}
told = {("triton_fused", "28672x4096", m) for m in (1, 2, 4, 8, 16)} & gains.keys()
published = not chosen and sweep.origin == "recorded"
assert not published or won.keys() == told, won
assert not published or all(1.05 < gain < 1.15 for gain in won.values()), won

# %%
# What surprised us
# -----------------
# On the H100 one of the three wins, in one place: our fused kernel on the largest layer, up
# to 16 tokens, by about a tenth. On the three smaller layers, and beyond 16 tokens, all
# lose. Not one comes near the dotted line, and mostly the kernels that read a quarter of
# the bytes are slower than the library that reads all of them.
#
# *Dequantize + matmul* moves more than twice the bytes of FP16 on this layer, so at small
# M it could not win; the column of useful bytes below hides how busy it keeps the memory.
# On a layer whose FP16 copy fits in the L2 cache it loses less.
#
# The two fused kernels use less than a third of the bandwidth that FP16 reaches, so
# bandwidth is not what stops them. (On a GPU with the same SMs and faster memory, as an
# H200, expect FP16 to gain more than they do.) At small M they are flat because they pad:
# M = 1 runs the same tile as M = 16 (ours) or 32 (AutoAWQ's). This table cannot say which
# of the rest it is: too few reads in flight, the instructions for each weight (shift,
# mask, subtract, convert, multiply), the way through shared memory to the lane where a
# tensor core expects a value, or the second pass that adds the parts of K. A profiler can.

rows = vis.results(sweep)
rates = {(r["backend"], r["shape"], r["m"]): r.get("useful_gb_per_s") for r in rows}
fused = [rates[c] / rates["fp16", *c[1:]] for c in gains if c[0] != "dequantize"]
assert not published or all(share < 1 / 3 for share in fused), max(fused)

measured = sweep.parameters["m"]
shown = measured if chosen else [m for m in measured if m in (1, 16, 64, 256, 1024)]
script.display(vis.summary(sweep, shape, shown))

# %%
# *Of the roofline* is the time that the measured limits allow over the time taken:
# :ref:`sphx_glr_gallery_profiling_plot_20_roofline.py`.
#
# Fewer bytes only make speed possible. Whether a kernel gets it may well depend on where
# each nibble lies and on how many instructions stand between the memory and the tensor
# core; Marlin was designed around these two.
#
# All shapes together
# -------------------
# The four products of one layer, times the 32 layers of Llama-3-8B: what the linear
# layers alone would allow, if nothing else took time. (Computed from the medians,
# attention and everything else left out.)

script.display(vis.layers_table(sweep, layers=32))

# %%
# On other GPUs
# -------------
# Every GPU of which this site has recordings, and this one (:doc:`/recordings` says how to
# add yours):

script.display(vis.gpus_table(sweep, recordings.find("batch-sweep"), shape))

# %%
# Under which conditions
# ----------------------
# A GPU at its power limit lowers its clock; the large product comes near that limit. What
# NVML said right after the samples:

held = {(row["shape"], row["m"]) for row in sweep.rows if row.get("throttle_reasons")}
clocks = sorted(row["sm_clock_mhz"] for row in sweep.rows if row.get("sm_clock_mhz"))
cells = {(row["shape"], row["m"]) for row in sweep.rows}
if clocks:
    span = f"{clocks[0]} to {clocks[-1]} MHz"
    print(f"SM clock {span}; held down in {len(held)} of {len(cells)}")

# %%
# Limits
# ------
# - *Useful GB/s* counts the fewest bytes that the product needs, each once, not those
#   that a backend moves.
# - Each kernel of a CUDA graph takes about a microsecond to start, and the backends need
#   different numbers: FP16 mostly one, dequantize + matmul two, ours one or three
#   (product, sum over the parts of K, rounding), AutoAWQ's two (clearing the output,
#   product). On the small layers that matters.
# - Only the weights are cold. Inputs and outputs are reused and stay in the L2 cache.
# - FP16 stores the weight as ``torch.nn.Linear`` does, [N, K]; dequantize + matmul writes
#   it as [K, N]. cuBLAS chooses other kernels for it, which may explain the bump in its
#   curve; we have not looked.
# - *Fused Triton* is a first attempt of ours with tile sizes from a small search. It
#   shows what a straightforward kernel does, not what Triton can do at best.
# - AutoAWQ's CUDA kernels, Marlin and others are on a page of their own:
#   :ref:`sphx_glr_gallery_marlin_plot_40_all_kernels.py`.

figures = {"throughput_scaling": speedup, "latency_comparison": latency}
script.show(figures, options.output_dir)
