"""From a floating-point weight to INT4 codes."""

from __future__ import annotations

import torch

from awqdoc.errors import AwqdocError
from awqdoc.formats import QuantizedWeight


def round_to_nearest(weight: torch.Tensor, group_size: int = 128) -> QuantizedWeight:
    """Quantize to 4 bits with a scale and a zero point for each group of rows: plain rounding, no search.

    The formulas are AutoAWQ's (``awq/quantize/quantizer.py``, ``pseudo_quantize_tensor`` with
    ``zero_point=True``), but for two things: minimum and maximum are widened to include zero, without which a
    group whose weights share one sign is destroyed when its zero point is clamped; and the scale is rounded
    to float16 before the codes are computed, since the kernels multiply with the rounded one.

    Parameters
    ----------
    weight : torch.Tensor
        Floating point [K, N], in_features first.
    group_size : int
        Rows that share a scale; must divide K.

    Returns
    -------
    QuantizedWeight

    Raises
    ------
    AwqdocError
        If K is not a multiple of `group_size`, or a weight is not finite.
    """
    k = weight.shape[0]
    if weight.dim() != 2 or k % group_size:
        raise AwqdocError(
            f"The weight must be [K, N] with K a multiple of the group size {group_size}; "
            f"found shape {tuple(weight.shape)}."
        )
    if not torch.isfinite(weight).all():
        raise AwqdocError("The weight must be finite; it holds inf or nan: look at the checkpoint that it comes from.")
    groups = weight.float().unflatten(0, (-1, group_size))
    low = groups.amin(dim=1).clamp(max=0)
    high = groups.amax(dim=1).clamp(min=0)
    exact = ((high - low) / 15).clamp(min=1e-5)
    scales = exact.half()
    zeros = (-low / exact).round().clamp(0, 15)
    codes = ((groups / scales.float().unsqueeze(1)).round() + zeros.unsqueeze(1)).clamp(0, 15)
    return QuantizedWeight(codes.flatten(0, 1).to(torch.uint8), scales, zeros.to(torch.uint8), group_size)
