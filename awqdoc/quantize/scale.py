"""AWQ's search: which scale for each input channel makes the rounded layer closest to the original one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from awqdoc.errors import AwqdocError
from awqdoc.quantize.precision import tf32
from awqdoc.quantize.rounding import fake_quantize, rows_per_group

GRID = 20
"""How many values of alpha are tried, 0, 0.05 ... 0.95; the references' grid, on which 1 is never tried."""


@dataclass(frozen=True)
class ScaleSearch:
    """What a search found.

    Attributes
    ----------
    alpha : float
        The best exponent.
    scale : torch.Tensor
        float32 [K]: what each input channel of the weight is multiplied with, and its activation divided by.
    losses : tuple of float
        Mean squared output error of every alpha of the grid, in its order.
    """

    alpha: float
    scale: torch.Tensor
    losses: tuple[float, ...]


def mean_relative_weight(weights: Sequence[torch.Tensor], group_size: int) -> torch.Tensor:
    """Return, for each input channel, the mean magnitude of its weights relative to the largest of its group.

    AutoAWQ's ``w_mean`` (``awq/quantize/quantizer.py``, ``_search_best_scale``), which duo scaling divides by.

    Parameters
    ----------
    weights : sequence of torch.Tensor
        The linear layers that share an input, each [N_i, K].

    Returns
    -------
    torch.Tensor
        float32 [K].
    """
    weight = torch.cat([w.float().abs() for w in weights])
    groups = weight.unflatten(1, (-1, rows_per_group(weight.shape[1], group_size)))
    return (groups / (groups.amax(dim=2, keepdim=True) + 1e-6)).flatten(1).mean(dim=0)


def candidates(mean_abs: torch.Tensor, relative_weight: torch.Tensor | None = None) -> list[torch.Tensor]:
    """Return the scale for each alpha of the grid: s = s_X^alpha, normalised by the root of its extremes.

    Parameters
    ----------
    mean_abs : torch.Tensor
        [K], mean magnitude of each input channel over the calibration tokens: s_X of the AWQ paper (section 3.2,
        equations 4 and 5).
    relative_weight : torch.Tensor or None
        With `mean_relative_weight`, AutoAWQ's *duo scaling*: s = s_X^alpha / (s_W^(1 - alpha) + 1e-4). At alpha = 0
        it divides by s_W, so that "no scaling" is then not on the grid.

    Returns
    -------
    list of torch.Tensor
        `GRID` tensors, float32 [K].
    """
    mean_abs = mean_abs.float()
    scales = []
    for i in range(GRID):
        alpha = i / GRID
        scale = mean_abs.pow(alpha)
        if relative_weight is not None:
            scale = scale / (relative_weight.pow(1 - alpha) + 1e-4)
        scale = scale.clamp(min=1e-4)
        scale = scale / (scale.max() * scale.min()).sqrt()
        scales.append(torch.where(torch.isfinite(scale), scale, 1.0))
    return scales


def search_scale(loss: Callable[[torch.Tensor], float], scales: Sequence[torch.Tensor]) -> ScaleSearch:
    """Try every scale of the grid and keep the one with the least loss, the first of equals.

    Parameters
    ----------
    loss : callable
        Scale [K] -> mean squared difference between the output of the original and of the rounded layer, as
        `gram_loss` for a linear one.

    Raises
    ------
    AwqdocError
        If no loss is finite.
    """
    losses = tuple(loss(scale) for scale in scales)
    finite = [i for i, value in enumerate(losses) if value == value and value != float("inf")]
    if not finite:
        raise AwqdocError(
            "No scale gave a finite output: the model overflows on the calibration text; try float32 if it is in "
            "half precision."
        )
    best = min(finite, key=losses.__getitem__)
    return ScaleSearch(best / GRID, scales[best], losses)


def gram_loss(
    weights: Sequence[torch.Tensor],
    gram: torch.Tensor,
    tokens: int,
    group_size: int,
    bits: int = 4,
    symmetric: bool = False,
) -> Callable[[torch.Tensor], float]:
    """Return the loss of linear layers, computed from their input's Gram matrix instead of from every token.

    With E = Q(W s) / s - W the summed squared error over all tokens is trace(E (X^T X) E^T), the same number as
    the references get by multiplying every token, for K instead of `tokens` rows of work.

    Parameters
    ----------
    weights : sequence of torch.Tensor
        Each [N_i, K], sharing the input.
    gram : torch.Tensor
        X^T X, float32 [K, K].
    tokens : int
        Rows of X, for the mean.
    """
    originals = [w.float() for w in weights]
    outputs = sum(w.shape[0] for w in originals)

    def loss(scale: torch.Tensor) -> float:
        total = torch.zeros((), device=gram.device)
        for weight in originals:
            error = fake_quantize(weight * scale, group_size, bits, symmetric) / scale - weight
            with tf32():
                total += ((error @ gram) * error).sum()
        return float(total) / (tokens * outputs)

    return loss
