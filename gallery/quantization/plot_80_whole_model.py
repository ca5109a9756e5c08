r"""
A whole model, before and after
===============================

What do I get when I quantize a model with AWQ? How much smaller is it, how far is it from
the original, does it still write the same, and who can load it? This page goes all the
way: load, quantize, save, read back, compare. As a program, for any Llama or OPT::

    python plot_80_whole_model.py --model facebook/opt-125m --save opt-125m-awq

Nothing here is replayed from a recording: the machine that the labels name computed it.
"""

# %%
# Predict
# -------
# A weight of 16 bits becomes a code of 4 bits, and each group of 128 shares a scale of 16
# bits and a zero point of 4, so 16 bits become 4 + 20/128. Does the model shrink by as
# much? And when both complete the same prompt, always taking the likeliest token, do they
# write the same?

import copy
import tempfile
from pathlib import Path

import torch
from awqdoc import gpu, models, script
from awqdoc import visualization as vis
from awqdoc.errors import AwqdocError

parser = script.parser("Quantize a model with AWQ and compare it with its original.")
parser.add_argument("--model", default=models.EMBEDDED, help="hub name or folder")
parser.add_argument("--group-size", type=int, default=128, help="weights of a group")
parser.add_argument("--save", type=Path, metavar="FOLDER", help="keep the checkpoint here")
parser.add_argument("--quick-test", action="store_true", help="less text, in less time")
parser.set_defaults(output_dir=Path())  # a program saves awq_quantization_*.png here
options = script.parse(parser)

device = "cuda" if gpu.suitable() else "cpu"
here = vis.Here.now(device)
fp16, tokenizer = models.load(options.model, device)
context = fp16.config.max_position_embeddings
if context < 64:
    raise AwqdocError(f"The model needs a context of 64 tokens; found {context}.")
published = (options.model, options.group_size) == (models.EMBEDDED, 128)
published = published and not options.quick_test

# %%
# Quantize, save, read back
# -------------------------
# AWQ takes calibration text through the model one block at a time: it searches the scales,
# folds them into the layer before, searches the clipping thresholds and rounds. A GPU
# takes the usual 128 windows of 512 tokens; a CPU takes fewer, so that this ends within a
# minute.
#
# With ``--save`` each finished block is kept on disk: after Ctrl-C the same command goes
# on behind the last of them. What is examined below is the checkpoint as read back.

count, length = (128, 512) if device == "cuda" else (8, 256)
count, length = (2, 128) if options.quick_test else (count, length)
length = min(length, context // 2)
windows = models.calibration_windows(tokenizer, length=length, count=count)
settings = models.Settings("awq", group_size=options.group_size)
print(f"calibration: {len(windows)} windows of {length} tokens, on {here.machine}")

int4 = copy.deepcopy(fp16)
with tempfile.TemporaryDirectory() as scratch:
    folder = options.save or Path(scratch, "int4")
    if options.save:
        models.quantize_to(folder, int4, tokenizer, windows, settings)
    else:
        models.quantize(int4, windows, settings)
        models.save(int4, tokenizer, folder)
    on_disk = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    int4, _ = models.load(str(folder), device)

# %%
# What became of the weights
# --------------------------
# The first and the last layer of the middle block. INT4 stands for the values of the
# codes, (code - zero point) × scale.

family = models.FAMILIES[fp16.config.model_type]
place = f"{family.blocks}.{fp16.config.num_hidden_layers // 2}"
weights = {}
for name in (family.linears[0], family.linears[-1]):
    layer = int4.get_submodule(f"{place}.{name}")
    weights[f"{name}, FP16"] = fp16.get_submodule(f"{place}.{name}").weight.t()
    weights[f"{name}, INT4"] = weight = layer.quantized_weight.dequantize()
    first = weight[: layer.group_size, 0].unique()
    zero = float((weight == 0).float().mean())
    print(f"{name}: {len(first)} values in its first group; {zero:.1%} are exactly 0")
    assert len(first) <= 16
title = f"Weights of {place} before and after AWQ"
distribution = vis.plot_weight_distribution(weights, here, title)

# %%
# Rounding alone would draw nearly the same outline twice (and put about this share of the
# weights, those within half a step of it, on 0). Tails that AWQ made longer are channels
# that were multiplied by a scale above 1, a bulk that it made narrower by one below. The
# norm or layer before does the opposite, so these are not errors; errors have to be looked
# for where the scales have cancelled.
#
# Errors, block after block
# -------------------------
# They have cancelled in the hidden state, which each block hands to the next (behind the
# last one it is also normalized). On text not calibrated on, beside plain rounding:

rounded = copy.deepcopy(fp16)
models.quantize(rounded, None, models.Settings("rtn", group_size=options.group_size))
documents = models.shipped_text("evaluation")
text, _ = models.evaluation_windows(tokenizer, documents, 2 * length)
text = text[:: max(1, len(text) // 4)][: 2 if options.quick_test else 4]


@torch.no_grad()
def hidden_states(model):
    output = model(input_ids=text.to(device), output_hidden_states=True, use_cache=False)
    return [state.float() for state in output.hidden_states[1:]]


original, errors, rows = hidden_states(fp16), {}, []
for name, model in (("rounding", rounded), ("AWQ", int4)):
    pairs = zip(hidden_states(model), original, strict=True)
    errors[name] = [float(((a - b).norm(dim=2) / b.norm(dim=2)).mean()) for a, b in pairs]
    result = models.compare(model, fp16, text)
    kl, kl_error = models.mean_and_error(result.kl.mean(dim=1))
    same, change = float(result.agreement.mean()), errors[name][-1]
    rows.append([name, f"{kl:.4f} ± {kl_error:.4f}", f"{same:.1%}", f"{change:.1%}"])
by_block = vis.plot_block_errors(errors, here)

# %%
# Errors grow along the model. What arrives at its end, also as KL divergence to FP16:

assert not published or errors["AWQ"][-1] < errors["rounding"][-1]
columns = ["method", "KL to FP16, nats", "same likeliest token", "change of the state"]
script.display(vis.Table(columns, rows, here, f"Errors on {text.numel()} tokens"))

# %%
# Memory
# ------
# Only the linear layers of the blocks become INT4. Embeddings, norms and the output layer
# stay as they are, and the smaller the model, the larger their share.

print(f"{on_disk / 1e6:.2f} MB of safetensors on disk")
memory = vis.parts_table(fp16, int4, here)
ratio = {row[0]: float(row[-1]) for row in memory.rows}
assert not published or ratio["model"] < ratio["INT4 layers"]
script.display(memory)

# %%
# The same prompt
# ---------------
# (A prompt for the shipped model should not end with a line end: its tokenizer has the
# line end and the indentation behind it as one token.)

code = '    def read(self, size=-1):\n        """Read'
prompt = code if options.model == models.EMBEDDED else "The capital of France is"
start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
words = tokenizer.encode(prompt, add_special_tokens=False)
ids = torch.tensor([start + words], device=device)
greedy = {"do_sample": False, "max_new_tokens": 12 if options.quick_test else 40}
greedy |= {"attention_mask": torch.ones_like(ids), "pad_token_id": tokenizer.eos_token_id}
tokens = {n: m.generate(ids, **greedy)[0] for n, m in {"FP16": fp16, "INT4": int4}.items()}
texts = {n: tokenizer.decode(t[len(start) :]) for n, t in tokens.items()}
print(vis.text_columns(texts, width=36))

differ = [i for i, (a, b) in enumerate(zip(*tokens.values(), strict=False)) if a != b]
if differ:
    with torch.no_grad():
        chances = fp16(tokens["FP16"][None, : differ[0]]).logits[0, -1].softmax(dim=0)
    one, other = (float(chances[t[differ[0]]]) for t in tokens.values())
    print(f"\nThey part at new token {differ[0] - ids.shape[1] + 1}. There FP16 gives its")
    print(f"own choice a probability of {one:.0%}, and that of INT4 {other:.0%}.")

# %%
# Where FP16 itself is of two minds, a small change decides, and from there on the two
# continue different texts. One completion is no measure of quality.
#
# Take it elsewhere
# -----------------

name = options.save or "FOLDER"
print(f"""The checkpoint that --save FOLDER keeps (AWQ, version gemm) is loaded by
  AutoAWQ       AutoAWQForCausalLM.from_quantized("{name}")
  transformers  AutoModelForCausalLM.from_pretrained("{name}"), beside gptqmodel
  awqdoc        awqdoc.models.load("{name}")""")

# %%
# Limits
# ------
# - Few windows of text: enough to see that it works, not to rank methods. All of it, with
#   error bars: :ref:`sphx_glr_gallery_quantization_plot_60_accuracy.py`.
# - On a CPU, "FP16" computes in FP32 with the FP16 weights; memory is counted in FP16.
# - Our INT4 layer dequantizes its weight in each call: exact, and slower than FP16. Speed:
#   :ref:`sphx_glr_gallery_profiling_plot_10_batch_sweep.py`.
# - Three copies of the model are in memory, to compare them. To quantize takes one.

figures = {"weights": distribution, "errors": by_block}
script.show({f"awq_quantization_{n}": f for n, f in figures.items()}, options.output_dir)
