"""The cut of records among blocks: its drawing, its model beside made-up times, against known answers."""

from __future__ import annotations

import pytest
from figure_checks import assert_house_style
from matplotlib.patches import Rectangle
from test_visualization_ladder import recording

from awqdoc import visualization as vis


def test_every_record_is_drawn_once() -> None:
    axes = vis.plot_stripes(3, 3, 5).axes[0]
    boxes = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    records = {(int(box.get_x()), int(y + 0.5)) for box in boxes for y in _rows(box)}
    assert len(records) == 9
    assert sum(len(_rows(box)) for box in boxes) == 9


def _rows(box: Rectangle) -> list[float]:
    top = round(box.get_y())
    return [top + i for i in range(round(box.get_height() + 0.12))]


def test_the_drawing_says_who_adds_and_who_leaves() -> None:
    texts = [text.get_text() for text in vis.plot_stripes(2, 4, 3).axes[0].texts]
    # Records 0 to 1, 2 to 4, 5 to 7: block 1 has the end of tile 0 and the beginning of tile 1.
    assert texts == ["0 adds", "1 leaves", "1 adds", "2 leaves"]


@pytest.mark.parametrize(
    ("shape", "sms", "whole", "cut"),
    [
        ("4096x4096", 128, 0.25, 1.0),  # 32 tiles on 128 SMs; 1024 records, 8 for each
        ("28672x4096", 112, 1.0, 1.0),  # 224 tiles: two waves
        ("512x512", 3, 4 / 6, 16 / 18),  # 4 tiles: two waves; 16 records, 6 for the busiest
    ],
)
def test_shares_of_sms_at_work(shape: str, sms: int, whole: float, cut: float) -> None:
    assert vis.busy(shape, sms) == pytest.approx((whole, cut))


def test_the_gain_is_measured_step_5_against_step_4() -> None:
    (row,) = vis.cutting_table(recording(), sms=4).rows
    # 256x128: 2 tiles of one record; in the made-up times step 4 takes 6 floors, step 5 takes 5.
    assert row == ["256x128", "2", "1", "50%", "50%", "1", "1.00", "1.20"]


def test_house_style_of_the_stripes() -> None:
    assert_house_style(lambda: vis.plot_stripes(5, 6, 8))
