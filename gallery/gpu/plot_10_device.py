r"""
What is this GPU?
=================

Everything that this site claims about speed is a share of what one chip can do. So the
first question is what the chip is: how much memory at which level, how fast, and how
many operations it could do meanwhile. Most of it the GPU tells us itself, and it is the
better witness: for the L2 cache of the H200 many pages repeat the H100's 50 MB.

Of each row this page says where it comes from: torch, NVML (the management library
under ``nvidia-smi``), a formula, or a table of ours.
"""

# %%
# Ask
# ---
# ``awqdoc.measure`` asks the GPU of the machine that runs this script. Where there is
# none, it replays what a named GPU answered on a named day; the label of each table and
# figure says which of the two you see.

import awqdoc
from awqdoc import script
from awqdoc import visualization as vis

options = script.parse(script.parser("Report what this GPU is."))
report = awqdoc.measure("device")
facts = {row["fact"]: row["value"] for row in report.rows}

script.display(vis.device_table(report))

# %%
# What fits where
# ---------------
# A weight that INT4 shrinks to a quarter may fit where it did not fit before.
# **Predict:** is the largest matrix in a layer of Llama-3-8B, gate and up projection
# together (28672 × 4096), small enough in INT4 for the L2 cache? In FP16?

figure = vis.plot_hierarchy(report)

# %%
# Registers and L1 are those of all SMs together; the dotted line is the L2 cache. In FP16
# the large weight is several times too big for it; in INT4 it comes close, and a 4096 ×
# 4096 layer fits with much room. That is how a benchmark goes wrong: one that multiplies
# by the same small INT4 weight again and again reads it from L2, which a model never
# does, since between two uses of a weight it reads all its others. The measurements on
# this site rotate through copies so that each weight comes from memory.

from awqdoc.formats import Problem

for n, k in [(4096, 4096), (28672, 4096)]:
    for bits in (16, 4):
        share = Problem(1, n, k).weight_bytes(bits) / facts["L2 cache"]
        print(f"{n:>5} x {k} at {bits:>2} bits fills {share:7.1%} of the L2 cache")

# %%
# Two speeds and the ridge between them
# -------------------------------------
# The memory delivers bytes per second; the tensor cores do floating-point operations per
# second (a multiply-add is two). Their quotient, the *ridge point*, is how many
# operations a program must do with each byte for both to be busy. A linear layer at batch
# size M does about M per byte in FP16 (2 M operations for each weight of 2 bytes), and
# about 4 M in INT4, a little less because of its scales.

ridge = facts.get("ridge point")  # not told for a chip whose rate per clock we do not know
if ridge is not None:
    peak, bandwidth = facts["FP16 tensor-core peak"], facts["memory bandwidth"]
    assert abs(peak / bandwidth - ridge) < 1e-6 * ridge
for bits in (16, 4):
    layer = Problem(1, 28672, 4096)
    per_token = layer.flops / layer.weight_bytes(bits)
    known = f"; ridge at M = {ridge / per_token:.0f}" if ridge is not None else ""
    print(f"{bits:>2} bits: {per_token:.2f} FLOP per byte and token{known}")

# %%
# What it means
# -------------
# Below the ridge a layer takes at least the time to read its weight, and a weight of a
# quarter of the bytes *could* be read in a quarter of the time. That is the whole promise
# of weight-only INT4, and its limit: above the ridge the tensor cores are the bottleneck,
# and they multiply FP16 in either case.
#
# Whether a kernel keeps that promise is another question. The page
# :ref:`sphx_glr_gallery_profiling_plot_10_batch_sweep.py` asks it.
#
# Limits
# ------
# - *Memory bandwidth* and *tensor-core peak* are computed from the highest clocks, not
#   measured. No program reaches either: memory also refreshes and turns round, and under
#   load the clocks fall. A data sheet counts with a lower clock, so its peak and its
#   ridge are lower too.
# - The formula of the peak holds for dense FP16 with the rate per clock of this compute
#   capability; a data sheet's figure "with sparsity" is twice as high.
# - Memory and bus width are NVML's answers, without what the driver and error correction
#   keep for themselves; the product's name is rounder.
# - *L1 cache and shared memory* share one array per SM. How much of it is shared memory a
#   kernel chooses at launch.

script.show({"memory_hierarchy": figure}, options.output_dir)
