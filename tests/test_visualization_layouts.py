"""Layouts and fragments as drawings: what is written in them is what the layout says."""

from __future__ import annotations

from figure_checks import assert_house_style

from awqdoc import visualization as vis
from awqdoc.packing import LAYOUTS

AWQ, MARLIN = LAYOUTS["awq"].weight, LAYOUTS["marlin"]


def test_the_lanes_of_a_warp_share_out_all_elements_of_a_b_and_c() -> None:
    shapes = {"A": (16, 16), "B": (16, 8), "C": (16, 8)}
    for name, (rows, columns) in shapes.items():
        held = [element for lane in range(32) for element in vis.lane_elements(lane)[name]]
        assert sorted(held) == [(row, column) for row in range(rows) for column in range(columns)]


def test_the_fragment_of_b_is_the_lane_of_marlins_layout() -> None:
    for lane in range(32):
        for (k, n), register in vis.lane_elements(lane)["B"].items():
            place = MARLIN.where(k, n)
            assert (place["lane"], place["register"]) == (lane, register)


def test_the_fragment_of_a_goes_along_k_as_that_of_b_does() -> None:
    """The products of a sum must meet: both have the same k in the same lane of a row or column."""
    for lane in range(32):
        held = vis.lane_elements(lane)
        assert {k for _, k in held["A"]} == {k for k, _ in held["B"]}
        assert {token for token, _ in held["A"]} == {token for token, _ in held["C"]}


def test_the_figure_of_fragments_shows_registers() -> None:
    alt = vis.plot_fragments(13, "Lane 13").awqdoc_alt  # type: ignore[attr-defined]
    assert "B, k by n: (2, 3) in 0 (3, 3) in 0 (10, 3) in 1 (11, 3) in 1" in alt
    assert "C, token by n: (3, 2) in 0 (3, 3) in 1 (11, 2) in 2 (11, 3) in 3" in alt


def test_wires_name_bits_of_the_place() -> None:
    assert vis.wires(AWQ) == [
        ("k0+", "row", ""),
        ("n3+", "word", ""),
        ("n0", "nibble bit 2", ""),
        ("n2", "nibble bit 1", ""),
        ("n1", "nibble bit 0", ""),
    ]
    assert ("n6+", "word bits 7+", "") in vis.wires(MARLIN.weight, MARLIN.lane)
    assert ("n4", "word bit 0", "register bit 2") in vis.wires(MARLIN.weight, MARLIN.lane)
    assert ("k0", "nibble bit 2", "half") in vis.wires(MARLIN.weight, MARLIN.lane)


def test_house_style() -> None:
    zeros = LAYOUTS["awq_marlin"].zeros
    assert zeros is not None
    assert_house_style(lambda: vis.plot_fragments(13, "Lane 13"))
    assert_house_style(lambda: vis.plot_wires(AWQ, "AWQ"))
    assert_house_style(lambda: vis.plot_wires(zeros, "Zeros"))
    assert_house_style(lambda: vis.plot_wires(MARLIN.weight, "Marlin", MARLIN.lane))
    assert_house_style(lambda: vis.plot_tile(MARLIN, "lane", "Lanes", marked=(0, 13, 31), parted=(8,)))
    assert_house_style(lambda: vis.plot_words(AWQ, [("word 0", 0, 0), ("word 1", 0, 1)], "Words"))
