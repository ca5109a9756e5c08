"""The format of our tensor-core kernels: a weight as records, each of which one bulk copy can fetch.

A record is a tile of 128 columns n by 128 rows k of W: its codes in the order of mma fragments, its scales, its zero
points. What lies where is said in ``kernels/cuda/fragments.cuh``, and here again as an order of index bits.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch

from awqdoc.formats import QuantizedWeight
from awqdoc.packing import Order

SIDE = 128
CODE_BYTES = SIDE * SIDE // 2
CODES = Order("kn", row="n7+", word="k7+ n6 n5 n4 k6 n2 n1 n0 k2 k1 k5 k4", nibble="k0 k3 n3")


def prepare(weight: QuantizedWeight) -> dict[str, torch.Tensor]:
    """Lay a weight out as records.

    Parameters
    ----------
    weight : QuantizedWeight
        K and N multiples of 128; group size 32, 64, 128 or K.

    Returns
    -------
    dict
        ``records`` uint8 [N / 128, K / 128, bytes]: 8192 bytes of codes, then for each of the record's groups 256 of
        scales, and unless the weight is symmetric 64 of zero points. One group for all of K is stored with each record.
    """
    k, n = weight.codes.shape
    tiles = (n // SIDE, k // SIDE)
    codes = CODES.to_words(weight.codes).view(torch.uint8).view(*tiles, -1)
    parts = [codes, _by_record(weight.scales, k).view(torch.uint8).view(*tiles, -1)]
    if weight.zeros is not None:
        zeros = _by_record(weight.zeros, k)
        parts.append((zeros[..., 0] | zeros[..., 1] << 4).view(*tiles, -1))
    return {"records": torch.cat(parts, dim=2)}


def _by_record(values: torch.Tensor, k: int) -> torch.Tensor:
    """Bring values [K / g, N] to [N / 128, K / 128, groups of a record, 16-row tile 8, row 8, row or row + 8]."""
    groups, n = values.shape
    if groups < k // SIDE:
        values = values.repeat_interleave(k // SIDE // groups, dim=0)
    spread = values.view(k // SIDE, -1, n // SIDE, 8, 2, 8)
    return spread.permute(2, 0, 1, 3, 5, 4).contiguous()


class Sizes(NamedTuple):
    """What the shape of ``records`` says: N, K, the group size within a record, whether zero points are stored."""

    n: int
    k: int
    group: int
    zeros: bool

    def blocks(self, prepared: dict[str, torch.Tensor]) -> int:
        """Blocks of a kernel that cuts the records into stripes: one for each SM, and none without a record."""
        return min(prepared["board"].shape[0], self.n * self.k // SIDE**2)

    @property
    def defines(self) -> dict[str, int]:
        """The macros that every kernel of this format takes."""
        return {"GROUP": self.group, "ZEROS": int(self.zeros)}


def sizes(prepared: dict[str, torch.Tensor]) -> Sizes:
    """Read the sizes off what `prepare` returned."""
    rows, columns, size = prepared["records"].shape
    known = {groups * (256 + 64 * zeros): (SIDE // groups, zeros) for groups in (1, 2, 4) for zeros in (False, True)}
    return Sizes(rows * SIDE, columns * SIDE, *known[size - CODE_BYTES])


def stage_bytes(prepared: dict[str, torch.Tensor], tokens: int) -> int:
    """Bytes of a record and its part of X in shared memory, as ``cuda/ring.cuh`` counts them."""
    return -(-(prepared["records"].shape[2] + tokens * 2 * SIDE) // 128) * 128


def tokens(m: int, most: int) -> int:
    """Tokens that a kernel is made for: M rounded up to a multiple of 8, or to the power of two above 32."""
    return min(most, -(-m // 8) * 8 if m <= 32 else 64)


@cache
def shared_memory(device: torch.device) -> int:
    """Return how many bytes of shared memory a block may ask for."""
    from cuda.core import Device  # torch does not say

    return int(Device(device.index).properties.max_shared_memory_per_block_optin)


@cache
def board(device: torch.device) -> torch.Tensor:
    """Return where blocks that share a tile leave their sums: int64 [SMs, 64 tokens, 128], zero between launches.

    It is one for all weights on a device, so launches that use it must follow each other on one stream.
    """
    blocks = torch.cuda.get_device_properties(device).multi_processor_count
    return torch.zeros(blocks, 64, SIDE, dtype=torch.int64, device=device)
