r"""
Where INT4 stops paying
=======================

INT4 saves reading, and nothing else: it pays as long as reading is what takes the time. So
what ends its lead? More users, longer texts, prompts, or a kernel that was made for few?
"""

# %%
# Predict
# -------
# A Llama-3-8B whose linear layers are INT4 decodes for 1, 2, 4, ... 64 users at a time. Up
# to which batch is it faster than FP16, and do all INT4 kernels agree? Then: which of these
# can end its lead, and which only shrink it? A long text, whose cache is FP16 in both; a
# prompt, which is arithmetic; attention, which takes what it took before.

from math import ceil
from statistics import median

import awqdoc
from awqdoc import script
from awqdoc import visualization as vis
from awqdoc.experiments.decode import CONTEXT, PROMPTS
from awqdoc.kernels.table import LADDER
from awqdoc.models.decoding import budget, llama_3_8b

options = script.parse(script.parser("Up to which batch does a whole model gain by INT4?"))
timed, kernels = awqdoc.measure("decode"), awqdoc.measure("kernels")
published = timed.origin == kernels.origin == "recorded"
llama, batches, tried = llama_3_8b(), timed.parameters["batch"], kernels.parameters["m"]
FP16, TOP, MARLIN = ("fp16", "fp16"), (LADDER[-1], "fp16"), ("gptqmodel_marlin", "fp16")
ENDS = "4096x4096", "28672x4096"  # the smallest product of a layer and the largest
print(f"whole model: {timed.label}\nsingle products: {kernels.label}")

# %%
# Over the batch
# --------------
# A step is a CUDA graph, each user has 1024 tokens in the cache, FP16 is cuBLAS's. Dotted:
# what the bytes would allow, the same for both kernels if lm_head is FP16.

speedup = vis.plot_step_speedup(timed)
samples, gains = vis.step_samples(timed), vis.step_speedups(timed)
paying = vis.pays_until(timed)
for model, last in paying.items():
    told = f"up to a batch of {last}" if last else "at no batch"
    print(f"{vis.decode_title(model)}: faster {told}, of those up to {batches[-1]}")
print(vis.decode_untimed(timed), end="")
assert not published or (paying[TOP], paying[MARLIN]) == (batches[-1], 32)

# %%
# **It depends on the kernel.** Our last step is faster at every batch that we timed, by
# less and less. vLLM's Marlin is slower than FP16 for 64 users on this GPU.
#
# From the products to the model
# ------------------------------
# :ref:`Single products <sphx_glr_gallery_marlin_plot_60_why_slower.py>` lose their lead
# too. At which M is INT4 faster, of those timed, for each product of a layer, for a layer's
# products together, and at which batch for the model?

models = [model for model in paying if model[1] == "fp16"]
layer = vis.layer_times(kernels)
rows = []
for product, (n, k) in budget.shapes(llama).items():
    won = [vis.lead(kernels, f"{n}x{k}", name) for name, _ in models]
    rows.append([f"{product}, {n} x {k}", *(vis.spans(one, tried) for one in won)])
ratio, base = {}, layer.get("fp16", {})
for name, _ in models:
    ratio[name] = {m: base[m] / s for m, s in layer.get(name, {}).items() if m in base}
won = [[m for m in own if own[m] > 1] for own in ratio.values()]
rows.append(["all four", *(vis.spans(one, tried) for one in won)])
won = [[m for m, gain in gains[model].items() if median(gain) > 1] for model in models]
rows.append([f"the model (to {batches[-1]})", *(vis.spans(one, batches) for one in won)])
small, large = (max(vis.lead(kernels, s, MARLIN[0]), default=0) for s in ENDS)
assert not published or small < paying[MARLIN] < large
columns = ["faster than FP16 at", *(vis.decode_title(model) for model in models)]
script.display(vis.Table(columns, rows, kernels, "Products, with zero points; the model"))

# %%
# **The model follows the sum of its products.** It loses its lead later than the small
# ones and earlier than the largest. What INT4 and FP16 have in common, attention for one,
# *cannot end a lead*: with the same time added to both, the faster stays the faster. It
# only draws the ratio towards 1, a lead as well as a loss. That is Amdahl's law. Given the
# share of FP16's step that its products take (seen by a profiler), and what their sum gains
# (timed alone), it says what a model gains:

amdahl, rows = {}, []
for m in batches:
    kinds = vis.kind_seconds(timed, m)[FP16]
    share = kinds["linear"] / sum(kinds.values())
    for model in [model for model in models if m in gains[model]]:
        if gain := ratio[model[0]].get(m):
            amdahl[model, m] = share, gain, 1 / (1 - share + share / gain)
            found = median(gains[model][m]), median(gains[model][m]) / amdahl[model, m][2]
            numbers = [f"{one:.2f}" for one in (*amdahl[model, m][1:], *found)]
            rows.append([m, vis.decode_title(model), f"{share:.0%}", *numbers])
assert not published or all(0.95 < float(row[-1]) < 1.15 for row in rows)
assert not published or all(float(row[-1]) < 1.03 for row in rows if row[0] > 8)
columns = ["batch", "model", "products' share", "they gain", "Amdahl", "found", "over it"]
script.display(vis.Table(columns, rows, timed, "Times as fast as FP16; Amdahl's modelled"))

# %%
# For few users our step gains more than that: it also hides launches, which products timed
# alone do not show (:ref:`sphx_glr_gallery_profiling_plot_34_where_time_goes.py`).
#
# What a user gets
# ----------------
# More users mean more tokens in all, and fewer for each. Up and to the right is better:

users = vis.plot_users(timed)
alone = min(median(own[1]) for model, own in samples.items() if model not in paying)
for model in paying:
    many = max((m for m, own in samples[model].items() if median(own) < alone), default=0)
    print(f"{vis.decode_title(model)}: {many} users get more each than one by FP16 alone")
    assert not published or model != TOP or many == 32

# %%
# (By the better FP16.) Where each user is promised a speed, INT4 serves more at a time.
#
# A long context
# --------------
# Only 1024 tokens were timed. Bytes say what must follow (modelled): INT4 spares the same
# bytes at any length, but the cache grows that both must read (in the table, of 64 users).

rows, shown = [], [1, 16, 64]
for context in (CONTEXT, 2 * CONTEXT, 4 * CONTEXT, 8 * CONTEXT):
    reads = [[budget.step_bytes(llama, m, context, b) for b in (16, 4)] for m in shown]
    allowed = [fp16 / int4 for fp16, int4 in reads]
    sizes = reads[-1][0] - reads[-1][1], budget.cache_bytes(llama, shown[-1], context)
    told = *(f"{one:.2f}" for one in allowed), *(f"{size / 1e9:.1f}" for size in sizes)
    rows.append([context, *told])
assert allowed[0] > 2.5 > 1.2 > allowed[-1] > 1
columns = ["tokens of each", *(f"batch {m}" for m in shown), "GB spared", "GB of cache"]
script.display(vis.Table(columns, rows, None, "Times as fast as FP16 at most"))

# %%
# So long texts *shrink* the lead and do not end it; one user feels them least.
#
# A prompt
# --------
# In a prompt hundreds of tokens share each weight, so arithmetic binds, and it is the same.
# How long does one take, launched from Python, and how long of that has the GPU work?

prompt = awqdoc.measure("prefill", beside=timed)
seen = {(r["backend"], r["tokens"]): r for r in prompt.rows if "seconds" in r}
for (_, m), row in seen.items() if prompt.origin == "recorded" else ():
    share = row["busy"] / median(row["seconds"])
    assert {256: share < 0.5, 1024: True, 4096: share > 0.8}[m]
    assert 0.95 < row["busy"] / seen["fp16", m]["busy"] < 1.1
script.display(vis.prompt_table(prompt, kernels))

# %%
# **INT4 does not help a prompt.** The GPU has as much to do with our kernels as with
# cuBLAS's. On the short prompt it mostly *waits for Python*, which launches ours more
# slowly; on the longest it hardly does. Python's time differs from run to run.
#
# How many tokens must each user get before decoding has made good for a prompt of their own
# (modelled from the products of all layers, recorded alone; read one prompt after another)?

asked = PROMPTS[-1]
for model in [model for model in models if asked in layer.get(model[0], {})]:
    lost, told = 32 * (layer[model[0]][asked] - base[asked]), []
    for m in [m for m in shown if m in samples[model]]:
        won = (median(samples[FP16][m]) - median(samples[model][m])) / m
        count = f"after {max(0, ceil(lost / won))}" if won > 0 else "never"
        told.append(f"batch {m} {count}")
        assert not published or model != TOP or (lost < won) == (m == 1)
    title = f"{vis.decode_title(model)}: {1e3 * lost:.1f} ms lost on {asked} tokens"
    print(f"{title}, made good at\n    {', '.join(told)}")

# %%
# What to do
# ----------
# - **One to some users**: INT4, with a kernel that fits the GPU.
# - **Many users**: INT4 if its kernel scales, else FP16 from where the sum of its products
#   loses, which can be timed without a model.
# - **Long texts**: INT4 costs nothing, but for many users brings little. The memory that it
#   frees may be worth more: it is room for cache.
# - **Much to read, little to write, many users**: FP16, or FP16 for the prompts.
#
# What surprised us
# -----------------
# A GPU waits for Python through most of a short prompt. And the products are but half the
# story: with more users they gain less *and* become a smaller share. If only one changed:

if (TOP, 1) in amdahl and (TOP, batches[-1]) in amdahl:
    (share, gain, first), (later, less, last) = amdahl[TOP, 1], amdahl[TOP, batches[-1]]
    by_gain, by_share = 1 / (1 - share + share / less), 1 / (1 - later + later / gain)
    print(f"Amdahl at batch 1: {first:.2f}, at {batches[-1]}: {last:.2f} times as fast")
    print(f"only the products' gain: {by_gain:.2f}; only their share: {by_share:.2f}")
    assert not published or abs(by_gain / by_share - 1) < 0.1

# %%
# Limits
# ------
# - One GPU, one model of random weights, batches to 64, texts of equal length.
# - Other contexts are bytes on paper. Attention is far from a read's rate for few tokens.
# - No FP8, no 4-bit cache, no other model was measured. Nor was a prompt as a CUDA graph.
# - lm_head in INT4 is faster; what it costs the text was not measured here.

script.show({"speedup": speedup, "users": users}, options.output_dir)
