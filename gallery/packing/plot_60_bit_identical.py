r"""
Do two dequantizations give the same numbers?
=============================================

The same codes, scales and zero points, and yet another weight: kernels compute (q - z) s in
different forms, which round at different places. This page tries every case there is, to
see which forms agree to the last bit. Then it looks at what is left of the differences in
the output of a layer, beside what rounding to INT4 costs.
"""

# %%
# Five forms
# ----------
# Code q, zero point z, and a scale s of 16 bits. An *fma* multiplies and adds with a single
# rounding. With the offset o, 1024 in FP16 and 128 in BF16, codes become numbers
# (:ref:`sphx_glr_gallery_packing_plot_50_dequantize.py`).
#
# - (q - z) s: a small difference, exact, and a product, rounded. AutoAWQ's GEMM, Marlin.
# - ((o + q) - (o + z)) s: vLLM's Marlin, with zero points.
# - fma(q, s, -sz): the product -sz is stored, rounded. AWQ's GEMV fast, and Machete.
# - q s, then - sz: the same where a compiler makes no fma of it.
# - fma(o + q, s, -(o + z)s): saves a subtraction. vLLM's source names it, with a warning.
#
# No GPU is needed to know the results. A product has 4 + 11 bits, with the offset 22, and
# -sz has no smaller bit than s, so their sum is exact in float64: rounding that once is
# what an fma does. (It even fits float32, by way of which torch goes to 16 bits; otherwise
# it would be rounded twice. ``rounded`` asserts it.)

import torch
from awqdoc import models, script
from awqdoc import visualization as vis
from awqdoc.quantize import round_to_nearest

options = script.parse(script.parser("Compare forms of dequantization bit by bit."))


def rounded(exact, dtype):
    assert torch.equal(exact.float().double(), exact)
    return exact.to(dtype).double()


def forms(q, z, s, dtype):
    o = 1024 if dtype == torch.float16 else 128
    sz, offset_sz = rounded(s * z, dtype), rounded(s * (o + z), dtype)
    return {
        "(q - z) s": rounded((q - z) * s, dtype),
        "((o + q) - (o + z)) s": rounded(rounded((o + q) - (o + z), dtype) * s, dtype),
        "fma(q, s, -sz)": rounded(q * s - sz, dtype),
        "q s, then - sz": rounded(rounded(q * s, dtype) - sz, dtype),
        "fma(o + q, s, -(o + z)s)": rounded((o + q) * s - offset_sz, dtype),
    }


# %%
# Every case there is
# -------------------
# 16 codes, 16 zero points, and every mantissa that a scale can have: 1024 in FP16, 128 in
# BF16. Another exponent only moves the point, unless a number overflows or becomes too
# small for its mantissa; the assertion tries one. **Predict:** how often does the fma
# differ from (q - z) s? And how often is it not 0 where q = z?

q, z = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
q, z = q.double().unsqueeze(2), z.double().unsqueeze(2)
rows = []
for name, dtype, mantissas in (
    ("FP16", torch.float16, 1024),
    ("BF16", torch.bfloat16, 128),
):
    s = (1 + torch.arange(mantissas).double() / mantissas) / 64
    found, moved = forms(q, z, s, dtype), forms(q, z, s / 16, dtype)
    for form, numbers in found.items():
        assert torch.equal(numbers, 16 * moved[form])
        differs, error = numbers != found["(q - z) s"], ((numbers - (q - z) * s) / s).abs()
        rows.append({
            "form": form, "dtype": name, "differs": float(differs.double().mean()),
            "differs_at_zero": float(differs[(q == z).squeeze()].double().mean()),
            "error": float(error.square().mean().sqrt()), "largest": float(error.max()),
        })  # fmt: skip
shares = vis.plot_forms(rows, vis.Here.now())
script.display(vis.forms_table(rows, vis.Here.now()))

# %%
# Errors are in steps s, in the figure as root mean square; rounding to INT4 errs by up to
# half a step, by 0.29 in this sense (the dashed line). Only the first two forms agree. The
# fma differs in a third of all cases, and where the weight is 0 it mostly gives something
# else: -sz was rounded, q s is not. In FP16 that is less than a hundredth of INT4's error,
# in BF16 less than a tenth.
#
# What surprised us
# -----------------
# Rounding twice keeps every 0: where q = z, both products are rounded alike. And the last
# form is a trap. (o + z)s is more than o steps large, where numbers of 16 bits lie half a
# step to a step apart: rounding it errs by up to half a step, nearly as INT4 itself.

by = {(row["form"], row["dtype"]): row for row in rows}
for name in ("FP16", "BF16"):
    first, offset, fma, twice, fused = (by[form, name] for form in found)
    assert first["differs"] == offset["differs"] == twice["differs_at_zero"] == 0
    assert 0.33 < fma["differs"] < 0.36 < twice["differs"]
    assert fma["differs_at_zero"] > 0.5
    assert fma["error"] < twice["error"] < (0.01 if name == "FP16" else 0.1) * 12**-0.5
    assert fused["error"] > 0.6 * 12**-0.5
    assert fused["largest"] > 0.5

# %%
# In a layer
# ----------
# A gate projection of the shipped model, in groups of 128, its inputs from calibration
# text. The yardstick is the output with unrounded (q - z) s, in float64. First the forms:
# sums in float64, so that nothing else differs, and outputs rounded to FP16. Then, with the
# weight (q - z) s, other ways to sum: float32 in one go, float32 and FP16 in parts of 32
# along k; and each group's sum multiplied by its scale only afterwards, in float32.

model, tokenizer = models.load()
layer, inputs = model.model.layers[3].mlp.gate_proj, []
hook = layer.register_forward_pre_hook(lambda _, given: inputs.extend(given))
with torch.no_grad():
    model(models.calibration_windows(tokenizer, count=1))
hook.remove()
x = inputs[0].flatten(0, 1).half().double()  # [M, K]
weight = layer.weight.detach().T.double()  # [K, N]
quantized = round_to_nearest(weight.float(), group_size=128)
q = quantized.codes.double()
z, s = (t.double().repeat_interleave(128, 0) for t in (quantized.zeros, quantized.scales))
exact = x @ ((q - z) * s)
weights = forms(q, z, s, torch.float16)
first = weights["(q - z) s"]

parts = [x[:, k : k + 32].float() @ first[k : k + 32].float() for k in range(0, len(q), 32)]
whole, in_half = sum(parts), parts[0].half()
for part in parts[1:]:
    in_half = (in_half + part).half()
groups = [(x[:, k : k + 128] @ (q - z)[k : k + 128]).float() for k in range(0, len(q), 128)]
after = (torch.stack(groups) * quantized.scales.float()[:, None]).sum(0)
outputs = {form: x @ numbers for form, numbers in weights.items()}
outputs |= {"float32 in one go": x.float() @ first.float(), "float32 in parts": whole}
outputs |= {"FP16 between parts": in_half, "scale after the sum": after}
errors, table = {}, []
for name, y in outputs.items():
    y = y.half()
    errors[name] = float((y - exact).norm() / exact.norm())
    differs = (y != outputs["(q - z) s"].half()).double().mean()
    share = f"{(weights[name] != first).double().mean():.1%}" if name in weights else ""
    table.append([name, share, f"{differs:.2%}", f"{errors[name]:.4%}"])
int4 = float((exact - x @ weight).norm() / (x @ weight).norm())
table.append(["INT4 itself", "", "", f"{int4:.4%}"])
columns = ["form, or way to sum", "weights differ", "outputs differ", "error"]
script.display(vis.Table(columns, table, vis.Here.now(), "One layer"))

# %%
# No form but the last adds anything to INT4's error that could be seen. Yet the outputs are
# others, with another form as with another way to sum. Float32 sums differ only where one
# lies next to a boundary of FP16; sums that are rounded to FP16 on the way, as the original
# Marlin does between thread blocks, differ in half of the outputs. So equal packed tensors
# are not equal outputs: "bit-identical" holds for outputs only with the same form *and* the
# same order of summing, and a test of a kernel against another one needs a tolerance.

assert int4 > 100 * max(error for name, error in errors.items() if "o + q, s" not in name)
assert errors["scale after the sum"] < errors["(q - z) s"] < errors["FP16 between parts"]
assert errors["fma(o + q, s, -(o + z)s)"] > 0.5 * int4
assert quantized.scales.min() > 2**-14

# %%
# One scale for all of K
# ----------------------
# With a single group, Marlin multiplies the finished sum by the scale. But in FP16: the
# float32 sum of x (q - 8) is rounded, then multiplied, and rounded again. The first
# rounding has a range, too. 4096 inputs of 4 and codes of 15, with a scale of 0.001:

single = round_to_nearest(weight.float(), group_size=-1, symmetric=True)
sums = x.float() @ (single.codes.float() - 8)
once, twice = (sums * single.scales.float()).half(), sums.half() * single.scales
print(
    f"rounded twice, {(once != twice).double().mean():.1%} of this layer's outputs differ"
)

unscaled, scale = (
    torch.full((4096,), 4.0) @ torch.full((4096,), 15.0 - 8),
    torch.tensor(0.001),
)
print(f"sum {unscaled:g}, times scale {unscaled * scale:.1f}; by way of FP16", end=" ")
print(
    f"{unscaled.half() * scale.half():g}, by way of BF16 {unscaled.bfloat16() * scale:.1f}"
)
assert (unscaled * scale).half().isfinite()
assert (unscaled.half() * scale.half()).isinf()

# %%
# FP16 ends at 65504, however small the result would have been; at code 15 a single
# activation of 9400 is enough. With groups, Marlin multiplies the weight by the scale and
# sums afterwards, so that this cannot happen.
#
# Limits
# ------
# - Emulated, not run. A compiler may make an fma of a product and a difference; and the
#   order in which a kernel sums may depend on the GPU: Marlin's on its number of SMs.
# - Scales below 2^-14, whose mantissas are shorter, round differently.

script.show({"forms": shares}, options.output_dir)
