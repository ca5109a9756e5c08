r"""
The ladder: what each idea buys
===============================

*"A weight in INT4 has a quarter of the bytes. Why is my kernel slower than FP16?"* Because
fewer bytes help only a kernel that waits for nothing but bytes. Here one kernel grows in
eight steps, each a short file, until hardly anything else is left to wait for.
"""

# %%
# Predict
# -------
# Multiplying 1 to 16 tokens by a layer takes, at best, as long as reading its packed
# weight. That floor is a kernel of its own in the same run: it reads and does nothing else.
# These are the steps:
#
# 1. **dequantize, then matmul**: write the weight out as FP16, let cuBLAS multiply;
# 2. **fused**: dequantize in registers and multiply there, on the CUDA cores;
# 3. **tensor cores**: weights stored in the order in which the lanes of an ``mma`` want
#    them, nine instructions for eight weights (:ref:`one tile, step by step
#    <sphx_glr_gallery_marlin_plot_20_one_tile.py>`);
# 4. **pipeline**: asynchronous copies into shared memory, several tiles ahead;
# 5. **stripes**: one block on each SM, an equal share of all tiles for each, partial sums
#    added in a fixed order;
# 6. **warpgroups**: Hopper's ``wgmma``, the weight in registers as its left operand;
# 7. **few tokens**: a thread of its own fetches whole tiles by bulk copies;
# 8. **overlapped**: step 7 (up to 24 tokens) or 6, launched so that the next kernel fetches
#    its first tiles while this one adds up its last sums.
#
# Which step buys most for one token? For 64? Which one makes something worse?
#
# Measure
# -------

import awqdoc
from awqdoc import script
from awqdoc import visualization as vis
from awqdoc.kernels.table import KERNELS, LADDER

options = script.parse(script.parser("Show what each step of our ladder of kernels buys."))

timed = awqdoc.measure("kernels")
published = timed.origin == "recorded"
large, small = "28672x4096", "4096x4096"
top = vis.last_step(timed, large, m=1024)  # of those that run here at every M
figure = vis.plot_ladder(timed, large)

# %%
# With zero points, as AWQ makes them, group size 128; the weights are cold. In µs:

script.display(vis.ladder_table(timed, large, (1, 8, 16, 32, 64, 128)))

# %%
# And on the smallest layer, with a seventh of the work:

figure_small = vis.plot_ladder(timed, small)
script.display(vis.ladder_table(timed, small, (1, 8, 16, 32, 64, 128)))

# %%
# Step by step
# ------------
# What a step buys is the time of the step before over its own, in the same run:


def bought(shape: str, m: int, name: str, before: str) -> float:
    """Return how many times as fast a step is as another; nan if this GPU lacks one."""
    return 1 / vis.over(timed, shape, True, m, name, before)


for shape in (large, small):
    for m in (1, 16, 64):
        gains = []
        for before, name in zip(("fp16", *LADDER), LADDER, strict=False):
            if (gain := bought(shape, m, name, before)) == gain:  # else nan
                step = KERNELS[name].title.split(":")[0].removeprefix("Step ")
                gains.append(f"{step}: {gain:.2f}")
        print(f"{shape}, M = {m:<2}  {', '.join(gains)}")

# %%
# **Steps 1 and 2 lose.** The first moves the weight three times, twice of them as FP16. The
# second reads no more bytes than the last step and is slow all the same: each weight costs
# a shift, a mask, a conversion, and a multiplication for each token on the CUDA cores.
#
# **Step 3 is the large one for one token**, and it is mostly a matter of layout: nothing
# has been overlapped yet. The order of the nibbles makes a word eight weights in nine
# instructions, and lets a lane read 16 bytes at a time, not 4.

assert not published or bought(large, 1, "cuda_dequantize", "fp16") < 0.5
assert not published or bought(large, 1, "cuda_fused", "fp16") < 0.7
gain = bought(large, 1, "cuda_tensor_cores", "cuda_fused")
print(f"step 3 over step 2, one token: {gain:.1f} times as fast")
assert not published or gain > 3

# %%
# **Step 5 makes the large layer worse and the small one much better.** The small layer has
# 32 tiles of 128 columns, so step 4 leaves 100 of 132 SMs idle; with stripes all of them
# work. The large one has 224 tiles, and two blocks fit on an SM: while one waits the other
# can multiply. Stripes have one block on each SM, with one pipeline that all its warps
# fill, wait for and empty together. That this is what costs the time is a supposition; that
# step 7, which does away with it, is faster than both speaks for it.

worse = bought(large, 1, "cuda_stripes", "cuda_pipeline")
better = bought(small, 1, "cuda_stripes", "cuda_pipeline")
print(f"step 5 over step 4: {large} {worse:.2f}, {small} {better:.2f} times as fast")
assert not published or (worse < 0.9 and better > 2)

# %%
# **Step 6 is for more tokens**, where the tensor cores become the limit, and the way of X
# through shared memory. For one token step 7 is faster; what held it back last was the
# thread that fetches (``fetch.cuh``). **Step 8 has no new kernel**: it hides what every
# launch costs, which counts most where the kernel is short.

more = bought(large, 64, "cuda_warpgroups", "cuda_stripes")
few = bought(large, 1, "cuda_small_batch", "cuda_warpgroups")
assert not published or (more > 1.8 and few > 1.1)
saved = [bought(s, 1, "cuda_overlapped", "cuda_small_batch") for s in (small, large)]
assert not published or saved[0] > saved[1] > 1
if top == LADDER[-1]:
    print(f"step 6 over 5, 64 tokens: {more:.2f}; step 7 over 6, one token: {few:.2f}")
    print(f"step 8 over step 7, one token: {small} {saved[0]:.2f}, {large} {saved[1]:.2f}")
else:
    print(f"not all run here; below, the last that takes every M is {KERNELS[top].title}")

# %%
# Where it ends
# -------------
# The last step's time over the read floor. A step that overlaps with its neighbours hides
# a launch that the floor, launched plainly, shows:

script.display(vis.distance_table(timed, top, (1, 4, 8, 16, 32)))

# %%
# Over the batch size
# -------------------
# Step 8 is faster than FP16 up to which M? (More than 128 tokens are more tiles: each reads
# its part of the weight again, from the L2 cache where it can.)

curves = vis.plot_kernels(timed, large)
curves_small = vis.plot_kernels(timed, small)
for shape in timed.parameters["shape"]:
    last = max(vis.lead(timed, shape, top), default=0)
    best = max(bought(shape, m, top, "fp16") for m in timed.parameters["m"])
    print(f"{shape:<10} up to M = {last:<4} at best {best:.2f} times as fast")
    n, k = map(int, shape.split("x"))
    times = vis.kernel_times(timed, shape, True, 1024)
    ours, fp16 = (2048e-12 * n * k / times[b] for b in (top, "fp16"))
    print(f"{'':<10} M = 1024: {ours:.0f} TFLOP/s, FP16 {fp16:.0f} TFLOP/s")
assert not published or min(max(vis.lead(timed, s, top)) for s in (small, large)) >= 128

# %%
# **Then both wait for the tensor cores**, and there INT4 has nothing to gain: it multiplies
# in FP16 as cuBLAS does, and unpacks besides. On small layers the lead ends first: 16 tiles
# of 256 columns are shared by up to eight blocks each, whose sums cross the L2 cache, more
# of them the more tokens. (Two blocks are a cluster, and spare that: ``reduction.cuh``.)
#
# The files
# ---------
# Compiled at run time by NVRTC: a driver and pip suffice.
#
# .. dropdown:: fragments.cuh: the record, dequantizing a word, multiplying a record
#
#    .. literalinclude:: ../../../awqdoc/kernels/cuda/fragments.cuh
#       :language: c++
#
# .. dropdown:: Step 5: stripes.cuh, who adds what
#
#    .. literalinclude:: ../../../awqdoc/kernels/cuda/stripes.cuh
#       :language: c++
#
# .. dropdown:: Step 6: warpgroups.cu
#
#    .. literalinclude:: ../../../awqdoc/kernels/cuda/warpgroups.cu
#       :language: c++
#
# .. dropdown:: Step 6: reduction.cuh, who adds what
#
#    .. literalinclude:: ../../../awqdoc/kernels/cuda/reduction.cuh
#       :language: c++
#
# .. dropdown:: Steps 6 and 7: fetch.cuh, the thread that fetches
#
#    .. literalinclude:: ../../../awqdoc/kernels/cuda/fetch.cuh
#       :language: c++
#
# .. dropdown:: Step 7: small_batch.cu
#
#    .. literalinclude:: ../../../awqdoc/kernels/cuda/small_batch.cu
#       :language: c++
#
# Limits
# ------
# - Steps 3 to 8 want N and K in multiples of 128 (6 and 8: N of 256), groups of 32, 64 or
#   128. Steps 6 to 8 need Hopper.
# - The marker that a weight should leave the L2 cache first is missing in steps 4 and 5 on
#   Hopper: ptxas 13.0 compiles some such copies to an illegal instruction.
# - Each step keeps what the one before had, but 7 goes back to ``mma``. In another order
#   each idea would have another share.

figures = {"ladder": figure, "ladder_small": figure_small}
script.show({**figures, "batch": curves, "batch_small": curves_small}, options.output_dir)
