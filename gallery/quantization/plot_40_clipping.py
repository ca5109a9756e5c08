r"""
Why throw away the largest weights?
===================================

After scaling, AWQ looks at every group of weights once more and may clamp the largest to
a smaller value. That looks like damage done on purpose. This page shows what one group
buys with it, where the small model that ships with awqdoc is clipped, what that gains,
why two kinds of layers are left alone, and a trap.
"""

# %%
# One group
# ---------
# The values that a group's weights can become reach, to within half a step, from its
# smallest weight to its largest, so a single large one widens the steps for all. Clamping
# it makes them finer again. The search tries ten thresholds, 1, 0.95 ... 0.55 times the
# largest magnitude, and keeps the one that, after rounding, changes the group's *partial
# sum* least on calibration text: its part of the output, the sum of its 128 weights times
# their inputs. Here is the first group of a gate projection, at 3 bits, since eight values
# are easier to see than sixteen. Purple weights are clamped.

import copy
from statistics import geometric_mean

import awqdoc
import torch
from awqdoc import models, script
from awqdoc import visualization as vis
from awqdoc.models import walk
from awqdoc.quantize import clamp_groups, fake_quantize, round_to_nearest, search_clip

parser = script.parser("Show where AWQ clips weights, and what it gains.")
parser.add_argument("--model", help="clip this one, as facebook/opt-125m; slow on a CPU")
parser.add_argument("--bits", type=int, default=3, choices=(4, 3), help="in the picture")
options = script.parse(parser)

model, tokenizer = models.load()  # on the CPU, in float32
windows = models.calibration_windows(tokenizer, count=8)  # 8 x 512 tokens
layer, seen = model.model.layers[3].mlp.gate_proj, []
layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
with torch.no_grad():
    model.model(windows)
weight = layer.weight.detach()  # [N, K]
x, other = seen[0][:6].flatten(0, 1), seen[0][6:].flatten(0, 1)  # [tokens, K]
gram, here = x.T @ x, vis.Here.now()  # gram [K, K]
group = vis.clipped_group(weight[0, :128], gram[:128, :128], options.bits)
picture = vis.plot_clipped_group(group, here)

# %%
# Finer steps lose less by rounding; clamping loses more. The two do not just add up, since
# the errors are squared, and as every threshold rounds all weights anew, the total is not
# smooth. Of the inputs it needs the group's block of the Gram matrix X^T X, over all T
# tokens; the reference programs, llm-awq and AutoAWQ, take about 512, every (T // 512)-th.

best = min(group, key=lambda row: row["loss"])
moved = x[:, :128] @ (torch.tensor(best["rounded"]) - weight[0, :128])
assert abs(float(moved.square().sum()) / best["loss"] - 1) < 1e-3

# %%
# All groups
# ----------
# **Predict:** is more clipped at 4 bits or at 3? In groups of 128 or of 32? And which
# layers gain most? Recorded is clipping alone, without scaling, on 64 windows.

chosen = {"model": [options.model]} if options.model else {}
clipping = awqdoc.measure("clipping", **chosen)
thresholds = vis.plot_thresholds(clipping)

# %%
# The table has the squared output error of whole layers, at which the search does not look.
# Every kind gains, value and output projections most. Clipping costs no byte; groups of 32
# cost almost half a bit per weight, and gain more.

cells = [(bits, size) for bits in (4, 3) for size in (128, 32)]
means = {}
for cell in cells:
    gains = vis.clipping_gains(clipping, *cell)
    means[cell] = {name: geometric_mean(by_block) for name, by_block in gains.items()}
for bits in (4, 3):
    sizes = [clipping.select(bits=[bits], group_size=[size]).rows for size in (128, 32)]
    finer = geometric_mean(b["loss"] / a["loss"] for a, b in zip(*sizes, strict=True))
    clipped = geometric_mean(means[bits, 128].values())
    print(f"INT{bits}: clipping leaves {clipped:.2f}; groups of 32 instead, {finer:.2f}")
    assert chosen or finer < clipped
if not chosen and clipping.origin == "recorded":
    for name in means[4, 128]:
        four, four_small, three, three_small = (means[cell][name] for cell in cells)
        assert three < min(four, three_small) <= max(four, three_small) < four_small < 1
    most = sorted(means[4, 128], key=means[4, 128].get)
    assert set(most[:2]) == {"self_attn.v_proj", "self_attn.o_proj"}
    assert vis.threshold_shares(clipping, 3, 128)[0] < 0.1  # unclipped: see below

script.display(vis.clipping_table(clipping))

# %%
# A bell, not outliers
# --------------------
# What surprised us: at 3 bits nearly every group of 128 is clipped, and that needs no rare
# large weights. Trained weights are spread like a bell, and of 128 draws from a bell the
# largest lies far out, where few others are. *Random* normal weights with the same inputs
# are clipped at the same distance and gain as much. The wider steps of 3 bits make it pay
# to cut more of the tail; small groups do not reach far out to begin with. Weights spread
# evenly have no tail: they gain what the best of ten roundings is better than the first.


def error_left(kept, weight, gram, bits):
    """Squared output error with `kept` rounded, over that with `weight` rounded."""
    errors = [fake_quantize(w.float(), 128, bits) - weight for w in (kept, weight)]
    after, before = (float(((error @ gram) * error).sum()) for error in errors)
    return after / before


LEFT = "Squared error left"
torch.manual_seed(0)
bell, even = torch.randn_like(weight), torch.rand_like(weight) - 0.5
rows = []
for bits in (4, 3):
    left, far = {}, {}
    for kind, w in {"trained": weight, "normal": bell, "even": even}.items():
        limit = search_clip(w, gram, 128, bits)
        left[kind] = error_left(clamp_groups(w, limit), w, gram, bits)
        far[kind] = float(limit.mean() / w.std())
        rows.append([bits, kind, f"{far[kind]:.1f} std", f"{left[kind]:.2f}"])
    assert abs(far["normal"] - far["trained"]) < 0.1
    assert abs(left["normal"] - left["trained"]) < 0.04 < left["even"] - left["normal"]
script.display(vis.Table(["bits", "weights", "clipped at, mean", "left"], rows, here, LEFT))

# %%
# Why not queries and keys?
# -------------------------
# The references skip them: they meet in a product, which makes precise clipping hard, says
# a comment in llm-awq. A search over their own sums knows nothing of product and softmax.
# Clip just these two, at 3 bits, and compare what is left of the squared error of queries,
# keys and attention's output (on two windows, searched and judged on the same):

rows = []
for place, block, observed in walk.observations(model, windows[:2], batch=2):
    (call,) = observed.calls["self_attn"]
    gram_q = observed.statistics["self_attn.q_proj"].gram
    errors, left = [], []
    for clip in (False, True):
        changed = copy.deepcopy(block.self_attn).requires_grad_(False)
        for linear in (changed.q_proj, changed.k_proj):
            w = linear.weight.clone()
            kept = clamp_groups(w, search_clip(w, gram_q, 128, 3)) if clip else w
            linear.weight.copy_(fake_quantize(kept, 128, 3))
            left += [error_left(kept, w, gram_q, 3)] if clip else []
        errors.append(float((walk.run(changed, [call])[0] - call.output).square().mean()))
    left.append(errors[1] / errors[0])
    rows.append([place, *(f"{value:.2f}" for value in left)])
    assert max(left[:2]) < 1
    assert place != "model.layers.0" or left[2] > 1.5
assert sum(float(row[3]) < 1 for row in rows) > len(rows) / 2
script.display(vis.Table(["block", "q", "k", "attention"], rows, here, LEFT))

# %%
# In the first block attention gets much worse, although queries and keys get better. Most
# other blocks would gain; the rule is caution, not law.
#
# The trap of the half code
# -------------------------
# A group clamped on both sides reaches from -t to t, so its zero point lies half way
# between two codes, at 3.5 or 7.5. The last bit of t decides to which side it is rounded:
# in the picture are four values below zero and three above. Rounding t to FP16 after the
# search puts some groups on the side not tried; rounded before, t is tried as it is used.

half, rows = weight.half(), []  # as a model on a GPU holds it; nothing is lost
for bits in (4, 3):
    late, early = search_clip(weight, gram, 128, bits), search_clip(half, gram, 128, bits)
    kept = [clamp_groups(weight, late), clamp_groups(half, late), clamp_groups(half, early)]
    zeros = [round_to_nearest(w.float().T, 128, bits).zeros for w in kept]
    left = [error_left(w, weight, gram, bits) for w in kept]
    moved = f"{(zeros[0] != zeros[1]).float().mean():.1%}"
    rows.append([bits, *(f"{value:.3f}" for value in left), moved])
    assert left[2] < left[1]
columns = ["bits", "float32", "FP16 after", "FP16 before", "zero points moved after"]
script.display(vis.Table(columns, rows, here, LEFT))

# %%
# And which tokens does the search have to see? Six times as many leave about 1 % less error
# at 3 bits, judged on the 3072 tokens and on 1024 others:

few = x[:: len(x) // 512]  # every (T // 512)-th, as the reference programs take
kept = [clamp_groups(weight, search_clip(weight, y.T @ y, 128, 3)) for y in (few, x)]
for judge in (x, other):
    less, more = (error_left(w, weight, judge.T @ judge, 3) for w in kept)
    print(f"judged on {len(judge)}: {less:.3f} left by {len(few)}, {more:.3f} by {len(x)}")
    assert 0.98 < more / less < 1

# %%
# Limits
# ------
# - The search minimises each group's own error. In the layer the errors of all groups add
#   up with signs; the tables show that this works out, not that it must.
# - The 1024 others are from the same source; thresholds fit what was seen.
# - Clipping after scaling, as AWQ does it, gains another amount than clipping alone.
# - A smaller output error of every layer is not yet a better model:
#   :ref:`sphx_glr_gallery_quantization_plot_60_accuracy.py`.

script.show({"clipped_group": picture, "thresholds": thresholds}, options.output_dir)
