"""The same quantization by three programs: ours, AutoAWQ and GPTQModel, on the same model and calibration text."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from awqdoc import models
from awqdoc.errors import AwqdocError
from awqdoc.experiments import autoawq, gptqmodel, subject
from awqdoc.experiments.autoawq import now
from awqdoc.models import Settings
from awqdoc.models.corpus import SHIPPED

AXES: dict[str, tuple[Any, ...]] = {"method": ("awq", "gptq")}
CPU = True
CLOCK = "time.perf_counter, the GPU synchronized before each reading"
BITS, GROUP_SIZE = 4, 128
# AutoAWQ's defaults.
WINDOWS, LENGTH = 128, 512
WARM_UP = 2
"""Windows of a first run, untimed, in which libraries are loaded and kernels compiled."""


def check(method: str) -> None:
    """Refuse methods that there are not."""
    if method not in ("awq", "gptq"):
        raise AwqdocError(f"The method must be awq or gptq; found {method!r}.")


def run(device: str, method: str) -> list[dict[str, Any]]:
    """Quantize the embedded model with each program that can, and compare with the original.

    AWQ runs with AutoAWQ's options (duo scaling, clipping) in all three.

    Returns
    -------
    list of dict
        ``tool``; ``seconds`` for the whole model, from text to packed layers; and the columns of `subject.distance`.
        Or ``skipped`` with the reason.
    """
    original, tokenizer = subject.subject(models.EMBEDDED, device)
    windows = models.calibration_windows(tokenizer, length=LENGTH, count=WINDOWS)
    settings = Settings(method, BITS, GROUP_SIZE, duo_scaling=True)
    rows: list[dict[str, Any]] = []
    for tool in ("awqdoc", "autoawq", "gptqmodel"):
        lack = _why_not(tool, method, original)
        if lack is not None:
            rows.append({"tool": tool, "skipped": lack})
            continue
        _RUN[tool](original, windows[:WARM_UP], settings, device)
        seconds, result = _RUN[tool](original, windows, settings, device)
        comparison = subject.against_original(models.EMBEDDED, device, result)
        rows.append({"tool": tool, "seconds": [subject.rounded(seconds)], **subject.distance(comparison)})
    return rows


def forget() -> None:
    """Free the model."""
    subject.forget()


def _why_not(tool: str, method: str, model: Any) -> str | None:
    if tool == "autoawq":
        return autoawq.why_not(model) if method == "awq" else "AutoAWQ has no GPTQ"
    return gptqmodel.why_not() if tool == "gptqmodel" else None


def _ours(model: Any, windows: torch.Tensor, settings: Settings, device: str) -> tuple[float, Any]:
    result = copy.deepcopy(model)
    start = now()
    models.quantize(result, windows, settings, progress=False)
    return now() - start, result


def _autoawq(model: Any, windows: torch.Tensor, settings: Settings, device: str) -> tuple[float, Any]:
    result = copy.deepcopy(model)
    start = now()
    autoawq.quantize(result, windows, settings)
    return now() - start, result.to(device)


def _gptqmodel(model: Any, windows: torch.Tensor, settings: Settings, device: str) -> tuple[float, Any]:
    return gptqmodel.quantize(model, Path(SHIPPED), windows, settings, device if device == "cpu" else "cuda:0")


_RUN = {"awqdoc": _ours, "autoawq": _autoawq, "gptqmodel": _gptqmodel}
