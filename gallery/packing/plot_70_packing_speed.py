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
# A random weight with groups of 128. *The codes alone* are packed and not checked; *pack*
# is what users call, with a check that no code is above 15, with scales and zero points.
# AutoAWQ's packers start from the FP16 weight and known scales, and round once more; *round
# and pack* is ours doing the same work. AutoAWQ's tensors must equal ours bit for bit, or
# there is no time. The CPU works with two threads for everybody. Ours is run seven times
# after a first that does not count, AutoAWQ, which can take seconds, once.

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
        copies = [works[work] / works["copy"] for work in ("codes", "pack")]
        print(f"{where:<4} {name:<13} ", end="")
        print(f"codes {copies[0]:4.1f}, pack {copies[1]:4.1f} copies", end="")
        assert not published or where == "cpu" or 1.4 < copies[0] < 2.2
        assert not published or works["pack"] < 0.5
        if "autoawq" in works:
            alone, equal = (works["autoawq"] / works[w] for w in ("pack", "from weight"))
            print(f"; AutoAWQ {alone:6.1f} packs, {equal:5.1f} times equal work", end="")
            assert not published or alone > 10
            assert not published or equal > 2
            assert not published or where == "cpu" or equal > 100
        print()

# %%
# **A packer that loops in Python pays for each column.** AutoAWQ's for the three AWQ
# formats round the weight column after column, thousands of small operations; the one for
# GEMM then also packs nibble after nibble of each column of words. On a CPU each reads a
# cache line per element, for a column of [N, K] is spread over all of memory. On a GPU
# each is over at once but must be launched; that is why ours gains hundreds of times
# there. The Marlin packer rounds and permutes the whole tensor at a time, so at equal work
# a CPU gains least with ours; but it joins the nibbles in NumPy, so that a tensor on the
# GPU makes a trip to the CPU and back.
#
# **On a CPU ours is no copy either.** It gives each bit of k and n an axis of its own and
# joins two nibbles at a time: four additions that read every code once, but a byte here
# and a byte there. The formats of GEMV, whose words run along k, first need the codes
# transposed. On two cores *pack* takes less than half a second for the largest weight in a
# layer of Llama-3-8B, which does not hurt. Equal work takes longer by the rounding, in FP16
# that a CPU must emulate, and by turning [N, K] into [K, N].
#
# **On a GPU the codes alone take one and a half to about two copies.** (Some of that, and
# of the copy, is the host's: its clock counts launch and wait for the end.) There it is one
# kernel that writes each word once, and it knows a layout by three tables only, for where a
# code is found is a sum: something for its row, something for its word, something for its
# nibble. What makes it fast is the shape of its blocks: whole rows of words for AWQ and
# Marlin, squares for GEMV, whose neighbouring words lie a row of codes apart. With the
# other's shape each is several times slower (seen while tuning, not recorded). Of the rest
# of *pack*, checking the codes is a pass over them too; what remains is mostly starting a
# dozen small operations. (Why GEMV's formats take longer for it on this weight than on the
# small one below, we have not looked.)
#
# A small weight
# --------------
# At 4096 × 4096 a GPU spends most of the time starting operations:

small = timed.parameters["shape"][0]
script.display(vis.packing_table(timed, small))

# %%
# Limits
# ------
# - One machine's CPU, not a typical one; what counts are the ratios. Those to the copy are
#   rough there: all four copies are the same work, and one took about twice as long.
# - AutoAWQ's single runs hold its first use of each operation.
# - AutoAWQ packs a model on the GPU that quantizes it; a loop there leaves the CPU busy
#   too.

script.show({"packing_seconds": seconds}, options.output_dir)
