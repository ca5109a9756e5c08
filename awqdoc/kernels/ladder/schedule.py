"""How ``cuda/stripes.cuh`` cuts the records of a weight among blocks, in Python: who has what, and who adds it up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """Records of one tile that one block multiplies.

    Attributes
    ----------
    block, tile : int
    begin, end : int
        Records [begin, end), counted through all tiles.
    role : str
        ``"whole"``: the block stores the tile alone; ``"adds"``: it has the tile's beginning, adds what the others
        leave and stores; ``"leaves"``: it leaves its sums for the block that adds.
    """

    block: int
    tile: int
    begin: int
    end: int
    role: str


def stripe(records: int, block: int, blocks: int) -> int:
    """Return the first record of a block's stripe; that of the block after the last is the number of records."""
    return records * block // blocks


def stripes(records: int, per_tile: int, blocks: int) -> list[Part]:
    """Return the parts of all blocks in the order in which each block takes them."""
    parts = []
    for block in range(blocks):
        begin, last = stripe(records, block, blocks), stripe(records, block + 1, blocks)
        while begin < last:
            tile = begin // per_tile
            end = min(last, (tile + 1) * per_tile)
            starts, ends = begin == tile * per_tile, end == (tile + 1) * per_tile
            parts.append(Part(block, tile, begin, end, "whole" if starts and ends else "adds" if starts else "leaves"))
            begin = end
    return parts


def helpers(records: int, per_tile: int, blocks: int, block: int) -> int:
    """Return how many of the following blocks have a part of the tile in which a block's stripe ends."""
    last = stripe(records, block + 1, blocks)
    tile_end = -(-last // per_tile) * per_tile
    found = 0
    while stripe(records, block + 1 + found, blocks) < tile_end:
        found += 1
    return found
