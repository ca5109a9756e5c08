"""PyTorch's own INT4 product, tinygemm (pytorch, ``aten/src/ATen/native/cuda/int4mm.cu``): bfloat16 in and out.

X comes as float16, as for every backend, and Y goes as float16, so what is timed holds two more kernels that convert
them. A model in bfloat16 would not have those. Scales and zero points are rounded to bfloat16.
"""

from __future__ import annotations

import torch

from awqdoc.formats import QuantizedWeight

# Tiles of 16 rows that a lane reads together: 8, the most, makes loads of 16 bytes. K must be a multiple of 8 * 16.
INNER_K_TILES = 8


def prepare(weight: QuantizedWeight) -> dict[str, torch.Tensor]:
    """Return ``qweight`` int32 [N / 8, K / 128, 32, 4] and ``scales_and_zeros`` bfloat16 [K / g, N, 2].

    The weight is (code - 8) * scale + zero there: a zero point z becomes (8 - z) * scale.
    """
    codes = weight.codes.t()
    pairs = codes[:, ::2] << 4 | codes[:, 1::2]
    scales = weight.scales.float()
    zeros = torch.zeros_like(scales) if weight.zeros is None else (8 - weight.zeros.float()) * scales
    return {
        "qweight": torch._convert_weight_to_int4pack(pairs.contiguous(), INNER_K_TILES),
        "scales_and_zeros": torch.stack([scales, zeros], dim=2).bfloat16(),
    }


def matmul(x: torch.Tensor, prepared: dict[str, torch.Tensor]) -> torch.Tensor:
    """Compute X @ W, float16 [M, N], both converted within."""
    scales_and_zeros = prepared["scales_and_zeros"]
    group_size = x.shape[1] // scales_and_zeros.shape[0]
    return torch._weight_int4pack_mm(x.bfloat16(), prepared["qweight"], group_size, scales_and_zeros).half()
