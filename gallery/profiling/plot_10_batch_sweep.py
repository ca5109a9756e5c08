r"""
Is INT4 faster? A first sweep
=============================

A weight in INT4 has a quarter of the bytes, so at small batch sizes, where a linear
layer waits for its weight, multiplying by it should take about a quarter of the time.
Should. This page takes three ways to multiply by an INT4 weight, none of them exotic,
and measures them against plain FP16 on the four matrix shapes of Llama-3-8B.
"""

# %%
# Predict
# -------
# Before you look: at batch size 1, which of these is faster than FP16 on the largest
# layer, and how much?
#
# - **dequantize + matmul**: write the weight out as FP16, then multiply as always;
# - **fused Triton**: our first kernel, which dequantizes in registers, so that only the
#   packed weight is read;
# - **AutoAWQ Triton**: the kernel that AutoAWQ itself uses where its CUDA extension is
#   not installed.
#
# Bytes alone say this (4 bits, and for each group of 128 a 16-bit scale and a 4-bit zero
# point):

from statistics import median

import awqdoc
from awqdoc import script
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
# Each backend first has to be right: its result is compared with float32, and one that is
# wrong gets no time. Then all of them run in turn, round after round, so that a drifting
# clock meets them alike. Each time is a CUDA graph replay over rotating copies of the
# weight that together exceed the L2 cache eight times: no Python, no launch gaps, cold
# weights. Every sample is kept.

parser = script.parser("Measure FP16 against INT4 over batch sizes.")
parser.add_argument(
    "--shapes", nargs="+", default=["28672x4096"], metavar="NxK", help="the first is drawn"
)
parser.add_argument("--batch-sizes", nargs="+", type=int, metavar="M")
options = script.parse(parser)

# Without options, everything that is published; with one, only what it names.
shape = options.shapes[0]
chosen = {"shape": options.shapes, "m": options.batch_sizes} if options.batch_sizes else {}
if options.shapes != parser.get_default("shapes"):
    chosen["shape"] = options.shapes
sweep = awqdoc.measure("batch-sweep", **chosen)

for row in sweep.skipped:
    print(f"{row['backend']} at {row['shape']}, M = {row['m']}: skipped, {row['skipped']}")

# %%
# Lines are medians. The band behind each, mostly thinner than the line, spans all
# samples.

latency = vis.plot_latency(sweep, shape)

# %%
# The same as speed-up over FP16. Above 1 INT4 wins; the dotted line is what the bytes
# allow.

speedup = vis.plot_speedup(sweep, shape)

# %%
# The verdict in words, from the data:

for backend in ("dequantize", "triton_fused", "autoawq_triton"):
    ratios = {m: median(r) for m, r in vis.speedups(sweep, backend, shape).items()}
    if ratios:
        best = max(ratios, key=ratios.__getitem__)
        wins = ", ".join(str(m) for m in ratios if ratios[m] > 1) or "none"
        print(f"{backend:<15} best at M = {best}: {ratios[best]:.2f}; faster at M: {wins}")
        # The next paragraph says so; a newer torch or Triton may prove it wrong.
        assert sweep.provenance["gpu"] != "NVIDIA H200" or wins == "none"

# %%
# What surprised us
# -----------------
# On the H200 all three lose, at every batch size. Not one comes near the dotted line, and
# the kernel that moves a quarter of the bytes is slower than the library that moves all
# of them.
#
# For *dequantize + matmul* it could not be otherwise: it moves more than twice the bytes
# of FP16. The two fused kernels do not wait for bytes: the table shows how few gigabytes
# per second they move, a fraction of what FP16 draws from the same memory. Nor do they
# wait for the tensor cores, whose work grows with M while their time, up to M = 16 and
# beyond, does not. What remains is the way from one to the other, and it is a long one:
# for each weight a shift, a mask, a subtraction, a conversion and a multiplication, then
# a trip through shared memory to the lane where the tensor core expects it.

measured = sweep.parameters["m"]
shown = [m for m in measured if m in (1, 16, 64, 256, 1024)] or measured
script.display(vis.summary(sweep, shape, shown))

# %%
# So a small weight is only the right to be fast. Whether a kernel uses it is a matter of
# where each nibble lies and of how many instructions lie between the memory and the
# tensor core. That is what Marlin is about, and this site.
#
# All shapes together
# -------------------
# The four products of one layer, times the 32 layers of Llama-3-8B: what the linear
# layers alone would allow, if nothing else took time. (Computed from the medians,
# attention and everything else left out.)

if len(sweep.parameters["shape"]) == 4:
    script.display(vis.layers_table(sweep, layers=32))

# %%
# Limits
# ------
# - *GB/s* counts the fewest bytes that a backend must move, not those that it does move.
# - An empty node of a CUDA graph costs about a microsecond and is included everywhere. In
#   a program that launches kernels from Python and waits for each, the launch costs more
#   than that, and hides part of these differences.
# - *Fused Triton* is a first attempt of ours with tile sizes from a small search. It
#   shows what a straightforward kernel does, not what Triton can do at best.
# - AutoAWQ's CUDA kernels (``autoawq-kernels``) are not in this table yet; nor is Marlin.
# - FP16 results are those of cuBLAS as torch calls it on this version; it scatters more
#   than the others.

script.show(
    {"throughput_scaling": speedup, "latency_comparison": latency}, options.output_dir
)
