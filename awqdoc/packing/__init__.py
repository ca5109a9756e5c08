"""Where each 4-bit code of a weight goes in memory, in every layout in use.

A layout is a value (`LAYOUTS`) that says which bits of k and n make row, word and nibble; `pack`, `unpack`, `convert`
and `Layout.where` are computed from it. Nothing restates a format.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from awqdoc.errors import AwqdocError
from awqdoc.formats import QuantizedWeight
from awqdoc.packing import checks
from awqdoc.packing.bits import Order
from awqdoc.packing.layouts import LAYOUTS, Layout

__all__ = ["LAYOUTS", "Layout", "Order", "convert", "explorer_data", "pack", "unpack"]


def pack(weight: QuantizedWeight, format: str) -> dict[str, torch.Tensor]:
    """Lay a quantized weight out as a format of `LAYOUTS`, bit for bit as the library does that the format comes from.

    Codes of 3 bits take a nibble too. A symmetric weight gets zero points that all say 2^(bits - 1), where the format
    has zero points; one whose zero points all say 8 counts as symmetric where it has none.

    Returns
    -------
    dict
        ``qweight`` int32 (int16 for awq_gemv_fast), ``qzeros`` int32 (float16 for awq_gemv_fast; missing for marlin),
        ``scales`` float16. For awq: [K, N / 8], [K / g, N / 8], [K / g, N].

    Raises
    ------
    AwqdocError
        If there is no such format, or it cannot hold this weight without loss.
    """
    layout = checks.find(format)
    checks.weight(layout, weight)
    order = layout.scale_order(weight.scales.shape[0])
    padding = layout.padding(weight.group_size)
    tensors = {"qweight": layout.weight.to_words(weight.codes)}
    if layout.zeros is not None:
        tensors["qzeros"] = _pack_zeros(layout, layout.zeros, weight, padding)
    tensors["scales"] = (
        order.arrange(_padded(weight.scales, padding)).squeeze(2).clone(memory_format=torch.contiguous_format)
    )
    return tensors


def unpack(
    tensors: dict[str, torch.Tensor],
    format: str,
    *,
    group_size: int,
    shape: tuple[int, int] | None = None,
    bits: int = 4,
) -> QuantizedWeight:
    """Undo `pack`: the tensors of a checkpoint's layer back to codes, scales and zero points.

    Parameters
    ----------
    tensors : dict
        As `pack` returns them.
    group_size : int
        -1: all of K.
    shape : tuple of int or None
        K and N; what they are is known from ``qweight``, so this only checks it.
    bits : int
        Bits of a code.

    Raises
    ------
    AwqdocError
        If a tensor is missing, has another dtype or another size than the others ask for.
    """
    layout = checks.find(format)
    k, n = checks.tensors(layout, tensors, group_size, shape)
    group_size = k if group_size == -1 else group_size
    groups = k // group_size
    rows = groups + -groups % layout.padding(group_size)
    order = layout.scale_order(groups)
    scales = order.restore(tensors["scales"].unsqueeze(2), (rows, n))[:groups]
    codes = layout.weight.from_words(tensors["qweight"], (k, n))
    zeros = None
    if layout.zeros is not None:
        zeros = _unpack_zeros(layout, layout.zeros, tensors["qzeros"], scales, (rows, n))
        checks.zero_points(layout, zeros)
    return QuantizedWeight(codes, scales.contiguous(), zeros, group_size, bits)


def convert(
    tensors: dict[str, torch.Tensor],
    source: str,
    target: str,
    *,
    group_size: int,
    shape: tuple[int, int] | None = None,
    bits: int = 4,
) -> dict[str, torch.Tensor]:
    """Bring packed tensors from one format into another, as checkpoints are repacked for a kernel.

    Raises
    ------
    AwqdocError
        As `unpack` for the source and `pack` for the target.
    """
    return pack(unpack(tensors, source, group_size=group_size, shape=shape, bits=bits), target)


def explorer_data() -> list[dict[str, Any]]:
    """Return the fields of every format's codes as the site's layout explorer takes them: JSON, nothing computed."""
    return [
        {
            "name": layout.name,
            "title": layout.title,
            "row": layout.weight.row,
            "word": layout.weight.word,
            "nibble": layout.weight.nibble,
            "nibbles": layout.weight.nibbles,
            "wordtype": f"int{4 * layout.weight.nibbles}",
            "lane": layout.lane,
        }
        for layout in LAYOUTS.values()
    ]


def _pack_zeros(layout: Layout, order: Order, weight: QuantizedWeight, padding: int) -> torch.Tensor:
    zeros = weight.zeros
    if zeros is None:
        zeros = torch.full(weight.scales.shape, 2 ** (weight.bits - 1), dtype=torch.uint8, device=weight.codes.device)
    if layout.zero == "-s z":
        product = -(weight.scales * zeros)
        if not torch.equal(_zero_of(product, weight.scales), zeros):
            raise AwqdocError(
                f"'{layout.name}' stores -s z in FP16, from which a zero point can be had again only if the scale is "
                f"neither 0 nor so large that the product overflows; found scales from {float(weight.scales.min()):g} "
                f"to {float(weight.scales.max()):g}."
            )
        return order.arrange(_padded(product, padding)).squeeze(2).contiguous()
    stored = zeros - 1 if layout.zero == "z - 1" else zeros
    return order.to_words(_padded(stored, padding))


def _unpack_zeros(
    layout: Layout, order: Order, qzeros: torch.Tensor, scales: torch.Tensor, padded: tuple[int, int]
) -> torch.Tensor:
    groups = len(scales)
    if layout.zero == "-s z":
        return _zero_of(order.restore(qzeros.unsqueeze(2), padded)[:groups], scales).contiguous()
    zeros = order.from_words(qzeros, padded)[:groups].contiguous()
    return zeros + 1 if layout.zero == "z - 1" else zeros


def _zero_of(product: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Return z from -s z and s; 255 where there is none."""
    zero = (-product.float() / scales.float()).round()
    return torch.where((zero >= 0) & (zero <= 15), zero, 255).to(torch.uint8)


def _padded(values: torch.Tensor, multiple: int) -> torch.Tensor:
    """Pad [groups, N] with rows of zeros."""
    return functional.pad(values, (0, 0, 0, -len(values) % multiple))
