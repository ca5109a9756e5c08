"""Packing on a GPU in one pass over memory, for every layout.

The bits of an index change places independently, so where a code is read from is a sum: something for its row,
something for its word, and something for its nibble. These three tables are all that the kernel knows of a layout.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl

from awqdoc.packing.bits import Order

# Rows and words of a program. Where neighbouring words are neighbours in memory, a row is read from end to end; where
# they are a row of codes apart, as in awq_gemv, a block must be as high as a sector of memory is wide. 28672 x 4096 on
# an H100: as awq 77 us (in high blocks 490), as awq_gemv 89 us (in wide ones 390), where a copy of the codes takes 83.
WIDE, HIGH = (1, 512), (32, 32)


@triton.jit
def pack_kernel(
    codes, packed, of_row, of_word, of_nibble, rows, words,
    NIBBLES: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_WORDS: tl.constexpr,
):  # fmt: skip
    """One program makes BLOCK_ROWS x BLOCK_WORDS words."""
    row = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    word = tl.program_id(1) * BLOCK_WORDS + tl.arange(0, BLOCK_WORDS)
    inside = (row < rows)[:, None] & (word < words)[None, :]
    of_rows = tl.load(of_row + row, mask=row < rows, other=0)
    of_words = tl.load(of_word + word, mask=word < words, other=0)
    source = codes + of_rows[:, None] + of_words[None, :]
    result = tl.zeros((BLOCK_ROWS, BLOCK_WORDS), tl.int32)
    for nibble in tl.static_range(NIBBLES):
        code = tl.load(source + tl.load(of_nibble + nibble), mask=inside, other=0)
        result |= code.to(tl.int32) << (4 * nibble)
    target = packed + row.to(tl.int64)[:, None] * words + word[None, :]
    tl.store(target, result.to(packed.dtype.element_ty), mask=inside)


def to_words(order: Order, codes: torch.Tensor) -> torch.Tensor:
    """Pack codes, uint8 [first axis, second axis] on a GPU, as `Order.to_words`."""
    last = order.where(**dict(zip(order.axes, (size - 1 for size in codes.shape), strict=True)))
    rows, words = last["row"] + 1, last["word"] + 1
    packed = torch.empty(rows, words, dtype=order.word_type, device=codes.device)
    sizes = (("row", rows), ("word", words), ("nibble", order.nibbles))
    tables = [offsets(order, codes.stride(), codes.device, name, size) for name, size in sizes]
    block_rows, block_words = WIDE if codes.stride(order.word_axis) == 1 else HIGH
    grid = (triton.cdiv(rows, block_rows), triton.cdiv(words, block_words))
    pack_kernel[grid](
        codes, packed, *tables, rows, words,
        NIBBLES=order.nibbles, BLOCK_ROWS=block_rows, BLOCK_WORDS=block_words,
    )  # fmt: skip
    return packed


@lru_cache(maxsize=64)
def offsets(order: Order, strides: tuple[int, int], device: torch.device, name: str, size: int) -> torch.Tensor:
    """Elements from the first code to that of each row, word or nibble, the other two being 0; int64 [size]."""
    place = {"row": 0, "word": 0, "nibble": 0, name: torch.arange(size)}
    first, second = (order.at(**place)[axis] for axis in order.axes)
    return (first * strides[0] + second * strides[1] + torch.zeros(size, dtype=torch.int64)).to(device)
