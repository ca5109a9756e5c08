"""Figures and tables of several programs, on recordings whose numbers we know."""

from typing import Any

import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from awqdoc import visualization as vis
from awqdoc.recordings import Recording

pytestmark = pytest.mark.usefixtures("same_code")

PROVENANCE = {
    "commit": "0123456789", "sources": "sha256:now", "date": "2026-11-23T18:12:08+00:00", "clock": "a clock",
    "gpu": "NVIDIA H200",
}  # fmt: skip
KL = {("awq", "awqdoc"): 0.04, ("awq", "autoawq"): 0.041, ("gptq", "awqdoc"): 0.03, ("gptq", "gptqmodel"): 0.0305}


def tool_row(method: str, tool: str) -> dict[str, Any]:
    row: dict[str, Any] = {"method": method, "tool": tool}
    if (method, tool) not in KL:
        return row | {"skipped": f"{tool} is not installed"}
    kl = KL[method, tool]
    return row | {"seconds": [2.04], "kl": kl, "kl_error": 0.0003, "kl_99": 6 * kl, "agreement": 0.9}


# GPTQModel first: the order of rows is not that of the drawing.
TOOLS = Recording(
    "side-by-side",
    {"method": ["awq", "gptq"]},
    PROVENANCE,
    [tool_row(m, tool) for m in ("awq", "gptq") for tool in ("gptqmodel", "autoawq", "awqdoc")],
)
SECONDS = {
    ("awqdoc", 0): (2.4, 1.6),
    ("awqdoc", 1): (1.7, 1.8),
    ("autoawq", 0): (24.0, 20.0),
    ("autoawq", 1): (17.0, 18.0),
}
PARTS = ("inputs", "scales", "clip", "pack")
SPEED = Recording(
    "awq-speed",
    {"shape": ["llama-3-8b"], "round": [0, 1]},
    PROVENANCE,
    [
        {"shape": "llama-3-8b", "round": number, "quantizer": name, "block": block, "seconds": [seconds],
         "loss": 0.04 if name == "awqdoc" else 0.05, "loss_held_out": 0.041,
         **({} if name == "awqdoc" else {f"seconds_{part}": seconds / 5 for part in PARTS})}
        for (name, number), times in SECONDS.items()
        for block, seconds in enumerate(times)
    ],
)  # fmt: skip
ALONE = Recording(
    "awq-speed",
    SPEED.parameters,
    PROVENANCE,
    [row for row in SPEED.rows if row["quantizer"] == "awqdoc"]
    + [
        {"shape": "llama-3-8b", "round": n, "quantizer": "autoawq", "skipped": "autoawq is not installed"}
        for n in (0, 1)
    ],
)


def names(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def alt(figure: Figure) -> str:
    return figure.awqdoc_alt  # type: ignore[attr-defined, no-any-return]


def test_programs_are_drawn_with_the_recorded_kl() -> None:
    figure = vis.plot_tools(TOOLS)
    assert names(figure) == ["AWQ, awqdoc", "AWQ, AutoAWQ", "GPTQ, awqdoc", "GPTQ, GPTQModel"]
    drawn = [c.lines for c in figure.axes[0].containers if isinstance(c, ErrorbarContainer)]
    assert [float(line.get_xdata()[0]) for line, _, _ in drawn] == [0.04, 0.041, 0.03, 0.0305]
    assert list(drawn[1][2][0].get_segments()[0][:, 0]) == pytest.approx([0.0407, 0.0413])


def test_alt_text_of_programs_tells_the_numbers() -> None:
    assert "AWQ by AutoAWQ 0.0410 ± 0.0003; GPTQ by awqdoc 0.0300 ± 0.0003" in alt(vis.plot_tools(TOOLS))


def test_programs_of_one_method() -> None:
    part = TOOLS.select(method=["gptq"])
    assert names(vis.plot_tools(part)) == ["GPTQ, awqdoc", "GPTQ, GPTQModel"]
    assert len(vis.tools_table(part).rows) == 3


def test_table_of_programs_says_who_is_left_out() -> None:
    table = vis.tools_table(TOOLS)
    assert table.rows[0] == ["AWQ", "GPTQModel", "left out: gptqmodel is not installed", "", "", "", ""]
    assert table.rows[2] == ["AWQ", "awqdoc", "0.0400", "0.0003", "0.240", "90.00%", "2.0"]


def test_seconds_of_each_block_are_points() -> None:
    figure = vis.plot_block_seconds(SPEED)
    points = [line for line in figure.axes[0].lines if line.get_linestyle() == "None" and len(line.get_xdata())]
    assert [float(line.get_xdata()[0]) for line in points] == [2.4, 1.6, 1.7, 1.8, 24, 20, 17, 18]
    assert [line.get_markerfacecolor() == "none" for line in points] == [True, False] * 4
    medians = [line for line in figure.axes[0].lines if line.get_linestyle() == "-" and len(line.get_xdata())]
    assert [float(line.get_xdata()[0]) for line in medians] == [1.75, 19]
    assert "awqdoc: 2.4, 1.6, 1.7, 1.8 s, median 1.75 s; AutoAWQ: 24, 20, 17, 18 s, median 19 s" in alt(figure)


def test_ratios_pair_the_same_blocks() -> None:
    assert vis.block_seconds(SPEED, "awqdoc") == [2.4, 1.6, 1.7, 1.8]
    assert vis.block_ratios(SPEED, "seconds") == pytest.approx([10, 12.5, 10, 10])
    assert vis.block_ratios(SPEED, "loss") == pytest.approx([1.25] * 4)


def test_one_program_alone() -> None:
    assert names(vis.plot_block_seconds(ALONE)) == ["awqdoc"]
    assert vis.block_seconds(ALONE, "autoawq") == vis.block_ratios(ALONE, "seconds") == []
    assert vis.speed_table(ALONE).rows[-1] == [
        "1", "AutoAWQ", "", "left out: autoawq is not installed", "", "",
    ]  # fmt: skip


def test_one_round() -> None:
    part = SPEED.select(round=[1])
    assert vis.block_ratios(part, "seconds") == pytest.approx([10, 10])
    assert "median 1.75" in alt(vis.plot_block_seconds(part))


def test_table_of_blocks() -> None:
    assert vis.speed_table(SPEED).rows[1] == ["0", "awqdoc", "1", "1.60", "4.000%", "4.100%"]


def test_table_of_the_parts_of_the_work() -> None:
    table = vis.phases_table(SPEED)
    assert table.rows[0] == ["0", "0", "24.00", *["4.80 (20%)"] * 5]
    assert len(table.rows) == 4
    assert vis.phases_table(ALONE).rows == []


@pytest.mark.parametrize("which", ["tools", "blocks"])
def test_whole_figure_is_inside(which: str) -> None:
    figure = vis.plot_tools(TOOLS) if which == "tools" else vis.plot_block_seconds(SPEED)
    figure.canvas.draw()  # lays it out
    box, width = figure.get_tightbbox(), figure.get_figwidth()  # type: ignore[call-arg]
    assert -0.01 < box.x0 < box.x1 < width + 0.01
