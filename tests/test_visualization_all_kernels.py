"""Who is first, how near the floor, who got no time: from made-up times whose answers are known."""

from __future__ import annotations

from typing import Any

import pytest
from figure_checks import assert_house_style
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from awqdoc import visualization as vis
from awqdoc.kernels.table import KERNELS, LADDER
from awqdoc.recordings import Recording

TOP = LADDER[-1]
SMALL, LARGE = "256x128", "512x1024"
BATCHES = [1, 16, 64]
PROVENANCE = {
    "commit": "0123456789", "sources": "sha256:now", "date": "2026-11-25T12:00:00+00:00", "clock": "a clock",
    "gpu": "NVIDIA H100",
}  # fmt: skip
# The rounds drift, all alike.
ROUNDS = (1e-6, 2e-6, 4e-6)
# Backend -> times at the three M, in units of the rounds.
FACTORS = {
    "read": (1, 1, 1),
    "fp16": (4, 4, 4),
    "dequantize": (8, 8, 8),
    "a_peer": (3, 5, 3),
    LADDER[-2]: (2.5, 2.5, None),
    TOP: (2, 2, 8),
}


def recording(left_out: tuple[str, ...] = ()) -> Recording:
    rows: list[dict[str, Any]] = []
    for shape in (SMALL, LARGE):
        for zero_points in (True, False):
            for place, m in enumerate(BATCHES):
                cell = {"shape": shape, "zero_points": zero_points, "m": m}
                for name, factors in FACTORS.items():
                    factor = factors[place]
                    if name in left_out:
                        continue
                    if factor is None:
                        rows.append({**cell, "backend": name, "skipped": f"it takes up to 32 tokens; M is {m}"})
                    else:
                        rows.append({**cell, "backend": name, "seconds": [factor * second for second in ROUNDS]})
                if "marlin_ist" not in left_out:
                    size = m / (1000 if shape == SMALL else 2000)
                    reason = "its process crashed" if m == 1 else f"its results change, by up to {size}"
                    why = "it takes symmetric weights only" if zero_points else reason
                    rows.append({**cell, "backend": "marlin_ist", "skipped": why})
    parameters = {"shape": [SMALL, LARGE], "zero_points": [True, False], "m": BATCHES}
    return Recording("kernels", parameters, PROVENANCE, rows)


def test_runs_of_batch_sizes_are_those_of_the_ones_that_were_measured() -> None:
    assert vis.spans([1, 2, 4, 16], [1, 2, 4, 8, 16, 32]) == "1 to 4, 16"
    assert vis.spans([1, 4], [1, 4]) == "1 to 4"
    assert vis.spans([], [1, 4]) == "none"


def test_the_best_rate_is_that_of_the_fastest_median_in_the_whole_recording() -> None:
    rate, row = vis.best_rate(recording())
    # 64 tokens on the large layer in 3 units of 2 µs, by the peer; reading is no product.
    assert rate == pytest.approx(2 * 64 * 512 * 1024 / 6e-6)
    assert (row["backend"], row["shape"], row["m"]) == ("a_peer", LARGE, 64)


def test_the_longer_of_reading_and_operations_is_the_floor() -> None:
    # On the large layer the best rate takes 6 µs for 64 tokens, 1.5 for 16; reading takes 2.
    floors = vis.kernel_floors(recording(), LARGE, True)
    assert [floors[m].binds for m in BATCHES] == ["bytes", "bytes", "operations"]
    assert [floors[m].seconds for m in BATCHES] == pytest.approx([2e-6, 2e-6, 6e-6])
    # The small one has a sixteenth of the operations.
    assert vis.kernel_floors(recording(), SMALL, True)[64].binds == "bytes"


def test_the_share_of_the_floor() -> None:
    shares = vis.kernel_shares(recording(), LARGE, True)
    assert shares["fp16"] == pytest.approx({1: 1 / 4, 16: 1 / 4, 64: 6 / 8})
    assert shares[TOP] == pytest.approx({1: 1 / 2, 16: 1 / 2, 64: 6 / 16})
    assert shares[LADDER[-2]].keys() == {1, 16}
    assert "read" not in shares
    assert "marlin_ist" not in shares


def test_who_is_first_and_by_how_much_the_top_step_leads() -> None:
    found = vis.standings(recording(), True)
    assert [found[SMALL, m].first for m in BATCHES] == [TOP, TOP, "a_peer"]
    # The other is never of our ladder, even where the step before the last is the second.
    assert [found[SMALL, m].other for m in BATCHES] == ["a_peer", "fp16", "a_peer"]
    assert [found[SMALL, m].lead for m in BATCHES] == pytest.approx([1.5, 2, 3 / 8])


def test_on_a_gpu_that_lacks_the_top_step_the_last_that_got_a_time_stands_for_our_ladder() -> None:
    some = recording(left_out=(TOP,))
    assert (vis.top_step(recording()), vis.top_step(some)) == (TOP, LADDER[-2])
    found = vis.standings(some, True)
    assert [found[SMALL, m].first for m in BATCHES] == [LADDER[-2], LADDER[-2], "a_peer"]
    assert (found[SMALL, 1].lead, found[SMALL, 64].lead) == (pytest.approx(3 / 2.5), None)
    assert [row[2] for row in vis.ahead_table(some, ((1, 64),)).rows] == ["4 of 4"] * 2
    assert vis.ahead_table(some, ()).caption.startswith(vis.brief(LADDER[-2]))
    titles = [axes.get_title(loc="left") for axes in vis.plot_each_time(some, LARGE, True).axes]
    assert any(title.startswith(vis.brief(LADDER[-2])) for title in titles)


def test_without_any_step_there_is_no_lead_but_a_first() -> None:
    some = recording(left_out=LADDER[-2:])
    assert vis.top_step(some) == TOP
    assert (vis.standings(some, True)[SMALL, 1].first, vis.standings(some, True)[SMALL, 1].lead) == ("a_peer", None)
    assert vis.ahead_table(some, ((1, 64),)).rows == []


def test_a_cell_without_others_has_no_standing() -> None:
    assert vis.standings(recording(left_out=("fp16", "dequantize", "a_peer")), True) == {}


def test_the_overview_has_each_lead_in_its_cell_blue_or_orange() -> None:
    axes = vis.plot_standings(recording(), True).axes[0]
    told = {(text.get_position()): text.get_text() for text in axes.texts}
    assert told[0, 0] == told[1, 0] == "1.50"
    assert told[0, 2] == "0.38"
    cells = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert len(cells) == len(told) == 6
    hues = {round(cell.get_y() + 0.46): to_hex(cell.get_facecolor()) for cell in cells}
    assert hues == {place: vis.PALETTE[hue][0] for place, hue in enumerate(("blue", "blue", "orange"))}
    opacity = {round(cell.get_y() + 0.46): cell.get_alpha() for cell in cells}
    assert opacity[0] < opacity[1], "a larger lead is a stronger colour"


def test_the_overview_draws_a_dash_where_the_top_step_has_no_time() -> None:
    axes = vis.plot_standings(recording(left_out=LADDER[-2:]), True).axes[0]
    assert {text.get_text() for text in axes.texts} == {"–"}


def test_the_overview_as_tables() -> None:
    step = KERNELS[TOP].title.split(":")[0]
    assert vis.first_table(recording(), True).rows == [
        ["1", *[f"{step} before a_peer"] * 2], ["16", *[f"{step} before FP16"] * 2], ["64", "a_peer", "a_peer"],
    ]  # fmt: skip
    rows = vis.ahead_table(recording(), ((1, 16), (17, 128), (129, 1024))).rows
    assert rows[0] == ["with zero points", "1 to 16", "4 of 4", f"2.00 ({SMALL}, M = 16)", f"1.50 ({SMALL}, M = 1)"]
    assert rows[1][:3] == ["with zero points", "17 to 128", "0 of 2"]
    assert [row[0] for row in rows] == ["with zero points"] * 2 + ["symmetric"] * 2


def test_each_kernel_has_a_panel_but_our_lower_steps_and_fp16() -> None:
    figure = vis.plot_each_time(recording(), LARGE, True)
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes if axes.get_title(loc="left")}
    top = KERNELS[TOP].title.removesuffix(" (Hopper)")
    assert list(panels) == [
        f"{top}\nfaster at M: 1 to 16", "dequantize + matmul\nfaster at M: none", "a_peer\nfaster at M: 1, 64",
    ]  # fmt: skip
    lines = {line.get_label(): line for line in panels[f"{top}\nfaster at M: 1 to 16"].lines}
    assert list(lines["the kernel"].get_ydata()) == pytest.approx([4, 4, 16])
    assert list(lines["FP16"].get_ydata()) == pytest.approx([8, 8, 8])
    assert list(lines["floor"].get_ydata()) == pytest.approx([2, 2, 6])


def test_the_panels_of_shares_say_where_operations_begin_to_bind() -> None:
    panels = [axes for axes in vis.plot_each_share(recording(), LARGE, True).axes if axes.get_title(loc="left")]
    assert panels[0].get_title(loc="left").endswith("at best 50%, M = 1")
    lines = {line.get_label(): line for line in panels[0].lines}
    assert list(lines["the kernel"].get_ydata()) == pytest.approx([1 / 2, 1 / 2, 6 / 16])
    assert set(lines["from here operations bind"].get_xdata()) == {64}


def test_where_each_is_faster_than_fp16_by_shape() -> None:
    rows = {row[0]: row[1:] for row in vis.shape_leads_table(recording(), True).rows}
    assert rows["a_peer"] == ["1, 64", "1, 64"]
    assert rows["dequantize + matmul"] == ["none", "none"]
    assert rows[KERNELS[TOP].title.removesuffix(" (Hopper)")] == ["1 to 16", "1 to 16"]
    assert not {"FP16", "read"} & rows.keys()
    assert not any("arlin" in name for name in rows), "it got no time"


def test_outcomes_by_batch_size_are_those_of_one_kind_of_weight() -> None:
    assert vis.outcomes(recording(), "marlin_ist", False) == {
        1: {"its process crashed": 2}, 16: {"its results change, by up to 0.016": 2},
        64: {"its results change, by up to 0.064": 2},
    }  # fmt: skip
    assert vis.outcomes(recording(), TOP, True)[1] == {"timed": 2}
    assert vis.outcomes(recording(left_out=("marlin_ist",)), "marlin_ist", False) == {}


def test_reasons_that_differ_in_numbers_are_listed_once() -> None:
    rows = [row for row in vis.left_out_table(recording()).rows if "arlin" in row[0] or row[0] == "marlin_ist"]
    assert [row[1:] for row in rows] == [
        ["1 to 64", "6", "with zero points", "it takes symmetric weights only"],
        ["1", "2", "symmetric", "its process crashed"],
        ["16 to 64", "4", "symmetric", "its results change, by up to 0.016 (the first of 4 such reasons)"],
    ]


@pytest.mark.parametrize("draw", [vis.plot_each_time, vis.plot_each_share])
def test_house_style_of_the_panels(draw: Any) -> None:
    assert_house_style(lambda: draw(recording(), LARGE, True))


def test_house_style_of_the_overview() -> None:
    assert_house_style(lambda: vis.plot_standings(recording(), False))


@pytest.mark.parametrize("left_out", [(TOP,), ("dequantize", "a_peer"), tuple(FACTORS.keys() - {"read", "fp16"})])
def test_a_recording_with_only_some_of_the_backends_can_be_drawn(left_out: tuple[str, ...]) -> None:
    some = recording(left_out)
    for figure in (vis.plot_each_time(some, LARGE, True), vis.plot_each_share(some, LARGE, True)):
        names = {axes.get_title(loc="left").split("\n")[0] for axes in figure.axes}
        assert not names & {vis.brief(name) for name in left_out}
