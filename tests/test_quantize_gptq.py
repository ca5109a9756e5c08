"""GPTQ, against the paper's equations without the Cholesky factor, without blocks, in float64."""

from __future__ import annotations

import pytest
import torch
from tiny_models import correlated_inputs

from awqdoc.errors import AwqdocError
from awqdoc.formats import QuantizedWeight
from awqdoc.quantize import gptq, round_to_nearest

pytestmark = pytest.mark.usefixtures("one_thread")


def weight_of(k: int, n: int, seed: int) -> torch.Tensor:
    return torch.randn(k, n, generator=torch.Generator().manual_seed(seed)) * 0.02


def textbook(
    weight: torch.Tensor, gram: torch.Tensor, g: int, bits: int, symmetric: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Quantize input channels one by one; return codes [K, N], scales and zero points [K / g, N], float64.

    Equations 2 and 3 of the paper (Frantar et al. 2022): what rounding channel q loses is made up for by all channels
    to come, and then channel q is eliminated from the inverse Hessian by one step of Gauss.
    """
    k, n = weight.shape
    rest, hessian = weight.double().clone(), gram.double().clone()
    dead = hessian.diagonal() == 0
    rest[dead] = 0
    hessian += torch.diag(dead.double() + 0.01 * hessian.diagonal().mean())
    inverse = torch.linalg.inv(hessian)
    codes = torch.zeros(k, n, dtype=torch.float64)
    scales, zeros = torch.zeros(2, k // g, n, dtype=torch.float64)
    top = 2**bits - 1
    for q in range(k):
        if q % g == 0:
            low, high = rest[q : q + g].amin(dim=0).clamp(max=0), rest[q : q + g].amax(dim=0).clamp(min=0)
            if symmetric:
                exact, zero = torch.maximum(high, -low) / (top // 2), torch.full_like(low, (top + 1) // 2)
            else:
                exact = (high - low) / top
                zero = (-low / exact).round()
            scales[q // g], zeros[q // g] = exact.half().double(), zero
        scale, zero = scales[q // g], zeros[q // g]
        codes[q] = (zero + (rest[q] / scale).round()).clamp(0, top)
        error = (rest[q] - (codes[q] - zero) * scale) / inverse[q, q]
        rest -= torch.outer(inverse[:, q], error)
        inverse -= torch.outer(inverse[:, q], inverse[q]) / inverse[q, q].clone()
    return codes, scales, zeros


def output_error(quantized: QuantizedWeight, weight: torch.Tensor, x: torch.Tensor) -> float:
    return float((x.double() @ (quantized.dequantize().double() - weight.double())).square().mean())


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(
    ("k", "group_size", "bits"),
    # 96 and 160 do not divide our blocks of 128, nor do these divide them; -1 reaches over all.
    [(64, 32, 4), (64, 32, 3), (192, 96, 4), (256, 64, 4), (320, 160, 4), (160, -1, 3)],
)
def test_codes_are_those_of_the_textbook(k: int, group_size: int, bits: int, symmetric: bool) -> None:
    weight, x = weight_of(k, 12, seed=k), correlated_inputs(4 * k, k, seed=k)
    g = k if group_size == -1 else group_size
    codes, scales, zeros = textbook(weight, x.t() @ x, g, bits, symmetric)
    ours = gptq(weight, x.t() @ x, group_size, bits, symmetric)
    assert (ours.group_size, ours.bits, ours.symmetric) == (g, bits, symmetric)
    torch.testing.assert_close(ours.scales.double(), scales, rtol=2**-10, atol=0)
    # A tie that falls the other way in float32 changes what comes behind it in its column; nearly none has one.
    same = (ours.codes.double() == codes).all(dim=0)
    if ours.zeros is not None:
        same &= (ours.zeros.double() == zeros).all(dim=0)
    assert same.double().mean() >= 11 / 12


@pytest.mark.parametrize(("bits", "group_size"), [(4, 128), (3, 32), (4, -1)])
@pytest.mark.parametrize("seed", range(5))
def test_output_error_is_smaller_than_that_of_rounding(seed: int, bits: int, group_size: int) -> None:
    weight, x = weight_of(256, 64, seed), correlated_inputs(1024, 256, seed)
    found = output_error(gptq(weight, x.t() @ x, group_size, bits), weight, x)
    assert found < 0.8 * output_error(round_to_nearest(weight, group_size, bits), weight, x)


def test_inputs_that_do_not_go_together_leave_plain_rounding() -> None:
    """With a diagonal Hessian there is nothing to make up for."""
    weight = weight_of(64, 16, seed=3)
    ours = gptq(weight, torch.eye(64) * 50, 32)
    plain = round_to_nearest(weight, 32)
    assert torch.equal(ours.codes, plain.codes)
    assert torch.equal(ours.scales, plain.scales)


def test_a_channel_that_is_always_zero_gets_weight_zero_and_spoils_no_other() -> None:
    weight, x = weight_of(128, 16, seed=4), correlated_inputs(500, 128, seed=4)
    x[:, [5, 77]] = 0
    weight[5] = 30.0  # would leave the rest of its group no steps
    ours = gptq(weight, x.t() @ x, 64)
    assert (ours.dequantize()[[5, 77]] == 0).all()
    codes, _, _ = textbook(weight, x.t() @ x, 64, 4, symmetric=False)
    assert (ours.codes.double() == codes).all(dim=0).double().mean() > 0.8
    assert output_error(ours, weight, x) < output_error(
        round_to_nearest(weight * (x != 0).any(0)[:, None], 64), weight, x
    )


def test_the_weight_is_left_as_it_was() -> None:
    weight, x = weight_of(64, 8, seed=5), correlated_inputs(200, 64, seed=5)
    before = weight.clone()
    gptq(weight, x.t() @ x, 32)
    assert torch.equal(weight, before)


@pytest.mark.parametrize(
    "gram", [torch.full((64, 64), torch.nan), -torch.eye(64)], ids=["not finite", "no Gram matrix"]
)
def test_a_hessian_without_use_is_refused(gram: torch.Tensor) -> None:
    with pytest.raises(AwqdocError, match=r"^GPTQ needs finite inputs that differ; .* no usable Hessian\.$"):
        gptq(weight_of(64, 8, seed=6), gram, 32)


@pytest.mark.parametrize(
    ("change", "group_size", "bits", "words"),
    [
        (torch.nan, 32, 4, "must be finite"),
        (0.0, 48, 4, "multiple of the group size 48; found 64"),
        (0.0, 32, 5, "4 or 3 bits; found 5"),
        (1e7, 32, 4, "float16 holds no scale"),
    ],
)
def test_what_rounding_refuses_is_refused(change: float, group_size: int, bits: int, words: str) -> None:
    weight = weight_of(64, 8, seed=7)
    weight[3, 3] += change
    with pytest.raises(AwqdocError, match=words):
        gptq(weight, torch.eye(64), group_size, bits)
