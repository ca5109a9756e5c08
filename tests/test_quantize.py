"""Rounding to nearest, against AutoAWQ's own quantizer and against the bound that rounding obeys."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from autoawq_oracle import autoawq
from hypothesis import given, settings
from hypothesis import strategies as st

from awqdoc.errors import AwqdocError
from awqdoc.quantize import fake_quantize, round_to_nearest

pytestmark = pytest.mark.usefixtures("one_thread")

GROUP_SIZES = (-1, 32, 64, 128)


def normal(k: int, n: int, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return (torch.randn(k, n, generator=torch.Generator().manual_seed(seed)) * 0.02).to(dtype)


def steps(scales: torch.Tensor, k: int) -> torch.Tensor:
    """The scale of every weight, [K, N]."""
    return scales.float().repeat_interleave(k // len(scales), 0)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [3, 4])
@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_weights_are_those_of_autoawqs_quantizer(group_size: int, bits: int, symmetric: bool) -> None:
    weight = normal(256, 96, seed=bits)
    options = SimpleNamespace(group_size=group_size, w_bit=bits, zero_point=not symmetric)
    theirs, scales, zeros = autoawq().Quantizer.pseudo_quantize_tensor(options, weight.t().contiguous())
    ours = round_to_nearest(weight, group_size, bits, symmetric)
    assert (ours.zeros is None) == (zeros is None) == symmetric
    assert symmetric or torch.equal(ours.zeros, zeros.t().to(torch.uint8))
    # Theirs are float32; ours are what a kernel gets, rounded to float16 (half a unit in 2^-11).
    torch.testing.assert_close(ours.scales.float(), scales.t(), rtol=2**-11, atol=0)
    # A scale that is rounded moves a code only where the weight lies on the edge between two, and then by one.
    step = steps(ours.scales, 256)
    moved = (ours.dequantize() - theirs.t()).abs() / step
    assert (moved > 0.01).float().mean() < 1e-2
    assert moved.max() < 1.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [3, 4])
@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_fake_quantization_gives_what_the_codes_stand_for(
    group_size: int, bits: int, symmetric: bool, dtype: torch.dtype
) -> None:
    weight = normal(256, 32, seed=group_size, dtype=dtype)
    weight[:, 0] = weight[:, 0].abs() + 1  # one sign
    values = fake_quantize(weight.t(), group_size, bits, symmetric)
    assert values.dtype == torch.float32
    assert torch.equal(values.half(), round_to_nearest(weight, group_size, bits, symmetric).dequantize().t())


weights = st.fixed_dictionaries(
    {"seed": st.integers(0, 2**31), "offset": st.floats(-3, 3), "spread": st.floats(1e-3, 2)}
).map(
    lambda parts: (
        torch.randn(64, 16, generator=torch.Generator().manual_seed(parts["seed"])) * parts["spread"] + parts["offset"]
    )
)


@given(weight=weights, bits=st.sampled_from([3, 4]), symmetric=st.booleans())
@settings(max_examples=60, deadline=None)
def test_no_weight_moves_by_more_than_one_step(weight: torch.Tensor, bits: int, symmetric: bool) -> None:
    """Half a step for the weight and half for the zero point, also where all weights share one sign."""
    quantized = round_to_nearest(weight, 32, bits, symmetric)
    step = steps(quantized.scales, 64)
    assert ((quantized.dequantize().float() - weight).abs() <= 1.02 * step).all()


@given(weight=weights, bits=st.sampled_from([3, 4]), symmetric=st.booleans(), exponent=st.integers(-30, 14))
@settings(max_examples=60, deadline=None)
def test_codes_and_zero_points_fit_their_bits(weight: torch.Tensor, bits: int, symmetric: bool, exponent: int) -> None:
    quantized = round_to_nearest(weight / 16 * 2.0**exponent, 32, bits, symmetric)
    # A symmetric range reaches as far up as down, which leaves the lowest code unused.
    assert int(quantized.codes.min()) >= (1 if symmetric else 0)
    assert int(quantized.codes.max()) < 2**bits
    assert quantized.zeros is None or int(quantized.zeros.max()) < 2**bits
    assert torch.isfinite(quantized.scales).all()
    assert (quantized.scales > 0).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_a_group_of_one_sign_keeps_its_values_where_autoawqs_formula_loses_them(sign: int) -> None:
    weight = sign * torch.linspace(0.5, 0.6, 32).reshape(32, 1).repeat(1, 8)
    assert (round_to_nearest(weight, 32).dequantize().float() - weight).abs().max() < 0.021
    options = SimpleNamespace(group_size=32, w_bit=4, zero_point=True)
    theirs, _, _ = autoawq().Quantizer.pseudo_quantize_tensor(options, weight.t().contiguous())
    assert (theirs.t() - weight).abs().min() > 0.3


def test_groups_of_zeros_and_of_nearly_zeros_are_zeros() -> None:
    weight = torch.cat([torch.full((32, 8), 6e4), torch.zeros(32, 8), torch.full((32, 8), -1e-7)])
    dequantized = round_to_nearest(weight, 32).dequantize()
    assert (dequantized[32:] == 0).all()
    torch.testing.assert_close(dequantized[:32].float(), weight[:32], rtol=1e-3, atol=0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_not_finite_is_refused(bad: float) -> None:
    weight = torch.zeros(32, 8)
    weight[1, 1] = bad
    with pytest.raises(AwqdocError, match=r"^The weight must be finite; it holds inf or nan: .*\.$"):
        round_to_nearest(weight, 32)


@pytest.mark.parametrize("shape", [(100, 8), (32,), (2, 32, 8)])
def test_a_shape_that_groups_do_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(AwqdocError, match="multiple of the group size 32"):
        round_to_nearest(torch.zeros(shape), 32)


@pytest.mark.parametrize("group_size", [0, -2])
def test_a_group_size_that_is_none_is_refused(group_size: int) -> None:
    with pytest.raises(AwqdocError, match=f"^The group size must be positive, or -1 .*; found {group_size}\\.$"):
        round_to_nearest(torch.zeros(32, 8), group_size)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [2, 5, 8])
def test_bits_other_than_3_and_4_are_refused(bits: int, symmetric: bool) -> None:
    with pytest.raises(AwqdocError, match=f"^A code has 4 or 3 bits; found {bits}\\.$"):
        round_to_nearest(torch.ones(32, 8), 32, bits, symmetric)
    with pytest.raises(AwqdocError, match=f"found {bits}"):
        fake_quantize(torch.ones(8, 32), 32, bits, symmetric)


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_range_too_large_for_a_scale_in_float16_is_refused(symmetric: bool) -> None:
    weight = torch.zeros(32, 8)
    weight[3, 3], weight[4, 3] = 1e6, -1e5
    with pytest.raises(AwqdocError, match=r"^A group reaches from -1e\+05 to 1e\+06, .* float16 holds no scale: .*\.$"):
        round_to_nearest(weight, 32, symmetric=symmetric)
