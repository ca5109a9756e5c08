r"""
How to measure a kernel
=======================

*"The blog says 4 times faster. I measure 1.1."* Both may have timed what they say; they did
not time the same thing. This page makes the common mistakes on purpose, one after the
other, and shows how large each is. Then it shows the instrument that all other pages use.
"""

# %%
# Predict
# -------
# Each mistake below is made with kernels from the other pages: products of layers of
# Llama-3-8B in FP16 and INT4, a kernel that only reads, a large square product. By what
# factor does each make a time wrong, and in which direction?
# Which one favours one kernel over another?
#
# Measure
# -------
# The same work, done wrong and done right, in the same process:

from statistics import median

import awqdoc
import torch
from awqdoc import profiling, script
from awqdoc import visualization as vis

parser = script.parser("Show the mistakes of measuring, and how large they are.")
options = script.parse(parser)

made = awqdoc.measure("mistakes")
published = made.origin == "recorded"
factors = vis.mistake_factors(made)
figure = vis.plot_mistakes(made)

# %%
# Left of the line a kernel looks faster than it is. (The first call, which loads code and
# chooses kernels, is off the scale; the table has it.) The line above the
# table is one small INT4 product, timed rightly in three ways: many calls in a graph, alone
# (*launch gaps*) and beside others (*cache*), and one call at a time behind a flush (*one
# sample*, below). **Compare only what was timed in one run, in one way.**

WAYS = ("replayed as a graph", "triton_fused, cold copies", "a")
alone, beside, single = (1e6 * median(vis.samples_of(made, way)) for way in WAYS)
print(f"INT4 fused: {alone:.1f} µs alone, {beside:.1f} beside others, {single:.1f} single")
assert not published or 1.2 * alone > beside > 1.05 * alone < single / 1.2
script.display(vis.mistakes_table(made))

# %%
# The clock of the host
# ---------------------
# A call of a GPU kernel returns as soon as the kernel is in a queue. **A clock that stops
# then has timed the queue**: the result is about the cost of a launch, whatever the kernel.
# ``torch.cuda.synchronize()`` before each reading mends that, and adds the way there and
# back. CUDA events do not have it: the GPU itself writes down when it passes two points of
# its queue.
#
# Between these points the GPU may wait. **A short kernel is over before Python has
# launched the next one**, so a loop around it measures Python. A model that is run that
# way has these gaps too, but then they should be told apart from the kernel's time.
# Replaying a CUDA graph leaves them out: its launches were prepared once.

assert not published or factors["no synchronization"] < 0.5
assert not published or factors["launch gaps counted"] > 2

# %%
# The cache
# ---------
# A model reads each weight once per token, and hundreds of others before the same one
# again: it finds it *cold*. A loop over one small layer finds it in the L2 cache. An INT4
# weight of 4096 x 4096 has 8.7 MB, in FP16 33.6 MB; an H200's L2 cache has 63 MB.
#
# This mistake changes a comparison, for it does not flatter all alike. FP16 gains; our INT4
# kernel, which does not wait for memory, gains next to nothing. (A kernel that only reads,
# in the table, shows what memory alone would gain.) The speed-up, warm and cold:

works = {"warm": ("fp16, one weight again", "triton_fused, one weight again"),
         "cold": ("fp16, cold copies", "triton_fused, cold copies")}  # fmt: skip
for state, ways in works.items():
    fp16, int4 = (1e6 * median(vis.samples_of(made, way)) for way in ways)
    print(f"{state}: FP16 {fp16:.1f} µs, INT4 {int4:.1f} µs: speed-up {fp16 / int4:.2f}")
fp16, int4 = (factors[f"warm cache, {name}"] for name in ("FP16", "INT4 fused"))
assert not published or fp16 < 0.9 < 0.95 < int4

# %%
# So measure with copies of the weight in turn, together several times as large as the
# cache, or empty the cache before each call. *How* it is emptied matters too; see
# :ref:`sphx_glr_gallery_profiling_plot_30_agreement.py`.
#
# The data
# --------
# **A product of zeros is faster than one of random numbers**, for it draws less power:

zeros = [row for row in made.rows if row["mistake"] == "zeros as data"]
for row in zeros:
    ms = 1e3 * median(row["seconds"])
    print(f"{row['way']:<20} {row['power_w']:.0f} W, {ms:.3f} ms")
drawn = [row["power_w"] for row in zeros]
assert not published or drawn[1] < 0.7 * min(drawn[0], drawn[2])

# %%
# With random numbers this GPU reaches its power limit and lowers its clock; zeros switch
# fewer transistors. Constant or sparse data should do the same in part. Reading takes power
# too: our fastest INT4 kernel, run on and on for a single token, reaches the limit as well
# (:ref:`sphx_glr_gallery_gpu_plot_40_monitor.py`).
#
# The clock of the GPU
# --------------------
# The same product of random matrices, over and over, after three seconds of rest:

drift = vis.plot_drift(made)
seconds, clocks, watts, every = vis.sustained(made)
early, late = median(seconds[:20]), median(seconds[-200:])
print(f"first 20: {1e3 * early:.2f} ms, last 200: {1e3 * late:.2f} ms, {late / early:.2f}")
low, high = min(watts), max(watts)
print(f"SM clock {max(clocks)} to {min(clocks)} MHz, power {low:.0f} to {high:.0f} W")
dropped = next(i for i, clock in enumerate(clocks) if clock < 0.95 * clocks[0])
assert not published or sum(seconds[: dropped * every]) < 0.2
apart = median(seconds[:200]) / median(seconds[-200:])
turns = median(profiling.ratios(seconds[::2], seconds[1::2]))
print(f"first 200 against last 200: {apart:.3f}; even against odd: {turns:.3f}")
assert not published or (late / early > 1.05 and abs(turns - 1) < 0.01)

# %%
# Nothing is wrong with this GPU. It runs at its highest clock until power or heat say
# otherwise; here that took less than two tenths of a second. (NVML's power is a mean over
# about a second, and follows later.) **Who is timed first wins**: the same function, first
# measured and last measured, seems to have become slower. Measured in turn, even calls
# against odd, it is as fast as itself. So competitors belong into one run, round by round,
# and ratios are taken within a round.
#
# The neighbours
# --------------
# In turn is not enough: the *order* must change as well. Two backends that read the same
# packed weight, behind a large copy: whichever comes second finds the weight in the cache,
# and has no lines that the copy wrote to throw out:

for backend in ("dequantize", "triton_fused"):
    first, second = (
        1e6 * median(vis.samples_of(made, f"{backend}, {place}"))
        for place in ("first", "second")
    )
    print(f"{backend:<12} first {first:.1f} µs, second {second:.1f} µs")
assert not published or factors["second to read a weight"] < 0.95

# %%
# A fixed order would have given one of them a present.
#
# One sample
# ----------
# The same function twice, under two names, 200 rounds:

a, b = (vis.samples_of(made, way) for way in ("a", "the same again"))
pairs = sorted(profiling.ratios(a, b))
beyond = sum(abs(ratio - 1) > 0.02 for ratio in pairs) / len(pairs)
print(f"single pairs: {pairs[0]:.2f} to {pairs[-1]:.2f}; {beyond:.0%} off by more than 2%")
for name, samples in (("a", a), ("again", b)):
    found = profiling.summarize(samples)
    print(f"{name:<6} median {1e6 * found.median:.2f} µs, half within {found.spread:.1%}")
assert not published or (pairs[-1] > 1.03 and abs(median(pairs) - 1) < 0.01)

# %%
# **Single pairs differ by some per cent between a function and itself.** One pair means
# nothing. Keep every sample; take the median, which one disturbed sample does not move; and
# give the spread.
#
# The instrument
# --------------
# ``Benchmarker`` does all of this: warms up, empties the L2 cache before each call, runs
# competitors in turn in changing order, keeps every sample, and records clocks and power.
# It says what it did, and when the samples should not be believed:

device = "cuda" if torch.cuda.is_available() else "cpu"
x = torch.randn(256, 256, device=device)
bench = profiling.Benchmarker(num_iterations=30, device=device)
bench.compare({"x @ x": lambda: x @ x, "the same": lambda: x @ x, "x + x": lambda: x + x})
print(vis.Here.now(device).label)
bench.print_results()

# %%
# With ``graph=True`` a function is captured in a CUDA graph, so that no gap of Python is
# timed. Without it, emptying the cache hides the launch of a short function; to see what
# launching costs, use ``cold=False``, or time a loop. ``CUDATimer`` and
# ``profile_scope("name")`` time single pieces of a program (:py:mod:`awqdoc.profiling`).
#
# Limits
# ------
# - The factors are those of one GPU and of these kernels. The directions are general.
# - A GPU in a rack with warm air, or beside busy ones, drifts more than this one.
# - An interval tells only of the scatter within one run. Why the same INT4 product takes
#   another time alone in a graph and beside other kernels, we have not found out.
# - Kernels that overlap, as in a server, are another measurement.

script.show({"mistakes": figure, "drift": drift}, options.output_dir)
