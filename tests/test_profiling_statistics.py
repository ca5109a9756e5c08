"""What samples say, on made-up samples whose answer is known."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awqdoc.errors import AwqdocError
from awqdoc.profiling import doubts, ratios, summarize
from awqdoc.profiling.statistics import drift

QUIET = [1.0 + 0.001 * (i % 5) for i in range(40)]


def test_a_summary_of_one_to_nine() -> None:
    found = summarize([9, 1, 8, 2, 7, 3, 6, 4, 5])
    assert (found.count, found.median, found.low, found.high, found.least, found.most) == (9, 5, 3, 7, 1, 9)
    assert found.spread == pytest.approx(4 / 5)
    # Of nine samples the second and the eighth hold the median with 96 % (a table in any book on rank tests).
    assert found.interval == (2, 8)


@pytest.mark.parametrize(
    ("count", "interval"), [(1, None), (5, None), (6, (1, 6)), (8, (1, 8)), (20, (6, 15)), (100, (40, 61))]
)
def test_intervals_of_the_median_are_those_of_the_tables(count: int, interval: tuple[int, int] | None) -> None:
    """Ranks for 95 %: Conover, Practical Nonparametric Statistics, and Hahn and Meeker, Statistical Intervals."""
    assert summarize(range(1, count + 1)).interval == interval


def test_an_interval_holds_the_true_median_as_often_as_it_says() -> None:
    generator = random.Random(0)
    held = 0
    for _ in range(2000):
        interval = summarize([generator.expovariate(1.0) for _ in range(20)]).interval
        assert interval is not None
        held += interval[0] <= 0.6931471805599453 <= interval[1]  # ln 2
    assert 0.95 < held / 2000 < 0.97  # 95.9 % by the binomial distribution


@given(st.lists(st.floats(1e-9, 1e3), min_size=1, max_size=60))
def test_a_summary_is_in_order_and_within_the_samples(samples: list[float]) -> None:
    found = summarize(samples)
    assert min(samples) == found.least <= found.low <= found.median <= found.high <= found.most == max(samples)
    if found.interval:
        assert found.interval[0] <= found.median <= found.interval[1]


def test_one_slow_sample_of_many_moves_nothing_but_the_maximum() -> None:
    found = summarize([*QUIET, 50.0])
    assert (found.median, found.most) == (1.002, 50.0)
    assert found.spread < 0.003


def test_no_samples_are_refused() -> None:
    with pytest.raises(AwqdocError, match="one or more are needed"):
        summarize([])


def test_ratios_are_taken_round_by_round_so_that_a_common_drift_is_gone() -> None:
    drifting = [1.0 + 0.1 * i for i in range(10)]
    assert ratios([3 * t for t in drifting], drifting) == pytest.approx([3.0] * 10)
    with pytest.raises(AwqdocError, match="found 2 and 3"):
        ratios([1, 2], [1, 2, 3])


def test_quiet_samples_give_no_doubt() -> None:
    calm = {"sm_clock_mhz": 1980, "throttle_reasons": ["idle"]}
    one_step_below = {"sm_clock_mhz": 1965, "throttle_reasons": ["software power cap"]}
    assert doubts(QUIET, [calm, one_step_below]) == []


@pytest.mark.parametrize(
    ("samples", "states", "words"),
    [
        ([1.0, 1.0, 1.0], [], "3 samples are too few for an interval: take 6 or more"),
        ([1.0, 1.2] * 20, [], "the middle half of the samples spans 18% of their median"),
        ([1.0] * 20 + [1.04] * 20, [], r"the last quarter took \+4% against the first"),
        ([1.0] * 20 + [0.96] * 20, [], "the last quarter took -4% against the first"),
        (
            QUIET,
            [{"throttle_reasons": []}, {"throttle_reasons": ["hardware thermal slowdown"]}],
            r"held down \(hardware thermal",
        ),
        (
            QUIET,
            [{"sm_clock_mhz": clock} for clock in (1980, 1410, 1980)],
            "the SM clock was between 1410 and 1980 MHz",
        ),
    ],
)
def test_a_restless_machine_is_told(samples: list[float], states: list[dict[str, object]], words: str) -> None:
    (doubt,) = doubts(samples, states)
    assert re.search(words, doubt)


def test_drift_is_the_last_quarter_against_the_first() -> None:
    assert drift([1, 1, 5, 5, 5, 5, 2, 2]) == pytest.approx(1.0)
    assert drift([1, 2, 3]) == 0.0
