r"""
The roofline: how fast could it be?
===================================

"My kernel does so many TFLOP/s." Is that good? A rate alone cannot say. The roofline model
sets it beside two limits of the GPU, how many bytes its memory supplies and how many
operations its tensor cores do, and says which of the two a layer meets first. This page
measures both limits on the same GPU, in the same run as the kernels, and looks how far
below them each kernel stays.

To try other GPUs, formats and layers: :doc:`/roofline`.
"""

# %%
# Predict
# -------
# Four ways to multiply by a weight, from the
# :ref:`batch sweep <sphx_glr_gallery_profiling_plot_10_batch_sweep.py>`: FP16; INT4 written
# out as FP16, then multiplied; our fused Triton kernel; AutoAWQ's. Which of them comes
# close to what the GPU allows at M = 1? At M = 1024? And from which M on is there nothing
# left that an INT4 weight could win?

from statistics import median

import awqdoc
from awqdoc import script
from awqdoc import visualization as vis
from awqdoc.formats import Problem
from awqdoc.kernels import BACKENDS

parser = script.parser("Set kernels beside the roofs of this GPU.")
parser.add_argument("--shape", default="28672x4096", metavar="NxK", help="the layer")
parser.add_argument("--batch-sizes", nargs="+", type=int, metavar="M")
options = script.parse(parser)
shape = options.shape

# %%
# The idea
# --------
# A layer of N × K needs 2 M N K operations for M tokens. The bytes that it must move are
# its weight, which does not depend on M, and the tokens in and out. So the operations for
# each byte, the arithmetic intensity, grow with M; and INT4, with fewer bytes for the same
# operations, has the higher one at every M:

for m in (1, 16, 256, 4096):
    layer = Problem.parse(shape, m)
    fp16, int4 = (layer.flops / layer.bytes(bits) for bits in (16, 4))
    print(f"M = {m:>4}: {fp16:6.1f} FLOP per byte in FP16, {int4:6.1f} in INT4")

# %%
# With an intensity of I the memory allows I × (bytes per second) operations per second,
# and the tensor cores allow what they do at most. The lower of the two is the roof. Over I,
# in logarithms, it is a slope and then a flat line; they meet at the *ridge*. INT4 shares
# the flat part with FP16: its codes become FP16 numbers before they are multiplied.
#
# Measure the roofs
# -----------------
# Between the samples of the kernels, the sweep also timed a large copy and a plain read of
# the packed weight; and after them, a product of two large FP16 matrices. The faster of the
# first two is the memory's roof, the product is the tensor cores'.

chosen = {"shape": shape, "m": options.batch_sizes} if options.batch_sizes else {}
if shape != parser.get_default("shape"):
    chosen["shape"] = shape
sweep = awqdoc.measure("batch-sweep", **chosen)
roofs = vis.measured_roofs(sweep)
script.display(vis.roofs_table(sweep))

# %%
# Neither rate of the data sheet is reached, not even by calls that do nothing else. So a
# kernel can be blamed for what lies below the measured roofs, not for the rest. Is it power
# that keeps the product down? What NVML said right after it:

took = {}
for row in (one for one in sweep.rows if one["backend"] == "matmul"):
    reasons = ", ".join(row.get("throttle_reasons") or ["nothing"])
    took.setdefault(reasons, []).append(median(row["seconds"]))
for reasons, times in took.items():
    print(f"held down by {reasons}: {len(times)} cells, {1e3 * median(times):.3f} ms")

# The text says what the recording of an H200 shows. Should that change, the build fails.
published = not chosen and sweep.origin == "recorded"
sheet = vis.data_sheet(roofs.gpu)
assert not published or (roofs.bandwidth < sheet.bandwidth and roofs.peak < sheet.peak)
levels = sorted(map(median, took.values()))
assert not published or (len(levels) > 1 and levels[-1] < 1.01 * levels[0])

# %%
# Not so soon; :ref:`later <sphx_glr_gallery_profiling_plot_05_how_to_measure.py>` it does.
#
# Points below roofs
# ------------------
# Each line is one kernel; from left to right M doubles. *Useful* bytes are the fewest that
# the product needs in the kernel's format, whatever it really moves, so that the height
# below the roof is all that could be gained.

roofline = vis.plot_roofline(sweep, shape)

# %%
# FP16 follows the slope, cuts the corner, and lies on the flat part. The INT4 kernels start
# to the right of it, where the roof is higher; they climb in parallel to the slope, far
# below it, and then each goes its own way. A line parallel to the slope means that the time
# does not change with M. A flat one is a roof of the kernel's own, below the GPU's: each
# further token costs the same, and more than its multiplications do. AutoAWQ's kernel ends
# on one.
#
# Prediction beside measurement
# -----------------------------
# The same as time: measured over allowed. 1 is a kernel that could not be faster.

distance = vis.plot_distance(sweep, shape)

# %%

far = {name: found for name in BACKENDS if (found := vis.distances(sweep, name, shape))}
for name, found in far.items():
    worst, best = (pick(found, key=found.__getitem__) for pick in (max, min))
    print(
        f"{BACKENDS[name].title:<25} nearest {found[best]:5.2f} at M = {best:>4},"
        f" farthest {found[worst]:5.2f} at M = {worst:>4}"
    )

if published:
    fp16, others = far["fp16"], [found for name, found in far.items() if name != "fp16"]
    assert max(fp16.values()) < 5 / 4
    assert max(fp16, key=fp16.__getitem__) in (128, 256)  # the corner
    assert all(fp16[m] < found[m] for found in others for m in found)
    assert all(min(found[1], found[16]) > 3 for found in others)  # far below the slope
    assert all(abs(found[16] / found[1] - 1) < 0.1 for found in others)  # parallel to it
    assert min(far["triton_fused"].values()) > 2.5
    assert min(far["dequantize"], key=far["dequantize"].__getitem__) == max(fp16)
    awq = [row for row in vis.timed(sweep, "autoawq_triton", shape) if row["m"] >= 64]
    rates = [row["m"] / median(row["seconds"]) for row in awq]
    assert max(rates) < 1.05 * min(rates)  # a roof of its own

# %%
# FP16 leaves little to win: it never takes more than a quarter longer than the roofs allow,
# and is farthest from them at the corner, where the model pretends that reading and
# multiplying overlap without a seam. No INT4 kernel is as near to its roof as FP16 is at
# any M. Ours takes more than two and a half times what it could take, everywhere.
# *Dequantize + matmul* comes nearest at the largest M, where the product takes so long that
# writing the weight out matters least.
#
# Where INT4 stops helping
# ------------------------
# Two batch sizes follow from the model: the one at which INT4 reaches the flat part, from
# which on its gain shrinks, and the one at which FP16 does, from which on there is none.

layer = Problem.parse(shape, 1)
shrinks, ends = (vis.turning_batch(layer, bits, roofs) for bits in (4, 16))
print(f"model: INT4 wins fully up to M = {shrinks:.0f}, and nothing from M = {ends:.0f} on")
last = 0
for name in [name for name in far if name != "fp16"]:
    speedup = {m: median(ratios) for m, ratios in vis.speedups(sweep, name, shape).items()}
    won = [m for m in speedup if speedup[m] > 1]
    print(f"{BACKENDS[name].title:<25} faster at M: {', '.join(map(str, won)) or 'none'}")
    last = max([last, *won])
assert not published or last == 0 < shrinks < ends

# %%
# So these kernels help nowhere, and the model is not to blame: up to its first turning
# point it leaves room for nearly the full ratio of the bytes. That room is what a better
# kernel can win, and :ref:`some do <sphx_glr_gallery_marlin_plot_40_all_kernels.py>`.

script.display(vis.allowed_table(sweep, shape))

# %%
# Limits
# ------
# What a roofline does not know:
#
# - **Instructions.** A code must be shifted, masked, converted and scaled. These are no
#   FLOP of the product, yet they take issue slots, for each weight, each time it is used.
# - **Latency and launches.** A layer that is read in a few microseconds is over before the
#   memory is fully at work. The plain read shows it, layer by layer:

for one in sweep.parameters["shape"]:
    rows = [row for row in sweep.rows if row["backend"] == "read" and row["shape"] == one]
    rate = median(row["bytes"] / median(row["seconds"]) for row in rows)
    share = rate / roofs.bandwidth
    print(f"{one:>11}: {rows[0]['bytes'] / 1e6:5.1f} MB, {share:.0%} of the memory's roof")

# %%
# - **Padding.** Tensor cores take 16 rows at a time. M = 1 costs them as much as 16; the
#   model counts one.
# - **The L2 cache.** Weights are cold here. A weight that stays in the cache may exceed
#   the slope.
# - **Other calls.** The roofs are one large copy and one large product. A long read is
#   faster (:ref:`fitted <sphx_glr_gallery_marlin_plot_60_why_slower.py>`), a product may
#   lie above its roof. Over all layers of this sweep the nearest, or highest above, is:

times, name, one, m = min(
    (times, name, one, m)
    for one in sweep.parameters["shape"]
    for name in BACKENDS
    for m, times in vis.distances(sweep, name, one).items()
)
print(f"{BACKENDS[name].title} at {one}, M = {m}: {times:.3f} times the allowed time")

script.show({"roofline": roofline, "roofline_distance": distance}, options.output_dir)
