"""Packing on a GPU in one pass over memory, for every layout.

The bits of an index change places independently, so where a code is read from is a sum: something for its row,
something for its word, and something for its nibble. These three short tables are all that the kernel knows of a layout.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from awqdoc.packing.bits import Order

BLOCK_ROWS, BLOCK_WORDS = 32, 64


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
    tables = [_offsets(order, codes, name, size) for name, size in
              (("row", rows), ("word", words), ("nibble", order.nibbles))]  # fmt: skip
    grid = (triton.cdiv(rows, BLOCK_ROWS), triton.cdiv(words, BLOCK_WORDS))
    pack_kernel[grid](
        codes, packed, *tables, rows, words,
        NIBBLES=order.nibbles, BLOCK_ROWS=BLOCK_ROWS, BLOCK_WORDS=BLOCK_WORDS,
    )  # fmt: skip
    return packed


def _offsets(order: Order, codes: torch.Tensor, name: str, size: int) -> torch.Tensor:
    """Elements from the first code to that of each row, word or nibble, the other two being 0; int64 [size]."""
    place = {"row": 0, "word": 0, "nibble": 0, name: torch.arange(size, device=codes.device)}
    index = order.at(**place)
    return (
        index[order.axes[0]] * codes.stride(0) + index[order.axes[1]] * codes.stride(1) + torch.zeros_like(place[name])
    )
