"""AWQ's second search: how far to pull in the largest weights of each group, so that the others get finer steps."""

from __future__ import annotations

import torch

from awqdoc.quantize.precision import tf32
from awqdoc.quantize.rounding import fake_quantize, rows_per_group

GRID = 20
MAX_SHRINK = 0.5
"""Ten thresholds are tried, 1, 0.95 ... 0.55 times the largest magnitude of the group, as in the references."""

# Output channels at a time. 256 of 14336 inputs are 15 MB in float32, and the candidates need a few of that.
ROWS = 2048


def search_clip(
    weight: torch.Tensor, gram: torch.Tensor, group_size: int, bits: int = 4, symmetric: bool = False
) -> torch.Tensor:
    """Find, for each output channel and group, the threshold whose clamped and rounded weights err least.

    The error of a group is that of its own partial sum over the calibration tokens, as in llm-awq
    (``awq/quantize/auto_clip.py``) and AutoAWQ, which take at most 512 of the tokens. Here it is
    e (X_g^T X_g) e^T, from the diagonal blocks of the Gram matrix, and so covers all tokens at less work.

    Parameters
    ----------
    weight : torch.Tensor
        Floating point [N, K], already scaled.
    gram : torch.Tensor
        X^T X of the scaled input, float32 [K, K].

    Returns
    -------
    torch.Tensor
        float32 [N, K / g]: the largest magnitude to keep, a value that the weight's dtype holds.
    """
    k = weight.shape[1]
    g = rows_per_group(k, group_size)
    # [K / g, g, g]: how the inputs of a group go together.
    blocks = torch.stack([gram[i : i + g, i : i + g] for i in range(0, k, g)])
    return torch.cat([_search_rows(rows, blocks, g, bits, symmetric) for rows in weight.split(ROWS)])


def _search_rows(weight: torch.Tensor, blocks: torch.Tensor, g: int, bits: int, symmetric: bool) -> torch.Tensor:
    dtype, weight = weight.dtype, weight.float()
    largest = weight.unflatten(1, (-1, g)).abs().amax(dim=2)  # [N, K / g]
    best, least = largest.clone(), torch.full_like(largest, torch.inf)
    for i in range(int(MAX_SHRINK * GRID)):
        # A group clamped on both sides has its zero point half way between two codes. Were the threshold rounded to
        # the weight's dtype only afterwards, many would fall on the other side than here (2 % more output error).
        threshold = (largest * (1 - i / GRID)).to(dtype).float()
        error = fake_quantize(clamp_groups(weight, threshold), g, bits, symmetric) - weight
        error = error.unflatten(1, (-1, g)).transpose(0, 1)  # [K / g, N, g]
        with tf32():
            loss = (torch.bmm(error, blocks) * error).sum(dim=2).t()
        better = loss < least
        least = torch.where(better, loss, least)
        best = torch.where(better, threshold, best)
    return best


def clamp_groups(weight: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
    """Clamp a weight [N, K] to plus and minus the threshold [N, K / g] of its group."""
    groups = weight.unflatten(1, (threshold.shape[1], -1))
    limit = threshold.to(weight.dtype).unsqueeze(2)
    return groups.clamp(-limit, limit).flatten(1)
