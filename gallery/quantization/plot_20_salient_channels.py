r"""
Do 1 % of the weights matter?
=============================

The AWQ paper (Lin et al., arXiv 2306.00978) begins with a puzzle. Round a model to INT3
and it breaks; keep 1 % of its input channels in FP16 and it is nearly whole again. But
only the right 1 %: the channels that carry large activations. To choose those with large
weights helps no more than to choose blindly.

Is that so in a model that you can run on a laptop? And why does AWQ, which found these
channels, keep none of them in FP16?
"""

# %%
# Predict
# -------
# The model that ships with awqdoc is a Llama of 8 blocks with 256 channels. Every linear
# layer is rounded to INT3 in groups of 128, except for a share of its *input channels*
# (columns of the weight), which stay as they are. Distance from the original is the KL
# divergence of its predictions to FP16 on held-out text (Python's documentation and
# code). Channels are picked
#
# - by **activation**: largest mean magnitude on calibration text;
# - by **weight norm**: largest norm of the column;
# - at **random**: five draws.
#
# Suppose that all channels mattered alike: to keep 1 % would take away about 1 % of the
# KL divergence, to keep 10 % about 10 %. How far above that do you expect each pick?
#
# Measure
# -------
# Two versions of the model. *As trained* (``embedded``) it has few outliers, as small
# models do. *With added outliers* (``embedded+outliers``) 1 % of the channels behind each
# norm are 30 times larger and the weights that read them 30 times smaller: in FP16 it
# computes the same; rounded, it does not.

from math import log
from statistics import mean

import awqdoc
import torch
from awqdoc import models, script
from awqdoc import visualization as vis
from awqdoc.quantize import fake_quantize

parser = script.parser("Keep a few input channels in FP16, or scale them, at INT3.")
parser.add_argument(
    "--shares", nargs="+", type=float, help="new: slow on a CPU; dotted lines need 0.01"
)
options = script.parse(parser)

chosen = {"share": options.shares} if options.shares else {}  # all that is published
salient = awqdoc.measure("salient", **chosen)
shares = sorted(salient.parameters["share"])
published = not chosen and salient.origin == "recorded"

kept = vis.plot_salient(salient)

# %%
# Bars are standard errors over windows of text, hardly larger than the markers. All points
# share their windows, so two of them differ more surely than their bars tell. As shares of
# the KL divergence, with the error of the comparison window by window:

script.display(vis.salient_table(salient))

# %%
# Activation finds channels that matter; weight norm does not. What it gains is near what
# random picks gain: at 1 % a little more than any draw, at 10 % less than any. Random picks
# gain a little more than their share.

for model in salient.parameters["model"]:
    for share in shares:
        activation, weight, random = (
            [removed for removed, _ in vis.kl_removed(salient, model, share, pick)]
            for pick in ("activation", "weight", "random")
        )
        ahead = activation[0] - mean(random)
        assert not published or activation[0] > 1.5 * max(random)
        assert not published or abs(weight[0] - mean(random)) < ahead / 3
        apart = {0.01: weight[0] - max(random), 0.1: min(random) - weight[0]}.get(share, 1)
        assert not published or (apart > 0 and share < mean(random) < 1.4 * share)

# %%
# How few are the few?
# --------------------
# What each channel picked by activation is worth, in channels picked at random (the mean of
# the largest share):

channels = {row["share"]: row["channels"] for row in salient.rows if row["pick"] != "none"}
for model in salient.parameters["model"]:
    draws = vis.kl_removed(salient, model, shares[-1], "random")
    one = mean(removed for removed, _ in draws) / channels[shares[-1]]
    gained, before, worth = 0.0, 0.0, []
    for low, share in zip([0.0, *shares], shares, strict=False):
        ((removed, _),) = vis.kl_removed(salient, model, share, "activation")
        added = channels[share] - before
        worth.append((removed - gained) / added / one if added else worth[-1])
        gained, before = removed, channels[share]
        print(f"{model:<17} {100 * low:g} to {100 * share:2g} %: {worth[-1]:4.1f} each")
    assert not published or (worth[0] > 5 and worth[-1] < 2)

# %%
# So a small set of channels matters several times as much as others; beyond 3 % the next
# ones are ordinary. That much of the claim holds here. Its size does not. The paper gives
# perplexities, so compare the loss itself: the extra negative log-likelihood in nats per
# token, and the share of it that 1 % takes away (for the paper's models from the logarithm
# of the perplexities in its table 1):

nll = {(row["model"], row["share"], row["pick"]): row["extra_nll"] for row in salient.rows}
for model in salient.parameters["model"]:
    cost, left = (nll[model, shares[0], pick] for pick in ("none", "activation"))
    saved = f"{100 * shares[0]:g} % kept saves {1 - left / cost:.0%} of it"
    print(f"{model:<17} INT3 costs {cost:.2f}; {saved}")
    assert not published or left > cost / 2
PAPER = {"OPT-1.3B": (14.62, 119.0, 16.91), "OPT-6.7B": (10.86, 23.54, 11.39)}
for name, (fp16, int3, mixed) in PAPER.items():
    cost, back = log(int3 / fp16), 1 - log(mixed / fp16) / log(int3 / fp16)
    print(f"{name} (paper)  INT3 costs {cost:.2f}; 1 % kept saves {back:.0%} of it")

# %%
# Do not keep them: scale them
# ----------------------------
# FP16 columns among INT3 ones are awkward for a kernel. AWQ rounds everything. It
# multiplies the weights of the salient channels by s before rounding, and divides their
# activations by s. (Here the rounded weights are divided instead; the output is the same.)
# Rounding errs by a quarter of a step on average, wherever a weight lies; divided by s, the
# error is 1/s as large, as long as the step stays the same. It does not quite: a weight
# times s may become the minimum or maximum of its group, whose step then grows for all 128.
# So the salient channels' error follows *step ratio / s*, that of the others the *step
# ratio*, and the best s lies in between. In the form of the paper's table 2:

scaling = awqdoc.measure("scaling")
script.display(vis.scaling_table(scaling, "embedded"))

# %%
# In the next figure the dotted lines are *modelled*: KL grows with the square of a small
# error. What is left of it with the salient channels in FP16 belongs to the other channels,
# the difference to the salient ones; the two columns of ratios say how each part changes.
# (Drawn up to s = 2; bars are standard errors of the ratio, window by window.)

scaled = vis.plot_scaling(scaling, salient)

rows = {(row["model"], row["factor"]): row for row in scaling.rows}
for model in scaling.parameters["model"]:
    plain = rows[model, 1]
    best = min(scaling.parameters["factor"], key=lambda s: rows[model, s]["kl"])
    reached, error = vis.paired_ratio(rows[model, best], plain)
    print(f"{model:<17} best s = {best:g}: {reached:.1%} ± {error:.1%} of KL", end="")
    modelled = vis.scaled_kl(scaling, salient, model) or {1: plain["kl"]}
    at = min(modelled, key=modelled.get)
    promised = modelled[at] / plain["kl"]
    print(f"; best modelled: {promised:.1%} at s = {at:g}" if len(modelled) > 1 else "")
    if model == "embedded":
        assert not published or (1 < best < 2 and reached < 1 - 3 * error)
    else:
        assert not published or promised < 0.9 < 0.99 < reached

# %%
# As trained, the best s is an interior one, as in the paper; the gain is small, because
# most of the KL divergence belongs to the other channels, which pay with a larger step.
# With added outliers the analysis promises more, and nothing comes. Look at the weights
# that read the outliers, for instance in the first block's up projection (computed here):

both = models.load()[0], models.add_outliers(models.load()[0])
before, after = (model.model.layers[0].mlp.up_proj.weight.detach() for model in both)
outlier = after.norm(dim=0) < before.norm(dim=0) / 2
for name, weight in (("as trained", before), ("with added outliers", after)):
    plain = (fake_quantize(weight, 128, bits=3) - weight)[:, outlier].abs().mean()
    for s in (1, 2, 32):
        scale = torch.where(outlier, float(s), 1.0)
        rounded = fake_quantize(weight * scale, 128, bits=3) / scale
        error = (rounded - weight)[:, outlier].abs().mean() / plain
        zero = (rounded[:, outlier] == 0).float().mean()
        print(f"{name:<19} s = {s:>2}: error {error:.2f}, rounded to zero {zero:4.0%}")
        assert weight is before or s > 2 or zero == 1

# %%
# What surprised us
# -----------------
# Every weight that reads an outlier is rounded to zero. The error of a weight far below
# half a step is the weight itself, not a quarter of a step, and s = 2 changes nothing.
# Only a large s, as the 32 above, does. One s for all salient channels of all
# layers cannot serve both these and ordinary ones. AWQ gives each channel its own, found
# by a search: :ref:`sphx_glr_gallery_quantization_plot_30_scale_search.py`.
#
# Limits
# ------
# - 7.8 M parameters: in 256 channels 1 % are 3 (in the 768 of a down projection, 8), and
#   the paper's 0.1 % cannot be tried.
# - The outliers are added by a rescaling, so that the weights behind them are small by
#   construction: picks by weight norm must miss them, and scales can undo them. Neither
#   is evidence for large models, whose weights and outliers were trained together.
# - The paper's numbers are perplexities of OPT at INT3 on WikiText; ours are for other
#   text, another architecture and a model that loses far less at INT3 to begin with.
# - INT3 makes the effect large. What is lost at INT4, where most models run, is less:
#   :ref:`sphx_glr_gallery_quantization_plot_60_accuracy.py`.
# - The modelled lines take the mean step ratio for every group and a small error for
#   granted. Squares of ratios have a larger mean, so the true cost of a large s is higher.

script.show({"kept_in_fp16": kept, "scaled": scaled}, options.output_dir)
