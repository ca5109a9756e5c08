"""Where the time of a step goes: every moment of it is charged to one kind of work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

KINDS = ("embedding", "norm", "linear", "attention", "activation", "lm_head", "sampling", "gaps")
"""The kinds of work. The rotation of queries and keys and the append to the cache are part of attention."""

# Our kernels outside the products, by name.
_OURS = {
    "norm_kernel": "norm",
    "attend_kernel": "attention",
    "combine_kernel": "attention",
    "activate_kernel": "activation",
    "choose_kernel": "sampling",
    "follow_kernel": "sampling",
}


@dataclass(frozen=True)
class Launch:
    """One kernel as a profiler saw it: its name, and when it began and ended, in seconds."""

    name: str
    begin: float
    end: float


def kinds(launches: Sequence[Launch]) -> dict[str, float]:
    """Charge the time from the first kernel's begin to the last one's end: kind of work -> seconds, which add up to it.

    A kernel is charged from the end of the one before it: what began early only waited, or fetched its weight while the
    other still ran. Time in which nothing ran counts as gaps. What is none of our kernels between products is the
    embedding before the first norm, a product of a layer before the last, and the product with lm_head behind it.
    """
    ordered = sorted(launches, key=lambda launch: launch.end)
    names = [_OURS.get(launch.name) for launch in ordered]
    norms = [number for number, name in enumerate(names) if name == "norm"]
    first, last = (norms[0], norms[-1]) if norms else (0, -1)
    found = dict.fromkeys(KINDS, 0.0)
    done = min((launch.begin for launch in ordered), default=0.0)
    for number, launch in enumerate(ordered):
        other = "linear" if number < last else "lm_head"
        found["gaps"] += max(0.0, launch.begin - done)
        found["embedding" if number < first else names[number] or other] += launch.end - max(done, launch.begin)
        done = launch.end
    return found
