"""Where each bit of an index goes: the whole of a layout, written as a few words.

Inside a tile every INT4 layout in use is a permutation of index bits. A *field* is a text such as
``"n6+ n2 n1 n0 k2 k1 n5 n4"``: bits from the most to the least significant, ``n2`` for bit 2 of the column n, and
``n6+`` for all bits of n from the sixth up. An `Order` says so for the row, the word and the nibble of a tensor.
Everything else is computed from it, for one index or for a whole tensor.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from functools import cache, cached_property
from math import prod
from typing import Any, NamedTuple

import torch


class Bit(NamedTuple):
    """One bit of an index, or with `rest` this one and all above it: ``n2``, ``n6+``."""

    axis: str
    number: int
    rest: bool = False

    def __str__(self) -> str:
        return f"{self.axis}{self.number}{'+' if self.rest else ''}"


@cache
def parse(field: str) -> tuple[Bit, ...]:
    """Read a field, most significant bit first; ``""`` has none."""
    bits = []
    for place, word in enumerate(field.split()):
        match = re.fullmatch(r"([a-z])(\d+)(\+?)", word)
        if match is None or (match[3] and place):
            raise ValueError(f"{word!r} in {field!r}: a field is bits as n2, of which the first may be a rest as n6+")
        bits.append(Bit(match[1], int(match[2]), bool(match[3])))
    return tuple(bits)


def gather(field: str, index: dict[str, Any]) -> Any:
    """Put the bits of an index together as a field says: with ``"n3+"`` n // 8, with ``"n1 n0"`` n % 4.

    Works on integers and on integer tensors alike.
    """
    value: Any = 0
    for bit in parse(field):
        part = index[bit.axis] >> bit.number
        value = part if bit.rest else (value << 1) | (part & 1)
    return value


def scatter(field: str, value: Any, index: dict[str, Any]) -> None:
    """Undo `gather`: add to an index the bits that a field's value holds."""
    for bit in reversed(parse(field)):
        index[bit.axis] = index.get(bit.axis, 0) | ((value if bit.rest else value & 1) << bit.number)
        value = value >> 1


@dataclass(frozen=True)
class Order:
    """How a tensor that is indexed by two axes is stored: as rows of words, or of whole numbers.

    Attributes
    ----------
    axes : str
        The letters of the axes that index the values: ``"kn"`` for codes, ``"gn"`` for scales and zero points.
    row, word, nibble : str
        Fields. Without a nibble each word holds one value.
    """

    axes: str
    row: str
    word: str
    nibble: str = ""

    def __post_init__(self) -> None:
        for axis in self.axes:
            bits = sorted((bit.number, bit.rest) for bit in self.bits if bit.axis == axis)
            if bits != [(number, number == len(bits) - 1) for number in range(len(bits))]:
                raise ValueError(f"{self}: every bit of {axis} must stand in it once, and the rest of them")

    @cached_property
    def bits(self) -> tuple[Bit, ...]:
        """All bits in the order in which values follow each other in memory."""
        return parse(self.row) + parse(self.word) + parse(self.nibble)

    @property
    def nibbles(self) -> int:
        """Values of a word."""
        return 1 << len(parse(self.nibble))

    @property
    def word_type(self) -> torch.dtype:
        """The integers that hold a word of codes."""
        return torch.int32 if self.nibbles == 8 else torch.int16

    @cached_property
    def tile(self) -> dict[str, int]:
        """Extent of the tile in which bits change places, by axis; the rest of an index counts tiles."""
        return {bit.axis: 1 << bit.number for bit in self.bits if bit.rest}

    def where(self, **index: Any) -> dict[str, Any]:
        """Return row, word and nibble of the value at an index, as ``where(k=3, n=21)``; integers or tensors."""
        return {name: gather(getattr(self, name), index) for name in ("row", "word", "nibble")}

    def at(self, row: Any, word: Any, nibble: Any = 0) -> dict[str, Any]:
        """Return the index of the value that is stored at a place: the inverse of `where`."""
        index: dict[str, Any] = {}
        for name, value in (("row", row), ("word", word), ("nibble", nibble)):
            scatter(getattr(self, name), value, index)
        return {axis: index[axis] for axis in self.axes}

    def arrange(self, values: torch.Tensor) -> torch.Tensor:
        """Bring values [first axis, second axis] into the order of memory, [rows, words, nibbles].

        Each axis must be a multiple of its tile.
        """
        spread = self._spread(values)
        sizes = dict(zip(self.bits, spread.shape, strict=True))
        shape = [prod(sizes[bit] for bit in parse(field)) for field in (self.row, self.word, self.nibble)]
        return spread.reshape(shape)

    def to_words(self, codes: torch.Tensor) -> torch.Tensor:
        """Pack codes, uint8 [first axis, second axis], into int32 or int16 [rows, words], the lowest nibble first."""
        if codes.is_cuda and importlib.util.find_spec("triton"):
            from awqdoc.packing.triton_pack import to_words

            return to_words(self, codes)
        # Where neighbouring words hold neighbouring k, k must be the fast axis: a transposed copy is blocked, while
        # the additions below would fetch a cache line for each code (28672 x 4096 as awq_gemv: 0.20 s instead of 0.35).
        spread = self._spread(codes.t().contiguous().t() if self.word_axis == 0 else codes.contiguous())
        own = len(parse(self.nibble))
        packed = torch.empty(*spread.shape[:-own], self.nibbles // 2, dtype=torch.uint8, device=codes.device)
        # One operation for each byte of a word, so that the innermost loop runs over words, not over the few bytes of
        # one (28672 x 4096 as awq: 0.04 s instead of 0.22).
        for byte in range(self.nibbles // 2):
            low, high = (spread[self._at_nibble(nibble)] for nibble in (2 * byte, 2 * byte + 1))
            torch.add(low, high, alpha=16, out=packed[..., byte])
        rows = prod(spread.shape[: len(parse(self.row))])
        return packed.view(rows, -1).view(self.word_type)

    def from_words(self, words: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
        """Undo `to_words`: int32 or int16 [rows, words] back to codes [first axis, second axis]."""
        codes = (
            torch.empty(shape[::-1], dtype=torch.uint8, device=words.device).t()
            if self.word_axis == 0
            else torch.empty(shape, dtype=torch.uint8, device=words.device)
        )
        spread = self._spread(codes)
        own = len(parse(self.nibble))
        packed = words.contiguous().view(torch.uint8).view(*spread.shape[:-own], -1)
        for byte in range(self.nibbles // 2):
            low, high = (spread[self._at_nibble(nibble)] for nibble in (2 * byte, 2 * byte + 1))
            torch.bitwise_and(packed[..., byte], 15, out=low)
            torch.bitwise_right_shift(packed[..., byte], 4, out=high)
        return codes.contiguous()

    def restore(self, stored: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
        """Undo `arrange`: values [rows, words, nibbles] back to [first axis, second axis]."""
        split, place = self._split(shape)
        sizes = dict(zip(place, split, strict=True))
        order = [self.bits.index(bit) for bit in place]
        return stored.reshape([sizes[bit] for bit in self.bits]).permute(order).reshape(shape)

    def _spread(self, values: torch.Tensor) -> torch.Tensor:
        """Give every bit an axis of its own, in the order of memory: a view."""
        split, place = self._split(values.shape)
        first = sum(bit.axis == self.axes[0] for bit in place)
        return (
            values.unflatten(1, split[first:])
            .unflatten(0, split[:first])
            .permute([place.index(bit) for bit in self.bits])
        )

    def _at_nibble(self, nibble: int) -> tuple[Any, ...]:
        """Index into what `_spread` returns: the values of one nibble of every word."""
        return (..., *(nibble >> bit & 1 for bit in reversed(range(len(parse(self.nibble))))))

    @property
    def word_axis(self) -> int:
        """The axis, 0 or 1, along which neighbouring words hold neighbours."""
        return self.axes.index(parse(self.word)[-1].axis)

    def _split(self, shape: Any) -> tuple[list[int], list[Bit]]:
        """Return the extents when every bit has an axis of its own, and which bit each of these axes is."""
        sizes: list[int] = []
        place: list[Bit] = []
        for axis, size in zip(self.axes, shape, strict=True):
            own = sorted((bit for bit in self.bits if bit.axis == axis), key=lambda bit: -bit.number)
            place += own
            sizes += [size >> bit.number if bit.rest else 2 for bit in own]
        return sizes, place
