"""Step 8: the next launch begins before this one has ended; few tokens take step 7, more take step 6.

No new source: both are launched so that a kernel may start, and fetch its first records, while the one before it on the
stream still adds up its last sums (programmatic dependent launch). Both wait for it before they read X.
"""

from __future__ import annotations

import torch

from awqdoc.formats import QuantizedWeight
from awqdoc.kernels.ladder import records, small_batch, warpgroups

FEW_TOKENS = 24  # at 32 step 6 is faster on six of seven layers, at 24 on one


def prepare(weight: QuantizedWeight) -> dict[str, torch.Tensor]:
    """Return the records, once, and the workspaces of both kernels."""
    both = warpgroups.prepare(weight)
    return {**both, "marks": records.board(weight.codes.device)}


def matmul(x: torch.Tensor, prepared: dict[str, torch.Tensor]) -> torch.Tensor:
    """Compute X @ W, float16 [M, N]; X float16 [M, K]."""
    if x.shape[0] > FEW_TOKENS:
        return warpgroups.matmul(x, prepared, overlap=True)
    return small_batch.matmul(x, {"records": prepared["records"], "board": prepared["marks"]}, overlap=True)
