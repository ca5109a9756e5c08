"""Marlin as its authors published it (IST-DASLab/marlin, ``marlin/__init__.py``): symmetric, group size 128 or K.

It is installed from its repository: what pip knows as "marlin" is another project.
"""

from __future__ import annotations

import torch
from marlin import mul

from awqdoc.formats import QuantizedWeight
from awqdoc.packing import pack

# Problems of 64 tokens that may run side by side: mul's own default, on which the size of the workspace depends.
MOST_PARALLEL = 16


def prepare(weight: QuantizedWeight) -> dict[str, torch.Tensor]:
    """Return Marlin's ``qweight`` and ``scales``, and the ``workspace``: locks, which each call leaves at zero."""
    packed = pack(weight, "marlin")
    locks = weight.codes.shape[1] // 128 * MOST_PARALLEL
    return {**packed, "workspace": torch.zeros(locks, dtype=torch.int32, device=weight.codes.device)}


def matmul(x: torch.Tensor, prepared: dict[str, torch.Tensor]) -> torch.Tensor:
    """Compute X @ W, float16 [M, N]; partial sums of several SMs are added in float16."""
    y = torch.empty(x.shape[0], prepared["scales"].shape[1], dtype=torch.float16, device=x.device)
    mul(x, prepared["qweight"], y, prepared["scales"], prepared["workspace"], max_par=MOST_PARALLEL)
    return y
