r"""
Marlin basics: FP16 times INT4
==============================

*"What is different when the weight has 4 bits?"* Less than it seems, and it all happens
before the tensor core: the same product, fed from another layout. This page multiplies one
layer both ways, shows the layout, checks the result, and says what may be gained.
"""

# %%
# Predict
# -------
# A layer Y = X W has X of M tokens x K inputs, and W of K inputs x N outputs. How many
# bytes must a GPU move, in FP16 and in INT4? From how many tokens on does it wait for
# arithmetic and not for bytes?

import awqdoc
import torch
from awqdoc import script
from awqdoc import visualization as vis
from awqdoc.errors import AwqdocError
from awqdoc.formats import Problem, QuantizedWeight
from awqdoc.gpu.datasheets import DATA_SHEETS
from awqdoc.kernels.table import KERNELS
from awqdoc.packing import LAYOUTS, pack, unpack
from awqdoc.quantize import round_to_nearest

parser = script.parser("Multiply FP16 activations by an INT4 weight in Marlin's layout.")
parser.add_argument("--m", type=int, default=16, help="tokens")
parser.add_argument("--n", type=int, default=512, help="outputs, a multiple of 256")
parser.add_argument("--k", type=int, default=512, help="inputs, a multiple of 128")
parser.add_argument("--visualize-packing", action="store_true", help="draw the layout")
parser.add_argument(
    "--verify", action="store_true", help="compare with float32, and say so"
)
options = script.parse(parser)
m, n, k = options.m, options.n, options.k
if min(m, n, k) < 1 or n % 256 or k % 128:
    raise AwqdocError(
        f"K must be a multiple of 128, N of 256, M 1 or more; found K {k}, N {n}, M {m}."
    )

layer = Problem(m, n, k)
for name, bits in (("FP16", 16), ("INT4", 4)):
    print(f"{name}: {layer.bytes(bits):>10,.0f} bytes for {layer.flops:,} operations")
print(f"the weight alone: {layer.weight_bytes(16) / layer.weight_bytes(4):.2f} times fewer")

# %%
# A product of M tokens does 2 M operations for each weight, of which FP16 reads 2 bytes and
# INT4 a little over half a byte. A GPU can do a certain number of operations in the time of
# one byte. *Modelled*, from data sheets, up to which M a product waits for the weight:

for sheet in DATA_SHEETS:
    most = [sheet.ridge * layer.weight_bytes(bits) / (2 * n * k) for bits in (16, 4)]
    print(f"{sheet.name:<15} FP16 up to M = {most[0]:3.0f}, INT4 up to M = {most[1]:3.0f}")

# %%
# So INT4 can be nearly four times as fast for few tokens, loses its lead as they grow, and
# beyond some hundred can at best be as fast: the tensor cores multiply FP16 either way.
#
# Quantize and pack
# -----------------
# Symmetric codes of 4 bits, a scale for each 128 rows; Marlin's format knows no zero
# points, of which AWQ's has four bits beside each scale:

print(f"{4 + 16 / 128} bits for each weight, 16 / that is {16 / (4 + 16 / 128):.2f}")

torch.manual_seed(0)
weight = torch.randn(k, n) * 0.02
rounded = round_to_nearest(weight, 128, symmetric=True)
packed = pack(rounded, "marlin")
for name, tensor in packed.items():
    print(f"{name:<8} {tensor.dtype!s:<14} {list(tensor.shape)}")

# %%
# The words are ordered so that the 16 bytes which a lane loads are its share of four tensor
# core products (:ref:`sphx_glr_gallery_packing_plot_30_marlin_derived.py` derives it).
# Which lane needs which weight, in the first two pieces:

title = "Which lane needs which weight? Two pieces side by side"
drawn = {"packing": vis.plot_tile(LAYOUTS["marlin"], "lane", title, parted=(8,))}
if options.visualize_packing:
    four = [(f"word {word}", 0, word) for word in range(4)]
    drawn["words"] = vis.plot_words(
        LAYOUTS["marlin"].weight, four, "The 16 bytes of lane 0"
    )

# %%
# Multiply
# --------
# What the kernel computes, in torch: codes out of the words, less 8, times the scale,
# rounded to FP16; the product summed in FP32.

restored: QuantizedWeight = unpack(packed, "marlin", group_size=128)
assert torch.equal(restored.codes, rounded.codes)
x = torch.randn(m, k).half()
exact = x.float() @ weight
fp16 = x.float() @ weight.half().float()
int4 = x.float() @ restored.dequantize().float()


def error(found: torch.Tensor) -> float:
    """Return the relative error against the FP32 weight (Frobenius norm)."""
    return float((found - exact).norm() / exact.norm())


print(f"error of FP16: {error(fp16):.1e}, of INT4: {error(int4):.1e}")
assert error(fp16) < 1e-3 < error(int4) < 0.2

# %%
# The error of INT4 is the rounding of the weight; AWQ makes it matter less. A kernel adds
# next to nothing, and that is tested apart, against the *dequantized* weight:

if options.verify:
    found = (x @ restored.dequantize()).float()
    apart = float((found - int4).norm() / int4.norm())
    print(f"an FP16 product of the dequantized weight: {apart:.1e} from float32")
    assert apart < 1e-3

# %%
# Measure
# -------
# A layer of Llama-3-8B: FP16 by cuBLAS, and the last step of our own ladder
# (:ref:`sphx_glr_gallery_marlin_plot_30_ladder.py`), on a weight without zero points:

timed = awqdoc.measure("kernels")
shape, told = "28672x4096", {}
step = vis.last_step(timed, shape, False, m=1024)  # that runs here at every M
print(f"{KERNELS[step].title}, {timed.label}")
for tokens in timed.parameters["m"]:
    gain = 1 / vis.over(timed, shape, False, tokens, step, "fp16")
    print(f"M = {tokens:<5} {gain:.2f} times as fast as FP16")
    told[tokens] = gain
assert timed.origin != "recorded" or (told[1] > 3.4 and told[64] > 2 and told[1024] < 1)

curves = vis.plot_kernels(timed, shape, zero_points=False)

# %%
# Limits
# ------
# - What ran here is our own kernel. IST-DASLab's Marlin and its descendants are not in this
#   recording; nothing here is called Marlin but its format.
# - The sizes of the command line are multiplied in torch, to check; they are not timed.

script.show({**drawn, "kernels": curves}, options.output_dir)
