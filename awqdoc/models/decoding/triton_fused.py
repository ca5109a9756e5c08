# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
"""What stands between the products of a Llama, as few Triton kernels as may be: each reads what it needs once.

A norm takes the addition before it along; the rotation of queries and keys and the append to the cache are part of the
attention; that is split over the length, so that one sequence occupies the whole GPU, and a second kernel combines the
parts (flash-decoding). Shapes and results are those of ``plain.py``.

From Hopper on a kernel is launched before the one in front of it has ended (programmatic dependent launch), and lets
the next begin at once: a product then fetches weights while a norm still runs. So each program waits before it reads
what others wrote, or writes; attention asks for old keys and values while the product ahead still runs.
"""

from __future__ import annotations

from functools import cache as memoized
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

# Tokens of a tile of keys and values, tiles in flight, and programs wanted, for up to FEW pairs of sequence and kv head
# and for more: the best of sixteen tried on an H200 within whole steps.
FEW, FOR_FEW, FOR_MANY = 16, (32, 4, 528), (64, 3, 264)
ACTIVATED = 1024  # elements of a program
CHOSEN = 4096  # logits of a program
FEWEST_ROWS = 16  # of a tensor core's tile: a group of fewer query heads is filled up with zeros


@triton.jit
def norm_kernel(
    x, delta, weight, y, size, eps, ADD: tl.constexpr, BLOCK: tl.constexpr, OVERLAP: tl.constexpr
):  # fmt: skip
    """One program adds up, norms and scales one token."""
    if OVERLAP:
        tl.extra.cuda.gdc_launch_dependents()
    column = tl.arange(0, BLOCK)
    inside = column < size
    scale = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)  # no kernel writes it: it need not wait
    if OVERLAP:
        tl.extra.cuda.gdc_wait()
    place = tl.program_id(0).to(tl.int64) * size + column
    value = tl.load(x + place, mask=inside, other=0.0)
    if ADD:
        value = (value.to(tl.float32) + tl.load(delta + place, mask=inside, other=0.0).to(tl.float32)).to(value.dtype)
        tl.store(x + place, value, mask=inside)
    number = value.to(tl.float32)
    factor = tl.rsqrt(tl.sum(number * number) / size + eps)
    tl.store(y + place, (number * factor * scale).to(value.dtype), mask=inside)


@triton.jit
def activate_kernel(gate_up, y, size, BLOCK: tl.constexpr, OVERLAP: tl.constexpr):
    """One program takes a piece of one token: y = SiLU(gate) * up."""
    if OVERLAP:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < size
    gate = tl.load(gate_up + row * 2 * size + column, mask=inside, other=0.0)
    up = tl.load(gate_up + row * 2 * size + size + column, mask=inside, other=0.0).to(tl.float32)
    number = gate.to(tl.float32)
    tl.store(y + row * size + column, (number * tl.sigmoid(number) * up).to(gate.dtype), mask=inside)


@triton.jit
def _prefetch(pointers):
    """Ask for the lines of 128 bytes at these addresses to be brought into the L2 cache; nobody waits for them."""
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.b32 $0, 0;", "=r,l", [pointers.to(tl.int64)], tl.int32, is_pure=False, pack=1
    )


@triton.jit
def _rotated(low, high, cos, sin):
    """Rotate the pairs of which `low` and `high` are the halves, in float32, and round as they were stored."""
    a, b = low.to(tl.float32), high.to(tl.float32)
    return (a * cos - b * sin).to(low.dtype), (b * cos + a * sin).to(low.dtype)


@triton.jit
def attend_kernel(
    qkv, cos, sin, cache, lengths, partial, peaks, y, length, second, factor, tiles,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, HALF: tl.constexpr, TILE: tl.constexpr,
    PARTS: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """One program: the query heads of one sequence that share a key-value head, over one of PARTS parts of the length.

    Where there are several parts it leaves the weighted sum of values float32 [pair, part, GROUP, head size] in
    `partial`, and in `peaks` float32 [pair, part, GROUP, 2] the largest score, times log2(e), and the sum of weights.
    The new token's key and value are taken from `qkv`, not from the cache, into which its part's program writes them.
    """
    pair = tl.program_id(0)
    part = tl.program_id(1)
    sequence, head = pair // KV_HEADS, pair % KV_HEADS
    position = tl.load(lengths + sequence)  # no kernel of this step writes it, nor the keys and values before it
    half, whole, row = tl.arange(0, HALF), tl.arange(0, 2 * HALF), tl.arange(0, ROWS)
    turn_cos, turn_sin = tl.load(cos + position * HALF + half), tl.load(sin + position * HALF + half)
    keys = cache + pair.to(tl.int64) * length * 2 * HALF
    values = keys + second
    begin = part * tiles * TILE
    end = tl.minimum(begin + tiles * TILE, position + 1)
    if OVERLAP:
        tl.extra.cuda.gdc_launch_dependents()
        line = tl.minimum(begin * 2 * HALF + tl.arange(0, TILE * HALF // 32) * 64, (end - 1) * 2 * HALF)
        _prefetch(keys + line)
        _prefetch(values + line)
        tl.extra.cuda.gdc_wait()

    heads = qkv + sequence.to(tl.int64) * (GROUP + 2) * KV_HEADS * 2 * HALF
    query = heads + (head * GROUP + row[:, None]) * 2 * HALF + half[None, :]
    filled = row[:, None] < GROUP
    low, high = tl.load(query, mask=filled, other=0.0), tl.load(query + HALF, mask=filled, other=0.0)
    query_low, query_high = _rotated(low, high, turn_cos[None, :], turn_sin[None, :])
    key = heads + (GROUP * KV_HEADS + head) * 2 * HALF + half
    new_low, new_high = _rotated(tl.load(key), tl.load(key + HALF), turn_cos, turn_sin)
    new_value = tl.load(heads + ((GROUP + 1) * KV_HEADS + head) * 2 * HALF + whole)

    if (begin <= position) & (position < begin + tiles * TILE):
        tl.store(keys + position * 2 * HALF + half, new_low)
        tl.store(keys + position * 2 * HALF + HALF + half, new_high)
        tl.store(values + position * 2 * HALF + whole, new_value)

    peak = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    weighted = tl.zeros((ROWS, 2 * HALF), tl.float32)
    for first in range(begin, end, TILE):
        token = first + tl.arange(0, TILE)
        old, new = token < position, token == position
        place = keys + token[None, :] * 2 * HALF + half[:, None]
        old_low = tl.load(place, mask=old[None, :], other=0.0)
        old_high = tl.load(place + HALF, mask=old[None, :], other=0.0)
        key_low = tl.where(new[None, :], new_low[:, None], old_low)
        key_high = tl.where(new[None, :], new_high[:, None], old_high)
        value = tl.load(values + token[:, None] * 2 * HALF + whole[None, :], mask=old[:, None], other=0.0)
        value = tl.where(new[:, None], new_value[None, :], value)
        scores = tl.dot(query_high, key_high, tl.dot(query_low, key_low)) * factor
        scores = tl.where(token[None, :] <= position, scores, float("-inf"))
        higher = tl.maximum(peak, tl.max(scores, 1))
        shrink = tl.exp2(peak - higher)
        share = tl.exp2(scores - higher[:, None])
        total = total * shrink + tl.sum(share, 1)
        weighted = weighted * shrink[:, None] + tl.dot(share.to(value.dtype), value)
        peak = higher

    if PARTS == 1:
        target = y + (pair.to(tl.int64) * GROUP + row[:, None]) * 2 * HALF + whole[None, :]
        tl.store(target, (weighted / total[:, None]).to(y.dtype.element_ty), mask=filled)
    else:
        left = (pair.to(tl.int64) * PARTS + part) * GROUP + row
        tl.store(partial + left[:, None] * 2 * HALF + whole[None, :], weighted, mask=filled)
        tl.store(peaks + left * 2, peak, mask=row < GROUP)
        tl.store(peaks + left * 2 + 1, total, mask=row < GROUP)


@triton.jit
def combine_kernel(
    partial, peaks, y,
    GROUP: tl.constexpr, SIZE: tl.constexpr, PARTS: tl.constexpr, BLOCK: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """One program adds up the parts of one query head, each as if it had known the largest score of all."""
    if OVERLAP:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    number = tl.program_id(0).to(tl.int64)  # sequence, kv head, head of its group
    part, column = tl.arange(0, BLOCK), tl.arange(0, SIZE)
    left = (number // GROUP * PARTS + part) * GROUP + number % GROUP
    inside = part < PARTS
    peak = tl.load(peaks + left * 2, mask=inside, other=float("-inf"))
    total = tl.load(peaks + left * 2 + 1, mask=inside, other=0.0)
    sums = tl.load(partial + left[:, None] * SIZE + column[None, :], mask=inside[:, None], other=0.0)
    share = tl.exp2(peak - tl.max(peak))
    found = tl.sum(sums * share[:, None], 0) / tl.sum(total * share)
    tl.store(y + number * SIZE + column, found.to(y.dtype.element_ty))


@triton.jit
def choose_kernel(logits, best, places, size, parts, BLOCK: tl.constexpr, OVERLAP: tl.constexpr):
    """One program finds the largest of BLOCK logits of one sequence, and its place: `best`, `places` [batch, parts]."""
    if OVERLAP:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    sequence, part = tl.program_id(0), tl.program_id(1)
    column = part * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(logits + sequence.to(tl.int64) * size + column, mask=column < size, other=float("-inf"))
    largest, place = tl.max(value.to(tl.float32), 0, return_indices=True)
    tl.store(best + sequence * parts + part, largest)
    tl.store(places + sequence * parts + part, tl.minimum(part * BLOCK + place, size - 1))  # where all are nan, too


@triton.jit
def follow_kernel(best, places, tokens, lengths, parts, BLOCK: tl.constexpr, OVERLAP: tl.constexpr):
    """One program chooses the token of one sequence, the first of the largest, and counts it."""
    if OVERLAP:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    sequence, part = tl.program_id(0), tl.arange(0, BLOCK)
    value = tl.load(best + sequence * parts + part, mask=part < parts, other=float("-inf"))
    _, winner = tl.max(value, 0, return_indices=True)
    tl.store(tokens + sequence, tl.load(places + sequence * parts + winner).to(tl.int64))
    tl.store(lengths + sequence, tl.load(lengths + sequence) + 1)


def norm(x: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Add `delta` to `x`, in place, and return RMSNorm(x) * weight."""
    tokens, size = x.shape
    y = torch.empty_like(x)
    block = triton.next_power_of_2(size)
    norm_kernel[(tokens,)](
        x, x if delta is None else delta, weight, y, size, eps,
        ADD=delta is not None, BLOCK=block, num_warps=min(16, max(1, block // 256)), **_launch(x),
    )  # fmt: skip
    return y


def activate(gate_up: torch.Tensor) -> torch.Tensor:
    """Return SiLU(gate) * up."""
    tokens, size = gate_up.shape[0], gate_up.shape[1] // 2
    y = torch.empty(tokens, size, dtype=gate_up.dtype, device=gate_up.device)
    grid = (tokens, triton.cdiv(size, ACTIVATED))
    activate_kernel[grid](gate_up, y, size, BLOCK=ACTIVATED, num_warps=4, **_launch(gate_up))
    return y


def attend(
    qkv: torch.Tensor, cache: torch.Tensor, lengths: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> torch.Tensor:
    """Append the new key and value of each sequence to the cache, and attend with its new token."""
    _, batch, kv_heads, length, size = cache.shape
    group = qkv.shape[1] // size // kv_heads - 2
    tile, stages, parts, tiles = cut(batch * kv_heads, length)
    y = torch.empty(batch, group * kv_heads * size, dtype=qkv.dtype, device=qkv.device)
    left = batch * kv_heads * parts * group if parts > 1 else 0
    partial = torch.empty(left, size, dtype=torch.float32, device=qkv.device)
    peaks = torch.empty(left, 2, dtype=torch.float32, device=qkv.device)
    log2_e = 1.4426950408889634  # the exponential of a GPU has the base 2
    attend_kernel[(batch * kv_heads, parts)](
        qkv, cos, sin, cache, lengths, partial, peaks, y, length, cache.stride(0), log2_e * size**-0.5, tiles,
        KV_HEADS=kv_heads, GROUP=group, ROWS=max(FEWEST_ROWS, triton.next_power_of_2(group)), HALF=size // 2,
        TILE=tile, PARTS=parts, num_warps=4, num_stages=stages, **_launch(qkv),
    )  # fmt: skip
    if parts > 1:
        combine_kernel[(batch * kv_heads * group,)](
            partial, peaks, y, GROUP=group, SIZE=size, PARTS=parts, BLOCK=triton.next_power_of_2(parts), num_warps=4,
            **_launch(qkv),
        )  # fmt: skip
    return y


def choose(logits: torch.Tensor, tokens: torch.Tensor, lengths: torch.Tensor) -> None:
    """Set `tokens` to those of the largest logits, and count them in `lengths`."""
    batch, size = logits.shape
    parts = triton.cdiv(size, CHOSEN)
    best = torch.empty(batch, parts, dtype=torch.float32, device=logits.device)
    places = torch.empty(batch, parts, dtype=torch.int32, device=logits.device)
    launch = _launch(logits)
    choose_kernel[(batch, parts)](logits, best, places, size, parts, BLOCK=CHOSEN, num_warps=8, **launch)
    follow_kernel[(batch,)](
        best, places, tokens, lengths, parts, BLOCK=triton.next_power_of_2(parts), num_warps=1, **launch
    )


class Cut(NamedTuple):
    """How attention is cut: tokens of a tile, tiles in flight, parts of the length, and tiles of each."""

    tile: int
    stages: int
    parts: int
    tiles: int


def cut(pairs: int, length: int) -> Cut:
    """Choose how attention over a cache of this length is cut for so many pairs of sequence and kv head."""
    tile, stages, programs = FOR_FEW if pairs <= FEW else FOR_MANY
    tiles = triton.cdiv(length, tile)
    each = triton.cdiv(tiles, max(1, min(tiles, programs // pairs)))
    return Cut(tile, stages, triton.cdiv(tiles, each), each)


def _launch(x: torch.Tensor) -> dict[str, Any]:
    return _options(x.device)


@memoized
def _options(device: torch.device) -> dict[str, Any]:
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0):
        return {"OVERLAP": True, "launch_pdl": True}
    return {"OVERLAP": False}
