"""What the accuracy experiments share: the model, the texts, and what is written down about a quantized model."""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import Any

import torch

from awqdoc import models
from awqdoc.models import Comparison, Settings, walk
from awqdoc.models.families import family_of

OUTLIERS = "embedded+outliers"
"""The embedded model with outliers added by a rescaling that leaves its function as it is."""

WINDOW = 1024
"""Tokens of an evaluation window, the context of the embedded model; the first is not predicted."""


@lru_cache(maxsize=2)
def subject(name: str, device: str) -> tuple[Any, Any]:
    """Return the original model in floating point, and its tokenizer; never to be changed."""
    model, tokenizer = models.load(models.EMBEDDED if name == OUTLIERS else name, device)
    return (models.add_outliers(model) if name == OUTLIERS else model), tokenizer


def quantized(name: str, device: str, settings: Settings, windows: torch.Tensor | None) -> Any:
    """Return a quantized copy of the model."""
    model = copy.deepcopy(subject(name, device)[0])
    models.quantize(model, windows, settings, progress=False)
    return model


@lru_cache(maxsize=4)
def evaluation(name: str, device: str, domain: str = "both") -> tuple[torch.Tensor, int]:
    """Return the windows of the evaluation text, int64 [windows, WINDOW], and their bytes."""
    model, tokenizer = subject(name, device)
    length = min(WINDOW, model.config.max_position_embeddings)
    return models.evaluation_windows(tokenizer, models.shipped_text("evaluation", domain), length)


def against_original(name: str, device: str, model: Any, domain: str = "both", count: int | None = None) -> Comparison:
    """Compare a quantized model with its original on the evaluation text, or on `count` windows spread over it."""
    windows = evaluation(name, device, domain)[0]
    if count is not None:
        windows = windows[:: max(1, len(windows) // count)][:count]
    return models.compare(model, subject(name, device)[0], windows)


def distance(comparison: Comparison) -> dict[str, Any]:
    """Return how far a model is from its original, as the columns of a row.

    ``kl_windows`` and ``nll_windows`` hold the mean of each window, in nats per token: rows that were judged on the
    same windows can be compared window by window, which is far surer than to compare their means.
    """
    kl, error = models.mean_and_error(comparison.kl.mean(dim=1))
    same, same_error = models.mean_and_error(comparison.agreement)
    extra, extra_error = models.mean_and_error((comparison.nll - comparison.nll_original) / comparison.predicted)
    flat = comparison.kl.flatten()
    values = {
        "kl": kl,
        "kl_error": error,
        "kl_median": float(flat.median()),
        "kl_99": float(flat.kthvalue(max(1, round(0.99 * len(flat))))[0]),
        "agreement": same,
        "agreement_error": same_error,
        "extra_nll": extra,
        "extra_nll_error": extra_error,
    }
    samples = {"kl_windows": comparison.kl.mean(dim=1), "nll_windows": comparison.nll / comparison.predicted}
    return {key: rounded(value) for key, value in values.items()} | {
        key: [rounded(float(value)) for value in windows] for key, windows in samples.items()
    }


@lru_cache(maxsize=2)
def input_magnitudes(name: str, device: str) -> dict[str, torch.Tensor]:
    """Return for each linear layer the mean magnitude of its input channels on calibration text, float32 [K]."""
    model, tokenizer = subject(name, device)
    family = family_of(model)
    return {
        f"{place}.{consumer}": seen.statistics[fold.consumers[0]].mean_abs
        for place, _, seen in walk.observations(model, models.calibration_windows(tokenizer, count=32), batch=16)
        for fold in family.folds
        for consumer in fold.consumers
    }


def rounded(value: float) -> float:
    """Keep six digits: more would be noise in the recording."""
    return float(f"{value:.6g}")


def forget() -> None:
    """Free models and texts."""
    for cached in (subject, evaluation, input_magnitudes):
        cached.cache_clear()
