r"""
Why 0 2 4 6 1 3 5 7?
====================

Programs that read AWQ checkpoints hold this list, or its inverse 0 4 1 5 2 6 3 7, and
hardly ever a reason (llm-awq's issue 91 asks for one). It says which of eight neighbouring
columns lies where in a 32-bit word. This page derives it from what a kernel wants, undoes
it by hand, and looks at what a program computes that takes one list for the other.
"""

# %%
# Eight columns in a word
# -----------------------
# An AWQ layer stores its weight as ``qweight``, int32 [K, N / 8]: input k has a row, and
# each word of it holds the 4-bit codes of eight neighbouring outputs n. A *nibble* is four
# bits of a word, that is one of its hexadecimal digits; nibble 0 is the last digit. Take a
# toy weight of one row and eight columns in which every code is the number of its column:

import hashlib
from itertools import permutations

import torch
from awqdoc import models, script
from awqdoc import visualization as vis
from awqdoc.formats import QuantizedWeight
from awqdoc.packing import LAYOUTS, Order, pack
from awqdoc.quantize import round_to_nearest

options = script.parse(script.parser("Where AWQ's order of nibbles comes from."))

ORDER = [0, 2, 4, 6, 1, 3, 5, 7]  # nibble -> the column in it
INVERSE = [0, 4, 1, 5, 2, 6, 3, 7]  # column -> its nibble
columns = torch.arange(8, dtype=torch.uint8)[None]  # [K = 1, N = 8]
toy = QuantizedWeight(columns, torch.ones(1, 8).half(), columns, group_size=1)
word = pack(toy, "awq")["qweight"].item()
print(f"in AWQ's order {word:#010x}, in natural order {0x76543210:#010x}")
assert word == sum(column << 4 * nibble for nibble, column in enumerate(ORDER))

awq = LAYOUTS["awq"]
places = [("row 0, word 0", 0, 0), ("row 0, word 1", 0, 1), ("row 1, word 0", 1, 0)]
words = vis.plot_words(awq.weight, places, "AWQ: each word holds eight columns of a row")

# %%
# What a kernel wants
# -------------------
# A GPU runs threads in *warps* of 32, the *lanes*. A lane computes in *registers* of 32
# bits, and one register holds two FP16 numbers (CUDA's ``half2``), with which one
# instruction computes at once. So a word of eight codes is to become four registers. An AND
# with 0x000f000f takes two codes out of it in one instruction, one for each half of a
# register; after a shift by 4, 8 or 12 bits it takes two others. How they become FP16
# numbers where they stand is shown in
# :ref:`sphx_glr_gallery_packing_plot_50_dequantize.py`.
#
# **Predict:** which two columns does the mask take out of each of the two words above?

MASK = 0x000F000F
natural = Order("kn", row="k0+", word="n3+", nibble="n2 n1 n0")
orders = {"natural order": natural, "AWQ's order": awq.weight}
for x, (name, order) in zip((0x76543210, word), orders.items(), strict=True):
    registers = [x >> shift & MASK for shift in (0, 4, 8, 12)]
    pairs = [(register & 0xFFFF, register >> 16) for register in registers]
    print(f"{name:<13}", pairs)
    assert pairs == vis.register_pairs(order, "n")
assert pairs == [(0, 1), (2, 3), (4, 5), (6, 7)]
taken = vis.plot_registers(orders, "n", "What 0x000f000f takes, after shifts of 0 to 12")

# %%
# In AWQ's order each register holds two *neighbours*, and the four registers one after the
# other are columns 0 to 7. Scales of neighbouring columns lie side by side in memory, so a
# register of two codes meets a register of two scales, and AutoAWQ's kernel stores the
# eight products, as FP16 numbers, in one piece of 16 bytes. Natural order would give
# columns 0 and 4, and one more instruction for each register to sort them.
#
# Which orders would do?
# ----------------------
# A nibble's number has three bits, b2 b1 b0, and so has a column's, n2 n1 n0. The nibbles
# that come out together are 4 apart: they differ in b2. So b2 must be n0, in which the
# neighbours 2j and 2j + 1 differ. Which register they come out in is b1 b0, so this must be
# j, which is n2 n1. All ways to place three bits:

table = []
for bits in permutations(("n2", "n1", "n0")):
    order = Order("kn", row="k0+", word="n3+", nibble=" ".join(bits))
    pairs = vis.register_pairs(order, "n")
    neighbours = all(high == low + 1 for low, high in pairs)
    in_order = neighbours and pairs == sorted(pairs)
    assert in_order == (order == awq.weight)
    verdict = "yes" if in_order else "out of order" if neighbours else "no"
    table.append([order.nibble, ", ".join(f"{low} {high}" for low, high in pairs), verdict])
titles = ["b2 b1 b0", "columns in the four registers", "neighbours"]
script.display(vis.Table(titles, table, None, "What the mask takes out of a word"))

# %%
# One rotation
# ------------
# Only one order does all. It is a *rotation* of three bits: the last becomes the first.
# awqdoc knows nothing else of the list. The layout's nibble is the text ``"n0 n2 n1"``,
# highest bit first, as ``"n3+"`` (n3 and all bits above it) is its word. From these it
# computes where a code lies, and which code lies somewhere.

wires = vis.plot_wires(awq.weight, "AWQ: the last bit of n becomes the first of the nibble")
assert [(i << 1 | i >> 2) & 7 for i in range(8)] == ORDER  # rotated to the left
assert [(n >> 1 | n << 2) & 7 for n in range(8)] == INVERSE  # and to the right
assert [awq.where(0, n)["nibble"] for n in range(8)] == INVERSE
print("k = 3, n = 21 is at", awq.where(3, 21), "and back", awq.weight.at(3, 2, 6))

# %%
# Undone by hand
# --------------
# A gate projection of the small Llama that ships with awqdoc, rounded in groups of 128
# rows. The zero points, ``qzeros`` [K / 128, N / 8], go through the same mask, so they have
# the same order. The scales are FP16 numbers: two fill a register as they are.

weight = models.load()[0].model.layers[3].mlp.gate_proj.weight.detach()  # [N, K]
quantized = round_to_nearest(weight.T, group_size=128)  # codes [K, N]
packed = pack(quantized, "awq")


def undo(words):
    """int32 [rows, words] -> codes [rows, columns]: four registers, each of two halves."""
    registers = torch.stack([words >> shift & MASK for shift in (0, 4, 8, 12)], dim=-1)
    return registers.view(torch.int16).flatten(1).byte()  # the lower half comes first


codes, zeros = undo(packed["qweight"]), undo(packed["qzeros"])
assert torch.equal(codes, quantized.codes)
assert torch.equal(zeros, quantized.zeros)
assert torch.equal(packed["scales"], quantized.scales)

# %%
# Is this what AutoAWQ writes?
# ----------------------------
# These codes and zero points are made by formula. AutoAWQ's packer, version 0.2.9, made of
# them tensors with the two hashes here (and the tests of awqdoc run that packer itself):

k, n, g = torch.arange(256)[:, None], torch.arange(512), torch.arange(2)[:, None]
known = (7 * k + 11 * n + k * n // 13) % 16, (5 * n + 3 * g) % 16  # codes, zero points
made = QuantizedWeight(known[0].byte(), torch.ones(2, 512).half(), known[1].byte(), 128)
for name, wanted in (("qweight", "f4d8ed169eda088b"), ("qzeros", "5b6c8a21b8950626")):
    found = hashlib.sha256(pack(made, "awq")[name].numpy().tobytes()).hexdigest()[:16]
    assert found == wanted
    print(f"{name:<7} {found}, as AutoAWQ packs it")

# %%
# The wrong list
# --------------
# To pack, nibble i takes column ORDER[i]; to unpack, column n takes nibble INVERSE[n]. One
# is easily taken for the other. Three rotations of three bits change nothing, which is a
# quick check for a slip in a list that you have copied. Which of the two it is this cannot
# tell, for each is the other, twice; the second number can: nibble 1 holds column 2.

twice = [ORDER[i] for i in ORDER]
thrice = [ORDER[i] for i in twice]
assert (twice, thrice) == (INVERSE, list(range(8)))

x = torch.randn(64, len(codes), generator=torch.Generator().manual_seed(0))
right = x @ quantized.dequantize().float()
table = []
for name, take in (("INVERSE", INVERSE), ("ORDER", ORDER), ("neither", range(8))):
    held = [ORDER[nibble] for nibble in take]  # the column that ends up in each place
    moved = torch.arange(codes.shape[1]).view(-1, 8)[:, held].flatten()
    wrong = QuantizedWeight(codes[:, moved], packed["scales"], zeros[:, moved], 128)
    error = float((x @ wrong.dequantize().float() - right).norm() / right.norm())
    table.append([name, " ".join(map(str, held)), f"{error:.0%}"])
    assert held == {"INVERSE": list(range(8)), "ORDER": INVERSE, "neither": ORDER}[name]
    assert error == 0 if name == "INVERSE" else 1 < error < 1.4
here = vis.Here.now(work="random inputs to one layer")
titles = ["unpacked with", "columns found in places 0 to 7", "error of X @ W"]
script.display(vis.Table(titles, table, here, "One list taken for the other"))

# %%
# Columns 0 and 7 of every eight are right, for 000 and 111 stay what they are however they
# are rotated. The other six move in two rings of three, 1 2 4 and 3 6 5, one way round with
# the wrong list, the other way without any. Shapes, dtypes and the histogram of the codes
# are as they should be; the outputs are off by more than their own size. A model loads
# without complaint and writes garbage (pull request 30 of AMD's Quark mends such a case).
#
# What surprised us
# -----------------
# A round trip does not notice. Pack with one wrong list and unpack with the other, and
# every code comes back; only nobody else can read the words. And the order is elsewhere
# too: ExLlamaV2 brings GPTQ's words, eight rows in natural order, into it when it loads a
# model (``shuffle_4bit_8`` in ``qdq_4.cuh``). In Marlin's words k0 is the top bit, since
# tensor cores want neighbours along k; its zero points are rotated like AWQ's, with n5 n4
# n3 in place of n2 n1 n0.

foreign = sum(INVERSE[nibble] << 4 * nibble for nibble in range(8))
assert [foreign >> 4 * ORDER[n] & 15 for n in range(8)] == list(range(8))
print(f"a round trip through {foreign:#010x} succeeds; AWQ's word is {word:#010x}")
marlin = LAYOUTS["awq_marlin"]
assert (marlin.weight.nibble, marlin.zeros.nibble) == ("k0 n3 k3", "n3 n5 n4")

# %%
# Limits
# ------
# - This is AutoAWQ's format "GEMM", which nearly all AWQ checkpoints have. Others are in
#   :ref:`sphx_glr_gallery_packing_plot_20_gptq_beside_awq.py`.
# - Why a kernel wants neighbours is argued here, not timed. The error is one layer's.

script.show({"words": words, "registers": taken, "wires": wires}, options.output_dir)
