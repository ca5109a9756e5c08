r"""
Can my AWQ checkpoint run on Marlin?
====================================

Not on the original: that one subtracts 8 from every code, and AWQ's groups have zero points
of their own. But vLLM has a descendant with zero points, ``awq_marlin``, and repacks a
checkpoint for it while loading. This page repacks a layer, shows where the zero points go
and why, what repacking costs, what making the weight symmetric would cost instead, and
which layers do not fit.
"""

# %%
# What stands in the way
# ----------------------
# A gate projection of the small Llama that ships with awqdoc, rounded in groups of 128 and
# packed as in an AWQ checkpoint. The original Marlin has no place for its zero points:

from statistics import median

import torch
from awqdoc import models, profiling, script
from awqdoc import visualization as vis
from awqdoc.errors import AwqdocError
from awqdoc.formats import QuantizedWeight
from awqdoc.gpu.datasheets import DATA_SHEETS
from awqdoc.packing import LAYOUTS, checks, convert, pack, unpack
from awqdoc.quantize import round_to_nearest

options = script.parse(script.parser("Repack a layer from AWQ to awq_marlin."))

model, tokenizer = models.load()
layer = model.model.layers[3].mlp.gate_proj
original = layer.weight.detach().T  # [K, N]
weight = round_to_nearest(original, group_size=128)
checkpoint = pack(weight, "awq")


def refusal(function, *arguments, **keywords):
    try:
        function(*arguments, **keywords)
    except AwqdocError as error:
        return str(error)
    return ""


print(refusal(convert, checkpoint, "awq", "marlin", group_size=128))

# %%
# Repacked
# --------
# For ``awq_marlin`` codes, scales and zero points stay what they are. ``qweight`` and
# ``scales`` are what the original Marlin would have for these codes, in the order that
# :ref:`sphx_glr_gallery_packing_plot_30_marlin_derived.py` derives. Only ``qzeros`` is new.

repacked = convert(checkpoint, "awq", "awq_marlin", group_size=128)
for name, tensor in repacked.items():
    print(f"{name:<8} {list(checkpoint[name].shape)} -> {list(tensor.shape)}")

back = unpack(repacked, "awq_marlin", group_size=128)
for part in ("codes", "scales", "zeros"):
    assert torch.equal(getattr(back, part), getattr(weight, part))
symmetric = QuantizedWeight(weight.codes, weight.scales, None, group_size=128)
for name, tensor in pack(symmetric, "marlin").items():
    assert torch.equal(repacked[name], tensor)

# %%
# Where the zero points go
# ------------------------
# A *lane*, one of the 32 threads that use a tensor core together, has codes of column lane
# // 4 in each of the eight pieces, 8 columns wide, that make a tile of 64. It needs eight
# zero points, and eight nibbles are one word. So n2 n1 n0, the lane's column, choose the
# word, n5 n4 n3, the piece, the nibble, and n6+, all bits from n6 up, the tile.
#
# Which nibble? Zero points become FP16 as codes do, two nibbles at once that are 16 bits
# apart (:ref:`sphx_glr_gallery_packing_plot_50_dequantize.py`). A word of codes serves two
# pieces, n3 = 0 and 1, so their two zero points should come out together: n3 is the top bit
# of the nibble's number, and n5 n4 is how often the word was shifted by 4. For every lane:

zeros = LAYOUTS["awq_marlin"].zeros
assert (zeros.word, zeros.nibble) == ("n6+ n2 n1 n0", "n3 n5 n4")
zero_wires = vis.plot_wires(zeros, "Zero points of awq_marlin (g: the group)")
for lane in range(32):
    word = int(repacked["qzeros"][0, lane // 4])
    for block in range(4):
        pair = word >> 4 * block & 0x000F000F
        for piece, zero in enumerate((pair & 0xFFFF, pair >> 16)):
            assert zero == weight.zeros[0, 16 * block + 8 * piece + lane // 4]

# %%
# Repacking in one picture
# ------------------------
# Both layouts hand out the bits of k and n. So repacking takes the bits of the old *place*,
# AWQ's row, word and nibble, and hands them out as those of the new one. **Predict:** a
# Marlin word holds eight codes. From how many of AWQ's words do they come?

awq, target = LAYOUTS["awq"].weight, LAYOUTS["awq_marlin"].weight
wires = vis.plot_moves(awq, target, ("AWQ", "Marlin"), "Old place to new place")
sources = set()
for word in range(128):  # of a tile
    held = [awq.where(**target.at(0, word, nibble)) for nibble in range(8)]
    sources.add(frozenset((place["row"], place["word"]) for place in held))
assert [len(words) for words in sources] == [8] * 16

# %%
# From eight. All three nibble bits become word bits, and into the nibble go two row bits
# and a word bit. So words are repacked by eights: eight of AWQ's make eight of Marlin's.
#
# What it costs
# -------------
# At the least, reading everything once and writing it once. On the processor, a plain copy
# of a layer of 4096 x 4096, and ``convert``:

large = pack(round_to_nearest(torch.randn(4096, 4096), group_size=128), "awq")
moved = 2 * sum(tensor.nbytes for tensor in large.values())
work = {
    "copy": [lambda: [tensor.clone() for tensor in large.values()]],
    "convert": [lambda: convert(large, "awq", "awq_marlin", group_size=128)],
}
seconds = profiling.interleave(work, "cpu", rounds=3)

layers = 32 * (2 + 2 * 1024 / 4096 + 3 * 14336 / 4096)  # q o, k v, gate up down; 32 blocks
h200 = next(sheet.bandwidth for sheet in DATA_SHEETS if sheet.name == "H200 SXM")
print(f"{moved / 1e6:.1f} MB; at an H200's bandwidth {moved / h200 * 1e6:.1f} µs")
print(f"Llama-3-8B, {layers:.0f} times as much: {layers * moved / h200 * 1e3:.1f} ms")
rows = [[name, f"{1e3 * median(samples):.1f}"] for name, samples in seconds.items()]
here = vis.Here.now(work=f"one layer ({profiling.clock_name('cpu')})")
script.display(vis.Table(["", "ms, median of 3"], rows, here, "Copying and repacking"))

# %%
# On a GPU, where vLLM does it at loading, the bytes take no time to speak of. ``convert``
# is far from a copy here: it goes from any layout to any other.
#
# Why not make it symmetric?
# --------------------------
# One could restore the weight from the checkpoint, round it anew with zero point 8, and use
# the original Marlin. How far are the layer's outputs from the original's then?

inputs = []
layer.register_forward_pre_hook(lambda _, x: inputs.append(x[0].flatten(0, 1)))
with torch.no_grad():
    model(models.calibration_windows(tokenizer, count=8))
errors = []
for name, rounded in (
    ("with zero points", weight),
    ("symmetric, from the original", round_to_nearest(original, 128, symmetric=True)),
    ("symmetric, again", round_to_nearest(weight.dequantize(), 128, symmetric=True)),
):
    error = inputs[0] @ (rounded.dequantize().float() - original)
    errors.append(float(error.norm() / (inputs[0] @ original).norm()))
    print(f"{name:<28} {errors[-1]:.1%}, {errors[-1] / errors[0]:.2f} x")
assert 1.1 < errors[1] / errors[0] < 1.25 < 1.4 < errors[2] / errors[0] < 1.7
assert abs(errors[2] / (errors[0] ** 2 + errors[1] ** 2) ** 0.5 - 1) < 0.05

# %%
# It has been rounded twice, and the errors add up as independent ones do, by their squares.
# For a symmetric weight, start from the original.
#
# Which layers fit
# ----------------
# Kernels work on whole tiles; layers divided between GPUs may not consist of such:

cases = {
    "Llama-3-8B: q, o": (4096, 4096), "k, v": (4096, 1024), "k, v on 8": (4096, 128),
    "gate, up": (4096, 14336), "down": (14336, 4096), "down on 8": (1792, 4096),
    "Llama-2-7B: gate, up": (4096, 11008), "gate on 8": (4096, 1376),
    "gate + up on 8": (4096, 2752), "Llama-2: down": (11008, 4096),
    "Llama-2: down on 4": (2752, 4096), "Llama-2: down on 8": (1376, 4096),
}  # fmt: skip
rows = []
for name, (k, n) in cases.items():
    no = [refusal(checks.sizes, LAYOUTS[f], k, n, 128) for f in ("marlin", "awq_marlin")]
    why = no[1].partition(", ")[2][:-1] or f"{k / 128} groups of 128"
    fits = f"no, {why}" if no[1] or k % 128 else "yes"
    rows.append([name, f"{k} x {n}", "no" if no[0] else "yes", fits])
assert [row[3] == "yes" for row in rows] == [True] * 7 + [False, True, True, False, False]
titles = ["layer (on 8: divided between 8 GPUs)", "K x N", "original", "awq_marlin"]
script.display(vis.Table(titles, rows, None, "Which Marlin takes it, in groups of 128"))

# %%
# vLLM holds gate and up as one weight: 2 x 1376 columns fit where 1376 do not. ``down`` is
# divided along K; where that cuts a group in two no kernel helps. Other layers that vLLM's
# check refuses (it wants K a multiple of 128 in any case) run on AWQ's own kernel, with a
# warning. GPTQModel pads them.
#
# Two more refusals: another group size, and an activation order, a list ``g_idx`` of which
# k is in which group. AWQ has none. GPTQ may have one (``desc_act``), for which vLLM's
# Marlin has another path, without zero points.

print(refusal(checks.sizes, LAYOUTS["awq_marlin"], 4096, 4096, 256))
gptq = pack(weight, "gptq_v2") | {"g_idx": torch.randperm(256) // 128}
print(refusal(convert, gptq, "gptq_v2", "awq_marlin", group_size=128))

# %%
# Limits
# ------
# - One layer of one small model, rounded plainly, for what symmetry costs. What it does to
#   a model's predictions: :ref:`sphx_glr_gallery_quantization_plot_10_rounding.py`.
# - Layouts are checked here, no kernel. vLLM's and GPTQModel's sources were only read.

script.show({"zero_points": zero_wires, "places": wires}, options.output_dir)
