"""Marlin as vLLM went on with it, through GPTQModel (7.6.0, ``gptqmodel/utils/marlin.py``), which builds it on demand.

The arguments are those that its layers pass (``marlin.py`` and ``marlin_awq.py`` in ``nn_modules/qlinear``) where N is
2048 or more: sums of several SMs are added in float32, in an order that does not change. For less, and only for AWQ,
its layer adds them in any order with atomics; this adapter never does.
"""

from __future__ import annotations

import torch
from gptqmodel.utils.marlin import gptq_marlin_gemm, marlin_make_workspace_new
from gptqmodel.utils.marlin_scalar_type import scalar_types

from awqdoc.formats import QuantizedWeight
from awqdoc.packing import pack


def prepare(weight: QuantizedWeight) -> dict[str, torch.Tensor]:
    """Return Marlin's ``qweight``, ``scales``, ``qzeros`` unless symmetric, and ``workspace``: locks, left at zero."""
    packed = pack(weight, "awq_marlin")
    if weight.symmetric:  # the kernel then subtracts 8 by itself
        del packed["qzeros"]
    return {**packed, "workspace": marlin_make_workspace_new(weight.codes.device)}


def matmul(x: torch.Tensor, prepared: dict[str, torch.Tensor]) -> torch.Tensor:
    """Compute X @ W, float16 [M, N]."""
    (m, k), n = x.shape, prepared["scales"].shape[1]
    y: torch.Tensor = gptq_marlin_gemm(
        x,
        None,  # where the result goes: a new tensor
        prepared["qweight"],
        None,  # bias
        prepared["scales"],
        None,  # global scale, of FP4
        prepared.get("qzeros"),
        None,  # activation order
        None,  # and its permutation
        prepared["workspace"],
        scalar_types.uint4 if "qzeros" in prepared else scalar_types.uint4b8,
        size_m=m,
        size_n=n,
        size_k=k,
        use_atomic_add=False,
        use_fp32_reduce=True,
    )
    return y
