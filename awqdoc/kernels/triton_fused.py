"""Our first fused kernel, in Triton: read AutoAWQ's packed weight, dequantize in registers, multiply.

Of the weight nothing but the packed form crosses the memory bus. Where K is cut into parts, float32 partial
sums do too, and a second kernel adds them. The sweep shows what that buys, and what it does not.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from awqdoc.formats import QuantizedWeight
from awqdoc.packing import pack

# Programs wanted in flight, over an H200's 132 SMs: while the weight is the work (small M) several on each
# hide its latency; with more rows one is enough, and cutting K only adds partial sums.
PROGRAMS_WANTED = {"small": 800, "large": 132}
LARGEST_SMALL_M = 64
MOST_SPLITS = 8


@triton.jit
def _unpack(words, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """int32 [ROWS, COLUMNS / 8] -> int32 [ROWS, COLUMNS]: column c of a word is nibble (c % 8) // 2 + 4 * (c % 2)."""
    column = tl.arange(0, 8)
    shifts = 4 * (column // 2 + 4 * (column % 2))
    return tl.reshape((words[:, :, None] >> shifts[None, None, :]) & 15, (ROWS, COLUMNS))


@triton.jit
def _weight_tile(
    qweight,
    qzeros,
    scales,
    first_k,
    first_n,
    N,
    GROUP: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Load and dequantize W[first_k : + BLOCK_K, first_n : + BLOCK_N]; all its rows lie in one group."""
    rows = first_k + tl.arange(0, BLOCK_K).to(tl.int64)
    words = first_n // 8 + tl.arange(0, BLOCK_N // 8)
    columns = first_n + tl.arange(0, BLOCK_N)
    group = first_k // GROUP
    codes = _unpack(tl.load(qweight + rows[:, None] * (N // 8) + words[None, :]), BLOCK_K, BLOCK_N)
    zeros = _unpack(tl.load(qzeros + group * (N // 8) + words)[None, :], 1, BLOCK_N)
    scale = tl.load(scales + group * N + columns)
    return (codes - zeros).to(tl.float16) * scale[None, :]


@triton.jit
def matmul_kernel(
    x, qweight, qzeros, scales, partial, M, N, K,
    GROUP: tl.constexpr, SPLITS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """One program computes a BLOCK_M x BLOCK_N tile over one of SPLITS parts of K: partial [SPLITS, M, N]."""
    first_n = tl.program_id(0) * BLOCK_N
    split = tl.program_id(1)
    # 64 bits: SPLITS * M * N elements are more than 32 bits can count from M = 10,000 on.
    rows = (tl.program_id(2) * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
    columns = first_n + tl.arange(0, BLOCK_N)
    accumulator = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    length = K // SPLITS
    for first_k in range(split * length, (split + 1) * length, BLOCK_K):
        k = first_k + tl.arange(0, BLOCK_K)
        tile = tl.load(x + rows[:, None] * K + k[None, :], mask=rows[:, None] < M, other=0.0)
        weight = _weight_tile(qweight, qzeros, scales, first_k, first_n, N, GROUP, BLOCK_K, BLOCK_N)
        accumulator = tl.dot(tile, weight, accumulator)
    target = partial + (split * M + rows[:, None]) * N + columns[None, :]
    tl.store(target, accumulator, mask=rows[:, None] < M)


@triton.jit
def dequantize_kernel(
    qweight, qzeros, scales, weight, N, GROUP: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr
):
    """One program writes W[BLOCK_K, BLOCK_N] as float16."""
    first_k, first_n = tl.program_id(0) * BLOCK_K, tl.program_id(1) * BLOCK_N
    tile = _weight_tile(qweight, qzeros, scales, first_k, first_n, N, GROUP, BLOCK_K, BLOCK_N)
    rows = first_k + tl.arange(0, BLOCK_K).to(tl.int64)
    columns = first_n + tl.arange(0, BLOCK_N)
    tl.store(weight + rows[:, None] * N + columns[None, :], tile)


def prepare(weight: QuantizedWeight) -> dict[str, torch.Tensor]:
    """Return AutoAWQ's ``qweight``, ``qzeros`` and ``scales``."""
    return pack(weight, "awq")


def _sizes(prepared: dict[str, torch.Tensor]) -> tuple[int, int, int]:
    """K, N and the group size, read off the packed tensors."""
    k, words = prepared["qweight"].shape
    return k, words * 8, k // prepared["qzeros"].shape[0]


def configuration(m: int, n: int, k: int, group_size: int) -> dict[str, int]:
    """Choose tile sizes, warps and the number of parts into which K is cut: the best of about 100 tried on an H200."""
    size = "small" if m <= LARGEST_SMALL_M else "large"
    block_m = max(16, min(128, 1 << (m - 1).bit_length()))
    block_n = 128 if n >= 8192 and n % 128 == 0 else 64
    block_k = min(32 if size == "small" and block_n == 128 else 64, group_size)
    programs = n // block_n * -(-m // block_m)
    splits = 1
    while programs * splits < PROGRAMS_WANTED[size] and splits < MOST_SPLITS and k % (2 * splits * block_k) == 0:
        splits *= 2
    return {
        "SPLITS": splits, "BLOCK_M": block_m, "BLOCK_N": block_n, "BLOCK_K": block_k,
        "num_warps": 4 if size == "small" else 8, "num_stages": 3,
    }  # fmt: skip


def matmul(x: torch.Tensor, prepared: dict[str, torch.Tensor]) -> torch.Tensor:
    """Compute X @ W, float16 [M, N]: each program its tile, then one sum over the parts of K, in a fixed order."""
    m = x.shape[0]
    k, n, group_size = _sizes(prepared)
    sizes = configuration(m, n, k, group_size)
    whole = sizes["SPLITS"] == 1  # then a program holds its whole sum, and rounds it itself
    partial = torch.empty((sizes["SPLITS"], m, n), dtype=x.dtype if whole else torch.float32, device=x.device)
    grid = (n // sizes["BLOCK_N"], sizes["SPLITS"], -(-m // sizes["BLOCK_M"]))
    matmul_kernel[grid](
        x, prepared["qweight"], prepared["qzeros"], prepared["scales"], partial, m, n, k,
        GROUP=group_size, **sizes,
    )  # fmt: skip
    return partial[0] if whole else partial.sum(0).half()


def dequantize(prepared: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return W as float16 [K, N]."""
    k, n, group_size = _sizes(prepared)
    weight = torch.empty((k, n), dtype=torch.float16, device=prepared["qweight"].device)
    block_k, block_n = min(32, group_size), 128 if n % 128 == 0 else 8
    grid = (k // block_k, n // block_n)
    dequantize_kernel[grid](
        prepared["qweight"], prepared["qzeros"], prepared["scales"], weight, n,
        GROUP=group_size, BLOCK_K=block_k, BLOCK_N=block_n,
    )  # fmt: skip
    return weight
