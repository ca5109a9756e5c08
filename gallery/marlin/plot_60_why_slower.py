r"""
Why is my INT4 model slower?
============================

*"I quantized to 4 bits, and now it takes longer."* There are five usual reasons: the batch,
the phase (prefill or decode), launches, the shapes, and the kernel. Three terms tell the
first four apart; what they leave unexplained is the kernel.
"""

# %%
# Predict
# -------
# Before you read on: for each of these, is INT4 faster than FP16, and by how much? One user
# decoding with a fused kernel; a prompt of 1024 tokens with the same; a backend that writes
# the weight out as FP16 and then multiplies; AutoAWQ's Triton kernel.

import awqdoc
from awqdoc import script
from awqdoc import visualization as vis
from awqdoc.errors import AwqdocError
from awqdoc.experiments.batch_sweep import SHAPES
from awqdoc.formats import Problem
from awqdoc.kernels.table import LADDER

parser = script.parser("Predict how much faster INT4 can be for a layer and a batch size.")
parser.add_argument("--shape", default="4096x4096", metavar="NxK", help="your layer")
parser.add_argument("--m", type=int, default=16, metavar="M", help="tokens at a time")
options = script.parse(parser)
size = Problem.parse(options.shape, options.m)
if size.k % size.group_size:
    raise AwqdocError(
        f"K must be a multiple of the group size {size.group_size}; found {size.k}."
    )

# %%
# Three terms
# -----------
# - **Bytes**: the weight, the inputs and the results cross the memory bus once. INT4 with
#   groups of 128 has a little over a quarter of FP16's weight.
# - **Operations**: 2 M N K, the same for both, for a code becomes an FP16 number before it
#   is multiplied. They overlap with the bytes, so the longer of the two counts.
# - **A launch**: what a kernel takes even if it reads next to nothing, once for each. It is
#   added, and no format shrinks it.
#
# What they cost comes from the recording: a kernel that only reads, on weights of several
# sizes, lies on a line. Its slope is a byte, where it begins is a launch. The best rate of
# any FP16 product is that of the operations.

timed = awqdoc.measure("kernels")
published = timed.origin == "recorded"
costs, TOP = vis.kernel_costs(timed), vis.top_step(timed)
print(timed.label)
print(f"bytes      {costs.bandwidth / 1e12:.2f} TB/s")
print(f"operations {costs.peak / 1e12:.0f} TFLOP/s")
print(f"a launch   {1e6 * costs.launch:.2f} µs (read to within {1e6 * costs.residual:.2f})")
assert not published or costs.residual < costs.launch < 5e-6

# %%
# For your own layer, say ``--shape NxK --m M``. In µs:

script.display(vis.prediction_table(size, costs, timed))

# %%
# Two batch sizes follow: up to which INT4 gains all that it can, and from which on it can
# gain nothing. And if somebody measured this very size:

full, none = (vis.turning_batch(size, bits, costs) for bits in (4, 16))
print(f"{options.shape}: all up to M = {full:.0f}, nothing from M = {none:.0f} on")
known = timed.covers({"shape": [options.shape], "m": [options.m]})
cell = vis.kernel_times(timed, options.shape, True, options.m) if known else {}
shown = sorted(cell.keys() - ({"read", *LADDER} - {TOP}), key=cell.__getitem__)
for name in shown:
    allowed = vis.predict_kernel(size, name, costs).seconds
    print(f"{1e6 * cell[name]:7.1f} µs, predicted {1e6 * allowed:6.1f}: {vis.brief(name)}")
if not shown:
    print(f"nobody measured {options.shape} at M = {options.m}")

# %%
# Predicted and measured
# ----------------------
# A large layer has the gate and up projections of Llama-3-8B, a small one is its attention
# output. All with zero points, as AWQ makes them. The prediction knows what a backend does,
# not how well.

situations = (
    vis.Situation("Decode, one user", TOP, "28672x4096", 1),
    vis.Situation("Decode, a small layer", TOP, "4096x4096", 1),
    vis.Situation("Decode, 64 users", TOP, "28672x4096", 64),
    vis.Situation("Prefill", TOP, "28672x4096", 1024),
    vis.Situation("Written as FP16 first", "dequantize", "28672x4096", 1),
    vis.Situation("The same, prefill", "dequantize", "28672x4096", 1024),
    vis.Situation("AutoAWQ's Triton", "autoawq_triton", "28672x4096", 1),
    vis.Situation("The same, prefill", "autoawq_triton", "28672x4096", 1024),
)
compared = vis.plot_situations(timed, situations)
script.display(vis.situations_table(timed, situations))

# %%
# What surprised us
# -----------------
# How far three terms reach. FP16's measured time over the predicted one, in all cells, and
# that of *dequantize + matmul*:

for name in ("fp16", "dequantize", TOP, "autoawq_triton"):
    if far := vis.prediction_distances(timed, name):
        print(
            f"{vis.brief(name):<28} {min(far):5.2f} to {max(far):5.2f} times the prediction"
        )
        assert not published or name != "fp16" or max(far) < 2
pairs = [vis.situation_gains(timed, one) for one in situations]
assert not published or pairs[3][0] < 1.05  # prefill: nothing to gain
assert not published or pairs[4][0] < 1  # nor where FP16 is written first
assert not published or all(gain is None or gain > 2 for _, gain in pairs[:1])
assert not published or all(gain is None or gain < 1 for _, gain in pairs[4:])

# %%
# So **prefill cannot gain**: from some hundred tokens on the operations bind, and they are
# the same. Every instruction that unpacks a code is on top. **Writing FP16 first cannot
# gain either**, at any M: it moves more bytes than FP16, not fewer. (Where it beats its
# prediction, the FP16 copy presumably fits into the L2 cache.) And where AutoAWQ's kernel
# is far from what bytes and operations allow, no batch size and no shape explains it:
# **that is the kernel**.
#
# Many small layers
# -----------------
# Seven layers of 4096 x 4096 have just the weight of one of 28672 x 4096. One token, µs:

seven, one = (vis.kernel_times(timed, s, True, 1) for s in ("4096x4096", "28672x4096"))
for name in ("fp16", TOP):
    if name in seven and name in one:
        apart, whole = 7e6 * seven[name], 1e6 * one[name]
        print(f"{vis.brief(name):<28} apart {apart:.1f}, as one {whole:.1f} µs")
        assert not published or name == TOP or apart - whole > 6e6 * costs.launch
print(f"six launches, predicted: {6e6 * costs.launch:.1f} µs")

# %%
# FP16 loses more than six launches; presumably a small layer has too few tiles to keep all
# SMs at work to the end. (Our last step overlaps its launches, and hides a part of them.)
# Whatever is lost, it is a larger share of INT4's shorter time.
#
# All this was replayed from a CUDA graph. **Called from Python, a short kernel is over
# before the next is launched**; then the model waits for Python, with 4 bits as with 16
# (how long: :ref:`sphx_glr_gallery_profiling_plot_05_how_to_measure.py`).
#
# A whole layer
# -------------
# The four products of a layer of Llama-3-8B, over M. AutoAWQ's line begins late: a product
# whose result changes from call to call gets no time here (:ref:`the first sweep
# <sphx_glr_gallery_profiling_plot_10_batch_sweep.py>` does not ask), nor does its layer.

layer = vis.plot_layer(timed)
for shape in SHAPES:
    rows = timed.select(shape=[shape], zero_points=[True]).skipped
    out = {row["m"]: row["skipped"] for row in rows if row["backend"] == "autoawq_triton"}
    for m in sorted(out)[-1:]:
        print(f"AutoAWQ Triton, {shape}, up to M = {m}: {out[m]}")
    assert not published or bool(out) == (shape != "28672x4096")
script.display(vis.layer_table(timed, (1, 16, 64, 128, 256, 1024)))

# %%
# What to do
# ----------
# .. list-table::
#    :header-rows: 1
#
#    * - symptom
#      - cause, check, remedy
#    * - faster for one user, slower for many
#      - | *cause:* operations bind, or the kernel reads the weight several times
#        | *check:* the last column above; *nothing from M on* for your layer
#        | *remedy:* another kernel for large M; smaller batches; FP16 there
#    * - the first token late, the others fast
#      - | *cause:* prefill, where there is nothing to gain
#        | *check:* time both phases apart
#        | *remedy:* prefill in FP16; INT4 for decoding
#    * - slower at every M
#      - | *cause:* the weight is written as FP16 first
#        | *check:* a profiler shows two kernels for each product
#        | *remedy:* another backend
#    * - slower for one token
#      - | *cause:* the kernel, or a fallback from the one you think runs
#        | *check:* its time over the prediction, its name in a profiler
#        | *remedy:* :ref:`sphx_glr_gallery_marlin_plot_40_all_kernels.py`
#    * - as fast as FP16, the GPU mostly idle
#      - | *cause:* launches from Python
#        | *check:* the sum of the kernels' times against the clock on the wall
#        | *remedy:* CUDA graphs, ``torch.compile``; fuse q, k, v and gate, up
#    * - layers faster, the model hardly
#      - | *cause:* the rest: attention, the cache, sampling
#        | *check:* the linear layers' share of a step
#        | *remedy:* only that share can shrink
#
# Limits
# ------
# - The prediction is a bound for a kernel that overlaps perfectly; between few tokens and
#   many, real ones do less well than it says.
# - One GPU, one run, weights cold. On another GPU all three costs differ: run it there.

script.show({"situations": compared, "layer": layer}, options.output_dir)
