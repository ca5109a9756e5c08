"""Figures and tables of what quantization costs: their numbers are the recording's, of whatever part of its axes."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from figure_checks import assert_house_style
from matplotlib.figure import Figure

from awqdoc import visualization as vis
from awqdoc.recordings import Recording
from awqdoc.visualization.accuracy import METHODS, accuracy_row

pytestmark = pytest.mark.usefixtures("same_code")

PROVENANCE = {
    "commit": "0123456789", "sources": "sha256:now", "date": "2026-11-23T18:12:08+00:00", "clock": None,
    "gpu": "NVIDIA H200",
}  # fmt: skip
FP16 = {
    "method": "fp16",
    "nll_windows": [2.0, 4.0, 3.0],
    "bits_per_weight": 16.0,
    "memory_bytes": 1000,
    "file_bytes": 1100,
}
BITS_PER_WEIGHT = {(4, 128): 4.15625, (4, 32): 4.625, (3, 128): 3.1484, (3, 32): 3.59375}
# How much more NLL each window has, by method; twice as much at 3 bits.
MORE = {"rtn": [0.08, 0.12, 0.10], "gptq": [0.02, 0.02, 0.02], "awq": [0.04, 0.08, 0.06]}
KL = {"rtn": 0.04, "gptq": 0.01, "awq": 0.02}


def rows(bits: int, group_size: int, model: str) -> Iterator[dict[str, Any]]:
    cell = {"model": model, "bits": bits, "group_size": group_size, "predicted": 100, "text_bytes": 900}
    yield {**cell, **FP16}
    for method, more in MORE.items():
        factor = (5 - bits) * (3 if model == "b" else 1)
        kl = factor * KL[method] * group_size / 128
        yield {
            **cell, "method": method,
            "nll_windows": [a + factor * b for a, b in zip(FP16["nll_windows"], more, strict=True)],
            "kl": kl, "kl_error": 0.001, "kl_windows": [kl - 0.002, kl, kl + 0.002], "agreement": 0.875,
            "bits_per_weight": BITS_PER_WEIGHT[bits, group_size], "memory_bytes": 400 + 1280 // group_size,
            "file_bytes": 500 if bits == 4 else None,
        }  # fmt: skip


def recording(
    bits: tuple[int, ...] = (4, 3), groups: tuple[int, ...] = (128, 32), models: tuple[str, ...] = ("a",)
) -> Recording:
    found = [row for model in models for b in bits for g in groups for row in rows(b, g, model)]
    axes = {"model": list(models), "bits": list(bits), "group_size": list(groups)}
    return Recording("accuracy", axes, PROVENANCE, found)


FIGURES: dict[str, Callable[[Recording], Figure]] = {
    "windows": lambda result: vis.plot_windows(result, result.parameters["group_size"][0]),
    "bits": vis.plot_kl_by_bits,
}


def lines(figure: Figure) -> list[list[tuple[float, float]]]:
    return [[(float(x), float(y)) for x, y in zip(*line.get_data(), strict=True)] for line in figure.axes[0].lines]


def test_the_difference_is_taken_window_by_window() -> None:
    fp16, gptq, awq = (accuracy_row(recording(), 4, 128, method) for method in ("fp16", "gptq", "awq"))
    assert vis.paired_difference(gptq, fp16, "nll") == (pytest.approx(0.02), pytest.approx(0, abs=1e-6))
    # 0.04, 0.08 and 0.06: a standard deviation of 0.02 over three windows.
    error = 0.02 / math.sqrt(3)
    assert vis.paired_difference(awq, fp16, "nll") == (pytest.approx(0.06), pytest.approx(error, rel=1e-5))
    assert vis.paired_difference(fp16, awq, "nll")[0] == pytest.approx(-0.06)


def test_the_error_of_a_ratio_is_that_of_the_windows_distances_from_it() -> None:
    base, row = {"kl_windows": [1.0, 2.0, 3.0]}, {"kl_windows": [2.0, 4.0, 6.0]}
    assert vis.paired_ratio(row, base) == (pytest.approx(2), pytest.approx(0, abs=1e-12))
    # Ratio 2.5; the windows lie -0.5, -1 and 1.5 off it.
    ratio, error = vis.paired_ratio({"kl_windows": [2.0, 4.0, 9.0]}, base)
    assert (ratio, error) == (pytest.approx(2.5), pytest.approx(math.sqrt((0.25 + 1 + 2.25) / 2 / 3) / 2))


def test_order_table_has_a_row_for_each_model_and_number_of_bits() -> None:
    table = vis.order_table(recording(models=("a", "b")), 128)
    assert [row[:2] for row in table.rows] == [["a", "INT4"], ["a", "INT3"], ["b", "INT4"], ["b", "INT3"]]
    assert table.rows[1][2:] == ["0.0800", "0.0200", "0.0400", "0.0200 ± 0.0000"]
    assert table.rows[2][2:5] == ["0.1200", "0.0300", "0.0600"]


def test_windows_are_drawn_before_and_after() -> None:
    drawn = lines(vis.plot_windows(recording(), 128))
    assert drawn[0] == [pytest.approx(point) for point in [(2.0, 2.04), (4.0, 4.08), (3.0, 3.06)]]
    assert drawn[1] == [pytest.approx(point) for point in [(2.0, 2.08), (4.0, 4.16), (3.0, 3.12)]]
    assert drawn[2] == [(2.0, 2.0), (4.0, 4.0)]


def test_windows_of_another_method() -> None:
    figure = vis.plot_windows(recording(bits=(4,)), 128, "gptq")
    assert lines(figure)[0][0] == pytest.approx((2.0, 2.02))
    assert "GPTQ" in figure.get_suptitle()
    assert "GPTQ" in figure.axes[0].get_ylabel()


def test_each_method_has_a_line_through_its_group_sizes() -> None:
    figure = vis.plot_kl_by_bits(recording())
    assert lines(figure)[:3] == [
        [pytest.approx(point) for point in [(4.15625, KL[method]), (4.625, KL[method] / 4)]] for method in METHODS
    ]
    assert lines(figure)[3][0] == pytest.approx((3.1484, 2 * KL["rtn"]))
    assert len(lines(figure)) == 6
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert legend == [name for name, *_ in METHODS.values()]
    assert {text.get_text() for text in figure.axes[0].texts} == {"128", "32", "INT4", "INT3"}


def test_kl_has_its_error_bars() -> None:
    bars = vis.plot_kl_by_bits(recording(bits=(4,), groups=(128,))).axes[0].collections[0].get_segments()
    assert bars[0].tolist() == [pytest.approx([4.15625, 0.039]), pytest.approx([4.15625, 0.041])]


ALT = {
    "windows": ["3 windows with AWQ", "2.00 to 4.00", "INT4 lies 0.060 nats above", "INT3 lies 0.120", "0.0115"],
    "bits": ["INT4 rounding: 0.04 at 4.16 bits, 0.01 at 4.62 bits", "INT3 AWQ: 0.04 at 3.15 bits, 0.01 at 3.59 bits"],
}


@pytest.mark.parametrize("name", FIGURES)
def test_alt_text_tells_the_numbers(name: str) -> None:
    alt = FIGURES[name](recording()).awqdoc_alt  # type: ignore[attr-defined]
    assert [words for words in ALT[name] if words not in alt] == []
    assert alt.endswith(".")


@pytest.mark.parametrize("name", FIGURES)
def test_a_part_of_the_axes_is_drawn_without_the_rest(name: str) -> None:
    figure = FIGURES[name](recording(bits=(3,), groups=(32,)))
    assert "INT3" in figure.awqdoc_alt  # type: ignore[attr-defined]
    assert "INT4" not in figure.awqdoc_alt  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", FIGURES)
def test_of_two_models_the_first_is_shown(name: str) -> None:
    two, one = recording(models=("a", "b")), recording(models=("a",))
    reverse = replace(two, rows=two.rows[::-1])
    assert lines(FIGURES[name](two)) == lines(FIGURES[name](reverse)) == lines(FIGURES[name](one))


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_in_the_style_of_the_house(name: str) -> None:
    assert_house_style(lambda: FIGURES[name](recording()))
    assert FIGURES[name](recording()).get_supxlabel().startswith("recorded on NVIDIA H200")


def cells(table: vis.Table) -> list[dict[str, str]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_accuracy_table_has_errors_alone_and_paired() -> None:
    fp16, rtn, gptq, awq = cells(vis.accuracy_table(recording(bits=(4,)), 128))
    # A mean of 3 nats per token, with a standard deviation of 1 over three windows.
    assert fp16["perplexity"] == f"{math.exp(3):.2f} ± {math.exp(3) / math.sqrt(3):.2f}"
    assert fp16["bits per byte"] == f"{1 / math.log(2):.3f} ± {1 / 3 / math.log(2) / math.sqrt(3):.3f}"
    assert (fp16["method"], fp16["KL to FP16"], fp16["extra NLL, paired"]) == ("FP16", "", "")
    assert (gptq["method"], gptq["extra NLL, paired"]) == ("GPTQ", "0.0200 ± 0.0000")
    assert awq["extra NLL, paired"] == "0.0600 ± 0.0115"
    assert (rtn["KL to FP16"], rtn["same top token"]) == ("0.0400 ± 0.0010", "87.5%")
    assert rtn["perplexity"].startswith(f"{math.exp(3.1):.2f} ±")


def test_the_original_stands_once_in_the_accuracy_table() -> None:
    found = [(row[""], row["method"]) for row in cells(vis.accuracy_table(recording(), 32))]
    assert found[0] == ("", "FP16")
    assert found[1:] == [(bits, name) for bits in ("INT4", "INT3") for name in ("rounding", "GPTQ", "AWQ")]


def test_memory_table_compares_the_whole_model_and_has_no_file_at_3_bits() -> None:
    fp16, wide, narrow, int3, _ = cells(vis.memory_table(recording()))
    assert (fp16[""], fp16["whole model in memory"], fp16["file"]) == ("FP16", "1 kB", "1.10 kB")
    assert (wide["bits per weight"], wide["times smaller"], wide["file"]) == ("4.156", f"{1000 / 410:.2f}", "500 B")
    assert (narrow["group size"], narrow["whole model in memory"]) == ("32", "440 B")
    assert (int3[""], int3["bits per weight"], int3["file"]) == ("INT3", "3.148", "")


def test_tables_carry_the_label_of_their_source() -> None:
    for table in (vis.accuracy_table(recording(), 128), vis.memory_table(recording())):
        assert table.caption.endswith("recorded on NVIDIA H200, 2026-11-23, commit 0123456")
