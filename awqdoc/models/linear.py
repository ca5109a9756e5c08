"""A linear layer whose weight is packed, with the tensors and names of an AWQ checkpoint."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from awqdoc.errors import AwqdocError
from awqdoc.formats import QuantizedWeight
from awqdoc.packing import pack, unpack


class QuantizedLinear(nn.Module):
    """Y = X W + b with W in INT4, dequantized anew in each call: what is computed is exact, not yet fast.

    The buffers are those of AutoAWQ's ``WQLinear_GEMM``: ``qweight`` int32 [K, N / 8], ``qzeros`` int32
    [K / g, N / 8], ``scales`` float16 [K / g, N], ``bias`` float16 [N] or None. Codes of 3 bits lie in nibbles.
    """

    qweight: torch.Tensor
    qzeros: torch.Tensor
    scales: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, in_features: int, out_features: int, group_size: int, bits: int = 4, bias: bool = False) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.group_size = in_features if group_size == -1 else group_size
        self.bits = bits
        groups = in_features // self.group_size
        self.register_buffer("qweight", torch.zeros(in_features, out_features // 8, dtype=torch.int32))
        self.register_buffer("qzeros", torch.zeros(groups, out_features // 8, dtype=torch.int32))
        self.register_buffer("scales", torch.zeros(groups, out_features, dtype=torch.float16))
        self.register_buffer("bias", torch.zeros(out_features, dtype=torch.float16) if bias else None)

    @classmethod
    def of(cls, weight: QuantizedWeight, bias: torch.Tensor | None) -> QuantizedLinear:
        """Make a layer of a quantized weight [K, N] and the bias [N] of the original layer.

        Raises
        ------
        AwqdocError
            If float16 cannot hold the bias.
        """
        k, n = weight.codes.shape
        with torch.device("meta"):
            layer = cls(k, n, weight.group_size, weight.bits, bias is not None)
        for name, tensor in pack(weight, "awq").items():
            layer.register_buffer(name, tensor)
        if bias is not None:
            half = bias.detach().half()
            if not torch.isfinite(half).all():
                raise AwqdocError(f"The bias reaches {float(bias.abs().max()):.3g}, and float16 holds at most 65504.")
            layer.register_buffer("bias", half)
        return layer

    @property
    def quantized_weight(self) -> QuantizedWeight:
        """Codes, scales and zero points."""
        tensors = {"qweight": self.qweight, "qzeros": self.qzeros, "scales": self.scales.half()}
        return unpack(tensors, "awq", group_size=self.group_size, bits=self.bits)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute X W + b in the dtype of X, float [..., K] -> [..., N]."""
        weight = self.quantized_weight.dequantize().t().to(x.dtype)
        return functional.linear(x, weight, None if self.bias is None else self.bias.to(x.dtype))

    def extra_repr(self) -> str:
        """Say the sizes, as torch's own layers do."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bits={self.bits}, "
            f"group_size={self.group_size}, bias={self.bias is not None}"
        )
