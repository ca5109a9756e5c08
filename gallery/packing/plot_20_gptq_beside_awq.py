r"""
GPTQ or AWQ: what differs in memory?
====================================

AWQ and GPTQ are two ways to *choose* 4-bit codes. They are also names of file formats, and
a file keeps nothing of the choosing: AWQ's factors are folded into the weights, GPTQ's
corrections are in the codes. Both end as codes, scales and zero points. This page lays one
weight out in five formats, three of AutoAWQ and two of GPTQ, and looks at what differs.
"""

# %%
# One weight, five formats
# ------------------------
# A gate projection of the small Llama that ships with awqdoc, plainly rounded in groups of
# 128 inputs: K = 256 inputs, N = 768 outputs, two groups. **Predict:** for a large layer of
# 4096 x 4096, how much smaller is the smallest of these five than the largest?

from dataclasses import replace

import torch
from awqdoc import models, script
from awqdoc import visualization as vis
from awqdoc.errors import AwqdocError
from awqdoc.packing import LAYOUTS, convert, pack, unpack
from awqdoc.quantize import round_to_nearest

options = script.parse(script.parser("The same weight as AWQ and as GPTQ, in memory."))
layouts = {name: LAYOUTS[name] for name in LAYOUTS if "marlin" not in name}
original = models.load()[0].model.layers[3].mlp.gate_proj.weight.detach().T  # [K, N]
weight = round_to_nearest(original, group_size=128)
packed = {name: pack(weight, name) for name in layouts}

table = [
    [name, *(f"{t.dtype} {list(t.shape)}".replace("torch.", "") for t in tensors.values())]
    for name, tensors in packed.items()
]
titles = ["format", "qweight", "qzeros", "scales"]
script.display(vis.Table(titles, table, None, "One weight of K = 256, N = 768"))

# %%
# Which codes share a word
# ------------------------
# AWQ packs eight neighbours along n, in an order of its own
# (:ref:`sphx_glr_gallery_packing_plot_10_awq_order.py`). GPTQ packs eight along k, and so
# does AutoAWQ's format for single tokens, awq_gemv. The figure has the first four words of
# ``qweight``'s first row; words of a row follow each other in memory. If each of the 32
# *lanes* (threads) of a GPU's *warp* reads 4 bytes, these 128 come in one piece if they are
# neighbours (the access is *coalesced*). The table says which part of the weight that is,
# how many scales it needs, and what lies side by side in a row of scales.

drawn = {name: layout for name, layout in layouts.items() if name != "gptq_v2"}
shapes = vis.plot_word_shapes(drawn, "The first four words, each in a colour of its own")
assert layouts["gptq"].weight == layouts["gptq_v2"].weight

table = []
for name, layout in layouts.items():
    words = 256 // layout.weight.nibbles  # 128 bytes
    held = [place for word in vis.words_held(layout, words) for place in word]
    ks, ns = ({place[axis] for place in held} for axis in (0, 1))
    assert (ks, ns) == (set(range(len(ks))), set(range(len(ns))))
    groups = {(k // 128, n) for k, n in held}
    across = "groups" if layout.scales.row == "n0+" else "outputs"
    table.append([name, f"{len(ks)} x {len(ns)}", len(groups), across])
titles = ["format", "128 bytes hold, k x n", "scales for it", "a row of scales has"]
script.display(vis.Table(titles, table, None, "What 32 lanes read, groups of 128"))

# %%
# In awq and gptq lanes go along n: each has outputs of its own and needs scales of its own,
# which are neighbours, too. In awq_gemv, made for one token at a time, they go along k: all
# work on one output, share its scales and add their sums in the end. awq_gemv_fast has
# words of 16 bits, four codes, and goes along k, too, but for four outputs at once.
#
# Zero points, and a classic bug
# ------------------------------
# awq stores a zero point z as it is, GPTQ's first version z - 1, its second z. The tensors
# look alike; the configuration's ``checkpoint_format`` says which it is, if it is right
# (vLLM's pull request 38966). A symmetric weight, whose z is always 8, gives it away:

for name, expected in (("awq", 0x88888888), ("gptq", 0x77777777), ("gptq_v2", 0x88888888)):
    word = pack(replace(weight, zeros=None), name)["qzeros"].unique().item() & 0xFFFFFFFF
    print(f"{name:<8} {word:#x}")
    assert word == expected

# %%
# Read version 1 as version 2, and every zero point is too small by one, so every weight is
# too large by its step s. Nothing fails: 7 is a zero point like any other. Its error beside
# that of the rounding, for inputs around 0 and for the same ones made positive:

misread = unpack(packed["gptq"], "gptq_v2", group_size=128)
assert torch.equal(misread.zeros + 1, weight.zeros)

restored = [w.dequantize().float() for w in (weight, misread)]
inputs = torch.randn(64, len(original), generator=torch.Generator().manual_seed(0))
table = []
for name, x in (("around 0", inputs), ("all positive", inputs.abs())):
    exact = x @ original
    errors = [float((x @ w - exact).norm() / exact.norm()) for w in restored]
    table.append([name, *(f"{error:.0%}" for error in errors)])
    assert errors[1] > 3 * errors[0]
here = vis.Here.now(work="random inputs to one layer")
titles = ["inputs", "error of rounding", "version 1 read as 2"]
script.display(vis.Table(titles, table, here, "Error of X @ W"))

# %%
# Errors of rounding have both signs and mostly cancel in a sum; this one has the same sign
# in every weight. What a model writes when the versions are confused the other way round
# is in vLLM's issue 26343: exclamation marks.
#
# awq_gemv_fast stores neither z nor z - 1 but -s z, in FP16, so that a kernel needs only
# one instruction for q s + (-s z). That product is rounded, so that where q = z the weight
# is often not quite 0: :ref:`sphx_glr_gallery_packing_plot_60_bit_identical.py`.

s = weight.scales.float()
product = packed["awq_gemv_fast"]["qzeros"][: len(s)].float()  # the rest is padding
left = (weight.zeros * s + product).abs() / s  # of a weight with q = z, in steps
print(f"not 0 in {(left > 0).float().mean():.0%} of groups, at most {left.max():.4f} steps")
assert 0 < left.max() < 0.01

# %%
# Bytes
# -----
# From the layouts alone: where the last element lies tells how many there are. Two layers
# of Llama 2 7B, its query and its down projection:


def sizes(layout, k, n):
    """Bytes of qweight, qzeros and scales."""
    groups = k // 128 + -(k // 128) % layout.padding(128)
    last, found = {"k": k - 1, "g": groups - 1, "n": n - 1}, []
    for order in (layout.weight, layout.zeros, layout.scales):
        place = order.where(**last)
        each = 2 if order.nibbles == 1 else order.nibbles // 2  # an FP16 number or a word
        found.append((place["row"] + 1) * (place["word"] + 1) * each)
    return found


table = []
for k, n in ((4096, 4096), (11008, 4096)):
    totals = {name: sum(sizes(layout, k, n)) for name, layout in layouts.items()}
    for name, layout in layouts.items():
        parts = (f"{part:,}" for part in (*sizes(layout, k, n), totals[name]))
        table.append([name, f"{k} x {n}", *parts, f"{8 * totals[name] / (k * n):.3f}"])
    more = max(totals.values()) / min(totals.values()) - 1
    print(f"{k} x {n}: the largest has {more:.1%} more than the smallest")
for name, tensors in packed.items():
    assert [t.nbytes for t in tensors.values()] == sizes(layouts[name], *weight.codes.shape)
titles = ["format", "K x N", "qweight", "qzeros", "scales", "all", "bits per weight"]
script.display(vis.Table(titles, table, None, "Bytes in groups of 128"))

# %%
# All arrange the same codes. What differs is zero points of 16 bits instead of 4 in
# awq_gemv_fast, and that both GEMV formats fill 86 groups up to 88.
#
# Every way, without loss
# -----------------------
# So whether a checkpoint is "AWQ" or "GPTQ" need not decide about the kernel: ``convert``
# goes from each format to each. The table says which tensors are other bytes then.

raw = {name: {t: ts[t].numpy().tobytes() for t in ts} for name, ts in packed.items()}
table = []
for source, old in raw.items():
    row = [source]
    for target, new in raw.items():
        made = convert(packed[source], source, target, group_size=128)
        assert all(torch.equal(made[t], packed[target][t]) for t in made)
        row.append(" ".join(t for t in new if new[t] != old[t]))
    table.append(row)
titles = ["from", *(f"to {name}" for name in layouts)]
script.display(vis.Table(titles, table, None, "All 25 conversions, bit for bit exact"))

# %%
# What a format cannot hold
# -------------------------
# ``pack`` and ``unpack`` refuse, in a sentence. GPTQ's version 1 cannot write z = 0; a
# converter that stored 15 for it had NaN in the end (GPTQModel's issue 2350). GPTQ may also
# put inputs into groups in an order of its own (``desc_act``, with a list ``g_idx`` of each
# input's group), for which the others have no place.

narrow = round_to_nearest(original[:96], group_size=32)
act_order = {**packed["gptq"], "g_idx": torch.arange(256) % 2}
for attempt in (
    lambda: pack(replace(weight, zeros=0 * weight.zeros), "gptq"),
    lambda: pack(narrow, "awq_gemv_fast"),
    lambda: unpack(act_order, "gptq", group_size=128),
):
    try:
        attempt()
        raise AssertionError("this must be refused")
    except AwqdocError as error:
        print("-", error)

# %%
# Limits
# ------
# - No time is measured here, only which bytes lie where. The errors are one layer's.
# - Marlin's format follows a tensor core's registers, which is another matter:
#   :ref:`sphx_glr_gallery_packing_plot_30_marlin_derived.py`.

script.show({"word_shapes": shapes}, options.output_dir)
