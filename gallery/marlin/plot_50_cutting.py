r"""
How is the work cut among SMs?
==============================

*"My GPU has 132 SMs. Why do only 32 of them work?"* Because a kernel gives each block a
tile of the output, and this output has 32 tiles. This page draws the cut that Marlin uses
instead, *stripes*, from the schedule of our own step 5, and compares what it should gain
with what it gains.
"""

# %%
# Predict
# -------
# A layer of 4096 x 4096, cut into tiles of 128 columns, has 32 of them. On 132 SMs, by
# which factor should a cut into equal pieces be faster? And a layer of 28672 x 4096, with
# 224 tiles?
#
# The idea
# --------
# A tile is a column of *records*, pieces of 128 x 128 weights, one below the other along K.
# Number all records, tile after tile, and give each block the same number of them, whether
# or not it ends where a tile ends. A small case:

import awqdoc
from awqdoc import script
from awqdoc import visualization as vis
from awqdoc.errors import AwqdocError
from awqdoc.kernels.ladder.schedule import stripes

parser = script.parser("Draw how records are cut among SMs.")
parser.add_argument("--tiles", type=int, default=5, help="tiles of 128 columns")
parser.add_argument("--records", type=int, default=6, help="records of a tile, along K")
parser.add_argument("--blocks", type=int, default=8)
options = script.parse(parser)
total = options.tiles * options.records
if not 1 <= options.blocks <= total:
    raise AwqdocError(
        f"There must be 1 to {total} blocks, a record each; found {options.blocks}."
    )

cut = vis.plot_stripes(options.tiles, options.records, options.blocks)

# %%
# Where a tile is shared, its sums must be added. Three things make that cheap and exact:
#
# - A block's first part may be the *end* of a tile, its last the *beginning* of one.
#   Whoever has the beginning comes to it last, when the others have mostly left their sums
#   in memory: it need not wait long.
# - They are added in the order of the blocks, so every run gives the same bits. (Atomic
#   additions would take whoever comes first.)
# - Each sum is left with a mark in the same 64-bit word. The reader asks for the sums at
#   once and looks at the marks: there is no flag to wait for before.
#
# The rules that must hold, here for this case and in the tests for thousands:

parts = stripes(total, options.records, options.blocks)
assert sum(part.end - part.begin for part in parts) == total
for tile in range(options.tiles):
    roles = [part.role for part in parts if part.tile == tile]
    assert roles == ["whole"] or roles == ["adds"] + ["leaves"] * (len(roles) - 1)
sizes = [sum(p.end - p.begin for p in parts if p.block == b) for b in range(options.blocks)]
print(f"records for each block: {min(sizes)} to {max(sizes)}")

# %%
# Model and measure
# -----------------
# If a block's time were proportional to its records, and an SM as fast whether its
# neighbours work or not, the gain would be the share of SMs at work with stripes over that
# without. What step 5 really gained over step 4, which is the same kernel with a block for
# each tile:

timed = awqdoc.measure("kernels")
published = timed.origin == "recorded"
sms = timed.provenance["sm_count"]
script.display(vis.cutting_table(timed, sms))

# %%
# What surprised us
# -----------------
# **The model promises too much for few tiles, and too little harm for many.** On the
# smallest layer it says four, and it is less. Presumably 32 SMs that read alone get more of
# the memory's bandwidth each than when all read, and were not as slow as the model thinks.
# And on layers with many tiles the model sees a small gain, where stripes lose: step 4 has
# two blocks on an SM, of which one can work while the other waits; step 5 has one.

shapes = timed.parameters["shape"]
gains = {
    s: 1 / vis.over(timed, s, True, 1, "cuda_stripes", "cuda_pipeline") for s in shapes
}
modelled = {s: vis.busy(s, sms)[1] / vis.busy(s, sms)[0] for s in shapes}
small, large = "4096x4096", "28672x4096"
assert not published or (1.5 < gains[small] < modelled[small] and gains[large] < 1)

# %%
# So a good cut is not enough: each SM must also have enough to do while it waits. Later
# steps give the fetching to a thread of its own. Step 7 keeps the stripes. Step 6 does on
# large layers; on small ones it gives each tile to a few blocks in equal parts, which are
# ready together and share the adding: two through each other's shared memory, as a cluster,
# more through the L2 cache (:ref:`sphx_glr_gallery_marlin_plot_30_ladder.py`).
#
# Limits
# ------
# - The drawing is the kernel's schedule, computed by the same formula in Python
#   (``awqdoc.kernels.ladder.schedule``); it was not recorded from a running kernel.
# - Marlin itself adds up differently: the blocks of a tile take turns, each adds to what
#   the one before has written as FP16 into the result.

script.show({"stripes": cut}, options.output_dir)
