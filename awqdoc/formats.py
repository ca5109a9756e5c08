"""The two values that everything else passes around: a quantized weight, and the size of a multiplication."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from awqdoc.errors import AwqdocError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Problem:
    """The product Y[m, n] = X[m, k] @ W[k, n] with W in INT4, one scale for each `group_size` rows of a column.

    Attributes
    ----------
    m, n, k : int
        Batch (tokens), out_features, in_features.
    group_size : int
        Rows of W that share a scale and a zero point. 16-bit scales and 4-bit zero points are assumed.
    """

    m: int
    n: int
    k: int
    group_size: int = 128

    @classmethod
    def parse(cls, shape: str, m: int, group_size: int = 128) -> Problem:
        """Read a layer shape written ``NxK``, as ``28672x4096``.

        Raises
        ------
        AwqdocError
            If the text is not of that form, or a size is not positive.
        """
        match = re.fullmatch(r"(\d+)x(\d+)", shape)
        if match is None:
            raise AwqdocError(
                f"A layer shape is written NxK (out_features x in_features), as 28672x4096; found {shape!r}."
            )
        problem = cls(m, int(match[1]), int(match[2]), group_size)
        if min(problem.m, problem.n, problem.k, problem.group_size) < 1:
            raise AwqdocError(f"Sizes must be 1 or more; found shape {shape}, M = {m}, group size {group_size}.")
        return problem

    @property
    def flops(self) -> int:
        """Floating-point operations, a multiply-add counted as two."""
        return 2 * self.m * self.n * self.k

    def weight_bytes(self, bits: int) -> float:
        """Bytes of the weight alone: `bits` = 16 for FP16, or 4 with its scales (16 bit) and zero points (4 bit)."""
        overhead = 0.0 if bits == 16 else (16 + bits) / self.group_size
        return self.n * self.k * (bits + overhead) / 8

    def bytes(self, bits: int) -> float:
        """Fewest bytes that must cross the memory bus: weight and X read once, Y written once."""
        return self.weight_bytes(bits) + 2 * self.m * (self.k + self.n)


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight as codes, scales and zero points: w[k, n] = (codes[k, n] - zeros[k // g, n]) * scales[k // g, n].

    Attributes
    ----------
    codes : torch.Tensor
        uint8 [K, N], values 0 to 2^bits - 1.
    scales : torch.Tensor
        float16 [K / g, N].
    zeros : torch.Tensor or None
        uint8 [K / g, N], values 0 to 2^bits - 1; None if the weight is symmetric: every zero point is then
        2^(bits - 1), 8 for 4 bits, and need not be stored.
    group_size : int
        g, the number of rows that share a scale.
    bits : int
        Bits of a code: 4 or 3.

    Raises
    ------
    AwqdocError
        If shapes or dtypes do not fit together.
    """

    codes: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor | None
    group_size: int
    bits: int = 4

    def __post_init__(self) -> None:
        if self.bits not in (3, 4):
            raise AwqdocError(f"A code has 4 or 3 bits; found {self.bits}.")
        found = {name: (str(t.dtype).removeprefix("torch."), tuple(t.shape)) for name, t in self._tensors()}
        k, n = found["codes"][1] if self.codes.dim() == 2 else (0, 0)
        if k == 0 or self.group_size < 1 or k % self.group_size:
            raise AwqdocError(
                f"codes must be [K, N] with K a multiple of the group size {self.group_size}; "
                f"found shape {found['codes'][1]}."
            )
        groups = (k // self.group_size, n)
        wanted = {"codes": ("uint8", (k, n)), "scales": ("float16", groups), "zeros": ("uint8", groups)}
        for name, is_now in found.items():
            dtype, shape = wanted[name]
            if is_now != (dtype, shape):
                raise AwqdocError(f"{name} must be {dtype} {list(shape)}; found {is_now[0]} {list(is_now[1])}.")

    def _tensors(self) -> tuple[tuple[str, torch.Tensor], ...]:
        stored = (("codes", self.codes), ("scales", self.scales))
        return stored if self.zeros is None else (*stored, ("zeros", self.zeros))

    @property
    def symmetric(self) -> bool:
        """Whether no zero points are stored."""
        return self.zeros is None

    @property
    def bits_per_weight(self) -> float:
        """Bits that a weight takes with its share of scale (16 bits) and zero point (as many bits as a code)."""
        return self.bits + (16 + (0 if self.symmetric else self.bits)) / self.group_size

    def dequantize(self) -> torch.Tensor:
        """Return W as float16 [K, N]: the difference is exact, the product is rounded once."""
        groups = self.codes.float().unflatten(0, (-1, self.group_size))
        zeros = 2.0 ** (self.bits - 1) if self.zeros is None else self.zeros.float().unsqueeze(1)
        weight = (groups - zeros) * self.scales.float().unsqueeze(1)
        return weight.flatten(0, 1).half()
