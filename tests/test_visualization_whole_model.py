"""What the demo of the whole model shows: errors by block, memory by part, two texts side by side."""

from __future__ import annotations

import base64
import copy
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import torch
from matplotlib import pyplot as plt
from tiny_models import tiny_llama, tiny_opt

from awqdoc import gpu
from awqdoc import visualization as vis
from awqdoc.models import QuantizedLinear, Settings, quantize
from awqdoc.visualization import Here
from awqdoc.visualization.style import data_files, label

HERE = Here("NVIDIA H200", "2026-11-24")
LABEL = "measured here: computed by this page on NVIDIA H200, 2026-11-24"
ERRORS = {"rounding": [0.07, 0.12, 0.19], "AWQ": [0.06, 0.1, 0.17]}


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    plt.close("all")


# Where numbers come from that no recording holds


def test_what_a_page_computes_is_labelled_with_machine_and_day() -> None:
    assert HERE.label == label(HERE) == LABEL
    now = Here.now("cpu")
    assert (now.machine, now.date) == (gpu.cpu_name(), datetime.now(UTC).date().isoformat())


@pytest.mark.parametrize(("device", "name"), [("cuda", "NVIDIA H200"), ("cpu", "a processor")])
def test_the_label_names_the_device_that_computed(device: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "suitable", lambda: "NVIDIA H200")
    monkeypatch.setattr(gpu, "cpu_name", lambda: "a processor")
    assert Here.now(device).machine == name


def test_without_data_there_is_a_label_and_no_link() -> None:
    figure, _ = vis.new_figure("T")
    text = vis.Display(vis.describe(figure, "A drawing.", HERE))._repr_html_()
    assert f'<p class="awqdoc-label">{LABEL}</p>' in text
    assert data_files(HERE) == {}


def test_the_data_behind_a_figure_is_a_csv_file() -> None:
    source = HERE.holding("block-errors", [{"block": 0, "AWQ": 0.5}, {"block": 1, "AWQ": 0.25}])
    assert data_files(source) == {"block-errors.csv": "block,AWQ\n0,0.5\n1,0.25\n"}
    assert (source.label, HERE.rows) == (LABEL, ())
    figure, _ = vis.new_figure("T")
    text = vis.Display(vis.describe(figure, "A drawing.", source))._repr_html_()
    (link,) = re.findall(r'<a download="block-errors\.csv" href="data:text/csv;base64,([^"]+)">CSV</a>', text)
    assert base64.b64decode(link).decode() == data_files(source)["block-errors.csv"]


def test_a_table_can_be_computed_here() -> None:
    table = vis.Table(["M"], [[1]], HERE, "Sizes")
    assert repr(table).splitlines()[0] == f"Sizes; {LABEL}"


# Errors by block


def test_lines_are_the_errors_and_so_is_the_text() -> None:
    figure: Any = vis.plot_block_errors(ERRORS, HERE)
    lines = {str(line.get_label()): line for line in figure.axes[0].get_lines()}
    assert {name: list(line.get_ydata()) for name, line in lines.items()} == ERRORS
    assert {tuple(line.get_xdata()) for line in lines.values()} == {(0, 1, 2)}
    assert "AWQ: 6.0% after the first block, 17.0% after the last" in figure.awqdoc_alt
    assert "3 blocks" in figure.awqdoc_alt
    assert figure.get_supxlabel() == LABEL
    assert figure.awqdoc_source.to_csv() == "block,rounding,AWQ\n0,0.07,0.06\n1,0.12,0.1\n2,0.19,0.17\n"


def test_a_model_of_one_block_is_drawn() -> None:
    figure: Any = vis.plot_block_errors({"AWQ": [0.5]}, HERE)
    assert "AWQ: 50.0% after the first block, 50.0% after the last" in figure.awqdoc_alt


# Memory by part


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("make", [tiny_llama, tiny_opt])
def test_memory_is_counted_in_halves_and_codes(make: Any, dtype: torch.dtype) -> None:
    original = make().to(dtype)
    quantized = copy.deepcopy(original)
    quantize(quantized, None, Settings("rtn", group_size=64), progress=False)
    layers = [module for module in quantized.modules() if isinstance(module, QuantizedLinear)]
    weights = sum(layer.in_features * layer.out_features for layer in layers)
    biases = 2 * sum(layer.out_features for layer in layers if layer.bias is not None)
    table = vis.parts_table(original, quantized, HERE)
    inner, rest, model = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    assert inner["FP16, MB"] == f"{(2 * weights + biases) / 1e6:.2f}"
    assert inner["INT4, MB"] == f"{(weights * (4 + 20 / 64) / 8 + biases) / 1e6:.2f}"
    assert rest["FP16, MB"] == rest["INT4, MB"]
    assert rest["times smaller"] == "1.00"
    for column in ("FP16, MB", "INT4, MB"):
        assert float(model[column]) == pytest.approx(float(inner[column]) + float(rest[column]), abs=0.011)
    assert 1 < float(model["times smaller"]) < float(inner["times smaller"]) < 4
    assert next(original.parameters()).dtype == dtype, "what is counted is left as it is"


# Side by side


def test_texts_stand_side_by_side_under_their_names() -> None:
    found = vis.text_columns({"FP16": "def f():\n    return 1", "INT4": "def f():\n\n    pass"}, width=14)
    assert found.splitlines() == [
        "FP16           | INT4",
        "----           | ----",
        "def f():       | def f():",
        "    return 1   |",
        "               |     pass",
    ]


def test_a_long_line_goes_on_as_far_indented() -> None:
    lines = vis.text_columns({"A": "  one two three four", "B": "", "C": "x" * 25}, width=10).splitlines()
    assert lines[2:] == [
        "  one two  |            | xxxxxxxxxx",
        "  three    |            | xxxxxxxxxx",
        "  four     |            | xxxxx",
    ]


def test_an_indentation_that_leaves_no_room_is_cut() -> None:
    assert vis.text_columns({"A": " " * 90 + "deep"}, width=8).splitlines()[2:] == ["    deep"]
