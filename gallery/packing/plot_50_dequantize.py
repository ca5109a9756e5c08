r"""
How do you turn four bits into FP16 without a conversion?
=========================================================

A kernel reads eight 4-bit codes in one 32-bit word and needs eight FP16 numbers. GPUs can
convert integers, but on many that is a slow instruction, and every weight would go through
it for every token. AWQ's and Marlin's kernels write the code into the bits of a number that
is there already. This page does the same with integer tensors, for each of the 16 codes.
"""

# %%
# A number that ends in a code
# ----------------------------
# An FP16 number has a sign bit, 5 exponent bits and 10 mantissa bits. The pattern 0x6400
# has the exponent 2^10 and an empty mantissa: it is 1024, and with ten mantissa bits the
# next number is 1025. From 1024 to 2047 the mantissa simply counts. Put a code c there
# with a logical OR, and you have the number 1024 + c; subtract 1024, and you have c.
#
# **Predict:** shift, mask, convert and subtract for each weight is 32 instructions for a
# word. How many does it take this way?

import torch
from awqdoc import models, script
from awqdoc import visualization as vis
from awqdoc.packing import LAYOUTS, pack
from awqdoc.quantize import round_to_nearest

options = script.parse(script.parser("Turn INT4 codes into FP16 numbers by their bits."))

x = 0x9D35  # half of a word: the codes 5, 3, 13 and 9, the lowest first
rows = [
    vis.Bits("x, half a word", x, "nibbles", marked=0x00FF),
    vis.Bits("0x6400", 0x6400),
    vis.Bits("x & 0x000f | 0x6400", x & 0x000F | 0x6400, marked=0x000F),
    vis.Bits("x & 0x00f0 | 0x6400", x & 0x00F0 | 0x6400, marked=0x00F0),
]
bits = vis.plot_bits(rows, "A code becomes the end of an FP16 number")
assert [row.value for row in rows[1:]] == [1024, 1024 + 5, 1024 + 16 * 3]

# %%
# The two lowest codes
# --------------------
# The second code need not be shifted down: where it stands, it counts in steps of 16, and
# the number is 1024 + 16 c. One *fma* (multiply and add in one instruction, rounded once)
# by 1/16 and -64 makes c of it. If the zero point is always 8, as in symmetric weights, it
# goes into the same constants: 1032 for 1024, -72 for -64. All 16 codes, all four cases.
# Nothing is rounded anywhere, so it does not matter that torch divides and subtracts here:

codes = torch.arange(16, dtype=torch.int16)
c = codes.half()
low = (codes | 0x6400).view(torch.float16)  # the same bits, read as FP16
high = (codes << 4 | 0x6400).view(torch.float16)
pairs = [(low, 1024 + c), (low - 1024, c), (low - 1032, c - 8)]
pairs += [(high, 1024 + 16 * c), (high / 16 - 64, c), (high / 16 - 72, c - 8)]
assert all(torch.equal(found, wanted) for found, wanted in pairs)
constants = torch.tensor([1024, 1032, 1 / 16, -64, -72]).half().view(torch.int16)
print("1024, 1032, 1/16, -64, -72:", [hex(p & 0xFFFF) for p in constants.tolist()])

# %%
# (x & mask) | base is one instruction
# ------------------------------------
# ``lop3`` combines three words bit by bit, by any rule. The rule is a number of 8 bits, its
# truth table: bit 4a + 2b + c is the result for the bits a, b and c. Over the eight cases
# a is 11110000, b is 11001100 and c is 10101010, so a rule is computed with these three:

rule = (0xF0 & 0xCC) | 0xAA
print(f"(a & b) | c has the table {rule:#04x} = {rule:08b}")
for case in range(8):
    assert rule >> case & 1 == (case >> 2 & case >> 1 & 1) | (case & 1)

# %%
# Both halves of the word at once
# -------------------------------
# A register has 32 bits and holds two FP16 numbers; one subtraction or fma works on both.
# So mask and base are doubled, and each step takes two codes that are 16 bits apart. Then
# the word is shifted by 8, once, and the same two masks find the other four codes.

LOW, HIGH, BASE = 0x000F000F, 0x00F000F0, 0x64006400


def register(words, mask, base=BASE, dtype=torch.float16):
    """One lop3; its 32 bits are two numbers, the lower half first: [...] -> [..., 2]."""
    return ((words & mask) | base).unsqueeze(-1).view(dtype)


half = torch.arange(2**16)  # every content of one half; the other holds something else
words = ((half ^ 0xA5C3) << 16 | half).to(torch.int32)
top = words >> 8
numbers = [register(words, LOW) - 1024, register(words, HIGH) / 16 - 64]
numbers += [register(top, LOW) - 1024, register(top, HIGH) / 16 - 64]
order = (0, 4, 1, 5, 2, 6, 3, 7)  # the nibbles that come out, register after register
wanted = torch.stack([words >> 4 * nibble & 15 for nibble in order], dim=-1)
assert torch.equal(torch.cat(numbers, dim=-1), wanted.half())
columns = [LAYOUTS["awq"].weight.at(0, 0, nibble)["n"] for nibble in range(8)]
print("nibble after nibble, an AWQ word holds the columns", columns)
assert [columns[nibble] for nibble in order] == list(range(8))

# %%
# Register after register, these are columns 0 to 7. That is the reason for AWQ's odd order
# of nibbles, 0 2 4 6 1 3 5 7: a register is to hold two *neighbours*, so neighbours must
# stand four nibbles apart (:ref:`sphx_glr_gallery_packing_plot_10_awq_order.py`). Marlin's
# words interleave in the same way, only that neighbours there follow each other along k, as
# the tensor cores want them. Nibbles in natural order would have to be sorted afterwards.
#
# What it saves
# -------------
# NVIDIA's CUDA programming guide gives for V100 and T4 (compute capability 7.x), per clock
# and SM (multiprocessor; a V100 has 80), 64 logic instructions, shifts or FP16 instructions
# on two numbers, but 16 conversions: one takes as long as four others. (The trick was
# devised on a V100, by Kim et al., arXiv 2211.10017.) To pack converted numbers in pairs
# would come on top.

ways = {
    "shift, mask, convert, subtract": (8, 8, 8, 8),
    "both masks, one shift": (1, 4, 0, 4),
    "low mask, three shifts": (3, 4, 0, 4),
}
table = [[way, *n, sum(n), sum(n) + 3 * n[2]] for way, n in ways.items()]
assert [row[-2:] for row in table] == [[32, 56], [9, 9], [11, 11]]
weights = 900e9 * 2 / (80 * 1.53e9)  # V100: two weights in each byte; SMs, clock
print(f"memory brings each SM of a V100 up to {weights:.1f} weights per clock")
assert 14 < weights < 16
titles = ["a word's 8 weights", "shift", "logic", "convert", "sub, fma", "all", "time"]
script.display(vis.Table(titles, table, None, "Instructions; time in logic instructions"))

# %%
# So converting would keep the unit that does it busy nearly all the time, only to follow
# the memory, even for one token. With logic it is about one instruction per weight.
#
# BF16 has less room
# ------------------
# BF16 has 8 exponent bits and only 7 mantissa bits. Its number with a step of 1 is 128,
# 0x4300. The lowest code fits as before; the next one would reach into the exponent.

rows = [
    vis.Bits("0x4300", 0x4300, "bf16"),
    vis.Bits("x & 0x000f | 0x4300", x & 0x000F | 0x4300, "bf16", marked=0x000F),
    vis.Bits("0x00f0 | 0x4300", 0x00F0 | 0x4300, "bf16", marked=0x00F0),
]
bits_bf16 = vis.plot_bits(rows, "BF16: the second code does not fit")

low = (codes | 0x4300).view(torch.bfloat16)
high = (codes << 4 | 0x4300).view(torch.bfloat16)
assert torch.equal(low - 128, codes.bfloat16())
assert torch.equal(low - 136, codes.bfloat16() - 8)
right = high == 128 + 16 * codes
print(f"code 15 gives {high[15]:g} for {128 + 16 * 15}; right: {codes[right].tolist()}")
assert torch.equal(right, codes <= 8)

# %%
# Codes above 8 are wrong (8 itself happens to make the next power of two, 256). So the word
# is shifted by 4, 8 and 12, and every code is taken at the low place: the table's last row.
#
# Zero points take the offset away
# --------------------------------
# AWQ's zero points differ from group to group, so no constant holds them. But vLLM's Marlin
# sends their words through the same logic and subtracts: (1024 + c) - (1024 + z) = c - z.
# The subtraction that the zero point needs anyway removes the offset too. All 256 pairs:


def offset(words, base=BASE, dtype=torch.float16):
    """int32 [...] -> [..., 8]: 1024 + code, in BF16 128 + code, register after register."""
    return torch.cat([register(words >> n, LOW, base, dtype) for n in (0, 4, 8, 12)], -1)


for base, dtype in ((BASE, torch.float16), (0x43004300, torch.bfloat16)):
    numbers = offset(codes.int(), base, dtype)[:, 0]  # of words with a single code each
    assert torch.equal(numbers[:, None] - numbers, (codes[:, None] - codes).to(dtype))

# %%
# A real layer
# ------------
# A gate projection of the small Llama that ships with awqdoc, rounded in groups of 128 and
# packed as an AWQ checkpoint holds it: its first word, then all of them, with one
# multiplication by the scale. The yardstick is ``QuantizedWeight.dequantize``, which knows
# nothing of words. Compared are bits.

weight = models.load()[0].model.layers[3].mlp.gate_proj.weight.detach()  # [N, K]
quantized = round_to_nearest(weight.T, group_size=128)
qweight, qzeros, scales = pack(quantized, "awq").values()
for name, words in (("qweight", qweight), ("qzeros", qzeros)):
    print(f"{name} {words[0, 0].item() & 0xFFFFFFFF:#010x}:", offset(words[0, 0]).tolist())
print("c - z:", (offset(qweight[0, 0]) - offset(qzeros[0, 0])).tolist())

groups = offset(qweight).view(len(scales), 128, -1)  # [groups, 128, N]
differences = groups - offset(qzeros).view(len(scales), 1, -1)
restored = (differences * scales[:, None]).flatten(0, 1)  # [K, N]
assert torch.equal(restored.view(torch.int16), quantized.dequantize().view(torch.int16))
print(f"{restored.numel()} weights, bit for bit the same")

# %%
# Limits
# ------
# - Instructions are counted by hand, not in a compiled kernel, and the time adds up units
#   that partly work at once. Other GPUs have other rates; the guide's table has them.
# - Whether another formula than (q - z) s gives the same numbers is the next question:
#   :ref:`sphx_glr_gallery_packing_plot_60_bit_identical.py`.

script.show({"bits_fp16": bits, "bits_bf16": bits_bf16}, options.output_dir)
