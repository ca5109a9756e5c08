"""Figures and tables of clipping, on a recording whose numbers we know and a group that we can compute."""

from typing import Any

import pytest
import torch
from figure_checks import assert_house_style
from matplotlib.figure import Figure

from awqdoc import visualization as vis
from awqdoc.quantize import clip, fake_quantize, search_clip
from awqdoc.recordings import Recording
from awqdoc.visualization import clipping

pytestmark = pytest.mark.usefixtures("same_code", "one_thread")

PROVENANCE = {
    "commit": "0123456789", "sources": "sha256:now", "date": "2026-11-23T18:12:08+00:00", "clock": None,
    "gpu": "NVIDIA H200",
}  # fmt: skip
AXES: dict[str, list[Any]] = {"model": ["embedded"], "bits": [4, 3], "group_size": [128, 32]}
LAYERS = ["self_attn.v_proj", "mlp.up_proj"]
# How many groups take each of ten thresholds; the second block has three times as many, all at 0.9.
CHOSEN = {(4, 128): [6, 3, 1], (4, 32): [9, 1, 0], (3, 128): [0, 2, 8], (3, 32): [2, 4, 4]}
GAIN = {(4, 128): 0.8, (4, 32): 0.9, (3, 128): 0.4, (3, 32): 0.6}

CLIPPING = Recording(
    "clipping",
    AXES,
    PROVENANCE,
    [
        {
            "model": "embedded", "bits": bits, "group_size": size, "block": block, "layer": layer,
            "chosen": [0, 0, 30, *[0] * 7] if block else [*counts, *[0] * 7],
            "loss": 1e-5, "loss_clipped": 1e-5 * GAIN[bits, size] * (1 if block else 0.5),
        }
        for (bits, size), counts in CHOSEN.items()
        for block in (1, 0)  # in any order
        for layer in LAYERS
    ],
)  # fmt: skip
HERE = vis.Here("A processor (2 cores)", "2026-11-24")


def group(bits: int = 3) -> tuple[torch.Tensor, torch.Tensor, list[dict[str, Any]]]:
    """A bell-shaped group, what goes into it, and what becomes of it."""
    random = torch.Generator().manual_seed(0)
    weight = torch.randn(64, generator=random) * 0.02
    x = torch.randn(50, 64, generator=random)
    return weight, x, vis.clipped_group(weight, x.t() @ x, bits)


FIGURES = {
    "thresholds": lambda: vis.plot_thresholds(CLIPPING),
    "group": lambda: vis.plot_clipped_group(group()[2], HERE),
}


def drawn(figure: Figure, panel: int = 0) -> dict[str, list[tuple[float, float]]]:
    """Label -> points of each line of a panel."""
    found = {}
    for line in figure.axes[panel].lines:
        points = zip(line.get_xdata(), line.get_ydata(), strict=True)
        found[str(line.get_label())] = [(round(float(x), 6), round(float(y), 6)) for x, y in points]
    return found


def test_shares_are_of_all_groups_of_all_layers() -> None:
    assert vis.threshold_shares(CLIPPING, 4, 128) == pytest.approx([0.15, 0.075, 0.775, *[0] * 7])
    assert vis.threshold_shares(CLIPPING, 3, 128)[:3] == pytest.approx([0, 0.05, 0.95])


def test_mean_threshold_goes_down_in_steps_of_a_twentieth() -> None:
    assert vis.mean_threshold([1, 0, 0]) == 1
    assert vis.mean_threshold([0.5, 0, 0.5]) == pytest.approx(0.95)
    assert clipping.STEP == 1 / clip.GRID


def test_gains_are_by_block() -> None:
    gains = vis.clipping_gains(CLIPPING, 3, 128)
    assert list(gains) == LAYERS
    assert gains[LAYERS[1]] == pytest.approx([0.2, 0.4])


def test_points_are_the_recorded_shares() -> None:
    lines = drawn(FIGURES["thresholds"]())
    assert list(lines) == ["INT4, groups of 128", "INT4, groups of 32", "INT3, groups of 128", "INT3, groups of 32"]
    assert lines["INT4, groups of 128"][:4] == [(1, 15), (0.95, 7.5), (0.9, 77.5), (0.85, 0)]
    assert lines["INT4, groups of 128"][-1] == (0.55, 0)
    assert lines["INT3, groups of 32"][0] == (1, 5)


def test_table_has_the_mean_and_the_range() -> None:
    table = vis.clipping_table(CLIPPING)
    assert table.columns == ["layer", "INT4, g = 128", "INT4, g = 32", "INT3, g = 128", "INT3, g = 32"]
    assert table.rows[0][:2] == ["v_proj", "0.57 (0.40 to 0.80)"]
    assert table.rows[1] == [
        "up_proj", "0.57 (0.40 to 0.80)", "0.64 (0.45 to 0.90)", "0.28 (0.20 to 0.40)", "0.42 (0.30 to 0.60)",
    ]  # fmt: skip


@pytest.mark.parametrize("bits", [4, 3])
def test_group_has_the_loss_that_the_search_minimises(bits: int) -> None:
    weight, x, rows = group(bits)
    assert [row["threshold"] for row in rows] == pytest.approx([1 - i / 20 for i in range(10)])
    for row in rows:
        moved = x @ (torch.tensor(row["rounded"]) - weight)
        assert row["loss"] == pytest.approx(float(moved.square().sum()), rel=1e-3)
    largest = float(weight.abs().max())
    assert rows[0]["clamping"] == 0
    assert rows[0]["rounding"] == rows[0]["loss"]
    torch.testing.assert_close(torch.tensor(rows[0]["rounded"]), fake_quantize(weight.unsqueeze(0), -1, bits)[0])
    found = float(search_clip(weight.unsqueeze(0), x.t() @ x, -1, bits)) / largest
    assert min(rows, key=lambda row: row["loss"])["threshold"] == pytest.approx(found)
    assert found < 1


@pytest.mark.parametrize("bits", [4, 3])
def test_grid_has_every_code_and_all_that_weights_become(bits: int) -> None:
    for row in group(bits)[2]:
        assert len(row["grid"]) == 2**bits
        assert 0 in row["grid"]
        assert {round(value, 7) for value in row["rounded"]} <= {round(value, 7) for value in row["grid"]}


def test_picture_shows_weights_grids_and_errors() -> None:
    weight, _, rows = group()
    figure = FIGURES["group"]()
    best = min(rows, key=lambda row: row["loss"])
    limit = best["threshold"] * float(weight.abs().max())
    inside, cut, before, after = (list(line.get_xdata()) for line in figure.axes[0].lines)
    assert sorted([*inside, *cut]) == sorted(weight.tolist())
    assert len(cut) == int((weight.abs() > limit).sum()) > 0
    assert min(map(abs, cut)) > limit >= max(map(abs, inside))
    assert (before, after) == (rows[0]["grid"], best["grid"])
    errors = drawn(figure, panel=1)
    unit = rows[0]["loss"]
    assert errors["both"] == [(round(r["threshold"], 6), round(r["loss"] / unit, 6)) for r in rows]
    assert errors["clamping alone"][-1][1] == pytest.approx(rows[-1]["clamping"] / unit, abs=1e-6)
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()][2] == f"clipped at {best['threshold']:.2f}"


def test_picture_says_where_it_was_computed_and_hands_out_its_data() -> None:
    source = FIGURES["group"]().awqdoc_source  # type: ignore[attr-defined]
    assert source.label == "measured here: computed by this page on A processor (2 cores), 2026-11-24"
    header, first, *rest = source.to_csv().splitlines()
    assert header == "threshold,bits,loss,clamping,rounding,weight,rounded,grid"
    assert len(rest) == 9
    assert len(first.split(",")[-1].split(" ")) == 8


ALT = {
    "thresholds": ["INT4, groups of 128: 15% not clipped, mean threshold 0.92;", "INT3, groups of 128: 0% not clipped"],
    "group": [
        "64 weights",
        "Not clipped: 8 values 0.0158 apart. Clipped at 0.75 of",
        "Squared error, clipped / not clipped: least,",
    ],
}


@pytest.mark.parametrize("name", FIGURES)
def test_alt_text_tells_the_numbers(name: str) -> None:
    alt = FIGURES[name]().awqdoc_alt  # type: ignore[attr-defined]
    assert [words for words in ALT[name] if words not in alt] == []
    assert alt.endswith(".")


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_in_the_style_of_the_house(name: str) -> None:
    assert_house_style(FIGURES[name])


@pytest.mark.parametrize("part", [{"bits": [3]}, {"group_size": [32]}, {"bits": [4], "group_size": [128]}])
def test_a_part_of_the_axes_is_enough(part: dict[str, list[Any]]) -> None:
    few = CLIPPING.select(**part)
    cells = [(bits, size) for bits in few.parameters["bits"] for size in few.parameters["group_size"]]
    assert list(drawn(vis.plot_thresholds(few))) == [f"INT{bits}, groups of {size}" for bits, size in cells]
    table = vis.clipping_table(few)
    assert table.columns[1:] == [f"INT{bits}, g = {size}" for bits, size in cells]
    assert len(table.rows) == len(LAYERS)
