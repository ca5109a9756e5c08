"""Machete with the fastest of its schedules, found by timing them all the first time that a size comes up."""

from __future__ import annotations

from functools import partial

import torch
from gptqmodel.utils.machete import machete_supported_schedules
from gptqmodel.utils.marlin_scalar_type import scalar_types

from awqdoc.kernels.peers import gptqmodel_machete
from awqdoc.kernels.peers.gptqmodel_machete import prepare
from awqdoc.profiling import interleave

__all__ = ["matmul", "prepare"]

ROUNDS = 5
# Calls in a sample, and the bytes of weight that they read in turn: more than any L2 cache holds.
COLD_BYTES = 256 << 20

_best: dict[tuple[int, int, int, bool], str] = {}


def matmul(x: torch.Tensor, prepared: dict[str, torch.Tensor]) -> torch.Tensor:
    """Compute X @ W, float16 [M, N]."""
    size = (*x.shape, prepared["scales"].shape[1], "qzeros" in prepared)
    if size not in _best:
        _best[size] = _fastest(x, prepared)
    return gptqmodel_machete.matmul(x, prepared, _best[size])


def _fastest(x: torch.Tensor, prepared: dict[str, torch.Tensor]) -> str:
    zeros = "qzeros" in prepared
    names = machete_supported_schedules(
        torch.float16,
        scalar_types.uint4 if zeros else scalar_types.uint4b8,
        group_scales_type=torch.float16,
        group_zeros_type=torch.float16 if zeros else None,
        out_type=torch.float16,
    )
    count = -(-COLD_BYTES // prepared["qweight"].nbytes)
    copies = [prepared, *({key: tensor.clone() for key, tensor in prepared.items()} for _ in range(count))]
    calls = {name: [partial(gptqmodel_machete.matmul, x, copy, name) for copy in copies] for name in names}
    samples = interleave(calls, x.device.type, ROUNDS)
    return min(samples, key=lambda name: sorted(samples[name])[ROUNDS // 2])
