"""Figures and tables of plain rounding, on weights and a recording whose numbers we know."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from awqdoc import visualization as vis
from awqdoc.errors import AwqdocError
from awqdoc.recordings import Recording
from awqdoc.visualization import Here

pytestmark = pytest.mark.usefixtures("same_code")

PROVENANCE = {
    "commit": "0123456789", "sources": "sha256:now", "date": "2026-11-23T18:12:08+00:00", "clock": None,
    "gpu": "NVIDIA H200",
}  # fmt: skip
AXES: dict[str, list[Any]] = {
    "model": ["embedded"], "bits": [4, 3], "group_size": [-1, 128, 64], "symmetric": [False, True],
}  # fmt: skip
EXTRA = {-1: 0.05, 128: 0.15, 64: 0.3}


def rows() -> Iterator[dict[str, Any]]:
    for bits in AXES["bits"]:
        for group_size in AXES["group_size"]:
            for symmetric in AXES["symmetric"]:
                error = (0.1 if bits == 4 else 0.25) * (1.2 if symmetric else 1) * (1 - EXTRA[group_size])
                yield {
                    "model": "embedded", "bits": bits, "group_size": group_size, "symmetric": symmetric,
                    "weight_error": error, "bits_per_weight": bits + EXTRA[group_size] * (0.8 if symmetric else 1),
                    "kl": 5 * error**2, "kl_error": 0.001,
                }  # fmt: skip


ROUNDING = Recording("rounding", AXES, PROVENANCE, list(rows()))
# Two output channels of eight weights: steps 0.05 and 0.1, zero points 6 and 5.
WEIGHT = torch.tensor([[-0.31, 0.12, 0.05, -0.07, 0.44, 0.18, -0.02, 0.29], [-0.5, 1, 0.1, 0.24, 0.3, 0, -0.1, 0.2]])
SOURCE = Here("a processor", "2026-11-24")


def bars(figure: Figure) -> dict[str, ErrorbarContainer]:
    return {c.get_label(): c for c in figure.axes[0].containers if isinstance(c, ErrorbarContainer)}


def alt(figure: Figure) -> str:
    return figure.awqdoc_alt  # type: ignore[attr-defined, no-any-return]


def test_group_and_its_levels_are_drawn() -> None:
    axes = vis.plot_group(WEIGHT, SOURCE, group_size=8).axes[0]
    *levels, weights = axes.lines
    assert list(weights.get_ydata()) == pytest.approx(WEIGHT[0].tolist())
    heights = [float(line.get_ydata()[0]) for line in levels]
    assert heights == pytest.approx([(code - 6) * 0.05 for code in range(16)], rel=1e-3)


def test_symmetric_codes_have_their_zero_in_the_middle() -> None:
    *levels, _ = vis.plot_group(WEIGHT, SOURCE, 8, bits=3, symmetric=True).axes[0].lines
    assert [float(line.get_ydata()[0]) for line in levels] == pytest.approx(
        [(code - 4) * 0.44 / 3 for code in range(8)], rel=1e-3
    )


def test_errors_are_those_of_the_whole_layer_in_its_own_steps() -> None:
    figure = vis.plot_group(WEIGHT, SOURCE, group_size=8)
    (steps,) = figure.axes[1].patches
    density = steps.get_data().values  # type: ignore[attr-defined]
    assert sum(density) * 1.2 / 24 == pytest.approx(1)
    # -0.02 is restored as 0 and 0.24 as 0.2: the largest errors of each channel, 0.4 steps both.
    assert "between -0.40 and 0.40 steps" in alt(figure)
    # The second channel ten times smaller, and once more as it is: as many steps in error as before.
    twice = torch.cat([WEIGHT[1:] / 10, WEIGHT[1:]], dim=1)
    assert "between -0.40 and 0.00 steps" in alt(vis.plot_group(twice, SOURCE, group_size=8))


def test_alt_text_of_a_group_tells_the_numbers() -> None:
    told = alt(vis.plot_group(WEIGHT, SOURCE, group_size=8))
    assert "8 weights from -0.31 to 0.44 among 16 levels 0.05 apart, from -0.3 to 0.45." in told


def test_data_of_a_group_are_its_codes() -> None:
    source = vis.plot_group(WEIGHT, SOURCE, group_size=8).awqdoc_source  # type: ignore[attr-defined]
    assert [row["code"] for row in source.rows] == [0, 8, 7, 5, 15, 10, 6, 12]
    assert {row["zero"] for row in source.rows} == {6}


def test_points_are_the_recorded_kl_with_its_error() -> None:
    drawn = bars(vis.plot_rounding(ROUNDING))
    assert list(drawn) == ["INT4 asymmetric", "INT4 symmetric", "INT3 asymmetric", "INT3 symmetric"]
    line, _, (bar,) = drawn["INT3 symmetric"].lines
    assert list(line.get_xdata()) == pytest.approx([3.04, 3.12, 3.24])
    assert list(line.get_ydata()) == pytest.approx([5 * (0.3 * share) ** 2 for share in (0.95, 0.85, 0.7)])
    kl = float(line.get_ydata()[0])
    assert list(bar.get_segments()[0][:, 1]) == pytest.approx([kl - 0.001, kl + 0.001])


def test_alt_text_by_bits_tells_the_numbers() -> None:
    told = alt(vis.plot_rounding(ROUNDING))
    assert "INT4 asymmetric: 0.0451 at 4.05 (all of K), 0.0361 at 4.15 (128), 0.0245 at 4.30 (64)." in told


@pytest.mark.parametrize("part", [{"bits": [3]}, {"symmetric": [True]}, {"group_size": [64], "bits": [4]}])
def test_drawn_and_tabulated_for_a_part_of_the_axes(part: dict[str, list[Any]]) -> None:
    chosen = ROUNDING.select(**part)
    lines = bars(vis.plot_rounding(chosen))
    sizes = chosen.parameters["group_size"]
    assert len(lines) == len(chosen.parameters["bits"]) * len(chosen.parameters["symmetric"])
    assert {len(c.lines[0].get_xdata()) for c in lines.values()} == {len(sizes)}
    assert len(vis.rounding_table(chosen).rows) == len(chosen.rows)


def test_table() -> None:
    table = vis.rounding_table(ROUNDING)
    assert table.rows[1] == ["INT4 asymmetric", "128", "4.150", "8.5%", "0.0361", "0.0010", "5.00"]


def test_ratios_of_a_bit_less() -> None:
    ratios = vis.bit_ratios(ROUNDING)
    assert [(row["group_size"], row["symmetric"]) for row in ratios[:3]] == [(-1, False), (128, False), (64, False)]
    assert {row["symmetric"]: row["step"] for row in ratios} == {False: 15 / 7, True: 7 / 3}
    assert [row["weight_error"] for row in ratios] == pytest.approx([2.5] * 6)
    assert [row["kl"] for row in ratios] == pytest.approx([6.25] * 6)


def test_ratios_need_both_numbers_of_bits() -> None:
    with pytest.raises(AwqdocError, match="both 4 and 3"):
        vis.bit_ratios(ROUNDING.select(bits=[4]))


@pytest.mark.parametrize("which", ["group", "bits"])
def test_whole_figure_is_inside(which: str) -> None:
    figure = vis.plot_rounding(ROUNDING) if which == "bits" else vis.plot_group(WEIGHT, SOURCE, 8)
    figure.canvas.draw()  # lays it out
    box, width = figure.get_tightbbox(), figure.get_figwidth()  # type: ignore[call-arg]
    assert -0.01 < box.x0 < box.x1 < width + 0.01
