"""The search for clipping thresholds, against every threshold tried on every token."""

from __future__ import annotations

import pytest
import torch
from tiny_models import correlated_inputs

from awqdoc.quantize import clamp_groups, clip, fake_quantize, search_clip

pytestmark = pytest.mark.usefixtures("one_thread")
K, N = 64, 16


def weight_of(seed: int) -> torch.Tensor:
    """[N, K] with a few large values, as clipping is made for."""
    random = torch.Generator().manual_seed(seed)
    weight = torch.randn(N, K, generator=random) * 0.02
    weight[torch.rand(N, K, generator=random) < 0.03] *= 4
    return weight


def errors(weight: torch.Tensor, x: torch.Tensor, g: int, share: float, bits: int, symmetric: bool) -> torch.Tensor:
    """The mean squared error of each group's partial sum, float64 [N, K / g], over all tokens and one at a time."""
    found = torch.empty(N, K // g, dtype=torch.float64)
    for n in range(N):
        for j in range(K // g):
            part = weight[n : n + 1, j * g : (j + 1) * g]
            limit = float(part.abs().max() * share)
            rounded = fake_quantize(part.clamp(-limit, limit), g, bits, symmetric)
            moved = x[:, j * g : (j + 1) * g].double() @ (rounded - part).double().squeeze(0)
            found[n, j] = moved.square().mean()
    return found


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("bits", "group_size"), [(4, 32), (3, 32), (4, -1)])
def test_thresholds_are_the_best_of_ten_tried_on_every_token(bits: int, group_size: int, symmetric: bool) -> None:
    weight, x = weight_of(bits), correlated_inputs(100, K, seed=bits)
    g = K if group_size == -1 else group_size
    found = search_clip(weight, x.t() @ x, group_size, bits, symmetric)
    tried = torch.stack([errors(weight, x, g, 1 - i / 20, bits, symmetric) for i in range(10)])
    largest = weight.unflatten(1, (-1, g)).abs().amax(dim=2)
    chosen = ((1 - found / largest) * 20).round().long()
    torch.testing.assert_close(found, largest * (1 - chosen / 20))
    assert len(chosen.unique()) > 4, "mostly one threshold would test little"
    cost = tried.gather(0, chosen.unsqueeze(0)).squeeze(0)
    torch.testing.assert_close(cost, tried.amin(dim=0), rtol=1e-3, atol=0)
    assert (cost <= tried[0] * 1.001).all(), "never worse than not clipping"


def test_channels_in_portions_are_searched_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, x = weight_of(5), correlated_inputs(100, K, seed=5)
    whole = search_clip(weight, x.t() @ x, 32)
    monkeypatch.setattr(clip, "ROWS", 5)
    torch.testing.assert_close(search_clip(weight, x.t() @ x, 32), whole)


def test_of_equal_errors_the_largest_threshold_is_kept() -> None:
    """Inputs that are always zero: every threshold is as good, and nothing is clipped."""
    weight = weight_of(6)
    found = search_clip(weight, torch.zeros(K, K), 32)
    assert torch.equal(found, weight.unflatten(1, (-1, 32)).abs().amax(dim=2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_every_group_is_clamped_to_its_own_threshold(dtype: torch.dtype) -> None:
    weight = weight_of(7).to(dtype)
    threshold = torch.rand(N, 2, generator=torch.Generator().manual_seed(7)) * 0.03
    clamped = clamp_groups(weight, threshold)
    assert clamped.dtype == dtype
    for n in range(N):
        for k in range(K):
            limit = float(threshold[n, k // 32].to(dtype))
            assert float(clamped[n, k]) == max(-limit, min(limit, float(weight[n, k])))
