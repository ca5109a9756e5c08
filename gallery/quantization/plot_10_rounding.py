r"""
What does INT4 do to a weight?
==============================

Sixteen values are all that four bits can tell apart. This page shows how a trained weight
becomes one of them with plain rounding, no search: the code, the scale and the zero point;
why weights are rounded in groups; what group size, symmetry and one bit fewer cost. AWQ
and GPTQ first change the weights, but both end with the rounding shown here.
"""

# %%
# Eight numbers
# -------------
# Take the smallest and the largest number of a group, widen this range to hold zero, and
# divide it into 15 steps. The *scale* s is the step. The *zero point* z is the code that
# stands for 0. A weight's *code* is q = round(w / s) + z, from 0 to 15, and a kernel
# restores w' = (q - z) s. Stored are the codes, 4 bits each, and for the whole group s in
# FP16 and z in 4 bits.

import awqdoc
import torch
from awqdoc import models, script
from awqdoc import visualization as vis
from awqdoc.models.families import blocks_of, family_of, linear_of
from awqdoc.quantize import fake_quantize, round_to_nearest

parser = script.parser("Round weights to INT4 and INT3, and look at what that costs.")
parser.add_argument("--bits", nargs="+", type=int, choices=(4, 3), help="to compare")
parser.add_argument("--group-sizes", nargs="+", type=int, metavar="G", help="-1: all of K")
options = script.parse(parser)

eight = torch.tensor([-0.31, 0.12, 0.05, -0.07, 0.44, 0.18, -0.02, 0.29])
print("w     ", "  ".join(f"{w:6.3f}" for w in eight.tolist()))
for bits, symmetric in ((4, False), (4, True), (3, False)):
    group = round_to_nearest(eight[:, None], group_size=8, bits=bits, symmetric=symmetric)
    step, restored = float(group.scales), group.dequantize().flatten().float()
    zero = 2 ** (bits - 1) if group.zeros is None else int(group.zeros)
    kind = "symmetric" if symmetric else "asymmetric"
    print(f"\nINT{bits} {kind}: s = {step:.4f}, z = {zero}")
    print("q     ", "  ".join(f"{q:6d}" for q in group.codes.flatten().tolist()))
    print("w'    ", "  ".join(f"{w:6.3f}" for w in restored.tolist()))
    print("w' - w", "  ".join(f"{e:6.3f}" for e in (restored - eight).tolist()))
    assert (restored - eight).abs().max() < 0.51 * step

# %%
# No error is larger than half a step. (The last hundredth in the assertion is for the
# scale, which FP16 has to hold.) *Symmetric* codes spare the zero point: 0 is always the
# middle code (8; in INT3 4), and the range reaches as far down as up, here farther down
# than any weight lies. Code 0 is never used: 15 values remain (INT3: 7), as in AutoAWQ.
#
# A group of a real layer
# -----------------------
# A gate projection of the small Llama that ships with awqdoc: its first 128 weights between
# the 16 levels, and the errors of all its weights, each divided by its own group's step.

model = models.load()[0]
weight = model.model.layers[3].mlp.gate_proj.weight.detach()  # [N, K]
picture = vis.plot_group(weight, vis.Here.now(work="one layer, rounded"))

# %%
# Small weights are the many, and the few large ones set the step. Within a step a weight
# lies anywhere, so errors are spread evenly over plus and minus half a step: a quarter of a
# step on average, and a root mean square of step / √12, whatever the weight. So the error
# of a layer is known from its steps alone (below, relative to the weights' root mean
# square). G is the group size, K the number of weights in a row; -1 means one group for
# all of the row:

for size in (-1, 128, 64, 32):
    rounded = round_to_nearest(weight.T, size)
    error = fake_quantize(weight, size) - weight
    assert torch.allclose(error + weight, rounded.dequantize().T.float(), atol=1e-3)
    expected = (
        rounded.scales.float().square().mean().div(12).sqrt()
        / weight.square().mean().sqrt()
    )
    found = error.norm() / weight.norm()
    print(f"G = {size:>3}: {rounded.bits_per_weight:.3f} bits, ", end="")
    print(f"error {found:.2%}, from the steps {expected:.2%}")
    assert abs(found / expected - 1) < 0.05

# %%
# Why groups
# ----------
# One large weight makes the steps of all its neighbours coarse. Make a single weight of
# the layer four times as large as the largest of its row, and look at the rest of the row:

large = weight.clone()
large[0, 0] = 4 * weight[0].abs().max()
for size in (-1, 128, 64, 32):
    before, after = ((fake_quantize(w, size) - w)[0, 1:].norm() for w in (weight, large))
    hit = weight.shape[1] if size == -1 else size
    print(
        f"G = {size:>3}: {hit - 1:>3} neighbours, error of the row {after / before:.1f} x"
    )

# %%
# A small group does not help its own members; it has fewer of them. The price is more
# scales and zero points, hence more bits per weight.
#
# What it costs the model
# -----------------------
# Every linear layer of the shipped model, rounded; distance to the original as the KL
# divergence of its predictions on held-out text. **Predict:** INT3 has 7 steps where INT4
# has 15 (symmetric: 3 on each side where INT4 has 7), and near the original the KL
# divergence grows with the square of the error. How much more does INT3 cost? And what
# buys more per bit, a zero point or a smaller group?

axes = {"bits": options.bits, "group_size": options.group_sizes}
chosen = {axis: values for axis, values in axes.items() if values}
rounding = awqdoc.measure("rounding", **chosen)
published = not chosen and rounding.origin == "recorded"

by_bits = vis.plot_rounding(rounding)
script.display(vis.rounding_table(rounding))

# %%
# "Each bit less doubles the step, so the error doubles and the KL divergence becomes four
# times as large" is too low. A range has one step fewer than codes, so the step grows
# 15/7 = 2.14 times (symmetric 7/3 = 2.33), its square 4.6 (5.4) times, and the KL
# divergence a little more:

if {3, 4} <= set(rounding.parameters["bits"]):
    for row in vis.bit_ratios(rounding):
        kind = "symmetric" if row["symmetric"] else "asymmetric"
        steps, error, kl = row["step"], row["weight_error"], row["kl"]
        print(f"{kind:<10} G = {row['group_size']:>3}: step {steps:.2f} x", end="")
        print(f", error {error:.2f} x, squared {error**2:.2f}; KL {kl:.2f} x")
        assert not published or abs(error / steps - 1) < 0.02
        assert not published or 1 < kl / error**2 < 1.2

# %%
# What surprised us
# -----------------
# One number tells almost everything: the last column of the table, KL divergence over the
# squared weight error, is nearly the same in every row, though they differ in bits, group
# size and symmetry. That holds for *plain* rounding, whose error is spread over all
# channels alike. AWQ and GPTQ break the rule on purpose: they accept more weight error
# where the activations are small.
#
# The zero point is worth its three or four bits per group. Asymmetric in groups of 128
# beats symmetric in groups of 64 with fewer bits:

per_error = [row["kl"] / row["weight_error"] ** 2 for row in rounding.rows]
print(f"KL / error²: {min(per_error):.2f} to {max(per_error):.2f}")
assert not published or max(per_error) < 1.25 * min(per_error)
rows = {(r["bits"], r["group_size"], r["symmetric"]): r for r in rounding.rows}
for bits in rounding.parameters["bits"]:
    if (bits, 128, False) in rows and (bits, 64, True) in rows:
        one, other = rows[bits, 128, False], rows[bits, 64, True]
        print(
            f"INT{bits}: {one['kl']:.4f} with {one['bits_per_weight']:.3f} bits, ", end=""
        )
        print(f"against {other['kl']:.4f} with {other['bits_per_weight']:.3f}")
        assert not published or one["kl"] + 3 * one["kl_error"] < other["kl"]

# %%
# A trap: groups of one sign
# --------------------------
# The quantizers of llm-awq and AutoAWQ take the smallest and largest weight as they are,
# without widening the range to hold zero. Then the zero point of a group that lies between
# 0.5 and 0.6 would have to be far below 0; it is clamped, and the codes with it. Their
# formula, written anew, and ours:

ones = torch.linspace(0.5, 0.6, 128)
step = (ones.max() - ones.min()).clamp(min=1e-5) / 15
zero = (-(ones.min() / step).round()).clamp(0, 15)
theirs = (((ones / step).round() + zero).clamp(0, 15) - zero) * step
ours = fake_quantize(ones[None], 128)[0]
for name, w in (("theirs", theirs), ("ours", ours)):
    largest = (w - ones).abs().max()
    print(f"{name:<6} {w.min():.3f} to {w.max():.3f}, largest error {largest:.3f}")
assert (ours - ones).abs().max() < 0.021 < 0.39 < (theirs - ones).abs().min()

family = family_of(model)
layers = [linear_of(block, n) for block in blocks_of(model, family) for n in family.linears]
for size in (32, 8):
    ranges = [layer.weight.unflatten(1, (-1, size)).aminmax(dim=2) for layer in layers]
    such = torch.cat([(low * high > 0).flatten() for low, high in ranges])
    count, share = int(such.sum()), such.float().mean()
    print(f"such groups of {size:>2} in this model: {count} of {len(such)}, {share:.1%}")
    assert (count > 0) == (size == 8)

# %%
# Trained linear layers hardly ever have such groups, which is why nobody trips over it.
# This model has none in groups of 32. A layer with an offset, or smaller groups, can have
# them. GPTQ's quantizer holds zero, as ours.
#
# Limits
# ------
# - One small model, whose weights have few outliers. On a large one a smaller group may
#   buy more. The KL divergence per squared error is this model's own.
# - Error bars are standard errors over windows of text; all points share their windows.
# - Bits per weight count the linear layers alone, with a scale of 16 bits and a zero point
#   of as many bits as a code. How INT3 is packed without waste is another question.
# - What a kernel makes of small groups or zero points, in time, is not asked here. Many
#   kernels know only some group sizes.
# - What to do about the weights that matter more than others:
#   :ref:`sphx_glr_gallery_quantization_plot_20_salient_channels.py`.

script.show({"rounded_group": picture, "kl_by_bits": by_bits}, options.output_dir)
