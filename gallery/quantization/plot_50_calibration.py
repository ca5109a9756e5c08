r"""
How much calibration text does AWQ need?
========================================

And of which kind? AWQ and GPTQ both run the model on some text before they round. The
AWQ paper says that AWQ needs a tenth of the text that GPTQ needs, and minds less whether it
is the right text. We calibrate both on code, on documentation and on random tokens.
"""

# %%
# Predict
# -------
# From the text AWQ takes the mean magnitude of each input channel, and the output error of
# layers by which to choose among twenty scales and a few clipping thresholds. GPTQ takes
# the Gram matrix X^T X of a layer's inputs, whose eigenvalues say how strong each direction
# is, and follows it wherever it leads. With few tokens a mean is soon right; a K × K matrix
# is not. With independent inputs and all directions of strength 1, theory says how wrong
# (0.00: fewer tokens than channels, so some direction was never seen):

import math
from statistics import median

import awqdoc
import torch
from awqdoc import models, script
from awqdoc import visualization as vis
from awqdoc.models import walk

print("modelled: what T tokens show of K channels, all directions of strength 1")
for k in (256, 768, 4096):
    for t in (512, 128 * 512):
        off, spread = math.sqrt((math.pi / 2 - 1) / t), math.sqrt(k / t)
        low, high = max(0, 1 - spread) ** 2, (1 + spread) ** 2
        size = f"K = {k:>4}, T = {t:>5}"
        print(f"{size}: means off by {off:.1%}, strengths {low:.2f} to {high:.2f}")

# %%
# So one window of 512 tokens may do for AWQ and cannot for GPTQ; and a layer of 4096 inputs
# asks more of 128 windows than one of 256 does.
#
# What the paper measured (its Figure 8; OPT-6.7B, INT3-g128): AWQ does better with 16
# sequences than GPTQ with 192. Calibrated on the wrong text, biomedical abstracts (PubMed)
# for e-mails (Enron) or the reverse, AWQ's perplexity rises by 0.5 to 0.6 and GPTQ's by
# 2.3 to 4.9. **Predict:** with 128 windows of the right text, which of the two is better
# on our small model?
#
# Measure
# -------
# INT3 with a group size of 128, as in the paper; at INT4 there is less to see. The model
# is the one that ships with awqdoc, trained on Python's library; the texts are from other
# modules of it. Judged is the KL divergence to FP16 on 48 unseen windows of 1024 tokens.

parser = script.parser("Calibrate AWQ and GPTQ on more and less text, right and wrong.")
parser.add_argument("--model", default="embedded", help="a name or a folder")
parser.add_argument("--domains", nargs="+", choices=("code", "docs", "random"))
parser.add_argument("--windows", nargs="+", type=int, help="of 512 tokens, 1 to 128")
options = script.parse(parser)

axes = {"domain": options.domains, "windows": options.windows}
chosen = {axis: values for axis, values in axes.items() if values}
result = awqdoc.measure("calibration", model=options.model, **chosen)

# The prose speaks of the published run, and the assertions hold it to that one only.
ours = options.model == "embedded" and not chosen
published = ours and result.origin == "recorded"
domains, windows = result.parameters["domain"], sorted(result.parameters["windows"])
few, many = windows[0], windows[-1]
texts = [text for text in ("code", "docs") if text in domains]
rows = {(r["method"], r["domain"], r["windows"], r["text"]): r for r in result.rows}
on_code = vis.plot_calibration(result, "code")

# %%
# Bars are standard errors over the windows judged on, most smaller than their marker.
# The same judged on documentation:

on_docs = vis.plot_calibration(result, "docs")

# %%
# How much
# --------
# AWQ is almost done after its first window. GPTQ with one window is worse than plain
# rounding, which needs no text at all, and gains as it gets more. So the first half of
# the paper's claim holds here: AWQ needs far less text to do as well as it can.

for method in ("awq", "gptq"):
    for text in texts:
        rtn = vis.rounded_row(result, text)["kl"]
        less, more = (rows[method, text, count, text]["kl"] for count in (few, many))
        ends = f"KL {less:.3f} with {few}, {more:.3f} with {many} windows"
        print(f"{method:<4} for {text}: {ends}; rounding {rtn:.3f}")
        held = less < 1.1 * more if method == "awq" else less > 1.2 * rtn > more
        assert held or not published, (method, text, less, more)

# %%
# Which kind
# ----------
# *Matched* is calibrated on what it is judged on, *mismatched* on the other of the two.

script.display(vis.calibration_table(result))

# %%
# What the wrong text costs, window by window: in KL divergence, and in NLL per token, the
# logarithm of the paper's perplexities (right text, wrong text; its Figure 8b).

PAPER = {"awq": ((32.56, 33.16), (44.57, 45.07)), "gptq": ((32.48, 34.81), (45.52, 50.41))}
cost = {}
for method, pairs in PAPER.items():
    for text, other in (("code", "docs"), ("docs", "code")) if len(texts) == 2 else ():
        wrong, right = (rows[method, domain, many, text] for domain in (other, text))
        kl, kl_error = vis.paired_difference(wrong, right)
        nll, nll_error = vis.paired_difference(wrong, right, "nll")
        cost[method, text] = kl, nll
        assert not published or (nll > 2 * nll_error) == (method == "gptq"), cost
        errors = f"KL {kl:+.3f} ± {kl_error:.3f}, NLL {nll:+.3f} ± {nll_error:.3f}"
        print(f"{method:<4} for {text}: {errors}")
    pubmed, enron = (math.log(wrong / right) for right, wrong in pairs)
    print(f"{method:<4} in the paper: NLL {pubmed:+.3f} on PubMed, {enron:+.3f} on Enron")
pairs = [(cost["gptq", t][i], cost["awq", t][i]) for t in texts for i in (0, 1) if cost]
assert all(gptq > 3 * awq for gptq, awq in pairs) or not published, cost

# %%
# The wrong text costs GPTQ several times what it costs AWQ, by either measure: the second
# half holds too. GPTQ pays less than in the paper, perhaps because our two texts are less
# far apart: both are about Python. For AWQ the cost is seen in the KL divergence; in NLL it
# is less than two of its errors.
#
# Random tokens
# -------------
# Tokens drawn from the vocabulary with equal chances are no text at all, and with them
# AWQ gets most of what it gains over rounding. Why? Perhaps because it depends more on
# the model than on the text which channels are large. We can look: take the mean
# magnitude of each input channel on code and on something else, and correlate their
# logarithms, layer by layer.

for text in texts if "random" in domains else ():
    kl = vis.rounded_row(result, text)["kl"]
    gains = [kl - rows["awq", domain, many, text]["kl"] for domain in ("random", text)]
    print(f"AWQ for {text}: random tokens bring {gains[0] / gains[1]:.0%} of the gain")
    assert gains[0] > gains[1] / 2 or not published, gains


def magnitudes(tokens):
    blocks = (seen.statistics for _, _, seen in walk.observations(model, tokens, batch=4))
    return [x.mean_abs.clamp_min(1e-6).log() for block in blocks for x in block.values()]


device = "cuda" if torch.cuda.is_available() else "cpu"
model, tokenizer = models.load(options.model, device)
code, docs = (models.calibration_windows(tokenizer, t, count=4) for t in ("code", "docs"))
seed = torch.Generator().manual_seed(0)
noise = torch.randint(model.config.vocab_size, code.shape, generator=seed)
cells = []
for name, tokens in {"docs": docs, "random tokens": noise}.items():
    pairs = zip(magnitudes(code), magnitudes(tokens), strict=True)
    alike = [torch.corrcoef(torch.stack(pair))[0, 1].item() for pair in pairs]
    cells.append([name, f"{min(alike):.2f}", f"{median(alike):.2f}", f"{max(alike):.2f}"])
    assert median(alike) > 0.5 or not published, alike
columns = ["code and", "least alike layer", "median", "most alike layer"]
script.display(vis.Table(columns, cells, vis.Here.now(device), "Correlation of magnitudes"))

# %%
# In most layers the same channels are large whatever the text, even with random tokens; in
# a few they are not. Random tokens show every direction a little, which for GPTQ at eight
# windows is worth more than as much of the wrong text (figures above); at 128 it is not.
#
# Where GPTQ is better
# --------------------
# A method is named where it is better by more than twice the error of the difference.

for text in texts if published else ():
    better = {(d, w): vis.verdict(result, text, d, w) for d in domains for w in windows}
    assert [cell for cell, found in better.items() if found[0] != "awq"] == [(text, many)]
    wrong = better["docs" if text == "code" else "code", many][1]
    assert 0 < wrong < -better[text, many][1], better

script.display(vis.verdict_table(result))

# %%
# AWQ is better everywhere but in one corner, 128 windows of the right text, and there GPTQ
# is clearly better. *Robust* says that AWQ changes little, not that it ends lower: in the
# paper's own table the two are level on PubMed where the text is right (32.56 and 32.48).
#
# On large models the paper finds AWQ ahead at INT3-g128. That GPTQ is ahead here may come
# from K, which is 256 or 768, so that 128 windows show the Gram matrix well (above); from
# GPTQ's showing each block what the blocks before it became; or from channels that differ
# less than a large model's. The last we could try, and it is enough:
# :ref:`sphx_glr_gallery_quantization_plot_65_awq_or_gptq.py`.
#
# So: with little text, or not knowing what the model will be used for, AWQ. With much text
# of the right kind try GPTQ as well, and judge both on text that neither saw.
#
# Limits
# ------
# - One small model, two texts with one subject. Texts farther apart may cost more.
# - One draw of calibration text for each point: error bars hold the spread over what is
#   judged, not that over calibration texts.
# - Our windows have 512 tokens, the paper's sequences 2048. GPTQ runs without activation
#   order (important channels first), which mostly helps it in the paper's Table 4.

script.show({"calibration_code": on_code, "calibration_docs": on_docs}, options.output_dir)
