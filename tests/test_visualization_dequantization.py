"""Forms of dequantization, on shares and errors that we know."""

import pytest
from figure_checks import assert_house_style
from matplotlib.figure import Figure

from awqdoc import visualization as vis

HERE = vis.Here("a processor", "2026-11-24")


def row(form: str, dtype: str, differs: float, at_zero: float, error: float) -> dict[str, object]:
    return {
        "form": form, "dtype": dtype, "differs": differs, "differs_at_zero": at_zero, "error": error,
        "largest": 5 * error,
    }  # fmt: skip


ROWS = [
    row("(q - z) s", "FP16", 0, 0, 0.001),
    row("fma(q, s, -sz)", "FP16", 0.25, 0.5, 0.002),
    row("(q - z) s", "BF16", 0, 0, 0.01),
    row("fma(q, s, -sz)", "BF16", 0.3, 0.6, 0.02),
]


def panels(figure: Figure) -> dict[str, list[tuple[float, float]]]:
    """Points of the panels by their axis title, (x, y)."""
    return {
        axes.get_xlabel(): [
            (float(line.get_xdata()[0]), float(line.get_ydata()[0]))  # type: ignore[index]
            for line in axes.lines
            if line.get_linestyle() == "None"
        ]
        for axes in figure.axes
        if axes.get_xlabel()
    }


def test_shares_and_errors_are_points_in_the_row_of_their_form() -> None:
    figure = vis.plot_forms(ROWS, HERE)
    differ, errors = panels(figure).values()
    assert [x for x, _ in differ] == [0, 0, 25, 50, 0, 0, 30, 60]
    assert [x for x, _ in errors] == [0.001, 0.002, 0.01, 0.02]
    assert [round(y) for _, y in errors] == [0, 1, 0, 1]
    names = [label.get_text() for label in figure.axes[1].get_yticklabels()]
    assert names == ["(q - z) s", "fma(q, s, -sz)"]


def test_both_panels_count_forms_from_the_top() -> None:
    _, left, right = vis.plot_forms(ROWS, HERE).axes
    assert left.get_ylim() == right.get_ylim()
    assert left.get_ylim()[0] > left.get_ylim()[1]


def test_error_of_int4_is_a_line() -> None:
    lines = [line for line in vis.plot_forms(ROWS, HERE).axes[2].lines if line.get_linestyle() == "--"]
    assert [float(line.get_xdata()[0]) for line in lines] == [pytest.approx(0.2887, abs=1e-4)]  # type: ignore[index]


def test_one_dtype_alone() -> None:
    figure = vis.plot_forms(ROWS[:2], HERE)
    assert [y for _, y in panels(figure)["error in steps (log)"]] == [0, 1]
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["FP16", "where q = z", "rounding to INT4"]


def test_alt_text_and_data_tell_the_numbers() -> None:
    figure = vis.plot_forms(ROWS, HERE)
    alt, source = figure.awqdoc_alt, figure.awqdoc_source  # type: ignore[attr-defined]
    assert "fma(q, s, -sz) in BF16: 30.0% differ, 60.0% where q = z, error 0.02 steps" in alt
    assert source.name == "dequantization-forms"
    assert list(source.rows) == ROWS


def test_table() -> None:
    table = vis.forms_table(ROWS, HERE)
    assert table.rows[1] == ["fma(q, s, -sz)", "FP16", "25.0%", "50.0%", "0.0020", "0.0100"]


def test_house_style() -> None:
    assert_house_style(lambda: vis.plot_forms(ROWS, HERE))
