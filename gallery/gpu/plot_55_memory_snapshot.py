r"""
Where are the weights while a kernel runs?
==========================================

*"A layer has 61 MB of weights. Do they lie in the cache?"* Almost nothing lies anywhere
for long: a weight passes from memory through L2 into shared memory and registers, and is
used there once. This page takes a snapshot of the top step of
:ref:`the ladder <sphx_glr_gallery_marlin_plot_30_ladder.py>`, and checks the hardware's
counters against bytes that can be counted by hand. The launches are those of
:ref:`the X-ray <sphx_glr_gallery_gpu_plot_50_xray.py>`.
"""

# %%
# Predict
# -------
# One token: X is 8 KiB, the weight 61 MB. How many bytes of X are carried into the SMs,
# all together? And how many of 100 sectors that a kernel asks L2 for are there already?

import awqdoc
from awqdoc import script
from awqdoc import visualization as vis
from awqdoc.kernels.ladder.records import CODES, tokens

options = script.parse(script.parser("Show what lies in which memory during a kernel."))
seen = awqdoc.measure("xray")
device = awqdoc.measure("device", beside=seen)
published = seen.origin == "recorded"  # then the build fails if the text is wrong
kernels = vis.kernels_with(seen, "block")
top = kernels[0]

# %%
# The snapshot
# ------------
# Boxes are memories, from the farthest to the nearest; arrows are what went between them
# during one launch that found all caches empty. The table names the source of each value.

figures = {"snapshot": vis.plot_snapshot(seen, device, 1, top)}

# %%

script.display(vis.snapshot_table(seen, device, 1, top))

# %%
# The weight has nearly the size of L2, and no cache has to keep it: each byte is read from
# memory once and used once. A stage holds one record, ready to be multiplied, and the next
# ones are under way in the other stages. For 64 tokens a stage holds two records and more
# of X, and the block has nearly all registers of its SM, most of them for sums and codes:

figures["snapshot_64"] = vis.plot_snapshot(seen, device, 64, top)

# %%
# Count the bytes
# ---------------
# A record is 128 x 128 codes, 128 scales and 128 zero points. With each record, or with
# each pair of them in step 8 for 64 tokens, comes the part of X that it is multiplied by.
# Step 4 copies the tokens that there are; a bulk copy brings a box of eight or more, zeros
# beyond M:

RECORD, RECORDS = 128 * 128 // 2 + 128 * 2 + 128 // 2, 28672 * 4096 // 128**2
METRIC = "l1tex__m_xbar2l1tex_read_bytes"
BULK = f"{METRIC}_mem_global_op_tma_ld.sum"
for kernel in kernels:
    for m in seen.parameters["m"]:
        bulk = vis.xray_counter(seen, kernel, m, BULK)
        sent = bulk or vis.xray_counter(seen, kernel, m, f"{METRIC}.sum")
        rows = tokens(m, 64) if bulk else m
        together = 2 if bulk and m == 64 else 1
        of_x = RECORDS // together * rows * 128 * 2
        weight = RECORDS * RECORD
        print(f"{kernel}, M = {m}: weight {weight:,}, X {of_x:,}; counted {sent:,.0f}")
        assert not published or weight + of_x == sent

# %%
# **To the byte.** And X, 8 KiB, is carried again and again: for one token it is a fifth of
# all that goes from L2 into the SMs of step 8, most of it the zeros of tokens that are not
# there. It costs nothing that is scarce: L2 delivers about
# :ref:`twice <sphx_glr_gallery_gpu_plot_30_hierarchy.py>` what the memory does.
#
# Transactions
# ------------

script.display(vis.transactions_table(seen, 1))

# %%
# A warp of step 4 that loads 16 bytes for each lane asks for 16 sectors of 32 bytes, all of
# them wanted: that is :term:`coalesced`. Its last request for a record is shorter, and X
# takes half a warp. That gives the counters, too:

chunks = RECORD // 16  # of 16 bytes, one for each lane
requests = RECORDS * (-(-chunks // 32) + 1)
sectors = RECORDS * (chunks // 2 + 8)
print(f"by hand: {requests:,} requests, {sectors:,} sectors, {sectors / requests:.2f} each")
if published:
    asked, moved = (
        f"l1tex__t_{unit}_pipe_lsu_mem_global_op_ld.sum" for unit in ("requests", "sectors")
    )
    assert vis.xray_counter(seen, "cuda_pipeline", 1, asked) == requests
    assert vis.xray_counter(seen, "cuda_pipeline", 1, moved) == sectors
    assert vis.xray_counter(seen, top, 1, asked) < requests / 30
    shared = "l1tex__data_pipe_lsu_wavefronts_mem_shared.sum"
    bank = "l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum"
    for kernel in kernels:
        accesses = vis.xray_counter(seen, kernel, 1, shared)
        assert vis.xray_counter(seen, kernel, 1, bank) < 0.01 * accesses

# %%
# In step 8 warps hardly load at all: bulk copies pass them by. What is left are sums of
# blocks that share a tile. Conflicts of :term:`banks <bank>` are less than a hundredth of
# all accesses to shared memory: codes lie in the order in which lanes read them, and X is
# :term:`swizzled <swizzle>`.
#
# What is in a word
# -----------------
# Lane 0's first load of a record, 16 bytes, is four words. Each is a lane's part of a
# :term:`fragment`: its eight codes belong to two rows n and four k.

figures["words"] = vis.plot_words(
    CODES, [(f"word {word}", 0, word) for word in range(4)], "Four words of lane 0"
)

# %%
# So a load is coalesced, conflict-free and in fragment order at once, because the order was
# chosen for that. The same weight in AWQ's, GPTQ's or Marlin's order:
# :doc:`the layout explorer </explorer>`.
#
# Limits
# ------
# - Counters come from launches with empty caches. In a model L2 holds what the layer before
#   left: X and Y, not this weight.
# - *Written back* is more than Y, for each kernel; what else it is, no counter says.
# - What lies in shared memory is modelled, by the kernel's source; of cuBLAS only the size
#   is known.

script.show(figures, options.output_dir)
