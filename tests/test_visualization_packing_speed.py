"""The figure and table of packing, on a recording whose numbers we know."""

from typing import Any

import pytest
from figure_checks import assert_house_style
from matplotlib.figure import Figure

from awqdoc import visualization as vis
from awqdoc.recordings import Recording

pytestmark = pytest.mark.usefixtures("same_code")

PROVENANCE = {
    "commit": "0123456789", "sources": "sha256:now", "date": "2026-11-23T18:12:08+00:00", "clock": "a clock",
    "gpu": "NVIDIA H200",
}  # fmt: skip
SECONDS = {"copy": 0.01, "codes": 0.15, "pack": 0.2, "unpack": 0.3, "from weight": 0.5, "autoawq": 6.0}
SHAPE = "28672x4096"


def row(where: str, format: str, work: str) -> dict[str, Any]:
    seconds = SECONDS[work] / (1 if where == "cpu" else 100)
    return {"shape": SHAPE, "format": format, "where": where, "work": work, "seconds": [seconds * 3, seconds, 0.0]}


def recording(*without: str) -> Recording:
    rows = [
        row(where, format, work)
        for where in ("cpu", "cuda")
        for format in ("awq", "marlin")
        for work in SECONDS
        if work not in without
    ]
    other = {**rows[0], "shape": "4096x4096", "seconds": [99.0]}
    skipped = {
        "shape": SHAPE,
        "format": "awq",
        "where": "cpu",
        "work": "autoawq",
        "skipped": "autoawq is not installed",
    }
    if without:
        rows.append(skipped)
    return Recording("packing-speed", {"shape": ["4096x4096", SHAPE]}, PROVENANCE, [*rows, other])


def points(figure: Figure) -> dict[str, list[tuple[float, float]]]:
    (axes,) = figure.axes
    return {
        str(line.get_label()): list(zip(line.get_xdata(), line.get_ydata(), strict=True))  # type: ignore[arg-type]
        for line in axes.lines
    }


def test_each_work_is_a_point_in_the_line_of_its_place_and_format() -> None:
    figure = vis.plot_packing(recording(), SHAPE)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["CPU, awq", "CPU, marlin", "GPU, awq", "GPU, marlin"]
    assert points(figure)["ours, pack"] == [(0.2, 0), (0.2, 1), (0.002, 2), (0.002, 3)]
    assert points(figure)["AutoAWQ, the same"] == [(6, 0), (6, 1), (0.06, 2), (0.06, 3)]
    told = "GPU, marlin: copy of the codes 0.0001 s, ours, codes alone 0.0015 s, ours, pack 0.002 s"
    assert told in figure.awqdoc_alt  # type: ignore[attr-defined]


def test_without_autoawq_ours_is_shown() -> None:
    figure = vis.plot_packing(recording("autoawq"), SHAPE)
    assert list(points(figure)) == [
        "copy of the codes",
        "ours, codes alone",
        "ours, pack",
        "ours, round and pack",
    ]
    assert vis.packing_table(recording("autoawq"), SHAPE).rows[0] == [
        "CPU", "awq", "10", "150", "200", "500", "", "300", "", "",
    ]  # fmt: skip


def test_table_has_milliseconds_and_ratios() -> None:
    table = vis.packing_table(recording(), SHAPE)
    assert table.rows[0] == ["CPU", "awq", "10", "150", "200", "500", "6000", "300", "30", "12"]
    assert table.rows[3] == ["GPU", "marlin", "0.1", "1.5", "2", "5", "60", "3", "30", "12"]


def test_house_style() -> None:
    assert_house_style(lambda: vis.plot_packing(recording(), SHAPE))
