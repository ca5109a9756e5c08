"""Plateaus in a staircase: where the latency of memory stays the same while the footprint grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2
from statistics import median

from awqdoc.errors import AwqdocError

# On a plateau the largest value is at most so much above the smallest, and the last footprint so many times the first.
TOLERANCE = 0.10
LEAST_OCTAVES = 1.4


@dataclass(frozen=True)
class Plateau:
    """A stretch of footprints, bytes, first and last included, over which the latency is ``cycles`` (the median)."""

    first: int
    last: int
    cycles: float


def plateaus(footprints: Sequence[int], cycles: Sequence[float]) -> list[Plateau]:
    """Find the stretches over which the latency does not change.

    The widest is taken first, then the widest on either side of it, and so on. What rises between them belongs to none.

    Parameters
    ----------
    footprints : sequence of int
        Bytes, rising.
    cycles : sequence of float
        Latency at each footprint.

    Returns
    -------
    list of Plateau
        From the smallest footprint to the largest.

    Raises
    ------
    AwqdocError
        If there is not one latency for each footprint, or footprints do not rise.
    """
    if len(footprints) != len(cycles) or sorted(set(footprints)) != list(footprints):
        raise AwqdocError(
            "Plateaus need one latency for each footprint, and footprints that rise; "
            f"found {len(footprints)} footprints and {len(cycles)} latencies."
        )
    runs = [
        (log2(footprints[last] / footprints[first]), first, last)
        for first in range(len(footprints))
        for last in range(first, len(footprints))
        if max(cycles[first : last + 1]) <= (1 + TOLERANCE) * min(cycles[first : last + 1])
    ]
    wide = [run for run in runs if run[0] >= LEAST_OCTAVES]
    if not wide:
        return []
    _, first, last = max(wide)
    here = Plateau(footprints[first], footprints[last], median(cycles[first : last + 1]))
    before = plateaus(footprints[:first], cycles[:first])
    return [*before, here, *plateaus(footprints[last + 1 :], cycles[last + 1 :])]
