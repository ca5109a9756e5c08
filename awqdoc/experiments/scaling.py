"""What does a scale do? Multiply the salient channels by s before rounding, and look at steps, groups and error."""

from __future__ import annotations

import copy
from typing import Any

import torch

from awqdoc import models
from awqdoc.errors import AwqdocError
from awqdoc.experiments import subject
from awqdoc.experiments.salient import BITS, EVALUATED, GROUP_SIZE
from awqdoc.models.families import linear_of
from awqdoc.quantize import fake_quantize

AXES: dict[str, tuple[Any, ...]] = {
    "model": (models.EMBEDDED, subject.OUTLIERS),
    "factor": (1.0, 1.25, 1.5, 2.0, 4.0, 8.0),
}
CPU = True
SHARE = 0.01


def check(model: str, factor: float) -> None:
    """Refuse a factor that shrinks."""
    if factor < 1:
        raise AwqdocError(f"The factor must be 1 or more; found {factor}.")


@torch.no_grad()
def run(device: str, model: str, factor: float) -> list[dict[str, Any]]:
    """Scale the salient input channels of every layer up, round, scale them down again, as in table 2 of the AWQ paper.

    Returns
    -------
    list of dict
        One row: ``changed``, the share of groups whose step became another; ``step_ratio``, the mean of new step over
        old; ``error_ratio``, this over `factor`: what the analysis of the paper says of the salient
        channels' error; and the columns of `subject.distance`.
    """
    result = copy.deepcopy(subject.subject(model, device)[0])
    ratios = []
    for name, mean_abs in subject.input_magnitudes(model, device).items():
        weight = linear_of(result, name).weight
        scale = torch.ones_like(mean_abs)
        scale[mean_abs.topk(max(1, round(SHARE * len(mean_abs)))).indices] = factor
        old, new = (_steps(w) for w in (weight.float(), weight.float() * scale))
        ratios.append((new / old).flatten())
        weight.copy_((fake_quantize(weight * scale, GROUP_SIZE, BITS) / scale).to(weight.dtype))
    ratio = torch.cat(ratios)
    comparison = subject.against_original(model, device, result, count=EVALUATED)
    return [
        {
            "changed": subject.rounded(float((ratio != 1).float().mean())),
            "step_ratio": subject.rounded(float(ratio.mean())),
            "error_ratio": subject.rounded(float(ratio.mean()) / factor),
            **subject.distance(comparison),
        }
    ]


def forget() -> None:
    """Free the model."""
    subject.forget()


def _steps(weight: torch.Tensor) -> torch.Tensor:
    """Range of each group [N, K / g], which its step is a fixed share of."""
    low, high = weight.unflatten(1, (-1, GROUP_SIZE)).aminmax(dim=2)
    return high.clamp(min=0) - low.clamp(max=0)
