r"""
Where does Marlin's permutation come from?
==========================================

Code that packs a weight for Marlin shuffles it by lists named ``_perm`` and
``_scale_perm``: 1024 and 64 numbers out of nested loops, without a word on why these. This
page derives them from what one tensor-core instruction expects in which register, and from
three wishes of a fast kernel. You need to know nothing of tensor cores.
"""

# %%
# What a tensor core wants
# ------------------------
# A GPU runs threads in *warps* of 32. The threads of a warp are its *lanes*, and each has
# 32-bit *registers* of its own. Tensor cores multiply small matrices, and they do it for a
# whole warp at once: ``mma.sync.m16n8k16`` computes C += A B. A is activations, 16 tokens
# by 16 inputs k; B a piece of the weight W[k, n], 16 inputs by 8 outputs n; C the 16 x 8
# sums. Repeated along all of k, with the same C, it makes 16 x 8 outputs of the layer.
#
# No lane holds a matrix: each brings a few elements in its registers, its *fragment*.
# NVIDIA's PTX manual says which. In A and B a register holds two FP16 numbers, in C a sum:

import hashlib
from itertools import product

import torch
from awqdoc import script
from awqdoc import visualization as vis
from awqdoc.formats import QuantizedWeight
from awqdoc.packing import LAYOUTS, Order, pack
from awqdoc.packing.bits import gather

options = script.parse(script.parser("Derive Marlin's permutation from one instruction."))
fragments = vis.plot_fragments(13, "What lane 13 holds, and in which of its registers")

# %%
# The weight is B. A lane holds four elements of one column, n = lane // 4: in register 0
# row k = 2 (lane % 4) and the next, in register 1 the rows 8 below. As 2, 4 and 8 are
# powers of two, this rule only hands out the bits of k and n. With k3 for the highest bit
# of k and k0 for the lowest, the lane's number reads n2 n1 n0 k2 k1 in binary, the
# register's k3, that of its half (0 is the lower) k0. ``gather`` makes a number of the bits
# that a text names:


def fragment_b(lane, register, half):
    """Row k and column n of B that must be in this half of this register of this lane."""
    return 2 * (lane % 4) + 8 * register + half, lane // 4


LANE, REGISTER, HALF = "n2 n1 n0 k2 k1", "k3", "k0"
for owner in product(range(32), range(2), range(2)):
    k, n = fragment_b(*owner)
    assert vis.lane_elements(owner[0])["B"][k, n] == owner[1]
    assert owner == tuple(gather(bits, {"k": k, "n": n}) for bits in (LANE, REGISTER, HALF))

title = "Which lane needs which weight? Two pieces B side by side"
tile = vis.plot_tile(LAYOUTS["marlin"], "lane", title, marked=(0, 13, 31), parted=(8,))

# %%
# Lane 13 needs rows 2, 3, 10 and 11 of column 3, and for the next piece of column 11. For
# FP16 numbers, as those of A, an instruction, ``ldmatrix``, hands each lane its fragment
# out of on-chip *shared memory*; but in units of 16 bits, which would be four codes. So
# AutoAWQ's kernel first makes FP16 numbers, stores them there, and has them handed out.
# Marlin makes them in the lane that needs them, which must load the codes itself; and in an
# AWQ checkpoint the first four are in four words, far apart. So codes are put in order
# once, before the model runs. That is what the permutation is for. **Predict:** which codes
# should a lane find together?
#
# Wish 1: two codes become FP16 at once
# -------------------------------------
# ``w & 0x000f000f`` cuts two codes out of a word w that are 16 bits apart, and makes both
# halves of a register of them (:ref:`sphx_glr_gallery_packing_plot_50_dequantize.py`). So
# the two codes of a register, which differ in k0, must be four nibbles apart: k0 becomes
# the top bit of the nibble's number.
#
# Wish 2: one load of 16 bytes
# ----------------------------
# 16 bytes are the most that a lane of Marlin's GPUs loads in one instruction: four words,
# 32 codes. Of a piece B it has only four, so a word serves two pieces side by side (n3).
# Let k3 be the lowest bit of the nibble's number and n3 the middle one. Then 0x000f000f
# takes nibbles 0 and 4, register 0 of the first piece, and 0x00f000f0 nibbles 1 and 5, its
# register 1; after ``w >> 8`` the same masks take 2 and 6, 3 and 7, for the second piece.
# Four words serve eight pieces side by side, and n5 n4 say which word.
#
# Wish 3: a warp reads straight on
# --------------------------------
# Memory is fastest when lanes read neighbouring addresses. So lane 1's four words follow
# lane 0's: a word's number is the lane's bits, then n5 n4. The 32 lanes read 512 bytes,
# 1024 codes: a *tile* of 16 x 64. Tiles follow each other along n (by n6 and all bits above
# it, written n6+); those further down are in other rows (k4+).

derived = Order("kn", row="k4+", word=f"n6+ {LANE} n5 n4", nibble=f"{HALF} n3 {REGISTER}")
assert derived == LAYOUTS["marlin"].weight
print(f"row: {derived.row} | word: {derived.word} | nibble: {derived.nibble}")
wires = vis.plot_wires(derived, "Marlin's weight, bit by bit", LAYOUTS["marlin"].lane)

# %%
# That is all of Marlin's weight format. (Eight pieces fill 16 registers of a lane: numbers
# of four bits.) Lane 13's words are 4 x 13 = 52 to 55; 52 holds what is marked above:

at = LAYOUTS["awq"].weight.where
assert len({(at(k=k, n=3)["row"], at(k=k, n=3)["word"]) for k in (2, 3, 10, 11)}) == 4
held = {tuple(derived.at(0, 52, nibble).values()) for nibble in range(8)}
assert held == set(product((2, 3, 10, 11), (3, 11)))
four = [(f"word {word}", 0, word) for word in range(4 * 13, 4 * 13 + 4)]
words = vis.plot_words(derived, four, "The 16 bytes of lane 13 in the first tile")

# %%
# The list ``_perm``
# ------------------
# Marlin's Python code first cuts a tile into four blocks of 16 x 16 and writes each out row
# by row: (k, n) comes to 256 (n // 16) + 16 k + n % 16 in a list of 1024. These are bits
# again, n5 n4, k3 to k0, n3 to n0. ``_perm`` says for each place of the packed tile which
# element of the list goes there. So ask the order what is where:

BLOCKS = "n5 n4 k3 k2 k1 k0 n3 n2 n1 n0"
perm = [gather(BLOCKS, derived.at(0, i // 8, i % 8)) for i in range(1024)]
print("_perm, lane 0:", *(perm[i : i + 8] for i in range(0, 32, 8)), sep="\n  ")
interleave = [gather("n3 k3 k0", derived.at(0, 0, i)) for i in range(8)]
assert interleave == [0, 2, 4, 6, 1, 3, 5, 7]
assert interleave == [LAYOUTS["awq"].weight.at(0, 0, i)["n"] for i in range(8)]

# %%
# Now their loops can be read: ``for i in range(32)`` runs over lanes, ``for j in range(4)``
# over n5 n4, ``for block`` over n3, ``for row`` over k3 k0. The last step, [0, 2, 4, 6, 1,
# 3, 5, 7], brings k0 from the bottom to the top: wish 1. AWQ's own order of nibbles is the
# same list for the same wish; there it is n0 that goes to the top.
#
# The lists ``_scale_perm`` and ``_scale_perm_single``
# ----------------------------------------------------
# *With groups*, a sum along k passes from one scale to the next, so each weight is
# multiplied by its scale before the tensor core gets it. A lane needs the scales of the
# columns that it has codes of: column n2 n1 n0 of each of the eight pieces in a tile, n5 n4
# n3. Eight FP16 numbers are again 16 bytes, one load, if they are neighbours: so the
# column, n2 n1 n0, chooses the 16 bytes, and the piece, n5 n4 n3, the place in them.
#
# *With one scale for a whole column* it is cheaper to multiply the finished sums C, which
# have other owners (first figure): of every eight columns a lane has 2 (lane % 4) and the
# next. So n2 n1 choose the 16 bytes. The eight scales in them are two columns, n0, of four
# pieces, n4 n3. (The hash is of the lists in AutoAWQ 0.2.9, a copy of Marlin's.)

grouped = Order("gn", row="g0+", word="n6+ n2 n1 n0 n5 n4 n3")
single = Order("gn", row="g0+", word="n5+ n2 n1 n4 n3 n0")
assert [grouped, single] == [LAYOUTS["marlin"].scales, LAYOUTS["marlin"].single_scales]
scale_perm = [grouped.at(0, i)["n"] for i in range(64)]
scale_perm_single = [single.at(0, i)["n"] for i in range(32)]
for lane in range(32):
    b, c = ({n for _, n in vis.lane_elements(lane)[name]} for name in "BC")
    load = scale_perm[8 * (lane // 4) :][:8]
    assert load == [8 * piece + n for piece in range(8) for n in b]
    load = scale_perm_single[8 * (lane % 4) :][:8]
    assert load == [8 * piece + n for piece in range(4) for n in sorted(c)]

ours = {"_perm": perm, "_scale_perm": scale_perm, "_scale_perm_single": scale_perm_single}
digest = hashlib.sha256(repr([*ours.values()]).encode()).hexdigest()
assert digest.startswith("a72c5fdbd662ed5e"), "these are not AutoAWQ's lists"
fields = (f"{derived.word} {derived.nibble}", grouped.word, single.word)
table = []
for (name, numbers), field in zip(ours.items(), fields, strict=True):
    table.append([name, len(numbers), field.split(" ", 1)[1], f"{numbers[:4]} ..."])
titles = ["list", "length", "a place, the highest bit first", "begins"]
script.display(vis.Table(titles, table, None, "Marlin's three lists"))

# %%
# A warp in slow motion
# ---------------------
# Does it work? Pack a random weight, hand every lane its 16 bytes, and do what a kernel
# does: two masks, and again after ``w >> 8``. (The codes of the second mask a kernel leaves
# where they are and divides by 16.) Only ``fragment_b`` says where a code belongs.

random = torch.Generator().manual_seed(0)
codes = torch.randint(0, 16, (128, 256), generator=random, dtype=torch.uint8)
weight = QuantizedWeight(codes, torch.ones(1, 256).half(), None, group_size=128)
loads = pack(weight, "marlin")["qweight"][0].view(-1, 32, 4)  # [tiles, lanes, words]

pieces = torch.full((8, 16, 8), 255, dtype=torch.uint8)  # eight times B
for lane, four_words in enumerate(loads[0].tolist()):
    for piece, w in enumerate(w >> shift for w in four_words for shift in (0, 8)):
        for register, pair in enumerate((w & 0x000F000F, (w & 0x00F000F0) >> 4)):
            for half, code in enumerate((pair & 0xFFFF, pair >> 16)):
                pieces[piece][fragment_b(lane, register, half)] = code
assert torch.equal(torch.cat(list(pieces), dim=1), codes[:16, :64])
print("the tile of 16 x 64 is back")

# %%
# What surprised us
# -----------------
# How little of it is forced. The instruction fixes the lane's bits, and the masks put k0 on
# top. But a lane has its 32 codes in whatever order: n5 n4 n3 k3 could change places if the
# kernel's loop followed, and the four blocks could as well lie below each other. Code and
# kernel have to agree on *one* choice, and that is the magic.
#
# Limits
# ------
# - In a kernel the 16 bytes come through shared memory, in this same order.
# - Zero points: :ref:`sphx_glr_gallery_packing_plot_40_awq_to_marlin.py`.
# - Kernels for other instructions, as Machete for Hopper's ``wgmma``, have other layouts.

figures = {"fragments": fragments, "lanes": tile, "wires": wires, "lane_13": words}
script.show(figures, options.output_dir)
