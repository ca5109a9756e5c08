"""The search for scales, against AutoAWQ's formula and against outputs computed token by token."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_models import correlated_inputs

from awqdoc.errors import AwqdocError
from awqdoc.quantize import (
    InputStatistics,
    candidates,
    fake_quantize,
    gram_loss,
    mean_relative_weight,
    round_to_nearest,
    search_scale,
    windows,
)

pytestmark = pytest.mark.usefixtures("one_thread")
K, N, G = 64, 24, 32


@pytest.fixture
def inputs() -> torch.Tensor:
    return correlated_inputs(200, K, seed=0)


@pytest.fixture
def layers() -> list[torch.Tensor]:
    """Two linear layers [N_i, K] that read the same input."""
    random = torch.Generator().manual_seed(1)
    return [torch.randn(n, K, generator=random) * 0.02 for n in (N, 2 * N)]


def statistics_of(inputs: torch.Tensor) -> InputStatistics:
    statistics = InputStatistics("layer")
    statistics.add(inputs)
    return statistics


@pytest.mark.parametrize("group_size", [G, -1])
def test_relative_weight_is_the_mean_of_each_channel_over_the_largest_of_its_group(
    layers: list[torch.Tensor], group_size: int
) -> None:
    width = K if group_size == -1 else group_size
    expected = []
    for k in range(K):
        start = k // width * width
        shares = [abs(float(row[k])) / float(row[start : start + width].abs().max()) for w in layers for row in w]
        expected.append(sum(shares) / len(shares))
    found = mean_relative_weight(layers, group_size)
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-3, atol=0)  # theirs and ours add 1e-6


def autoawq_scales(x_mean: torch.Tensor, w_mean: torch.Tensor, duo: bool) -> list[torch.Tensor]:
    """The formula of AutoAWQ's `_compute_best_scale`, written down from it."""
    found = []
    for ratio in (i / 20 for i in range(20)):
        raw = x_mean**ratio / (w_mean ** (1 - ratio) + 1e-4) if duo else x_mean**ratio
        raw = raw.clamp(min=1e-4)
        found.append(raw / torch.sqrt(raw.max() * raw.min()))
    return found


@pytest.mark.parametrize("duo", [False, True])
def test_candidates_are_those_of_autoawqs_formula(inputs: torch.Tensor, layers: list[torch.Tensor], duo: bool) -> None:
    inputs[:, 5] = 0  # a channel that is never used
    x_mean, w_mean = inputs.abs().mean(dim=0), mean_relative_weight(layers, G)
    found = candidates(statistics_of(inputs).mean_abs, w_mean if duo else None)
    assert len(found) == 20
    for ours, theirs in zip(found, autoawq_scales(x_mean, w_mean, duo), strict=True):
        torch.testing.assert_close(ours, theirs)
        # As far above one as below.
        assert float(ours.max() * ours.min()) == pytest.approx(1, rel=1e-4)


def test_the_first_candidate_is_no_scaling_unless_scaling_is_duo(inputs: torch.Tensor) -> None:
    x_mean = inputs.abs().mean(dim=0)
    assert torch.equal(candidates(x_mean)[0], torch.ones(K))
    assert not torch.equal(candidates(x_mean, torch.linspace(0.1, 0.9, K))[0], torch.ones(K))


def test_a_scale_that_is_not_finite_becomes_one() -> None:
    huge = torch.tensor([1.0, torch.inf])
    assert all(torch.isfinite(scale).all() for scale in candidates(huge))


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [3, 4])
def test_loss_from_the_gram_matrix_is_the_error_over_all_tokens(
    inputs: torch.Tensor, layers: list[torch.Tensor], bits: int, symmetric: bool
) -> None:
    loss = gram_loss(layers, statistics_of(inputs).gram, len(inputs), G, bits, symmetric)
    x = inputs.double()
    for scale in candidates(inputs.abs().mean(dim=0))[::6]:
        squares = []
        for weight in layers:
            # The layer as it would run: its weight scaled and rounded, its input divided.
            rounded = round_to_nearest((weight * scale).t(), G, bits, symmetric)
            zeros = torch.full((K // G, 1), 2 ** (bits - 1)) if rounded.zeros is None else rounded.zeros
            steps = rounded.codes.double() - zeros.double().repeat_interleave(G, 0)
            values = steps * rounded.scales.double().repeat_interleave(G, 0)
            squares.append(((x / scale.double()) @ values - x @ weight.t().double()).square())
        assert loss(scale) == pytest.approx(float(torch.cat(squares, dim=1).mean()), rel=1e-4)


def test_search_finds_what_trying_every_scale_on_every_token_finds(
    inputs: torch.Tensor, layers: list[torch.Tensor]
) -> None:
    statistics = statistics_of(inputs)
    scales = candidates(statistics.mean_abs)
    found = search_scale(gram_loss(layers, statistics.gram, statistics.tokens, G), scales)
    weight = torch.cat(layers)
    errors = [
        float((((inputs / s) @ fake_quantize(weight * s, G).t() - inputs @ weight.t()).double() ** 2).mean())
        for s in scales
    ]
    best = errors.index(min(errors))
    assert 0 < best < 19, "the edge of the grid would test little"
    assert found.alpha == best / 20
    assert torch.equal(found.scale, scales[best])
    assert found.losses == pytest.approx(errors, rel=1e-3)


SCALES = [torch.full((2,), float(i)) for i in range(20)]


def test_the_first_of_equals_is_kept() -> None:
    found = search_scale(lambda scale: 1.0 if float(scale[0]) in (3, 7) else 2.0, SCALES)
    assert found.alpha == 3 / 20
    assert torch.equal(found.scale, SCALES[3])


def test_losses_that_are_not_finite_are_passed_over() -> None:
    losses = [math.nan, math.inf, 5.0, 4.0, *[math.nan] * 16]
    assert search_scale(lambda scale: losses[int(scale[0])], SCALES).alpha == 3 / 20


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_no_finite_loss_at_all_is_refused(loss: float) -> None:
    with pytest.raises(
        AwqdocError, match=r"^No scale gave a finite output: .*; try float32 if it is in half precision\.$"
    ):
        search_scale(lambda _: loss, SCALES)


# What is calibrated on.


def test_statistics_are_those_of_all_inputs_in_any_portions(inputs: torch.Tensor) -> None:
    statistics = InputStatistics("layer")
    statistics.add(inputs[:120].view(2, 60, K))
    statistics.add(inputs[120:].view(1, 80, K))
    x = inputs.double()
    assert statistics.tokens == 200
    torch.testing.assert_close(statistics.mean_abs.double(), x.abs().mean(dim=0), rtol=1e-5, atol=0)
    torch.testing.assert_close(statistics.gram.double(), x.t() @ x, rtol=1e-4, atol=1e-2)


def test_statistics_divided_are_those_of_divided_inputs(inputs: torch.Tensor) -> None:
    scale = torch.linspace(0.1, 10, K)
    divided = statistics_of(inputs)
    divided.divide(scale)
    again = statistics_of(inputs / scale)
    torch.testing.assert_close(divided.mean_abs, again.mean_abs)
    torch.testing.assert_close(divided.gram, again.gram, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize(
    ("dtype", "advice"), [(torch.float16, "try float32"), (torch.float32, "look at the checkpoint that it comes from")]
)
def test_an_input_that_is_not_finite_is_refused_by_the_layers_name(
    inputs: torch.Tensor, bad: float, dtype: torch.dtype, advice: str
) -> None:
    inputs[3, 3] = bad
    with pytest.raises(AwqdocError, match=rf"^The input of layers.7.fc1 holds inf or nan .*; {advice}\.$"):
        InputStatistics("layers.7.fc1").add(inputs.to(dtype))


def test_windows_are_cut_without_overlap_from_the_start() -> None:
    assert windows(range(25), 6).tolist() == [[*range(6)], [*range(6, 12)], [*range(12, 18)], [*range(18, 24)]]
    assert windows(torch.arange(25), 6, count=2).tolist() == [[*range(6)], [*range(6, 12)]]
    assert windows(range(600 * 512), count=None).shape == (600, 512)
    assert windows(range(600 * 512)).shape == (128, 512)


def test_text_without_a_token_is_refused() -> None:
    with pytest.raises(AwqdocError, match=r"^The calibration text is empty: .*\.$"):
        windows([])


@pytest.mark.parametrize(("length", "count"), [(0, 1), (-1, 1), (2, 0), (2, -1)])
def test_windows_of_nothing_are_refused(length: int, count: int) -> None:
    with pytest.raises(AwqdocError, match=rf"of 1 or more; found length {length}, count {count}\.$"):
        windows(range(10), length, count)


def test_text_shorter_than_a_window_is_refused() -> None:
    with pytest.raises(AwqdocError, match=r"^The text has 511 tokens, fewer than one window of 512: .*\.$"):
        windows(range(511))
