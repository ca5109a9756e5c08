"""Where does AWQ clip, and what does it gain? The thresholds of every group and the error of every layer."""

from __future__ import annotations

from typing import Any

import torch

from awqdoc import models
from awqdoc.experiments import subject
from awqdoc.models import Settings, walk
from awqdoc.models.families import family_of, linear_of
from awqdoc.quantize import clamp_groups, fake_quantize, search_clip
from awqdoc.quantize.clip import GRID, MAX_SHRINK

AXES: dict[str, tuple[Any, ...]] = {"model": (models.EMBEDDED,), "bits": (4, 3), "group_size": (128, 32)}
CPU = True
WINDOWS = 64


def check(model: str, bits: int, group_size: int) -> None:
    """Refuse what cannot be quantized."""
    Settings(bits=bits, group_size=group_size)


@torch.no_grad()
def run(device: str, model: str, bits: int, group_size: int) -> list[dict[str, Any]]:
    """Search the thresholds of every layer that AWQ clips, without scaling, to see clipping alone.

    Returns
    -------
    list of dict
        A row for each layer: ``block``, ``layer``; ``chosen``, how many groups take each threshold 1, 0.95 ... 0.55;
        and the layer's mean squared output error without and with clipping, ``loss`` and ``loss_clipped``.
    """
    original, tokenizer = subject.subject(model, device)
    family = family_of(original)
    windows = models.calibration_windows(tokenizer, count=WINDOWS)
    rows = []
    for place, block, seen in walk.observations(original, windows, batch=16):
        for fold in family.folds:
            statistics = seen.statistics[fold.consumers[0]]
            for name in fold.consumers:
                if name not in family.unclipped:
                    weight = linear_of(block, name).weight.float()
                    found = _one(weight, statistics.gram, statistics.tokens, bits, group_size)
                    rows.append({"block": int(place.rpartition(".")[2]), "layer": name, **found})
    return rows


def forget() -> None:
    """Free the model."""
    subject.forget()


def _one(weight: torch.Tensor, gram: torch.Tensor, tokens: int, bits: int, group_size: int) -> dict[str, Any]:
    threshold = search_clip(weight, gram, group_size, bits)
    largest = weight.unflatten(1, (threshold.shape[1], -1)).abs().amax(dim=2)
    steps = ((1 - threshold / largest.clamp(min=1e-12)) * GRID).round().long().flatten()
    losses = []
    for kept in (weight, clamp_groups(weight, threshold)):
        error = fake_quantize(kept, group_size, bits) - weight
        losses.append(float(((error @ gram) * error).sum()) / (tokens * weight.shape[0]))
    return {
        "chosen": torch.bincount(steps, minlength=int(MAX_SHRINK * GRID)).tolist(),
        "loss": subject.rounded(losses[0]),
        "loss_clipped": subject.rounded(losses[1]),
    }
