r"""
How does AWQ choose its scales?
===============================

Channels with large activations deserve finer steps
(:ref:`sphx_glr_gallery_quantization_plot_20_salient_channels.py`), so AWQ multiplies
their weights by a scale before rounding and divides their activations by it. But by which
number, for each of hundreds of channels? AWQ's answer is one exponent for all of them,
found by trying twenty. This page does it by hand for one layer, then looks at what the
search found in every block of a model, what it gained, and how sure it could be.
"""

# %%
# The idea
# --------
# Let :math:`s_X` be the mean magnitude of each input channel on some calibration text.
# The AWQ paper (section 3.2) takes :math:`s = s_X^\alpha`, and of the values 0, 0.05 ...
# 0.95 the one that changes the output least:
#
# .. math:: \| Q(W\,\mathrm{diag}(s))\,\mathrm{diag}(s)^{-1} X - W X \|^2
#
# Alpha = 0 is no scaling; 1 is never tried. All the scale has to go on is that channels
# differ. **Predict:** a block of a Llama has four inputs of linear layers. Here is how
# far the largest :math:`s_X` stands above the median one, block by block, in the small
# model that ships with awqdoc. Which input gains most from scaling, and which least?

from statistics import geometric_mean, median

import awqdoc
import torch
from awqdoc import models, quantize, script
from awqdoc import visualization as vis

parser = script.parser("Show which scales AWQ chooses, and what they gain.")
parser.add_argument("--model", help="search this one, as facebook/opt-125m; slow on a CPU")
parser.add_argument("--bits", type=int, default=4, choices=(4, 3), help="what is drawn")
options = script.parse(parser)

model, tokenizer = models.load()  # on the CPU, in float32
windows = models.calibration_windows(tokenizer, count=8)  # 8 x 512 tokens
blocks = model.model.layers
INPUTS = ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj")
seen = {}  # layer -> its input [tokens, K]


def keep(layer, inputs):
    seen[layer] = inputs[0].flatten(0, 1)


readers = [block.get_submodule(name) for block in blocks for name in INPUTS]
hooks = [layer.register_forward_pre_hook(keep) for layer in readers]
with torch.no_grad():
    before = model(windows).logits
for hook in hooks:
    hook.remove()

spread = {}
for name in INPUTS:
    means = [seen[block.get_submodule(name)].abs().mean(dim=0) for block in blocks]
    spread[name] = [float(s_x.max() / s_x.median()) for s_x in means]
    print(f"{name:<17}", "  ".join(f"{ratio:4.1f}" for ratio in spread[name]))

# %%
# One layer by hand
# -----------------
# The output projection of the first block's attention, in groups of 128 at 4 bits.

attention = blocks[0].self_attn
weight, x = attention.o_proj.weight.detach(), seen[attention.o_proj]  # [N, K], [tokens, K]
statistics = quantize.InputStatistics("o_proj")
statistics.add(x)
loss = quantize.gram_loss([weight], statistics.gram, statistics.tokens, group_size=128)
found = quantize.search_scale(loss, quantize.candidates(statistics.mean_abs))
print(f"alpha {found.alpha} leaves {min(found.losses) / found.losses[0]:.2f} of the error")

# %%
# The twenty candidates are powers of one vector. Each is divided by the root of its
# largest value times its smallest, which changes nothing but keeps FP16 in its range.
# The loss is computed with a trick. With E for the rounding error of the weight, the
# squared output error over all tokens is trace(E (X^T X) E^T): the tokens enter only
# through the Gram matrix X^T X, [K, K], which does not depend on alpha. The references
# multiply every token for every alpha; this costs K rows of work however long the text.

power = statistics.mean_abs**found.alpha
torch.testing.assert_close(found.scale, power / (power.max() * power.min()).sqrt())

error = quantize.fake_quantize(weight * found.scale, 128) / found.scale - weight
by_token = float((x @ error.T).square().mean())
by_gram = loss(found.scale)
print(f"from {len(x)} tokens {by_token:.4e}, from {weight.shape[1]} rows {by_gram:.4e}")
assert abs(by_gram / by_token - 1) < 1e-3

# %%
# Nothing is left to compute
# --------------------------
# Dividing the activations would cost a little for every token. Instead whatever makes
# them is divided once: rows of the value projection for this layer, rows of the up
# projection for the down projection, the norm's weight for the other two inputs. The
# model computes what it did before, up to rounding in float32; only now its weights are
# easier to round.

with torch.no_grad():
    attention.v_proj.weight.div_(found.scale[:, None])
    attention.o_proj.weight.mul_(found.scale)
    after = model(windows[:1]).logits
moved = float((after - before[:1]).norm() / before[:1].norm())
low, high = found.scale.aminmax()
print(f"scales from {low:.2f} to {high:.2f} change the logits by {moved:.0e}")
assert moved < 1e-5

# %%
# Every block
# -----------
# The same search for each input of each block, on 64 windows. For the output and the down
# projection the error is that of the layer, as above. For query, key and value it is
# attention's, and for gate and up the whole MLP's, as in the references; these are not
# linear, so the trick does not help, and the module runs on every token. Dots are the
# alphas chosen; curves that leave the panel do worse than no scaling.

chosen = {"model": [options.model], "bits": [options.bits]} if options.model else {}
search = awqdoc.measure("alpha", **chosen)
name = search.parameters["model"][0]
curves = vis.plot_scale_search(search, name, options.bits)

# %%
# What surprised us
# -----------------
# Nearly all of the gain is in one place, attention's input, which is also where channels
# differ most; the last two blocks, where they differ little, gain little there too. Gate
# and up together have more weights than query, key and value, and gain next to nothing.
#
# And the optimum is often flat. In the MLP a third of the grid or more lies within 1 % of
# the best (the table's last column). Which alpha wins there the last digits decide, so
# two correct programs may disagree and be equally good. INT3 mostly chooses another alpha
# than INT4; compare also the two for the layer above, found on more and on less text.

plain = vis.relative_losses(search, name, options.bits, duo_scaling=False)
left = {layer: geometric_mean(map(min, losses)) for layer, losses in plain.items()}
if not chosen:
    losses = plain["self_attn.o_proj"][0]
    print(f"above: alpha {found.alpha}; recorded: {losses.index(min(losses)) / 20}")
published = not chosen and options.bits == 4 and search.origin == "recorded"
if published:
    typical = {layer: median(ratios) for layer, ratios in spread.items()}
    assert max(typical, key=typical.get) == min(left, key=left.get) == "self_attn.q_proj"
    assert min(typical, key=typical.get) == max(left, key=left.get) == "mlp.gate_proj"
    assert left["self_attn.q_proj"] < 0.8 < 0.97 < left["mlp.gate_proj"]
    assert max(map(min, plain[INPUTS[0]][:-2])) < min(map(min, plain[INPUTS[0]][-2:]))
    for layer in ("mlp.gate_proj", "mlp.down_proj"):
        assert median(map(vis.near_ties, plain[layer])) >= 20 / 3
    at = [[r["alpha"] for r in search.select(bits=[b], model=[name]).rows] for b in (4, 3)]
    assert sum(one == other for one, other in zip(*at, strict=True)) < len(at[0]) / 2

script.display(vis.scale_table(search, name))

# %%
# Duo scaling, and outliers
# -------------------------
# AutoAWQ's default is another formula, :math:`s = s_X^\alpha / (s_W^{1-\alpha} + 10^{-4})`
# with :math:`s_W` the mean of a channel's weights, each relative to the largest of its
# group. At alpha = 0 it divides by :math:`s_W`: *no scaling* is not on its grid. Mostly
# it leaves a little less error here.
#
# ``embedded+outliers`` is the same model with a few channels behind each norm made 30
# times larger and the weights that read them 30 times smaller. (A rescaling of ours; that
# AWQ can undo it says nothing about large models, whose outliers are trained.) Rounded
# without scales it errs much more, and plain AWQ wins that back with larger alphas. Duo
# scaling does not even notice: such a channel gets :math:`30^\alpha` from the first
# factor and :math:`30^{1-\alpha}` from the second, together 30, whatever alpha is.

duo = vis.plot_duo_scaling(search, next(iter(plain)), options.bits)

with_duo = vis.relative_losses(search, name, options.bits, duo_scaling=True)
pairs = [p for layer in plain for p in zip(plain[layer], with_duo[layer], strict=True)]
wins = sum(min(better) < min(losses) for losses, better in pairs)
print(f"duo scaling leaves less error for {wins} of {len(pairs)} inputs of {name}")
if published:
    assert wins > len(pairs) / 2
    both = search.parameters["model"]
    one, other = (vis.mean_losses(search, m, 4, False)[INPUTS[0]] for m in both)
    assert other[0] > 1.5 * one[0] > 1.5 * min(other)
    one, other = (vis.mean_losses(search, m, 4, True)[INPUTS[0]] for m in both)
    assert max(abs(a / b - 1) for a, b in zip(one, other, strict=True)) < 0.05

# %%
# Limits
# ------
# - What is minimised is the squared error of one module on the calibration text. Whether
#   the model's predictions follow is the question of
#   :ref:`sphx_glr_gallery_quantization_plot_60_accuracy.py`.
# - All channels share one alpha: a better scale that is no power of :math:`s_X` is not
#   found. Some optima lie at the grid's end, and alpha = 1 might be better still.
# - The curves are jagged, since another alpha rounds every weight anew. In layers as
#   small as these that is part of what *best of twenty* gains.
# - Each scale is searched as if all other layers stayed unrounded.
# - Folding rounds, too: a model in FP16 holds the scaled weights in FP16.
# - Clipping is left out here; :ref:`sphx_glr_gallery_quantization_plot_40_clipping.py`
#   looks at it alone.

script.show({"scale_search": curves, "duo_scaling": duo}, options.output_dir)
