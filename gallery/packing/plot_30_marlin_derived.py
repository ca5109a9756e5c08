r"""
Where does Marlin's permutation come from?
==========================================

Code that packs a weight for Marlin shuffles it by lists named ``_perm`` and
``_scale_perm``: 1024 and 64 numbers out of nested loops, without a word on why these. This
page derives them. It starts from what one tensor-core instruction expects in which
register, adds three wishes of a fast kernel, and ends at the real lists. You need to know
nothing of tensor cores.
"""

# %%
# What a tensor core wants
# ------------------------
# A GPU runs threads in *warps* of 32. The threads of a warp are its *lanes*, and each has
# 32-bit *registers* of its own. Tensor cores multiply small matrices, and they do it for a
# whole warp at once: ``mma.sync.m16n8k16`` multiplies activations A, 16 x 16, by a piece B
# of the weight W[k, n], 16 x 8, and adds the product to sums C. No lane holds a matrix:
# each brings a few elements in its registers, its *fragment*, and which ones is fixed. For
# B in FP16 NVIDIA's PTX manual has the rule: two registers in each lane, two numbers (a
# lower and an upper half) in each register.
#
# All numbers in the rule are powers of two, so it only hands out bits. With k3 for the
# highest bit of a row k from 0 to 15, and k0 for the lowest, the number of a lane reads
# n2 n1 n0 k2 k1 in binary, that of a register k3, that of a half k0:

import hashlib
import warnings
from itertools import product

import torch
from awqdoc import script
from awqdoc import visualization as vis
from awqdoc.formats import QuantizedWeight
from awqdoc.packing import LAYOUTS, Order, pack
from awqdoc.packing.bits import gather

options = script.parse(script.parser("Derive Marlin's permutation from one instruction."))


def fragment_b(lane, register, half):
    """Row k and column n of B that must be in this half of this register of this lane."""
    return 2 * (lane % 4) + 8 * register + half, lane // 4


LANE, REGISTER, HALF = "n2 n1 n0 k2 k1", "k3", "k0"
owners = list(product(range(32), range(2), range(2)))
for owner in owners:
    k, n = fragment_b(*owner)
    assert owner == tuple(gather(bits, {"k": k, "n": n}) for bits in (LANE, REGISTER, HALF))
assert len({fragment_b(*owner) for owner in owners}) == 16 * 8

title = "Which lane needs which weight? Two pieces B side by side"
tile = vis.plot_tile(LAYOUTS["marlin"], "lane", title, marked=(0, 13, 31))

# %%
# Lane 13 needs rows 2, 3, 10 and 11 of column 3, and for the next piece of column 11. An
# AWQ checkpoint has the first four in four words, far apart. A kernel could collect them
# anew for every token, or somebody puts them together once, before the model runs. That
# is what the permutation is for. **Predict:** which 32 codes should a lane find together?
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
# 16 bytes are the most that Marlin's GPUs load in one instruction of a lane: four words,
# 32 codes. From a piece B it needs only four, so a word takes in two pieces, 8 columns
# apart: n3. With k3 as the lowest bit, the masks 0x000f000f and 0x00f000f0 find the two
# registers for one piece, and after ``w >> 8`` those for the other. Four such blocks of
# 16 x 16, side by side, fill the four words: n5 n4.
#
# Wish 3: a warp reads straight on
# --------------------------------
# Memory is fastest when lanes read neighbouring addresses. So lane 1's words follow lane
# 0's: 32 lanes, 512 bytes, a *tile* of 16 x 64. Tiles follow each other along n (n6 and
# up, written n6+); tiles with other k are in other rows (k4+).

derived = Order("kn", row="k4+", word=f"n6+ {LANE} n5 n4", nibble=f"{HALF} n3 {REGISTER}")
assert derived == LAYOUTS["marlin"].weight
print(f"row: {derived.row} | word: {derived.word} | nibble: {derived.nibble}")
wires = vis.plot_wires(derived, "Marlin's weight, bit by bit", LAYOUTS["marlin"].lane)

# %%
# That is all of Marlin's weight format. (At the right: whose bit it is. A lane fills 16
# registers, two for each of eight pieces.) Lane 13's word 52 holds what is marked above:

at = LAYOUTS["awq"].weight.where
assert len({(at(k=k, n=3)["row"], at(k=k, n=3)["word"]) for k in (2, 3, 10, 11)}) == 4
held = {tuple(derived.at(0, 52, nibble).values()) for nibble in range(8)}
assert held == set(product((2, 3, 10, 11), (3, 11)))
four = [(f"word {word}", 0, word) for word in range(4 * 13, 4 * 13 + 4)]
words = vis.plot_words(derived, four, "The 16 bytes of lane 13 in the first tile")

# %%
# The list ``_perm``
# ------------------
# Marlin's Python code first cuts a tile into four blocks of 16 x 16 and writes each out
# row by row: (k, n) comes to 256 (n // 16) + 16 k + n % 16 in a list of 1024. These are
# bits again, n5 n4, k3 to k0, n3 to n0. ``_perm`` says for each place of the packed tile
# which element of the list goes there. So ask the order what is where:

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
# *With groups*, a weight is multiplied by its scale before the tensor core gets it. A lane
# needs the scales of the columns that it has codes of: column n2 n1 n0 of each of the
# eight pieces in a tile, n5 n4 n3. Eight FP16 numbers are again 16 bytes, one load, if they
# are neighbours: the lane's bits outside, the piece's inside.
#
# *With one scale for a whole column* it is cheaper to multiply the finished sums C. They
# have other owners: of every eight columns lane l holds 2 (l % 4) and the next. So n2 n1
# choose the lane, and n0 with the number of the piece, n4 n3, makes its 16 bytes.

grouped = Order("gn", row="g0+", word="n6+ n2 n1 n0 n5 n4 n3")
single = Order("gn", row="g0+", word="n5+ n2 n1 n4 n3 n0")
assert [grouped, single] == [LAYOUTS["marlin"].scales, LAYOUTS["marlin"].single_scales]
scale_perm = [grouped.at(0, i)["n"] for i in range(64)]
scale_perm_single = [single.at(0, i)["n"] for i in range(32)]
for lane in range(32):
    load = scale_perm[8 * (lane // 4) :][:8]
    assert load == [8 * piece + fragment_b(lane, 0, 0)[1] for piece in range(8)]
    load = scale_perm_single[8 * (lane % 4) :][:8]
    assert load == [8 * piece + 2 * (lane % 4) + i for piece in range(4) for i in (0, 1)]

ours = {"_perm": perm, "_scale_perm": scale_perm, "_scale_perm_single": scale_perm_single}
fields = (f"{derived.word} {derived.nibble}", grouped.word, single.word)
table = []
for (name, numbers), field in zip(ours.items(), fields, strict=True):
    table.append([name, len(numbers), field.split(" ", 1)[1], f"{numbers[:4]} ..."])
titles = ["list", "length", "a place, the highest bit first", "begins"]
script.display(vis.Table(titles, table, None, "Marlin's three lists"))

# %%
# AutoAWQ 0.2.9 has a copy of Marlin's Python code. Here is a hash of its three lists; where
# AutoAWQ is installed, the lists themselves are compared, too.

digest = hashlib.sha256(repr([*ours.values()]).encode()).hexdigest()
assert digest.startswith("a72c5fdbd662ed5e"), "these are not AutoAWQ's lists"
try:
    with warnings.catch_warnings(record=True):  # it says that it is no longer maintained
        from awq.modules.linear import marlin
except ImportError:
    print("equal to AutoAWQ's by their hash")
else:
    assert all(ours[name] == [int(i) for i in getattr(marlin, name)] for name in ours)
    print("equal to AutoAWQ's by their hash and number by number")

# %%
# A warp in slow motion
# ---------------------
# Does it work? Pack a random weight, hand every lane its 16 bytes, and do what a kernel
# does: two masks, and again after ``w >> 8``. (The codes of the second mask a kernel leaves
# where they are and divides by 16.) Where a code belongs only ``fragment_b`` says.

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
# top. But a lane has its 32 codes in whatever order: n5 n4 n3 k3 could change places if
# the kernel's loop followed, and the four blocks could as well lie below each other. Code
# and kernel have to agree on *one* choice, and that is the magic.
#
# Limits
# ------
# - In a kernel the 16 bytes come through shared memory, in this same order.
# - Zero points: :ref:`sphx_glr_gallery_packing_plot_40_awq_to_marlin.py`.
# - Kernels for other instructions, as Machete for Hopper's ``wgmma``, have other layouts.

script.show({"lanes": tile, "wires": wires, "lane_13": words}, options.output_dir)
