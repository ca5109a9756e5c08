r"""
One tile, step by step
======================

A tensor-core kernel for INT4 weights is short, and hard to read: what matters is which of
32 lanes has which number, and no line says so. Here one tile goes through our kernels in
NumPy, from its bytes to the outputs, with the values that the lanes really have. The format
is not Marlin's but ours, built on Marlin's ideas. No GPU is needed.
"""

# %%
# Load
# ----
# The weight is a gate projection of the small Llama that ships with awqdoc, in groups of
# 128; X is what this layer gets for 8 tokens of text. Our kernels keep W as *records*: 128
# inputs k by 128 outputs n, codes, scales and zero points in one piece of memory.
#
# **Predict:** how many bytes of a record does one lane load? How many instructions make
# FP16 numbers of eight codes? And what would you multiply by the scale: each weight before
# the tensor core, or the sums after it?

import numpy as np
import torch
from awqdoc import models, script
from awqdoc import visualization as vis
from awqdoc.kernels.ladder import records, walk
from awqdoc.quantize import round_to_nearest

options = script.parse(script.parser("Walk one tile through our kernels, in NumPy."))
LANE = 13
model, tokenizer = models.load()
layer, inputs = model.model.layers[3].mlp.gate_proj, []
hook = layer.register_forward_pre_hook(lambda _, given: inputs.extend(given))
with torch.no_grad():
    model(models.calibration_windows(tokenizer, count=1))
hook.remove()
x = inputs[0][0, :8].half().numpy()  # [8 tokens, K]
weight = round_to_nearest(layer.weight.detach().T, group_size=128)  # [K, N]
packed = records.prepare(weight)["records"].numpy()  # [N / 128, K / 128, bytes]

record = walk.parts(packed[0, 0])  # the same bytes, read as codes, scales, zero points
assert record.codes[0, 0, LANE].tobytes() == packed[0, 0, 16 * LANE :][:16].tobytes()
figure_record = vis.plot_record(record, LANE, "A record of the weight, as bytes")

# %%
# One load brings a lane 64 k of two outputs, 3 and 11 for lane 13; a second one, 512 bytes
# on, the other 64. Four warps share a record, two tiles of 16 outputs each, so a lane loads
# 64 bytes of it.
#
# Unpack
# ------
# The first word, by its bits (:ref:`sphx_glr_gallery_packing_plot_50_dequantize.py`).
# 0x6400 is 1024 in FP16 and counts in ones from its lowest bit on, 0x5400 is 64 and counts
# in ones from its fifth. So each mask makes FP16 numbers of codes where they stand:

word = int(record.codes[0, 0, LANE, 0])
rows = [vis.Bits("the word's lower half", word & 0xFFFF, "nibbles", marked=0x00FF)]
rows += [vis.Bits("word & 0x000f | 0x6400", word & 0x000F | 0x6400, marked=0x000F)]
rows += [vis.Bits("word & 0x00f0 | 0x5400", word & 0x00F0 | 0x5400, marked=0x00F0)]
bits = vis.plot_bits(rows, f"Lane {LANE}'s first word, {word:#010x}")

# %%
# Both halves of the word take part, so a mask makes two numbers. The zero points go through
# the same bits, once for a group: 1024 + z and 64 + z. One subtraction, again of two
# numbers, leaves q - z, exactly. After a shift by 8 the same masks make registers 2 and 3:
# 9 instructions for 8 weights.

unpacked = walk.unpack_word(word, record.zeros[0, 0, LANE // 4])
steps = np.stack(unpacked, axis=-1).astype(int).tolist()
table = []
for (n, k), (owner, register, half) in vis.owners("left").items():
    if owner == LANE:
        q, z = int(weight.codes[k, n]), int(weight.zeros[0, n])
        offset, numbers = (1024, 64)[register % 2], steps[register][half]
        assert numbers == [offset + q, offset + z, q - z]
        table.append([register, register + 4 * half, f"({k}, {n})", q, *numbers])
titles = ["register", "nibble", "(k, n)", "q", "as FP16", "less", "q - z"]
script.display(vis.Table(titles, sorted(table), None, f"The 8 weights of {word:#010x}"))

# %%
# Fragments
# ---------
# These four registers are lane 13's part, its *fragment*, of the left operand of
# ``mma.m16n8k16``: 16 x 16 times 16 x 8. What is computed is Y^T = W^T X^T, with the weight
# on the left, where an instruction takes 16 rows, and tokens on the right, where it takes
# 8. The batch is the narrow side: were 1 to 8 tokens on the left, half of the rows or more
# would be padding, and the same outputs would take two instructions.

figure_owners = vis.plot_owners(LANE, "Which lane holds what of one mma")

# %%
# One mma
# -------
# X comes from shared memory; ``ldmatrix`` reads 16 bytes of each of 8 tokens at once. A row
# there has 128 bytes, as have the 32 banks together, so all 8 would meet in the same banks.
# The kernels exchange the 16-byte chunks of a row by the token's number: they meet nowhere.
# Then, from the fragments alone, the product. Lane 13 gets sums for tokens 2 and 3 but
# holds nothing of token 2: the tensor core brings together what the lanes have.

shared = [walk.shared_x(x[:, k : k + 128]) for k in (0, 128)]
assert len({int(p) // 16 % 8 for p in walk.x_place(np.arange(8), 0, tokens=8)}) == 8

left, right = walk.left_fragment(record, 0, 0), walk.right_fragment(shared[0], 0, 0)
sums = walk.mma(np.zeros((32, 4), np.float32), left, right)
for name, held in (("weight", left), ("X", right), ("sums", sums)):
    print(f"lane {LANE}, {name:6}:", *(f"{v:g}" for v in held[LANE].flat))

zeros, scales = weight.zeros.double(), weight.scales.double().numpy()
q_z = (weight.codes - zeros.repeat_interleave(128, 0)).numpy()  # float64 [K, N]
plain = q_z[:16, :16].T @ x[:, :16].T  # the product of these tiles, exactly: [n, token]
assert np.array_equal(sums, plain.astype(np.float32)[walk.SUMS])

# %%
# A group
# -------
# Eight such steps are a group of 128 k. Their sums stay in registers, in float32, and are
# then multiplied by their row's scale: for 8 tokens 4 multiplications in a lane. To scale
# its 64 weights first, two at a time, would take 32, and round them to FP16. Which is more
# exact? All outputs of the record, against unrounded (q - z) s in float64:

after = np.empty((128, 8), np.float32)  # [n, token]
for tile in range(8):
    after[16 * tile :][:16][walk.SUMS] = walk.multiply(record, shared[0], tile)[0]

fp16 = weight.dequantize().numpy()  # [K, N]: (q - z) s, rounded
row_scales = record.scales[0, 0].repeat(4, axis=0)[:, [0, 1, 0, 1], None]
assert np.array_equal(left * row_scales, fp16[walk.LEFT[1], walk.LEFT[0]])
first = fp16[:128, :128].T.astype(np.float32) @ x[:, :128].T.astype(np.float32)
exact = (q_z[:128] * scales[0])[:, :128].T @ x[:, :128].T
table, errors, norm = [], [], np.linalg.norm
for scaled, y in (("each weight, before", first), ("each sum, after", after)):
    errors += [norm(found - exact) / norm(exact) for found in (y, y.astype(np.float16))]
    table.append([scaled, *(f"{error:.1e}" for error in errors[-2:])])
titles = ["scaled is", "error of the float32 sums", "error as FP16"]
script.display(vis.Table(titles, table, vis.Here.now(), "One group of 128 k"))

# %%
# Two teams, and the way back
# ---------------------------
# The sums are over a thousand times as exact, and it hardly matters: Y is FP16, and
# rounding it costs more than either way. What counts is the work that is saved.
#
# The layer's other 128 k are another record. A block has two teams of four warps, which
# take records in turn, so both have sums of the same outputs. Through shared memory each
# warp gives those of one of its two tiles away and adds what it gets for the other. Then
# ``movmatrix`` exchanges sums among lanes: 13 has output 3 of tokens 2 and 3, a row apart
# in Y, and gets outputs 2 and 3 of token 3, which are neighbours: one store.

assert errors[0] > 1000 * errors[2]
assert errors[0] < errors[3] < errors[1] < 1.5 * errors[3]
y = np.full((8, 128), np.nan, np.float16)
for tile in range(8):
    teams = [walk.multiply(walk.parts(packed[0, i]), shared[i], tile) for i in (0, 1)]
    y[:, 16 * tile :][:, :16] = walk.store(teams[0] + teams[1])
float32 = x.astype(np.float32) @ fp16[:, :128].astype(np.float32)
assert norm(y - float32) / norm(float32) < 1e-3
figure_stores = vis.plot_stores(LANE, "Who writes which outputs")

# %%
# Copies that run ahead
# ---------------------
# Records come from memory while others are multiplied. A model: a copy takes 1 until all
# is there, however many are under way; a multiplication takes r; there is room for S
# records. **Predict:** with r = 0.5, at which S does nobody wait any more?


def pipeline(stages, r, count=8):
    """When the copy of each record begins, and its multiplication."""
    copies, products = [], []
    for i in range(count):
        copies.append(products[i - stages] + r if i >= stages else 0)
        products.append(max(copies[i] + 1, products[-1] + r if products else 0))
    return copies, products


runs = {stages: pipeline(stages, r=0.5) for stages in (1, 2, 4)}
for stages in (1, 2, 3, 4):
    products = pipeline(stages, 0.5, count=100)[1]
    took = (products[96] - products[48]) / 48
    print(f"S = {stages}: max(r, (1 + r) / S) = {took}")
    assert took == max(0.5, 1.5 / stages)
timeline = vis.plot_pipeline(runs, 0.5, "Copies that run ahead")

# %%
# S copies and one multiplication go round in 1 + r, so a record takes (1 + r) / S, or r if
# that is longer. Three would do here. The first copy nobody can hide, except behind the
# kernel before (step 8 of :ref:`sphx_glr_gallery_marlin_plot_30_ladder.py`).
#
# Limits
# ------
# - How a tensor core rounds its sums is not documented; here 16 products are added exactly.
#   That the kernels compute this product, ``tests/test_ladder.py`` checks on GPUs.
# - In the model copies do not slow each other down, and room is filled again at once. Real
#   copies share the memory: its rate is the floor that no number of stages can go below.
# - Up to 8 tokens. More are further tiles on the right, for the same left fragments.

figures = {"record": figure_record, "bits": bits, "fragments": figure_owners}
figures |= {"stores": figure_stores, "pipeline": timeline}
script.show(figures, options.output_dir)
