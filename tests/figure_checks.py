"""What holds for every figure of the site, whatever it shows."""

from __future__ import annotations

import re
from collections.abc import Callable

import matplotlib as mpl
from matplotlib.figure import Figure

from awqdoc import visualization as vis


def assert_house_style(draw: Callable[[], Figure]) -> None:
    """It has the palette's colours on both pages, nothing is cut off, and its caller's own style does not show."""
    figure = draw()
    for number, theme in enumerate(("light", "dark")):
        colours = re.findall(r"(?:fill|stroke)[:=]\s*\"?(#[0-9a-fA-F]{3,6})", vis.to_svg(figure, theme))
        assert set(colours) <= {pair[number] for pair in vis.PALETTE.values()}
    figure.canvas.draw()
    box = figure.get_tightbbox()
    assert -0.01 < box.x0 < box.x1 < figure.get_figwidth() + 0.01, "something is cut off"
    ours = vis.to_svg(draw(), "light")
    with mpl.rc_context({"text.color": "red", "font.size": 30, "axes.grid": False}):
        assert vis.to_svg(draw(), "light") == ours
