"""Figures and tables of the scale search, on a recording whose numbers we know."""

from typing import Any

import pytest
from figure_checks import assert_house_style
from matplotlib.figure import Figure

from awqdoc import visualization as vis
from awqdoc.recordings import Recording
from awqdoc.visualization import alpha

pytestmark = pytest.mark.usefixtures("same_code")

PROVENANCE = {
    "commit": "0123456789", "sources": "sha256:now", "date": "2026-11-23T18:12:08+00:00", "clock": None,
    "gpu": "NVIDIA H200",
}  # fmt: skip
MODELS = ["embedded", "embedded+outliers"]
INPUTS = ["self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"]
AXES: dict[str, list[Any]] = {"model": MODELS, "bits": [4, 3], "duo_scaling": [False, True]}


def losses(model: str, bits: int, duo: bool, block: int, layer: int) -> list[float]:
    """Four alphas. In block 0 the second is best, in block 1 the third; only with duo scaling is alpha 0 worse."""
    unit = 1e-8 * (block + 1) * (layer + 1) * (4 if bits == 3 else 1)
    shape = [1.2 if duo else 1.0, 0.5, 0.8, 2.0] if block == 0 else [1.2 if duo else 1.0, 0.95, 0.9, 0.905]
    if model == MODELS[1] and not duo:
        shape = [3 * value for value in shape]
    return [unit * value for value in shape]


ALPHA = Recording(
    "alpha",
    AXES,
    PROVENANCE,
    [
        {
            "model": model, "bits": bits, "duo_scaling": duo, "block": block, "layer": name, "alpha": 0.25,
            "losses": losses(model, bits, duo, block, layer),
        }
        for model in MODELS
        for bits in AXES["bits"]
        for duo in AXES["duo_scaling"]
        for block in (1, 0)  # in any order
        for layer, name in enumerate(INPUTS)
    ],
)  # fmt: skip
FIGURES = {
    "search": lambda: vis.plot_scale_search(ALPHA, MODELS[0], 4),
    "duo": lambda: vis.plot_duo_scaling(ALPHA, INPUTS[0], 4),
}


def lines(figure: Figure, panel: int = 0) -> list[tuple[list[float], list[float]]]:
    """What is drawn in a panel, the line at 1 left out."""
    drawn = [line for line in figure.axes[panel].lines if list(line.get_ydata()) != [1, 1]]
    return [([float(x) for x in line.get_xdata()], [float(y) for y in line.get_ydata()]) for line in drawn]


def test_losses_are_relative_to_no_scaling_also_with_duo_scaling() -> None:
    plain = vis.relative_losses(ALPHA, MODELS[0], 3, duo_scaling=False)
    assert list(plain) == INPUTS
    assert plain[INPUTS[2]] == [pytest.approx([1, 0.5, 0.8, 2]), pytest.approx([1, 0.95, 0.9, 0.905])]
    duo = vis.relative_losses(ALPHA, MODELS[0], 3, duo_scaling=True)
    assert duo[INPUTS[2]][0] == pytest.approx([1.2, 0.5, 0.8, 2])
    with_outliers = vis.relative_losses(ALPHA, MODELS[1], 4, duo_scaling=True)
    assert with_outliers[INPUTS[0]][0] == pytest.approx([0.4, 0.5 / 3, 0.8 / 3, 2 / 3])


def test_a_loss_that_overflowed_is_infinite() -> None:
    row = {**ALPHA.rows[0], "bits": 4, "duo_scaling": False, "model": "m", "losses": [1.0, None, 0.5, None]}
    part = Recording("alpha", {**AXES, "model": ["m"]}, PROVENANCE, [row])
    assert vis.relative_losses(part, "m", 4, duo_scaling=False) == {INPUTS[0]: [[1, float("inf"), 0.5, float("inf")]]}


def test_near_ties_are_within_a_percent_of_the_best() -> None:
    assert vis.near_ties([1, 0.95, 0.9, 0.905]) == 2
    assert vis.near_ties([1, 0.95, 0.9, 0.910]) == 1
    assert vis.near_ties([2, 2, 2]) == 3
    assert vis.near_ties([1, 1.5, 2], share=0.5) == 2


def test_mean_over_blocks_is_geometric() -> None:
    means = vis.mean_losses(ALPHA, MODELS[0], 4, duo_scaling=False)
    assert means[INPUTS[0]] == pytest.approx([2**0.5 * 1e-8, (2 * 0.5 * 0.95) ** 0.5 * 1e-8, *means[INPUTS[0]][2:]])
    assert means[INPUTS[3]][0] == pytest.approx(4 * means[INPUTS[0]][0])


def test_curves_are_the_recorded_losses_and_a_dot_is_at_the_best() -> None:
    figure = FIGURES["search"]()
    assert len(figure.axes) == 4
    first, best_of_first, last, best_of_last = lines(figure, panel=1)
    assert first == (pytest.approx([0, 0.25, 0.5, 0.75]), pytest.approx([1, 0.5, 0.8, 2]))
    assert best_of_first == ([0.25], pytest.approx([0.5]))
    assert last[1] == pytest.approx([1, 0.95, 0.9, 0.905])
    assert best_of_last == ([0.5], pytest.approx([0.9]))
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["input of query, key, value", "input of output", "input of gate, up", "input of down"]


def test_duo_scaling_is_drawn_in_units_of_the_first_model() -> None:
    plain, duo, outliers, outliers_duo = lines(FIGURES["duo"]())
    assert plain[1] == pytest.approx([1, (0.5 * 0.95) ** 0.5, (0.8 * 0.9) ** 0.5, (2 * 0.905) ** 0.5])
    assert duo[1] == pytest.approx([1.2, *plain[1][1:]])
    assert outliers[1] == pytest.approx([3 * value for value in plain[1]])
    assert outliers_duo == duo


ALT = {
    "search": [
        "query, key, value: least 0.50 to 0.90 of the loss without scaling, at alpha 0.25 to 0.50;",
        "down: least 0.50 to 0.90",
    ],
    "duo": [
        "as trained, plain: 1.00 at alpha 0, least 0.69 at 0.25;",
        "with added outliers, plain: 3.00 at alpha 0, least 2.07 at 0.25;",
        "with added outliers, duo: 1.20 at alpha 0, least 0.69 at 0.25.",
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


@pytest.mark.parametrize("part", [{"model": [MODELS[1]]}, {"bits": [3]}, {"duo_scaling": [False]}])
def test_a_part_of_the_axes_is_enough(part: dict[str, list[Any]]) -> None:
    few = ALPHA.select(**part)
    model, bits = few.parameters["model"][0], few.parameters["bits"][0]
    assert len(vis.plot_scale_search(few, model, bits).axes) == 4
    labels = [text.get_text() for text in vis.plot_duo_scaling(few, INPUTS[0], bits).axes[0].get_legend().get_texts()]
    assert len(labels) == len(few.parameters["model"]) * len(few.parameters["duo_scaling"])
    assert len(vis.scale_table(few, model).rows) == 4 * len(few.parameters["bits"]) * len(few.parameters["duo_scaling"])


def test_other_architectures_have_other_names_and_fewer_panels() -> None:
    names = {INPUTS[0]: INPUTS[0], INPUTS[1]: "self_attn.out_proj", INPUTS[2]: "mlp.fc1"}
    rows = [{**row, "layer": names[row["layer"]]} for row in ALPHA.rows if row["layer"] in names]
    part = Recording("alpha", AXES, PROVENANCE, rows)
    assert [row[0] for row in vis.scale_table(part, MODELS[0]).rows[:3]] == ["query, key, value", "output", "fc1"]
    assert len(vis.plot_scale_search(part, MODELS[0], 4).axes) == 3


def test_table_has_alphas_loss_and_near_ties() -> None:
    table = vis.scale_table(ALPHA, MODELS[0])
    first = dict(zip(table.columns, table.rows[0], strict=True))
    assert first == {
        "input of": "query, key, value", "bits": "4", "scale": "plain", "alphas chosen": "0.25 to 0.50",
        "loss / unscaled": "0.671", "by block": "0.50 to 0.90", "within 1%": "1.5",
    }  # fmt: skip
    assert [row[1:3] for row in table.rows[::4]] == [["4", "plain"], ["4", "duo"], ["3", "plain"], ["3", "duo"]]
    assert "alphas of 4 within 1% of the best" in table.caption


def test_alphas_are_those_of_the_search() -> None:
    from awqdoc.quantize.scale import GRID

    assert alpha.alphas([1.0] * GRID) == [i / GRID for i in range(GRID)]
