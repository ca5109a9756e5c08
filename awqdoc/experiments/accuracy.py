"""What does INT4 cost in accuracy? FP16 beside rounding, GPTQ and AWQ, at 4 and 3 bits and several group sizes."""

from __future__ import annotations

import copy
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from awqdoc import models
from awqdoc.experiments import subject
from awqdoc.models import Settings, calibration_windows
from awqdoc.models.checkpoint import quiet

AXES: dict[str, tuple[Any, ...]] = {
    "model": (models.EMBEDDED, subject.OUTLIERS),
    "bits": (4, 3),
    "group_size": (-1, 128, 64, 32),
}
CPU = True
METHODS = ("rtn", "gptq", "awq")


def check(model: str, bits: int, group_size: int) -> None:
    """Refuse what cannot be quantized, before anything is."""
    Settings(bits=bits, group_size=group_size)


def run(device: str, model: str, bits: int, group_size: int) -> list[dict[str, Any]]:
    """Quantize with every method and compare with the original on the evaluation text.

    Returns
    -------
    list of dict
        A row for the original (``method`` fp16) and one for each method: ``nll_windows``, the negative log-likelihood
        of each window in nats per token; ``predicted``, tokens of each window; ``text_bytes``; ``bits_per_weight``
        of the quantized layers with scales and zero points; ``memory_bytes`` of all tensors of the model, and
        ``file_bytes`` of its saved weights, which only 4 bits have; and the columns of `subject.distance`.
    """
    text_bytes = subject.evaluation(model, device)[1]
    windows = _calibration(model, device)
    rows: list[dict[str, Any]] = []
    for method in METHODS:
        settings = Settings(method, bits, group_size)
        result = subject.quantized(model, device, settings, windows)
        comparison = subject.against_original(model, device, result)
        shared = {"predicted": comparison.predicted, "text_bytes": text_bytes}
        if not rows:
            nll = comparison.nll_original / comparison.predicted
            samples = {"nll_windows": [subject.rounded(float(value)) for value in nll]}
            rows.append({"method": "fp16", **samples, **shared, **_original(model, device)})
        rows.append(
            {
                "method": method,
                **shared,
                "bits_per_weight": _bits_per_weight(result),
                "memory_bytes": _memory_bytes(result),
                "file_bytes": _file_bytes(result, subject.subject(model, device)[1]) if bits == 4 else None,
                **subject.distance(comparison),
            }
        )
    return rows


def forget() -> None:
    """Free the models."""
    subject.forget()
    _calibration.cache_clear()


@lru_cache(maxsize=1)
def _calibration(model: str, device: str) -> torch.Tensor:
    return calibration_windows(subject.subject(model, device)[1])


def _original(name: str, device: str) -> dict[str, Any]:
    """Bytes of the original in FP16, also where it runs in FP32 on a CPU."""
    model = copy.deepcopy(subject.subject(name, device)[0]).half()
    with tempfile.TemporaryDirectory() as folder:
        with quiet():
            model.save_pretrained(folder)
        size = sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))
    return {"bits_per_weight": 16.0, "memory_bytes": models.stored_bytes(model), "file_bytes": size}


def _memory_bytes(model: Any) -> int:
    """Bytes of all tensors with what is not quantized in FP16, also where it runs in FP32 on a CPU."""
    return models.stored_bytes(copy.deepcopy(model).half())


def _bits_per_weight(model: Any) -> float:
    layers = [layer.quantized_weight for layer in model.modules() if isinstance(layer, models.QuantizedLinear)]
    weights = sum(layer.codes.numel() for layer in layers)
    return subject.rounded(sum(layer.bits_per_weight * layer.codes.numel() for layer in layers) / weights)


def _file_bytes(model: Any, tokenizer: Any) -> int:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "checkpoint"
        models.save(model, tokenizer, target)
        return sum(file.stat().st_size for file in target.glob("*.safetensors"))
