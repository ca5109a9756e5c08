"""GPTQ, for comparison: round one input channel after another, and let those to come make up for the error."""

from __future__ import annotations

import torch

from awqdoc.errors import AwqdocError
from awqdoc.formats import QuantizedWeight
from awqdoc.quantize.rounding import check_weight, group_parameters, to_codes

DAMPING = 0.01
BLOCK = 128
"""How many input channels pass before the error is carried to all that follow; any number gives the same result."""


def gptq(
    weight: torch.Tensor, gram: torch.Tensor, group_size: int = 128, bits: int = 4, symmetric: bool = False
) -> QuantizedWeight:
    """Quantize with GPTQ (Frantar et al. 2022, algorithm 1) in the given order of the channels.

    As in IST-DASLab's ``gptq.py`` a group's scale and zero point come from its weights as they are when its first
    channel is reached, the Hessian is damped by 1 % of its mean diagonal, and a channel that is always
    zero gets weight zero.

    Parameters
    ----------
    weight : torch.Tensor
        Floating point [K, N], in_features first.
    gram : torch.Tensor
        X^T X of the layer's input, [K, K]; the Hessian of the layer's squared error up to a factor.

    Returns
    -------
    QuantizedWeight

    Raises
    ------
    AwqdocError
        If shapes do not fit, a value is not finite, or the damped Hessian is still not positive definite.
    """
    g = check_weight(weight, group_size)
    k, n = weight.shape
    rest = weight.float().clone()  # row k: what channel k should be, given the errors made before it
    factor, dead = _inverse_factor(gram)
    rest[dead] = 0
    codes = torch.empty_like(rest)
    scales, zeros = (torch.empty(k // g, n, device=weight.device) for _ in range(2))
    for start in range(0, k, BLOCK):
        stop = min(start + BLOCK, k)
        errors = torch.zeros(stop - start, n, device=weight.device)
        for row in range(start, stop):
            if row % g == 0:
                # The rows of this group beyond the block have not had the block's errors yet.
                group = rest[row : row + g].clone()
                group[stop - row :] -= factor[start:row, stop : row + g].t() @ errors[: row - start]
                scales[row // g], zeros[row // g] = group_parameters(group.amin(0), group.amax(0), bits, symmetric)
            scale, zero = scales[row // g], zeros[row // g]
            codes[row] = to_codes(rest[row], scale, zero, bits)
            error = (rest[row] - (codes[row] - zero) * scale) / factor[row, row]
            rest[row:stop] -= torch.outer(factor[row, row:stop], error)
            errors[row - start] = error
        rest[stop:] -= factor[start:stop, stop:].t() @ errors
    return QuantizedWeight(
        codes.to(torch.uint8), scales.half(), None if symmetric else zeros.to(torch.uint8), group_size=g, bits=bits
    )


def _inverse_factor(gram: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the upper Cholesky factor of the damped Hessian's inverse, float32 [K, K], and which channels are dead."""
    hessian = gram.double() if gram.device.type == "cpu" else gram.float()
    diagonal = hessian.diagonal()
    dead = diagonal == 0
    hessian = hessian + torch.diag(dead.to(hessian.dtype) + DAMPING * diagonal.mean())
    lower, failed = torch.linalg.cholesky_ex(hessian)
    if failed or not torch.isfinite(hessian).all():
        raise AwqdocError("GPTQ needs finite inputs that differ; the calibration text gives no usable Hessian.")
    inverse = torch.cholesky_inverse(lower)
    return torch.linalg.cholesky(inverse, upper=True).float(), dead
