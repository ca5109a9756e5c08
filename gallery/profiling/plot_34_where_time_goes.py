r"""
Where the time of a token goes
==============================

A decoding step of Llama-3-8B is a few hundred kernels in one CUDA graph. Here every
microsecond of it is charged to a kind of work: what it took, what its bytes ask for, and
what there is still to win.
"""

# %%
# Predict
# -------
# A layer has four products (q, k and v are one; gate and up are one), two norms, attention
# and an activation. Around the 32 layers stand the embedding, a last norm, lm_head and the
# choice of the next token. Three kinds have much to read: the linear layers their weights,
# lm_head its own, and attention the cache of keys and values, here of 1024 tokens.
#
# Before you go on, for one token: how long does each take, if it reads as fast as a kernel
# that only reads? Which share of the step is outside the linear layers? And what becomes of
# that share when the linear layers get three times as fast?

from statistics import median

import awqdoc
from awqdoc import script
from awqdoc import visualization as vis
from awqdoc.experiments.decode import AXES
from awqdoc.models.decoding import budget, llama_3_8b

FP16, STREAM = ("fp16", "fp16"), ("fp16_stream", "fp16_stream")
INT4, MARLIN = ("cuda_overlapped", "fp16"), ("gptqmodel_marlin", "fp16")

parser = script.parser("Show where the time of a decoding step goes.")
parser.add_argument("--batch", type=int, default=64, help="sequences, beside one")
options = script.parse(parser)
many = options.batch
chosen = {} if many in AXES["batch"] else {"batch": [1, many]}
made = awqdoc.measure("decode", **chosen)
vis.complete_recording(made, made.parameters)
batches = made.parameters["batch"]
published = made.origin == "recorded" and many == parser.get_default("batch")
print(made.label)
print(vis.decode_untimed(made), end="")

least = vis.kind_floors(made, 1)
for model in [one for one in (FP16, INT4) if one in least]:
    times = ", ".join(f"{kind} {1e3 * s:.2f} ms" for kind, s in least[model].items())
    print(f"{vis.decode_title(model)}, by bytes alone (modelled): {times}")
linear, whole = least[FP16]["linear"], sum(least[FP16].values())
faster = whole - linear + linear / 3
shares = f"{1 - linear / whole:.0%} outside, then {1 - linear / 3 / faster:.0%}"
print(f"FP16's linear layers 3 times as fast, modelled: {shares}; ", end="")
print(f"the step {whole / faster:.2f} times as fast")

# %%
# That is Amdahl's law: what is not made faster keeps its time, and grows in share.
#
# One token
# ---------
# Measured, under torch's profiler:

one_token = vis.plot_kinds(made, 1)
script.display(vis.kinds_table(made, 1))

# %%
# Reading is not all: norms and activations read next to nothing and take time, and so do
# *gaps*, in which no kernel runs. cuBLAS's and Marlin's products are launched when the
# kernel ahead has ended. Ours, FP16 and INT4, are launched before that, and fetch weights
# meanwhile (*programmatic dependent launch*): hardly a gap is left. The largest piece
# outside INT4's linear layers is lm_head, unless it is INT4 too.
#
# Amdahl's law again, with what was measured:

parts = vis.kind_seconds(made, 1)
outside = {model: 1 - own["linear"] / sum(own.values()) for model, own in parts.items()}
for model, own in parts.items():
    gain = parts[FP16]["linear"] / own["linear"]
    step = sum(parts[FP16].values()) / sum(own.values())
    print(f"{vis.decode_title(model)}: linear layers {gain:.2f} times as fast, ", end="")
    print(f"the step {step:.2f}; {outside[model]:.0%} of it outside them")
assert not published or outside[INT4] > 1.8 * outside[FP16]
assert not published or min(parts[m]["gaps"] for m in (FP16, MARLIN)) > 1e-4
assert not published or max(parts[m]["gaps"] for m in (STREAM, INT4)) < 1e-5
assert not published or parts[INT4]["lm_head"] > parts[INT4]["attention"]

# %%
# Many users
# ----------
# All sequences of a batch share the weights, but each has a cache of its own:

many_tokens = vis.plot_kinds(made, many)
script.display(vis.kinds_table(made, many))

# %%
# **Attention grows with the batch, in every model alike, and no format of weights shrinks
# it.** It is the same milliseconds of a shorter step, so INT4 feels it more than FP16:

for m in batches:
    own = vis.kind_seconds(made, m)
    for model in [one for one in (FP16, INT4) if one in own]:
        share = {kind: s / sum(own[model].values()) for kind, s in own[model].items()}
        print(f"batch {m:2}, {vis.decode_title(model):<18} ", end="")
        print(f"linear {share['linear']:.0%}, attention {share['attention']:.0%}")
assert not published or own[INT4]["linear"] < own[INT4]["attention"]
assert not published or own[INT4]["linear"] < 0.5 * sum(own[INT4].values())
assert not published or own[INT4]["attention"] < 20 * parts[INT4]["attention"]

# %%
# (64 times the cache, but far from 64 times the time: the reason comes now.) When INT4
# stops paying: :ref:`sphx_glr_gallery_profiling_plot_36_stops_paying.py`.
#
# Near the floor, or waiting?
# ---------------------------
# One call at a time, for one token. In brackets the share that its bytes would take at the
# rate of a read, from the same run; 100 % is the floor.

script.display(vis.kind_calls_table(made, 1))

# %%
# Three sorts of work:
#
# - **Near the floor**: lm_head, one long read, in either format; and the linear layers in
#   FP16 by our kernel. Nothing but fewer bytes makes these much faster.
# - **Bytes and something else**: the linear layers in INT4. They have a quarter of the
#   bytes, but what a product loses, presumably at its start and end, is not a quarter.
# - **Latency**: attention, norms, activations. They wait for the memory and for their own
#   sums, some µs for little work, again in every layer.
#
# With the batch, work moves from one sort to another:

reached = vis.plot_kind_floors(made)
for model, own in parts.items():
    lost = (own["linear"] - least[model]["linear"]) / 128
    print(f"{vis.decode_title(model)}: a product's bytes and {1e6 * lost:.1f} µs more")
now, floors = vis.kind_seconds(made, many).get(INT4), vis.kind_floors(made, many).get(INT4)
work = budget.linear_bytes(llama_3_8b(), 16) * many  # 2 M N K: two bytes, two operations
if now and (sheet := vis.data_sheet(made.provenance["gpu"])):
    print(f"linear, INT4, batch {many}: {1e3 * now['linear']:.2f} ms; modelled by ", end="")
    print(f"bytes {1e3 * floors['linear']:.2f}, operations {1e3 * work / sheet.peak:.2f}")
    assert not published or work / sheet.peak > floors["linear"]
    assert not published or floors["linear"] < 0.5 * now["linear"]
    assert not published or floors["attention"] > 0.75 * now["attention"]
assert not published or least[INT4]["attention"] < 0.2 * parts[INT4]["attention"]
assert not published or least[STREAM]["linear"] > 0.95 * parts[STREAM]["linear"]
assert not published or least[INT4]["lm_head"] > 0.9 * parts[INT4]["lm_head"]

# %%
# **They cross.** Attention has too little to read at first to be anything but latency, and
# comes near the floor as the caches grow. INT4's linear layers leave theirs: at batch 64
# their operations, at the rate of the data sheet, take longer than their bytes.
#
# Can the profiler be trusted?
# ----------------------------
# It may slow down what it watches. A step under it, over the same step without it:

samples, watched = vis.step_samples(made), []
for m in batches:
    for model, own in vis.kind_seconds(made, m).items():
        watched.append(sum(own.values()) / median(samples[model][m]))
print(f"{min(watched):.3f} to {max(watched):.3f} times as long")
assert not published or 0.98 < min(watched) < max(watched) < 1.02

# %%
# What is left to win
# -------------------
# If attention took only what its bytes take; if norms, activations, embedding, sampling and
# gaps took no time, which is more than any fusion gives; if both; and if nothing but bytes
# took time anywhere:

script.display(vis.kind_gains_table(made, sorted({1, many})))

# %%
# So a better attention and fewer launches are worth about a tenth of INT4's step each, at
# most. For one token not even that: by its bytes, attention would be over sooner than a
# norm. More is left in the linear layers, but at batch 64 their floor is operations, above
# that of bytes. The whole model: :ref:`sphx_glr_gallery_profiling_plot_32_whole_model.py`.
#
# What surprised us
# -----------------
# - At batch 64 the linear layers, all that INT4 is about, are less than half of its step.
# - **The choice of the token counts** once all else is fast. With torch's argmax it took
#   many times what *sampling* takes above (seen while building, not recorded).
# - **Asking early for weights can hurt.** Brought into L2 while a norm ran, they made that
#   norm wait behind them (not recorded either). Presumably that is also why the norms are
#   slowest beside our FP16 kernel, which fills its buffers early.
#
# Limits
# ------
# - One step under the profiler for each model and batch. A kernel is charged from the end
#   of the one before it. While two overlap, the first is charged: what it fetched early
#   makes the second look shorter, and what disturbs the first is not seen.
# - Bytes are those of weights and cache only, at the rate of one long read.
# - Random weights, one context, one GPU. A longer context makes attention's share larger.

assert not published or least[INT4]["attention"] / 32 < parts[INT4]["norm"] / 65
assert not published or max(parts, key=lambda m: parts[m]["norm"]) == STREAM
figures = {"one_token": one_token, "many": many_tokens, "kind_floors": reached}
script.show(figures, options.output_dir)
