"""What do bits, group size and symmetry cost when weights are just rounded?"""

from __future__ import annotations

import copy
from typing import Any

import torch

from awqdoc import models
from awqdoc.experiments import subject
from awqdoc.models import Settings
from awqdoc.models.families import blocks_of, family_of, linear_of
from awqdoc.quantize import round_to_nearest

AXES: dict[str, tuple[Any, ...]] = {
    "model": (models.EMBEDDED,),
    "bits": (4, 3),
    "group_size": (-1, 128, 64, 32),
    "symmetric": (False, True),
}
CPU = True
EVALUATED = 48
"""Windows of the evaluation text."""


def check(model: str, bits: int, group_size: int, symmetric: bool) -> None:
    """Refuse what cannot be quantized."""
    Settings("rtn", bits, group_size, symmetric)


@torch.no_grad()
def run(device: str, model: str, bits: int, group_size: int, symmetric: bool) -> list[dict[str, Any]]:
    """Round every linear layer of every block and compare with the original.

    Returns
    -------
    list of dict
        One row: ``weight_error``, the norm of the rounding error over that of the weights, all layers together;
        ``bits_per_weight`` with scales and zero points; and the columns of `subject.distance`.
    """
    result = copy.deepcopy(subject.subject(model, device)[0])
    family = family_of(result)
    error = norm = bits_stored = 0.0
    count = 0
    for block in blocks_of(result, family):
        for name in family.linears:
            weight = linear_of(block, name).weight
            rounded = round_to_nearest(weight.t(), group_size, bits, symmetric)
            restored = rounded.dequantize().t()
            error += float((restored.float() - weight.float()).square().sum())
            norm += float(weight.float().square().sum())
            bits_stored += rounded.bits_per_weight * weight.numel()
            count += weight.numel()
            weight.copy_(restored)
    comparison = subject.against_original(model, device, result, count=EVALUATED)
    return [
        {
            "weight_error": subject.rounded((error / norm) ** 0.5),
            "bits_per_weight": subject.rounded(bits_stored / count),
            **subject.distance(comparison),
        }
    ]


def forget() -> None:
    """Free the model."""
    subject.forget()
