r"""
Every kernel, at every batch
============================

*"Which INT4 kernel is the fastest?"* For which layer, and for how many tokens at a time? A
kernel that wins for one token can lose to plain FP16 for a hundred. Here all of them run in
turn: ours, and those of other projects that could be installed on the machine.
"""

# %%
# Predict
# -------
# Over the batch size M, where do you expect the best INT4 kernel to be three times as fast
# as FP16? From which M on does none win any more? And is there one that is best everywhere?
#
# Measure
# -------
# Seven layers of Llama-3, group size 128, cold weights, in a CUDA graph. Who is wrong, or
# not the same from call to call, gets no time. The figures show symmetric weights, for
# Marlin as published knows no others; ``--zero-points`` draws those that AWQ makes.

import awqdoc
from awqdoc import script
from awqdoc import visualization as vis
from awqdoc.experiments.kernels import SHAPES
from awqdoc.kernels.table import KERNELS, LADDER

parser = script.parser("Show every kernel over batch sizes, and the floor below them.")
parser.add_argument("--shape", default="28672x4096", metavar="NxK", help="which to draw")
parser.add_argument("--zero-points", action="store_true", help="draw such weights")
options = script.parse(parser)

chosen = {} if options.shape in SHAPES else {"shape": options.shape}
timed = awqdoc.measure("kernels", **chosen)
print(timed.label)
published = timed.origin == "recorded"
shapes, batches = timed.parameters["shape"], timed.parameters["m"]
# After Ctrl-C the run holds the finished sizes only.
shape = options.shape if options.shape in shapes else shapes[0]
zeros = options.zero_points or False not in timed.parameters["zero_points"]

# %%
# The floor
# ---------
# No kernel can take less than one of two times, whichever is longer: that of a kernel which
# only *reads* the packed weight, timed between the others, and that of the 2 M N K
# *operations*, at the best rate that any kernel reached anywhere in this run.

rate, row = vis.best_rate(timed)
where = f"{vis.brief(row['backend'])}, {row['shape']}, M = {row['m']}"
print(f"best rate: {rate / 1e12:.0f} TFLOP/s ({where})")
for one in shapes:
    bounds = vis.kernel_floors(timed, one, zeros)
    binding = [bound.binds for bound in bounds.values()]
    counted = [m for m in bounds if bounds[m].binds == "operations"]
    least = 1e6 * min((bound.seconds for bound in bounds.values()), default=0)
    print(f"{one:<11} {least:5.1f} µs; operations bind at M: {vis.spans(counted, batches)}")
    # Reading binds first, and once operations do they go on doing so.
    assert not published or binding == sorted(binding)

# %%
# Ours against the rest
# ---------------------
# Each number is the time of the fastest kernel that is not of :ref:`our ladder
# <sphx_glr_gallery_marlin_plot_30_ladder.py>` over the time of its last step. Above 1
# (blue) ours is faster, below (orange) slower. The others include FP16, by cuBLAS and for
# one token by a kernel of ours, which streams the weight as step 7 does.

overview = vis.plot_standings(timed, zeros)

script.display(vis.ahead_table(timed, ((1, 16), (17, 128), (129, 1024))))

# %%
# Who is first, then, and where that is one of our steps, who is the best of the others?

script.display(vis.first_table(timed, zeros))

# %%
# Each kernel by itself
# ---------------------
# In every panel the same FP16 (cuBLAS) and the same floor; where the kernel is faster than
# FP16 the room between is shaded.

times = vis.plot_each_time(timed, shape, zeros)

# %%
# The same as a share of the floor, so that 100% could not be faster. FP16 stands at about a
# quarter as long as reading binds, for it reads four times the bytes; what an INT4 kernel
# has below that line it has lost. From the dotted line on the floor is arithmetic, and the
# same for both.

shares = vis.plot_each_share(timed, shape, zeros)

fp16 = vis.kernel_shares(timed, shape, zeros).get("fp16", {})
for m in [m for m in (batches[0], batches[-1]) if m in fp16]:
    print(f"FP16 at M = {m}: {fp16[m]:.0%} of the floor")
assert not published or shape != "28672x4096" or fp16[1] < 0.4 < fp16[1024]

# %%
# Where each loses its lead
# -------------------------
# The batch sizes at which a kernel is faster than FP16, of those at which it got a time:

script.display(vis.shape_leads_table(timed, zeros))

# %%
# What surprised us
# -----------------
# **Four bits alone win nothing.** Some kernels are slower than FP16 even for one token,
# where reading is all there is to do. How many of the INT4 kernels (our lower steps left
# out) are faster than FP16 at all, over all layers:

fp16s = [name for name, kernel in KERNELS.items() if kernel.bits == 16]
lower = [name for name in LADDER if name != vis.top_step(timed)]
for m in (1, 16, 64, 128, 256, 1024):
    won = lost = 0
    for one in shapes:
        rows = vis.kernel_times(timed, one, zeros, m)
        for name in rows.keys() - {"read", *fp16s, *lower}:
            faster = vis.over(timed, one, zeros, m, name, "fp16") < 1
            won, lost = won + faster, lost + (not faster)
            assert not published or name != "dequantize" or m > 1 or not faster
    print(f"M = {m:<5} {won:>3} of {won + lost}")

# %%
# **Two ends, two crafts.** For few tokens it counts how many bytes are on their way at
# once; for many, what is done for each weight beside the tensor cores. The nearest to the
# floor of the others at either end, and what the same kernel reaches at the other end:

others = vis.kernel_shares(timed, shape, zeros)
others = {name: own for name, own in others.items() if name not in (*fp16s, *LADDER)}
for m, end in ((batches[0], batches[-1]), (batches[-1], batches[0])):
    name = max(others, key=lambda name: others[name].get(m, 0), default=None)
    if name and m in others[name]:
        far = f", {others[name][end]:.0%} at M = {end}" if end in others[name] else ""
        print(f"{vis.brief(name)}: {others[name][m]:.0%} at M = {m}{far}")

# %%
# Without a time
# --------------
# What got none, with the reason: it is no part of the figures and tables above.

script.display(vis.left_out_table(timed))

# %%
# Marlin as it was published
# --------------------------
# The kernel that gave the idea its name is that of IST-DASLab, written for Ampere. What
# became of it in this run, with symmetric weights:

told = vis.outcomes(timed, "marlin_ist", False)
for m, found in told.items():
    said = "; ".join(f"{reason} ({count})" for reason, count in found.items())
    print(f"M = {m:<5} {said}")
print("(in brackets: on how many shapes)" if told else "It is no row of this run.")
for words in ("illegal instruction", "change from call to call", "timed"):
    at = [m for m in told if any(words in reason for reason in told[m])]
    if told:
        print(f"{words} at M: {vis.spans(at, batches)}")

# %%
# Two faults are known on Hopper; the lines above say which of them this run met.
#
# *An illegal instruction.* Marlin copies its weight asynchronously (``cp.async``) with the
# hint that it should be the first to leave the L2 cache. In the machine code that ptxas
# 13.0 makes of it, some of these copies take address and hint from registers that nothing
# has written: as it looks, a fault of the compiler, not of Marlin. Steps 4 and 5 of our
# ladder do without the hint because of it.
#
# *Results that change.* With a scale for each 128 rows and stages of 64, one slot of shared
# memory holds the scale of two stages, and is filled anew while slower warps still read it.
# This is a race, so it mostly goes well; a kernel that is right most of the time gets no
# time here. vLLM's descendant reads the slot only in the first part of a stage.
#
# Limits
# ------
# - The read floor reads the weight alone. At large M inputs and results count too, and the
#   share of the floor looks worse than it is.
# - A step with overlapped launches hides what the floor, launched plainly, shows: its share
#   may exceed 100%.
# - Kernels are called as their own libraries call them. One that multiplies in bfloat16, or
#   clears its output first, pays for that here.
# - Machete is GPTQModel 7.6.0's, compiled with ``-DNDEBUG``, as vLLM does. GPTQModel does
#   not: what it builds when Machete is first called keeps its assertions, for which ptxas
#   lets each ``wgmma`` wait for the one before (warning C7510), and is slower.
# - One GPU, random weights. Who is first by a per cent may be second tomorrow.

figures = {"all_kernels": overview, "kernel_times": times, "kernel_shares": shares}
script.show(figures, options.output_dir)
