"""Which weights matter? Keep a few input channels in FP16, chosen by activation, by weight or at random, at INT3."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from awqdoc import models
from awqdoc.errors import AwqdocError
from awqdoc.experiments import SEED, subject
from awqdoc.models.families import linear_of
from awqdoc.quantize import fake_quantize

AXES: dict[str, tuple[Any, ...]] = {"model": (models.EMBEDDED, subject.OUTLIERS), "share": (0.01, 0.03, 0.1)}
CPU = True
BITS, GROUP_SIZE = 3, 128
SEEDS = 5
"""Draws of random channels, whose spread is the error bar of the comparison."""
EVALUATED = 48
"""Windows of the evaluation text."""

Pick = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def check(model: str, share: float) -> None:
    """Refuse a share that is none."""
    if not 0 < share < 1:
        raise AwqdocError(f"The share of channels must lie between 0 and 1; found {share}.")


def run(device: str, model: str, share: float) -> list[dict[str, Any]]:
    """Round every layer of the model but for some input channels, and compare with the original.

    Returns
    -------
    list of dict
        ``pick`` none (everything is rounded), activation, weight, or random with its ``seed``; the mean number of
        ``channels`` kept of each layer; and the columns of `subject.distance`.
    """
    means = subject.input_magnitudes(model, device)
    picks: list[tuple[str, int | None, Pick | None]] = [
        ("none", None, None),
        ("activation", None, lambda mean_abs, weight: mean_abs),
        ("weight", None, lambda mean_abs, weight: weight.float().norm(dim=0)),
        *(("random", seed, _random(seed)) for seed in range(SEEDS)),
    ]
    rows = []
    for name, seed, pick in picks:
        result, channels = _keep(subject.subject(model, device)[0], means, share, pick)
        comparison = subject.against_original(model, device, result, count=EVALUATED)
        rows.append({"pick": name, "seed": seed, "channels": channels, **subject.distance(comparison)})
    return rows


def forget() -> None:
    """Free the model."""
    subject.forget()


def _random(seed: int) -> Pick:
    generator = torch.Generator().manual_seed(SEED + seed)
    return lambda mean_abs, weight: torch.rand(len(mean_abs), generator=generator).to(mean_abs.device)


@torch.no_grad()
def _keep(
    original: nn.Module, means: dict[str, torch.Tensor], share: float, pick: Pick | None
) -> tuple[nn.Module, float]:
    """Return a rounded copy whose picked channels are as they were, and how many of a layer these are on average."""
    model = copy.deepcopy(original)
    counts = []
    for name, mean_abs in means.items():
        weight = linear_of(model, name).weight
        rounded = fake_quantize(weight, GROUP_SIZE, BITS).to(weight.dtype)
        if pick is not None:
            count = max(1, round(share * weight.shape[1]))
            kept = pick(mean_abs, weight).topk(count).indices
            rounded[:, kept] = weight[:, kept]
            counts.append(count)
        weight.copy_(rounded)
    return model, subject.rounded(sum(counts) / max(1, len(counts)))
