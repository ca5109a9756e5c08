r"""
How long does packing take?
===========================

Quantizing a model of 70 B parameters packs several hundred weights, each once. Must that
take long? This page times packing the gate and up projection of Llama-3-8B, 28672 ×
4096, in the four formats that AutoAWQ packs too: ours, AutoAWQ's, and a plain copy as the
floor.
"""

# %%
# Predict
# -------
# Packing computes next to nothing: it reads each code, one byte, and writes half a byte. A
# copy of the codes reads and writes a byte for each, so a packer that runs at the speed
# of memory takes about as long as the copy. How near do you expect a few lines of PyTorch
# to come? And what do you expect of a loop over columns in Python?
#
# Measure
# -------
# A random weight with groups of 128. *Pack* starts from codes. AutoAWQ's packers start
# from the FP16 weight and known scales, and round once more; *round and pack* is ours
# doing the same work. AutoAWQ's tensors must equal ours bit for bit, or there is no time.
# The CPU works with two threads for everybody. Ours is run seven times after a first that
# does not count, AutoAWQ, which takes seconds, once.

import awqdoc
from awqdoc import script
from awqdoc import visualization as vis

parser = script.parser("Time packing, ours and AutoAWQ's.")
parser.add_argument("--shapes", nargs="+", metavar="NxK", help="the last is drawn")
options = script.parse(parser)

chosen = {"shape": options.shapes} if options.shapes else {}
timed = awqdoc.measure("packing-speed", **chosen)
published = not chosen and timed.origin == "recorded"
shape = timed.parameters["shape"][-1]

for row in timed.rows:
    if "skipped" in row:
        print(f"{row['format']} on {row['where']}: skipped, {row['skipped']}")

seconds = vis.plot_packing(timed, shape)

# %%
# In numbers, with how many times as long AutoAWQ takes:

script.display(vis.packing_table(timed, shape))

# %%
# What surprised us
# -----------------
# For each format AutoAWQ's time over ours, and ours over the copy's:

for where in ("cpu", "cuda"):
    for name, works in vis.packing_times(timed, shape, where).items():
        over_copy = works["pack"] / works["copy"]
        print(f"{where:<4} {name:<13} pack {over_copy:5.1f} copies", end="")
        if "autoawq" in works:
            alone, equal = (works["autoawq"] / works[w] for w in ("pack", "from weight"))
            print(f"; AutoAWQ {alone:6.1f} packs, {equal:6.1f} times equal work", end="")
            assert not published or equal > 2
            assert not published or where == "cpu" or equal > 100
        print()

# %%
# **A packer that loops in Python pays for each column.** AutoAWQ's for the three AWQ
# formats round the weight column after column, thousands of small operations; the one for
# GEMM then also packs nibble after nibble of each column of words. On a CPU each reads a
# cache line per element, for a column of [N, K] is spread over all of memory. On a GPU
# each is over at once but must be launched; that is why ours gains hundreds of times
# there. The Marlin packer rounds and permutes the whole tensor at a time, and on the CPU
# ours gains least against it; but it joins the nibbles in NumPy, so that a tensor on the
# GPU makes a trip to the CPU and back.
#
# **Ours is no copy either.** It gives each bit of k and n an axis of its own, permutes the
# axes and joins neighbouring nibbles. That is one pass over memory, but in runs as short
# as two bytes, and neither a CPU nor a GPU reads those at full speed; checking that every
# code is below 16 is another pass. On two cores half a second for the largest weight of
# Llama-3-8B does not hurt, and rounding, four passes more, takes longer.
#
# A small weight
# --------------
# At 4096 × 4096 a GPU spends most of the time starting operations:

small = timed.parameters["shape"][0]
script.display(vis.packing_table(timed, small))

# %%
# Limits
# ------
# - One machine's CPU, not a typical one; what counts are the ratios.
# - AutoAWQ's single runs hold its first use of each operation.
# - AutoAWQ packs a model on the GPU that quantizes it; a loop there leaves the CPU busy
#   too.

script.show({"packing_seconds": seconds}, options.output_dir)
