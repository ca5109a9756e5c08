"""Rounding to nearest, against AutoAWQ's own quantizer and against the bound that rounding obeys."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from awqdoc.errors import AwqdocError
from awqdoc.quantize import round_to_nearest


@pytest.mark.parametrize("group_size", [32, 64, 128])
def test_weights_are_those_of_autoawqs_quantizer(group_size: int) -> None:
    with warnings.catch_warnings(record=True):
        pytest.importorskip("awq", reason="autoawq is a package for Linux")
        from awq.quantize.quantizer import AwqQuantizer
    weight = torch.randn(256, 96, generator=torch.Generator().manual_seed(group_size)) * 0.02
    options = SimpleNamespace(group_size=group_size, w_bit=4, zero_point=True)
    theirs, scales, zeros = AwqQuantizer.pseudo_quantize_tensor(options, weight.t().contiguous())
    ours = round_to_nearest(weight, group_size)
    assert torch.equal(ours.zeros, zeros.t().to(torch.uint8))
    # Theirs are float32; ours are what a kernel gets, rounded to float16 (half a unit in 2^-11).
    torch.testing.assert_close(ours.scales.float(), scales.t(), rtol=2**-11, atol=0)
    # A scale that is rounded moves a code only where the weight lies on the edge between two.
    assert (
        (ours.dequantize() - theirs.t()).abs() > 0.01 * ours.scales.repeat_interleave(group_size, 0)
    ).float().mean() < 1e-2


@given(seed=st.integers(0, 2**31), offset=st.floats(-3, 3), spread=st.floats(1e-3, 2))
@settings(max_examples=60, deadline=None)
def test_no_weight_moves_by_more_than_one_step(seed: int, offset: float, spread: float) -> None:
    """Half a step for the weight and half for the zero point, also where all weights share one sign."""
    weight = torch.randn(64, 16, generator=torch.Generator().manual_seed(seed)) * spread + offset
    quantized = round_to_nearest(weight, 32)
    step = quantized.scales.float().repeat_interleave(32, 0)
    assert ((quantized.dequantize().float() - weight).abs() <= 1.02 * step).all()


def test_a_group_of_one_sign_keeps_its_values_where_autoawqs_formula_loses_them() -> None:
    weight = torch.linspace(0.5, 0.6, 32).reshape(32, 1).repeat(1, 8)
    assert (round_to_nearest(weight, 32).dequantize().float() - weight).abs().max() < 0.021


def test_codes_and_zero_points_stay_in_four_bits() -> None:
    weight = torch.cat([torch.full((32, 8), 6e4), torch.zeros(32, 8), torch.full((32, 8), -1e-7)])
    quantized = round_to_nearest(weight, 32)
    assert int(quantized.codes.max()) <= 15
    assert int(quantized.zeros.max()) <= 15
    assert torch.isfinite(quantized.dequantize()).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_refused(bad: float) -> None:
    weight = torch.zeros(32, 8)
    weight[1, 1] = bad
    with pytest.raises(AwqdocError, match="finite"):
        round_to_nearest(weight, 32)


@pytest.mark.parametrize("shape", [(100, 8), (32,), (2, 32, 8)])
def test_a_shape_that_groups_do_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(AwqdocError, match="multiple of the group size 32"):
        round_to_nearest(torch.zeros(shape), 32)
