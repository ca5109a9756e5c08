r"""
Do two clocks agree?
====================

*"ncu says 22 µs, do_bench says 31. Which is right?"* Both. This page times the same calls
with CUDA events, a CUDA graph, Triton's ``do_bench`` and Nsight Compute, and explains where
they differ.
"""

# %%
# Predict
# -------
# Five ways to time one call:
#
# - **Nsight Compute** (``ncu``): the GPU's own record of when a kernel began and ended, the
#   kernels alone, caches invalidated before each (``--cache-control all``) and clocks left
#   as they are;
# - **a graph of cold copies**: what the pages of this site use. One replay holds a call for
#   each copy of the weight; its time is divided by their number;
# - **flushed by a read**: ``Benchmarker``, which empties the L2 cache by reading, then puts
#   one call between two events;
# - **flushed by a write**: the same, but behind clearing 256 MB;
# - **do_bench**: Triton's, which clears 256 MB too, and does not wait between calls.
#
# For kernels that take long the way should not matter. What is long?
#
# Measure
# -------

from statistics import median

import awqdoc
from awqdoc import script
from awqdoc import visualization as vis

parser = script.parser("Compare clocks: CUDA events, graphs, do_bench, Nsight Compute.")
options = script.parse(parser)

timed = awqdoc.measure("agreement")
figure = vis.plot_agreement(timed)

# %%
# Numbers in names are N x K and M. In µs, with the number of kernels in a call:

script.display(vis.agreement_table(timed))

# %%
# Above 100 µs
# ------------
# By how much each differs from Nsight Compute at most, and by how much ``do_bench`` differs
# from the events behind a flush by writing, which leave the cache in the same state:

works = timed.parameters["work"]
times = {}
for work in works:
    rows = vis.agreement_rows(timed, work)
    times[work] = {way: median(row["seconds"]) for way, row in rows.items()}
long = [work for work in works if times[work]["ncu"] > 100e-6]
for way in ("graph", "read"):
    most = max(abs(vis.agreement_ratios(timed, work)[way] - 1) for work in long)
    print(f"{way:<9} within {most:.1%} of Nsight Compute")
    assert most < 0.03, "clocks of the same cache state do not agree"
for work in long:
    ratio = times[work]["do_bench, short"] / times[work]["write"]
    print(
        f"do_bench (10 ms) over events behind a write: {ratio:.3f} {vis.work_title(work)}"
    )

# %%
# With a clean cache, events, graph and Nsight Compute are the same within 3 %. ``do_bench``
# and our events agree as well where a kernel waits for memory. Where it keeps the tensor
# cores busy they can differ by several per cent, and so does ``do_bench`` from itself:
# after 10 ms and after 100, its default.

for work in ("matmul", "fp16 28672x4096 512"):
    rows = vis.agreement_rows(timed, work)
    runs = ", ".join(
        f"{name} {1e6 * times[work][way]:.0f} µs (then {rows[way]['sm_clock_mhz']} MHz)"
        for way, name in (("do_bench, short", "10 ms"), ("do_bench", "100 ms"))
    )
    print(f"{vis.work_title(work)}: {runs}")
    assert times[work]["do_bench"] > 1.05 * times[work]["do_bench, short"]

# %%
# **That is no error of a clock but the GPU's power limit**: a loop that never waits makes
# it lower the SM clock, as
# :ref:`sphx_glr_gallery_profiling_plot_05_how_to_measure.py` shows. Which of the two times
# a model will see depends on the power that the rest of it draws.
#
# Below
# -----
# **The dirty cache.** Clearing 256 MB leaves the L2 full of lines that are not in memory
# yet. A kernel that reads a weight throws them out, and each must be written first, in the
# timed span. The read floor shows it best; what it takes longer than with a clean cache:

for work in ("read 57344x16384", "read 28672x4096", "read 4096x4096"):
    clean, dirty = times[work]["read"], times[work]["write"]
    more = 1e6 * (dirty - clean)
    print(f"{vis.work_title(work):<24} {more:4.1f} µs, {dirty / clean:.2f} times")
    assert dirty > clean

# %%
# A model's L2 cache is mostly clean: weights are only read. So ``Benchmarker`` flushes by
# reading.
#
# **What a clock takes for itself.** A kernel that reads one word does nothing; its time is
# what the clock adds to any other:

for way, (name, _, _) in vis.WAYS.items():
    if way != "do_bench, short":
        print(f"{name:<24} {1e6 * times['nothing'][way]:5.2f} µs")

# %%
# **Several kernels in a call.** Our fused kernel is three where K is cut (product, sum over
# the parts, rounding). In a graph the next one starts as soon as the last block of the one
# before is done. Nsight Compute runs each alone and empties the caches between them, so
# that sums are read from memory again; Python launches them with gaps, if it falls behind.
#
# **Neighbours in a graph.** Even a single kernel has its first blocks started, its code and
# activations cached, by the call before it. That is how it runs in a model, too.

ratios = {work: vis.agreement_ratios(timed, work)["graph"] for work in works}
assert min(ratios, key=ratios.__getitem__) == "triton_fused 4096x4096 1"

# %%
# Which one, then?
# ----------------
# - To compare kernels as a model runs them: a graph of cold copies. These pages do.
# - To compare with somebody's ``do_bench``: ``do_bench``, on both.
# - To see why a kernel takes its time: Nsight Compute.
#
# ``profiling.doubts`` tells which samples were restless or drifted. Of the long ones:

for doubt in vis.agreement_doubts(timed.select(work=long)):
    print(doubt)

# %%
# Limits
# ------
# - Nsight Compute ran in a process of its own, later, on the same GPU.
# - In its short run ``do_bench`` takes so few samples of short kernels that those which
#   wait for the host are most of them. The figure leaves it out, the table does not.

script.show({"agreement": figure}, options.output_dir)
