"""What the 32 lanes of a warp hold while they multiply a record: ``kernels/cuda/fragments.cuh`` in NumPy.

It begins with the bytes that `records.prepare` lays out and handles one tile of 16 rows at a time. Which element of a
matrix lies in which lane and register is said by NVIDIA's PTX manual for ``mma.m16n8k16`` with FP16 operands and FP32
sums. Made to be read and compared with, not to be fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from awqdoc.kernels.ladder.records import CODE_BYTES, SIDE, sizes

_lane, _register, _half = np.ogrid[:32, :4, :2]
LEFT = (_lane // 4 + 8 * (_register % 2), _lane % 4 * 2 + _half + 8 * (_register // 2))
"""Row and k of what is in [lane 32, register 4, half 2] of the left fragment (16 x 16)."""
RIGHT = (_lane % 4 * 2 + _half + 8 * _register[:, :2], _lane // 4)
"""K and column of what is in [lane 32, register 2, half 2] of the right fragment (16 x 8)."""
SUMS = tuple(index[..., 0] for index in (_lane // 4 + 8 * (_register // 2), _lane % 4 * 2 + _register % 2))
"""Row and column of what is in [lane 32, register 4] of the sums (16 x 8)."""


@dataclass(frozen=True)
class Parts:
    """A record's bytes, read as what they are.

    Attributes
    ----------
    codes : numpy.ndarray
        uint32 [16-row tile 8, half of k 2, lane 32, k16 step 4]: words of 8 codes.
    scales : numpy.ndarray
        float16 [groups, 16-row tile 8, row 8, row or row + 8].
    zeros : numpy.ndarray or None
        uint8 [groups, 16-row tile 8, row 8], row in the low nibble and row + 8 in the high one; None: all are 8.
    """

    codes: np.ndarray
    scales: np.ndarray
    zeros: np.ndarray | None


def parts(record: np.ndarray) -> Parts:
    """Read a record, uint8 [bytes], as one of what `records.prepare` returns."""
    codes, rest = record[:CODE_BYTES].view(np.uint32), record[CODE_BYTES:]
    *_, group, zero_points = sizes({"records": torch.from_numpy(record)[None, None]})
    groups = SIDE // group
    scales, zeros = rest[: groups * 2 * SIDE].view(np.float16), rest[groups * 2 * SIDE :]
    return Parts(
        codes.reshape(8, 2, 32, 4),
        scales.reshape(groups, 8, 8, 2),
        zeros.reshape(groups, 8, 8) if zero_points else None,
    )


def unpack_word(word: Any, zero_pair: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make the left fragment of words by their bits, as ``dequantize`` and ``zero_constants`` do.

    Parameters
    ----------
    word : int or numpy.ndarray
        uint32 [...].
    zero_pair : int or numpy.ndarray
        uint8 [...]: the zero points of rows g (low nibble) and g + 8 (high).

    Returns
    -------
    tuple of numpy.ndarray
        Each float16 [..., register 4, half 2]: 1024 + q in registers 0 and 2, 64 + q in 1 and 3; the same of z; and
        the first less the second, q - z, exactly.
    """
    words, pairs = np.asarray(word, np.uint32), np.asarray(zero_pair, np.uint32)
    registers = [
        (words >> np.uint32(shift) & np.uint32(mask)) | np.uint32(magic)
        for shift in (0, 8)
        for mask, magic in ((0x000F000F, 0x64006400), (0x00F000F0, 0x54005400))
    ]
    constants = [(pairs & mask | magic) * np.uint32(0x10001) for mask, magic in 2 * ((0x0F, 0x6400), (0xF0, 0x5400))]
    halves, subtracted = (_as_halves(np.stack(found, axis=-1)) for found in (registers, constants))
    return halves, subtracted, halves - subtracted


def _as_halves(registers: np.ndarray) -> np.ndarray:
    """Read registers, uint32 [..., 4], as two numbers each, the lower half first: float16 [..., 4, 2]."""
    return registers[..., None].view(np.float16)


def left_fragment(record: Parts, tile: int, step: int) -> np.ndarray:
    """Return q - z of the `step`-th 16 k of a 16-row tile, float16 [lane 32, register 4, half 2]."""
    zeros = np.full(8, 0x88, np.uint8) if record.zeros is None else record.zeros[_group(record, step), tile]
    return unpack_word(record.codes[tile, step // 4, :, step % 4], zeros.repeat(4))[2]


def _group(record: Parts, step: int) -> int:
    """Return which of a record's groups its `step`-th 16 k are in."""
    return step * len(record.scales) // 8


def x_place(token: Any, chunk: Any, tokens: int) -> Any:
    """Return the byte of shared memory at which the 8 halves of a 16-byte chunk of a token's 128 k lie."""
    return (chunk >> 3) * (tokens * 128) + token * 128 + (((chunk ^ token) & 7) << 4)


def shared_x(x: np.ndarray) -> np.ndarray:
    """Lay X, float16 [tokens (a multiple of 8), 128 k], out as it lies in shared memory: uint8 [bytes]."""
    tokens = len(x)
    token, chunk, byte = np.ogrid[:tokens, :16, :16]
    memory = np.empty(tokens * 256, np.uint8)
    memory[x_place(token, chunk, tokens) + byte] = np.ascontiguousarray(x).view(np.uint8).reshape(tokens, 16, 16)
    return memory


def right_fragment(shared: np.ndarray, tile: int, step: int) -> np.ndarray:
    """Return the `step`-th 16 k of a tile of 8 tokens, float16 [lane 32, register 2, half 2], as ``load_x`` does."""
    k, column = RIGHT
    place = x_place(8 * tile + column, 2 * step + (k >> 3), len(shared) // 256) + 2 * (k & 7)
    return shared.view(np.float16)[place // 2]


def mma(sums: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Add the product of two fragments to sums, float32 [lane 32, register 4].

    The 16 products of a sum are added exactly (in float64, which holds (q - z) x without loss) and rounded once. In
    which order a tensor core adds and what it drops is not documented.
    """
    a, b = np.empty((16, 16)), np.empty((16, 8))
    a[LEFT], b[RIGHT] = left, right
    return (sums + (a @ b)[SUMS]).astype(np.float32)


def multiply(record: Parts, shared: np.ndarray, tile: int) -> np.ndarray:
    """Multiply a 16-row tile of a record by all tokens: float32 [token tiles, lane 32, register 4].

    Each group is summed on its own and multiplied by the scales of its rows only then, as ``add_scaled`` does.
    """
    sums = np.zeros((len(shared) // 2048, 32, 4), np.float32)
    steps = 8 // len(record.scales)
    for group, scales in enumerate(record.scales[:, tile]):
        rows = scales.repeat(4, axis=0).repeat(2, axis=1).astype(np.float32)  # [lane, register]
        for tokens, total in enumerate(sums):
            fresh = np.zeros((32, 4), np.float32)
            for step in range(group * steps, (group + 1) * steps):
                fresh = mma(fresh, left_fragment(record, tile, step), right_fragment(shared, tokens, step))
            total += rows * fresh
    return sums


def transposed_halves(pairs: np.ndarray) -> np.ndarray:
    """Round two sums of each lane to FP16 and exchange them, float16 [lane 32, 2], as ``movmatrix`` does.

    A lane gives (row lane // 4, tokens 2 (lane % 4) and the next) and gets (token lane // 4, rows 2 (lane % 4) and the
    next).
    """
    return pairs.astype(np.float16).reshape(8, 8).T.reshape(32, 2)


def store(sums: np.ndarray) -> np.ndarray:
    """Write the finished sums of a 16-row tile, [token tiles, lane 32, register 4], as Y: float16 [tokens, 16]."""
    y = np.full((8 * len(sums), 16), np.nan, np.float16)
    lane, column = np.ogrid[:32, :2]
    for tile, registers in enumerate(sums):
        for half in range(2):
            y[8 * tile + lane // 4, 8 * half + lane % 4 * 2 + column] = transposed_halves(
                registers[:, 2 * half : 2 * half + 2]
            )
    return y
