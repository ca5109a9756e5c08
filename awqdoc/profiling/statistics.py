"""What samples of time say, and when they say nothing: medians, intervals, ratios, doubts.

Times are no bell curve: they have a floor and a long tail, so a mean says little of either. Nothing here takes one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from statistics import median, quantiles
from typing import Any

from awqdoc.errors import AwqdocError

# Beyond these a measurement is doubted. In the sweep on an H100 the middle half of the samples spans up to 4 % of the
# median, and in a tenth of the rows the last quarter is more than 3 % off the first.
LARGEST_SPREAD = 0.05
LARGEST_DRIFT = 0.03
LARGEST_CLOCK_CHANGE = 0.05
# What NVML gives as a reason although nothing holds the clock down; and the power cap, which it names also where it
# took one step of the clock (under 1 %), so that the clocks must say how much it was.
HARMLESS = ("idle", "application clocks", "software power cap")


@dataclass(frozen=True)
class Summary:
    """What samples say. Their unit is that of the samples.

    Attributes
    ----------
    count : int
        Samples.
    median, low, high, least, most : float
        The median, the first and third quartile, and the extremes.
    interval : tuple of float or None
        A 95 % confidence interval of the median by order statistics, which assumes no distribution but that samples do
        not depend on each other; None for fewer than 6 samples, which cannot give one.
    """

    count: int
    median: float
    low: float
    high: float
    least: float
    most: float
    interval: tuple[float, float] | None

    @property
    def spread(self) -> float:
        """The span of the middle half of the samples as a share of the median."""
        return (self.high - self.low) / self.median if self.median else 0.0


def summarize(samples: Sequence[float]) -> Summary:
    """Summarize samples.

    Raises
    ------
    AwqdocError
        If there are none.
    """
    if not samples:
        raise AwqdocError("There are no samples to summarize: one or more are needed.")
    ordered = sorted(samples)
    low, middle, high = quantiles(ordered, n=4, method="inclusive") if len(ordered) > 1 else 3 * [ordered[0]]
    return Summary(len(ordered), middle, low, high, ordered[0], ordered[-1], _interval(ordered))


def _interval(ordered: list[float]) -> tuple[float, float] | None:
    """The narrowest symmetric pair of order statistics that holds the median with 95 % (binomial, p = 1/2)."""
    n = len(ordered)
    outside = 0.0  # of 2^n: the chance that the median lies below the sample at `below`
    for below in range(n // 2):
        outside += comb(n, below) / 2**n
        if 2 * outside > 0.05:
            return (ordered[below - 1], ordered[n - below]) if below else None
    return None


def ratios(base: Sequence[float], other: Sequence[float]) -> list[float]:
    """Return how many times as long `base` took as `other`, round by round: what drifts hits both alike.

    Raises
    ------
    AwqdocError
        If they do not have as many samples.
    """
    if len(base) != len(other):
        raise AwqdocError(
            f"Ratios are taken round by round, so both need as many samples; found {len(base)} and {len(other)}."
        )
    return [b / o for b, o in zip(base, other, strict=True)]


def doubts(samples: Sequence[float], states: Sequence[Mapping[str, Any]] = ()) -> list[str]:
    """Say why samples should not be believed; an empty list if there is no reason.

    Parameters
    ----------
    samples : sequence of float
        In the order in which they were taken.
    states : sequence of dict
        What `awqdoc.nvml.state` returned before, between or after them.
    """
    found = []
    summary = summarize(samples)
    if summary.interval is None:
        found.append(f"{summary.count} samples are too few for an interval: take 6 or more")
    if summary.spread > LARGEST_SPREAD:
        found.append(f"the middle half of the samples spans {summary.spread:.0%} of their median")
    if abs(drift(samples)) > LARGEST_DRIFT:
        found.append(f"the last quarter took {drift(samples):+.0%} against the first: something drifts")
    return found + _doubts_of_clocks(states)


def doubted(rows: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], str]]:
    """Return the rows of a recording that should be doubted, each with the first reason.

    A row has ``seconds``, its samples, and ``sm_clock_mhz`` and ``throttle_reasons`` right after them; its clock is
    compared with the highest of all rows. Rows of fewer than 6 samples are left out.
    """
    enough = [row for row in rows if isinstance(row.get("seconds"), list) and len(row["seconds"]) >= 6]
    highest = max((row.get("sm_clock_mhz") or 0 for row in enough), default=0)
    fastest = {"sm_clock_mhz": highest}
    return [(row, doubt) for row in enough for doubt in doubts(row["seconds"], [fastest, row])[:1]]


def drift(samples: Sequence[float]) -> float:
    """By what share the median of the last quarter differs from that of the first; 0 for fewer than 8 samples."""
    quarter = len(samples) // 4
    if quarter < 2:
        return 0.0
    return median(samples[-quarter:]) / median(samples[:quarter]) - 1


def _doubts_of_clocks(states: Sequence[Mapping[str, Any]]) -> list[str]:
    found = []
    reasons = {reason for state in states for reason in state.get("throttle_reasons") or () if reason not in HARMLESS}
    if reasons:
        found.append(f"the clock was held down ({', '.join(sorted(reasons))})")
    clocks = [state["sm_clock_mhz"] for state in states if state.get("sm_clock_mhz")]
    if clocks and max(clocks) > min(clocks) * (1 + LARGEST_CLOCK_CHANGE):
        found.append(f"the SM clock was between {min(clocks)} and {max(clocks)} MHz")
    return found
