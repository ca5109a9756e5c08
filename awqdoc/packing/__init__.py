"""Where each 4-bit code of a weight goes in memory."""

from __future__ import annotations

import torch

from awqdoc.errors import AwqdocError
from awqdoc.formats import QuantizedWeight

# Nibble (lowest first) of a 32-bit word that holds column 0..7: AutoAWQ, awq/utils/packing_utils.py, whose
# AWQ_ORDER names the inverse. In index bits a rotation: column bits (c2 c1 c0) stand in nibble bits (c0 c2
# c1).
AWQ_NIBBLE_OF_COLUMN = (0, 4, 1, 5, 2, 6, 3, 7)


def _pack_columns(codes: torch.Tensor) -> torch.Tensor:
    """uint8 [R, N] -> int32 [R, N / 8], eight neighbouring columns to a word in AWQ's order."""
    shifts = 4 * torch.tensor(AWQ_NIBBLE_OF_COLUMN, device=codes.device)
    # int64, because shifting a code into the sign bit of an int32 is not defined.
    words = (codes.unflatten(1, (-1, 8)).long() << shifts).sum(dim=2)
    return words.to(torch.int32)


def _unpack_columns(words: torch.Tensor) -> torch.Tensor:
    """int32 [R, N / 8] -> uint8 [R, N], the inverse of `_pack_columns`."""
    shifts = 4 * torch.tensor(AWQ_NIBBLE_OF_COLUMN, device=words.device)
    return ((words.unsqueeze(2) >> shifts) & 15).flatten(1).to(torch.uint8)


def pack(weight: QuantizedWeight, format: str) -> dict[str, torch.Tensor]:
    """Pack a quantized weight as `format`; only ``"awq"`` (AutoAWQ's GEMM version) so far.

    Codes of 3 bits take a nibble too. A symmetric weight gets zero points that all say 2^(bits - 1).

    Returns
    -------
    dict
        ``qweight`` int32 [K, N / 8], ``qzeros`` int32 [K / g, N / 8], ``scales`` float16 [K / g, N], bit for
        bit what AutoAWQ stores in a checkpoint (``awq/modules/linear/gemm.py``,
        ``WQLinear_GEMM.from_linear``).

    Raises
    ------
    AwqdocError
        If the format is unknown, N is not a multiple of 8, or a code lies outside 0 to 15.
    """
    if format != "awq":
        raise AwqdocError(f"The format must be 'awq'; found {format!r}.")
    n = weight.codes.shape[1]
    if n % 8:
        raise AwqdocError(
            f"'awq' packs 8 columns to a word, so N must be a multiple of 8; found {n}, the next is {-(-n // 8) * 8}."
        )
    # The format has no symmetric kind: its zero points then all say 8 (for 4 bits).
    zeros = weight.zeros if weight.zeros is not None else torch.full_like(weight.scales, 2 ** (weight.bits - 1)).byte()
    if max(int(weight.codes.max()), int(zeros.max())) > 15:
        raise AwqdocError("Codes and zero points must be 0 to 15; found a larger one: clamp them before packing.")
    return {
        "qweight": _pack_columns(weight.codes),
        "qzeros": _pack_columns(zeros),
        "scales": weight.scales.clone(),
    }


def unpack(tensors: dict[str, torch.Tensor], format: str, *, group_size: int, bits: int = 4) -> QuantizedWeight:
    """Undo `pack`: the tensors of a checkpoint's layer back to codes, scales and zero points."""
    if format != "awq":
        raise AwqdocError(f"The format must be 'awq'; found {format!r}.")
    return QuantizedWeight(
        codes=_unpack_columns(tensors["qweight"]),
        scales=tensors["scales"],
        zeros=_unpack_columns(tensors["qzeros"]),
        group_size=group_size,
        bits=bits,
    )
