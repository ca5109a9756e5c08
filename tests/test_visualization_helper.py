"""Histograms of a reader's own tensors: what is counted, what is written, what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from matplotlib.text import Text

from awqdoc.errors import AwqdocError
from awqdoc.visualization import Here, VisualizationHelper, helper, plot_weight_distribution

HERE = Here("a GPU", "2026-11-24")
# Of 120 bins from 0 to 12 each is 0.1 wide: 1 lies in the eleventh, 2 in the twenty-first.
KNOWN = {"ones": torch.tensor([0.05] * 3 + [1.05]), "twos": torch.tensor([[0.0, 2.05], [2.05, 12.0]])}


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def drawn(figure: Figure) -> dict[str, StepPatch]:
    """Outlines by name; the areas below them have none."""
    steps = [patch for patch in figure.axes[0].patches if isinstance(patch, StepPatch)]
    return {str(patch.get_label()): patch for patch in steps if patch.get_label()}


def test_bars_are_the_densities_over_common_bins() -> None:
    lines = drawn(plot_weight_distribution(KNOWN, HERE))
    for line in lines.values():
        assert list(line.get_data().edges) == pytest.approx([0.1 * i for i in range(121)])
    ones, twos = (torch.tensor(lines[name].get_data().values) for name in KNOWN)
    assert {i: float(v) for i, v in enumerate(ones) if v == v} == {0: pytest.approx(7.5), 10: pytest.approx(2.5)}
    assert {i: float(v) for i, v in enumerate(twos) if v == v} == {
        0: pytest.approx(2.5), 20: pytest.approx(5.0), 119: pytest.approx(2.5),
    }  # fmt: skip


def test_no_value_is_lost() -> None:
    """Infinitely thin tails, rounding at the ends of the range: everything is in some bin."""
    weights = {f"{i}": torch.randn(5000, generator=torch.Generator().manual_seed(i)) * 10**i for i in range(-3, 3)}
    for line in drawn(plot_weight_distribution(weights, HERE)).values():
        density, edges = line.get_data().values, line.get_data().edges
        assert torch.tensor(density).nansum() * (edges[1] - edges[0]) == pytest.approx(1)


def test_a_large_tensor_is_counted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(1001, generator=torch.Generator().manual_seed(0))
    whole = plot_weight_distribution({"w": values}, HERE)
    sizes = []
    count = torch.histc
    monkeypatch.setattr(helper, "PART", 100)
    monkeypatch.setattr(torch, "histc", lambda part, *rest: sizes.append(len(part)) or count(part, *rest))
    parts = plot_weight_distribution({"w": values}, HERE)
    assert sizes == [100] * 10 + [1]
    assert drawn(whole)["w"].get_data().values.tolist() == pytest.approx(
        drawn(parts)["w"].get_data().values.tolist(), nan_ok=True
    )


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(4, 5).bfloat16(), torch.randn(7).half(), torch.randn(3).double(), torch.arange(9),
        torch.tensor(1.5), torch.tensor([True, False]), torch.randn(3, requires_grad=True),
        torch.nn.Parameter(torch.zeros(2, 2)), torch.full((6,), 0.25), torch.tensor([0, 15], dtype=torch.uint8),
    ],
    ids=lambda tensor: f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}",
)  # fmt: skip
def test_any_real_tensor_is_drawn_and_left_as_it_is(tensor: torch.Tensor, tmp_path: Path) -> None:
    before = tensor.detach().clone()
    path = VisualizationHelper(output_dir=tmp_path).plot_weight_distribution({"it": tensor})
    assert path.read_bytes().startswith(b"\x89PNG")
    assert torch.equal(tensor.detach(), before)


@pytest.mark.parametrize("kind", [str, Path])
def test_the_figure_is_saved_in_the_folder(kind: type, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    draw = VisualizationHelper(output_dir=kind(folder))
    assert not folder.exists()
    assert draw.plot_weight_distribution(KNOWN) == folder / "weight_distribution.png"
    assert draw.plot_weight_distribution(KNOWN, filename="mine.png") == folder / "mine.png"
    assert {file.name for file in folder.iterdir()} == {"weight_distribution.png", "mine.png"}
    pixels = plt.imread(folder / "mine.png")
    assert pixels.shape[1] == 1000
    assert (pixels[0, 0] == 1).all()
    assert plt.get_fignums() == []


def test_a_figure_replaces_an_older_one(tmp_path: Path) -> None:
    draw = VisualizationHelper(tmp_path)
    first = draw.plot_weight_distribution(KNOWN).read_bytes()
    assert draw.plot_weight_distribution({"other": torch.randn(50)}).read_bytes() != first


def test_alt_text_and_label_come_from_the_tensors() -> None:
    figure: Any = plot_weight_distribution({"q": torch.tensor([-1.0, 1.0, 3.0, 5.0])}, HERE)
    assert "q: 4 values from -1 to 5, standard deviation 2.24" in figure.awqdoc_alt
    assert figure.get_supxlabel() == "measured here: computed by this page on a GPU, 2026-11-24"
    header, *lines = figure.awqdoc_source.to_csv().splitlines()
    assert header == "from,to,q"
    assert len(lines) == 120
    assert lines[0].startswith("-1.0,-0.95,")


def test_the_label_of_a_saved_figure_does_not_speak_of_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Here] = []
    draw = plot_weight_distribution
    monkeypatch.setattr(helper, "plot_weight_distribution", lambda w, source: seen.append(source) or draw(w, source))
    VisualizationHelper(tmp_path).plot_weight_distribution(KNOWN)
    assert seen[0].label.startswith("measured here: values of the tensors given, counted on ")


@pytest.mark.parametrize("count", [1, 5, 12])
@pytest.mark.parametrize("name", ["q", "model.layers.31.self_attn.q_proj.weight", "a name of a hundred letters " * 4])
def test_every_name_can_be_read(name: str, count: int) -> None:
    figure = plot_weight_distribution({f"{i} {name}": torch.randn(100) for i in range(count)}, HERE)
    figure.canvas.draw()
    axes = figure.axes[0]
    found = axes.get_legend().get_texts()
    assert len(found) == count
    both = (*axes.get_xticklabels(which="both"), *axes.get_yticklabels(which="both"))
    ticks = {id(text) for text in both}  # of which some lie outside and are not drawn
    texts = [text for text in figure.findobj(Text) if text.get_text().strip() and id(text) not in ticks]
    boxes = [text.get_window_extent() for text in texts]
    assert all(figure.bbox.x0 - 1 <= box.x0 and box.x1 <= figure.bbox.x1 + 1 for box in boxes)
    assert max(box.y1 for box in boxes) <= figure.bbox.y1 + 1
    assert axes.bbox.height > 100
    looks = {(line.get_edgecolor(), str(line.get_linestyle())) for line in drawn(figure).values()}
    assert len(looks) == count


# Refusals


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({}, "must be a dict of name -> tensor; found an empty one"),
        (torch.ones(3), "must be a dict of name -> tensor; found a Tensor"),
        ([("q", torch.ones(3))], "found a list"),
        ({"q": [1.0, 2.0]}, "'q' must be a tensor of real numbers; it is a list"),
        ({"q": torch.ones(2), "k": None}, "'k' must be a tensor of real numbers; it is a NoneType"),
        ({"q": torch.ones(2, dtype=torch.complex64)}, "'q' must be a tensor of real numbers; it is complex"),
        ({"q": torch.ones(0, 4)}, "'q' is empty"),
        ({"q": torch.tensor([1.0, torch.nan])}, "'q' holds inf or nan"),
        ({"q": torch.tensor([1.0, -torch.inf]).half()}, "'q' holds inf or nan"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_a_sentence(weights: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(AwqdocError, match=words) as caught:
        VisualizationHelper(tmp_path / "out").plot_weight_distribution(weights)
    assert str(caught.value).endswith(".")
    assert not (tmp_path / "out").exists()
    assert plt.get_fignums() == []


def test_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AwqdocError, match=r"must end in \.png; found 'weights\.pdf'\.$"):
        VisualizationHelper(tmp_path).plot_weight_distribution(KNOWN, "weights.pdf")


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    words = r"file/weight_distribution\.png cannot be written \(.+\): choose an output_dir that you may write to\.$"
    with pytest.raises(AwqdocError, match=words):
        VisualizationHelper(tmp_path / "file").plot_weight_distribution(KNOWN)
    assert plt.get_fignums() == []
