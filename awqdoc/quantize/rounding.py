"""Plain rounding: a scale and a zero point for each group, and every weight to the nearest code."""

from __future__ import annotations

import torch

from awqdoc.errors import AwqdocError
from awqdoc.formats import QuantizedWeight


def round_to_nearest(
    weight: torch.Tensor, group_size: int = 128, bits: int = 4, symmetric: bool = False
) -> QuantizedWeight:
    """Quantize with a scale and a zero point for each group of rows: plain rounding, no search.

    The formulas are AutoAWQ's (``awq/quantize/quantizer.py``, ``pseudo_quantize_tensor``), but for two
    things: minimum and maximum are widened to include zero, without which a group whose weights share one
    sign is destroyed when its zero point is clamped; and the scale is rounded to float16 before the codes are
    computed, since the kernels multiply with the rounded one.

    Parameters
    ----------
    weight : torch.Tensor
        Floating point [K, N], in_features first.
    group_size : int
        Rows that share a scale; must divide K. -1: all K rows, one scale for each column.
    bits : int
        4 or 3.
    symmetric : bool
        No zero points: the code 2^(bits - 1) stands for zero, and the range reaches as far up as down. As in
        AutoAWQ the code 0 is then never produced (scale = largest magnitude / 7).

    Returns
    -------
    QuantizedWeight

    Raises
    ------
    AwqdocError
        If K is not a multiple of `group_size`, or a weight is not finite.
    """
    group_size = check_weight(weight, group_size)
    groups = weight.float().unflatten(0, (-1, group_size))
    scales, zeros = group_parameters(groups.amin(dim=1), groups.amax(dim=1), bits, symmetric)
    codes = to_codes(groups, scales.unsqueeze(1), zeros.unsqueeze(1), bits).flatten(0, 1).to(torch.uint8)
    return QuantizedWeight(
        codes, scales.half(), None if symmetric else zeros.to(torch.uint8), group_size=group_size, bits=bits
    )


def fake_quantize(weight: torch.Tensor, group_size: int, bits: int = 4, symmetric: bool = False) -> torch.Tensor:
    """Round weights to the values that their codes stand for, without making the codes.

    Parameters
    ----------
    weight : torch.Tensor
        Floating point [N, K] as ``torch.nn.Linear`` stores it; groups are `group_size` neighbours along K.

    Returns
    -------
    torch.Tensor
        float32 [N, K].
    """
    groups = weight.float().unflatten(1, (-1, rows_per_group(weight.shape[1], group_size)))
    low, high = groups.aminmax(dim=2, keepdim=True)
    scales, zeros = group_parameters(low, high, bits, symmetric)
    return ((to_codes(groups, scales, zeros, bits) - zeros) * scales).flatten(1)


def group_parameters(
    low: torch.Tensor, high: torch.Tensor, bits: int, symmetric: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the scale and the zero point of groups whose weights reach from `low` to `high`.

    Both are float32 of the shape of `low`; the scale has a value that float16 holds.
    """
    if bits not in (3, 4):
        raise AwqdocError(f"A code has 4 or 3 bits; found {bits}.")
    if symmetric:
        exact = torch.maximum(high, -low).clamp(min=1e-5) / (2 ** (bits - 1) - 1)
        zeros = torch.full_like(exact, 2 ** (bits - 1))
    else:
        low, high = low.clamp(max=0), high.clamp(min=0)
        exact = ((high - low) / (2**bits - 1)).clamp(min=1e-5)
        zeros = (-low / exact).round().clamp(0, 2**bits - 1)
    scales = exact.half()
    if not torch.isfinite(scales).all():
        raise AwqdocError(
            f"A group reaches from {float(low.min()):.3g} to {float(high.max()):.3g}, for which float16 holds no "
            "scale: look at the checkpoint that the weight comes from."
        )
    return scales.float(), zeros


def to_codes(weight: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, bits: int) -> torch.Tensor:
    """Return the nearest codes as float32, clamped to 0 .. 2^bits - 1: a code outside would spoil its neighbours."""
    return ((weight / scales).round() + zeros).clamp(0, 2**bits - 1)


def rows_per_group(k: int, group_size: int) -> int:
    """Return `group_size`, or K for -1; refuse one that does not divide K."""
    if group_size == -1:
        return k
    if group_size < 1:
        raise AwqdocError(f"The group size must be positive, or -1 for one group in each column; found {group_size}.")
    if k % group_size:
        raise AwqdocError(f"K must be a multiple of the group size {group_size}; found {k}.")
    return group_size


def check_weight(weight: torch.Tensor, group_size: int) -> int:
    """Refuse what is no [K, N], does not divide into groups or holds inf or nan; return the rows of a group."""
    if weight.dim() != 2:
        raise AwqdocError(
            f"The weight must be [K, N] with K a multiple of the group size {group_size}; "
            f"found shape {list(weight.shape)}."
        )
    if not torch.isfinite(weight).all():
        raise AwqdocError("The weight must be finite; it holds inf or nan: look at the checkpoint that it comes from.")
    return rows_per_group(weight.shape[0], group_size)
