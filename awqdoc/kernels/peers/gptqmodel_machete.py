"""Machete, vLLM's Marlin for Hopper, through GPTQModel (7.6.0, ``gptqmodel/utils/machete.py``), which builds it.

The tile is the one that its own heuristic picks, which was tuned on an H100. It takes group sizes 64, 128 and all of K.
"""

from __future__ import annotations

import torch
from gptqmodel.utils.machete import machete_mm, machete_prepack_B
from gptqmodel.utils.marlin_scalar_type import scalar_types

from awqdoc.formats import QuantizedWeight
from awqdoc.packing import pack


def prepare(weight: QuantizedWeight) -> dict[str, torch.Tensor]:
    """Return Machete's ``qweight``, float16 ``scales`` [K / g, N], and unless symmetric ``qzeros``, -s z in float16."""
    qweight = pack(weight, "gptq_v2")["qweight"]
    prepared = {
        "qweight": machete_prepack_B(
            qweight.t().contiguous().t(),  # Machete asks for columns that lie together
            a_type=torch.float16,
            b_type=scalar_types.uint4b8 if weight.symmetric else scalar_types.uint4,
            group_scales_type=torch.float16,
        ),
        "scales": weight.scales.contiguous(),
    }
    if weight.zeros is not None:
        prepared["qzeros"] = -(prepared["scales"] * weight.zeros)
    return prepared


def matmul(x: torch.Tensor, prepared: dict[str, torch.Tensor], schedule: str | None = None) -> torch.Tensor:
    """Compute X @ W, float16 [M, N], with a schedule of Machete's, or the one that it picks."""
    y: torch.Tensor = machete_mm(
        a=x,
        b_q=prepared["qweight"],
        b_type=scalar_types.uint4 if "qzeros" in prepared else scalar_types.uint4b8,
        b_group_scales=prepared["scales"],
        b_group_zeros=prepared.get("qzeros"),
        b_group_size=x.shape[1] // prepared["scales"].shape[0],
        schedule=schedule,
    )
    return y
