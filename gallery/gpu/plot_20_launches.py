r"""
How many blocks run at once, and what does it matter?
=====================================================

*"The profiler says that Marlin fills an eighth of the places for warps. Is that not bad?"*
A GPU hides waiting behind other work: while one warp waits for memory, another computes.
So it seems best to have as many warps on each SM as fit. This page computes how many fit
and why, for Marlin, for our kernels, or for a launch of yours, and says when it matters.

Everything on this page is modelled: computed by NVIDIA's formula, from what a compiler said
of the kernels. Nothing here was timed, and no GPU is needed.
"""

# %%
# Predict
# -------
# Marlin launches blocks of 256 threads that ask for 96 KiB of shared memory, one block for
# each SM. How many such blocks could an SM of an H200 hold? What would keep out one more?
#
# The default of this page is that launch. As a program it takes any other:
# ``--kernel-config "128,4,1;256,1,1"`` (grid; block), ``--regs``, ``--smem``, ``--gpu``.

from awqdoc import script
from awqdoc import visualization as vis
from awqdoc.gpu import footprints
from awqdoc.gpu.occupancy import LIMITS, kernel_config, launch
from awqdoc.kernels.table import KERNELS

marlin = footprints.MARLIN
parser = script.parser("Compute how many blocks of a kernel run at once.")
parser.add_argument(
    "--kernel-config",
    default=f"{marlin.grid},1,1;{marlin.threads},1,1",
    metavar="GX,GY,GZ;BX,BY,BZ",
    help="sizes of the grid and of a block",
)
parser.add_argument("--regs", type=int, default=marlin.regs, help="registers of a thread")
parser.add_argument(
    "--smem", type=int, default=marlin.smem, help="bytes of shared memory of a block"
)
parser.add_argument(
    "--gpu", default="H200 SXM", help="a name, or compute capability x SMs: 8.6x28"
)
options = script.parse(parser)

grid, block = kernel_config(options.kernel_config)
asked = launch(grid, block, options.regs, options.smem, options.gpu)
script.display(vis.launch_table(asked))

# %%
# The formula
# -----------
# It is short. An SM has places for warps and for blocks, 65,536 registers in four
# partitions, and shared memory. Each resource is given out in pieces, and by each of them
# some number of blocks fits; the smallest number counts.

limits = LIMITS[asked.chip.capability]
warps = -(-asked.threads // 32)  # rounded up: 33 threads are two warps
per_warp = -(-32 * options.regs // 256) * 256  # registers, in pieces of 256
per_block = options.smem + limits.reserved  # the system takes 1 KiB, from Ampere on
per_block = -(-per_block // limits.unit) * limits.unit

fits = {"warps": limits.warps // warps, "block slots": limits.blocks}
if per_warp:
    in_partition = 65536 // 4 // per_warp  # warps
    fits["registers"] = 4 * in_partition // warps
if per_block:
    fits["shared memory"] = limits.shared // per_block
print(f"{warps} warps, {per_warp} registers each, {per_block} bytes of shared memory")
for resource, blocks in fits.items():
    print(f"{blocks:>4} blocks by {resource}")
assert {name: asked.fits[name] for name in fits} == fits
assert asked.blocks_per_sm <= min(fits.values())  # barriers, not shown, bind rarely

# %%
# The theoretical *occupancy* is the warps of those blocks over the places for warps. It
# says what would fit. What the grid makes of it is another number: Marlin has one block for
# each SM, so the second place on an SM of an H200 stays empty.

on_h200 = launch((marlin.grid,), (marlin.threads,), marlin.regs, marlin.smem, "H200 SXM")
assert (on_h200.blocks_per_sm, on_h200.grid_occupancy) == (2, 1 / 8)
figure = vis.plot_launch(asked)

# %%
# What limits which kernel
# ------------------------
# Our ladder (:ref:`sphx_glr_gallery_marlin_plot_30_ladder.py`) for one token times a layer
# of 28672 x 4096, and Marlin. What each asks for is what the compiler said, for Hopper.

kernels = {KERNELS[name].title: found for name, found in footprints.LADDER.items()}
script.display(vis.footprints_table({**kernels, "Marlin as published": marlin}, "H200 SXM"))

# %%
# **Occupancy falls from step to step.** The times on the ladder's page do not follow it: of
# the step that fills an SM with warps and the step that has fewest, the last is the faster.

on_h200 = {
    name: launch((k.grid,), (k.threads,), k.regs, k.smem, "H200 SXM")
    for name, k in footprints.LADDER.items()
}
shares = [found.occupancy for found in on_h200.values()]
assert shares[0] == 1
assert shares == sorted(shares, reverse=True)
first, *_, last = on_h200.values()
print(f"warps on an SM: step 1 {first.resident_warps}, step 7 {last.resident_warps}")

# %%
# Low by design
# -------------
# To keep the memory busy, an SM needs enough *bytes* on their way, not enough warps. A warp
# whose lanes each wait for one load of 16 bytes has 512 of them under way, and many such
# warps are needed. Marlin's warps do not wait for what they load: asynchronous copies bring
# it to shared memory three stages ahead. A stage is 8 KiB of weights (128 x 128 codes).

waiting = LIMITS[9, 0].warps * 32 * 16
ahead = 3 * 128 * 128 // 2
print(f"{LIMITS[9, 0].warps} warps that wait for one load each: {waiting // 1024} KiB")
print(f"{marlin.threads // 32} warps with three stages ahead:     {ahead // 1024} KiB")
assert ahead == waiting * 3 / 4
assert marlin.threads // 32 == LIMITS[9, 0].warps / 8

# %%
# An eighth of the warps has three quarters of the bytes under way. What the other warps
# would have needed goes to those that are there: registers for sums, shared memory for
# stages. How many bytes must be under way is :term:`Little's law`: :doc:`/concepts/memory`.
#
# Waves and the tail
# ------------------
# A grid with more blocks than the GPU holds comes in *waves*. If all blocks take the same
# time, the last wave takes as long as a full one, however few it has. Step 4 of the ladder
# on an H200, for grids around what fits:

step = footprints.LADDER["cuda_pipeline"]
places = on_h200["cuda_pipeline"].slots
for blocks in (places // 2, step.grid, places, places + 1, 2 * places, 10 * places + 1):
    found = launch((blocks,), (step.threads,), step.regs, step.smem, "H200 SXM")
    print(f"{blocks:>5} blocks: waves {found.waves:>2}, places empty {found.lost:.0%}")
one_more = launch((places + 1,), (step.threads,), step.regs, step.smem, "H200 SXM")
assert one_more.waves == 2

# %%
# **One block more than fits, and it takes twice as long**; after ten full waves one more
# counts little.

tail = vis.plot_launch(one_more)

# %%
# That is why kernels for few tokens, whose grids are short, cut their work into one equal
# share for each SM (:ref:`sphx_glr_gallery_marlin_plot_50_cutting.py`): one wave, no tail.
#
# What it means
# -------------
# - Low occupancy alone is no fault. Ask first how many bytes are under way, and whether
#   the tensor cores or the memory are busy.
# - It is one where warps wait with nothing ahead: then more of them, or copies that run
#   ahead, help.
# - A limiter is worth knowing because it is a step, not a slope: one register or one byte
#   less may let a whole block in. The :doc:`occupancy page </occupancy>` shows the steps.
#
# Limits
# ------
# - The formula agrees with NVIDIA's own ``cuda_occupancy.h`` in the tests, for thousands of
#   random launches on each compute capability. It assumes that the SM gives shared memory
#   the largest share that it can; a program may ask for less.
# - Waves are a model. Real blocks do not take the same time, a new block starts as soon as
#   one ends, and a block that has an SM for itself is faster than one of many. Clusters,
#   other kernels on the GPU and programmatic launches are not in it.
# - Registers are what one compiler said; another version may say something else.

script.show({"launch": figure, "tail": tail}, options.output_dir)
