"""gemlite's Triton kernels (dropbox/gemlite 0.6, ``gemlite/core.py``), tuned when a size first comes up."""

from __future__ import annotations

import torch
from gemlite import DType, GemLiteLinear, forward_functional

from awqdoc.formats import QuantizedWeight


def prepare(weight: QuantizedWeight) -> dict[str, torch.Tensor]:
    """Return the four tensors that its Linear layer keeps, and ``metadata``, its numbers: int32, on the CPU."""
    k, n = weight.codes.shape
    layer = GemLiteLinear(
        4,
        group_size=weight.group_size,
        in_features=k,
        out_features=n,
        input_dtype=DType.FP16,
        output_dtype=DType.FP16,
    )
    zeros = 8 if weight.zeros is None else weight.zeros.t().contiguous().half()
    layer.pack(weight.codes.t().contiguous(), weight.scales.t().contiguous(), zeros=zeros, bias=None)
    tensors = (tensor.detach() for tensor in layer.get_tensor_args())
    prepared = dict(zip(("qweight", "scales", "zeros", "meta_scale"), tensors, strict=True))
    return {**prepared, "metadata": torch.tensor(layer.get_meta_args(), dtype=torch.int32)}


def matmul(x: torch.Tensor, prepared: dict[str, torch.Tensor]) -> torch.Tensor:
    """Compute X @ W, float16 [M, N]."""
    *tensors, metadata = prepared.values()
    y: torch.Tensor = forward_functional(x, None, tensors, metadata.tolist())
    return y
