"""The calibration figure and tables: what is drawn is what was recorded, whatever part of the axes there is."""

from collections.abc import Iterator
from typing import Any

import pytest
from figure_checks import assert_house_style
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from awqdoc import visualization as vis
from awqdoc.recordings import Recording
from awqdoc.visualization.calibration import kind

pytestmark = pytest.mark.usefixtures("same_code")

PROVENANCE = {
    "commit": "0123456789", "sources": "sha256:now", "date": "2026-11-23T18:12:08+00:00", "clock": None,
    "gpu": "NVIDIA H200",
}  # fmt: skip
DOMAINS, WINDOWS = ("code", "docs", "random"), (1, 128)
WRONG = {"matched": 0, "mismatched": 0.01, "random": 0.02}
# How far each of two windows lies from the mean; the difference of the two methods has a standard error of 0.005.
WINDOWS_OFF = {"awq": (-0.1, 0.1), "gptq": (-0.105, 0.105)}


ROUNDED = {"code": 0.3, "docs": 0.28}


def rows(model: str, domain: str, windows: int) -> Iterator[dict[str, Any]]:
    cell = {"model": model, "domain": domain, "windows": windows}
    for text, kl in ROUNDED.items():
        yield {**cell, "method": "rtn", "text": text, "kl": kl, "kl_error": 0.005}
    for method in ("awq", "gptq"):
        for text in ("code", "docs"):
            few = {"awq": 0.21, "gptq": 0.41}[method]
            many = {"awq": 0.2, "gptq": {"matched": 0.15, "mismatched": 0.205, "random": 0.195}[kind(domain, text)]}[
                method
            ]
            kl = (few if windows == 1 else many) + WRONG[kind(domain, text)]
            yield {
                **cell, "method": method, "text": text, "kl": kl, "kl_error": 0.003 if method == "awq" else 0.004,
                "kl_windows": [kl + off for off in WINDOWS_OFF[method]],
            }  # fmt: skip


def recording(
    domains: tuple[str, ...] = DOMAINS, windows: tuple[int, ...] = WINDOWS, models: tuple[str, ...] = ("a",)
) -> Recording:
    found = [row for model in models for domain in domains for count in windows for row in rows(model, domain, count)]
    axes = {"model": list(models), "domain": list(domains), "windows": list(windows)}
    return Recording("calibration", axes, PROVENANCE, found)


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def drawn(figure: Figure) -> dict[str, Line2D]:
    return {str(line.get_label()): line for line in figure.axes[0].lines}


@pytest.mark.parametrize(
    ("domain", "text", "expected"),
    [("code", "code", "matched"), ("docs", "code", "mismatched"), ("random", "docs", "random")],
)
def test_kind_says_how_a_domain_stands_to_a_text(domain: str, text: str, expected: str) -> None:
    assert kind(domain, text) == expected


def test_each_line_is_a_method_on_a_domain() -> None:
    lines = drawn(vis.plot_calibration(recording(), "docs"))
    found = {label: list(line.get_ydata()) for label, line in lines.items() if " on " in label}
    assert found["GPTQ, on docs"] == pytest.approx([0.41, 0.15])
    assert found["GPTQ, on code"] == pytest.approx([0.42, 0.215])
    assert found["AWQ, on random tokens"] == pytest.approx([0.23, 0.22])
    assert len(found) == 6


def test_lines_of_kinds_of_text_stand_beside_each_other_at_the_same_number_of_windows() -> None:
    lines = drawn(vis.plot_calibration(recording(), "docs"))
    for i, windows in enumerate(WINDOWS):
        places = [float(line.get_xdata()[i]) for name, line in lines.items() if " on " in name]
        assert len({round(place, 6) for place in places}) == 3
        assert all(abs(place / windows - 1) < 0.1 for place in places)


def test_plain_rounding_is_a_line_with_its_name() -> None:
    axes = vis.plot_calibration(recording(), "docs").axes[0]
    assert [set(line.get_ydata()) for line in axes.lines if len(set(line.get_ydata())) == 1] == [{ROUNDED["docs"]}]
    assert [text.get_text() for text in axes.texts] == ["rounding, no calibration"]


def test_matched_text_is_drawn_first_and_solid() -> None:
    for text, other in (("code", "docs"), ("docs", "code")):
        figure = vis.plot_calibration(recording(), text)
        assert legend(figure)[:3] == [f"GPTQ, on {text}", f"GPTQ, on {other}", "GPTQ, on random tokens"]
        lines = drawn(figure)
        assert [lines[f"AWQ, on {what}"].get_linestyle() for what in (text, other, "random tokens")] == ["-", "--", ":"]


def test_kl_has_its_error_bars() -> None:
    bars = vis.plot_calibration(recording(("code",)), "code").axes[0].collections[0].get_segments()
    assert [float(y) for _, y in bars[1]] == pytest.approx([0.146, 0.154])


def test_windows_are_sorted_whatever_their_order_in_the_recording() -> None:
    lines = drawn(vis.plot_calibration(recording(windows=(128, 1)), "code"))
    assert list(lines["AWQ, on code"].get_xdata()) == pytest.approx([1, 128], rel=0.1)


def test_alt_text_tells_the_numbers() -> None:
    alt = vis.plot_calibration(recording(), "code").awqdoc_alt  # type: ignore[attr-defined]
    assert "GPTQ on code: 0.410 with 1, 0.150 with 128" in alt
    assert "AWQ on random tokens: 0.230 with 1, 0.220 with 128" in alt
    assert alt.endswith(".")


def test_a_part_of_the_axes_is_drawn_without_the_rest() -> None:
    figure = vis.plot_calibration(recording(("random",), (128,)), "code")
    assert legend(figure) == ["GPTQ, on random tokens", "AWQ, on random tokens"]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["128"]


def test_of_two_models_the_first_is_shown() -> None:
    two = drawn(vis.plot_calibration(recording(models=("a", "b")), "code"))
    assert [len(line.get_xdata()) for name, line in two.items() if " on " in name] == [2] * 6


@pytest.mark.parametrize("text", ["code", "docs"])
def test_figure_is_in_the_style_of_the_house(text: str) -> None:
    assert_house_style(lambda: vis.plot_calibration(recording(), text))
    assert vis.plot_calibration(recording(), text).get_supxlabel().startswith("recorded on NVIDIA H200")


@pytest.mark.parametrize(
    ("text", "domain", "windows", "better", "gap"),
    [
        ("code", "code", 128, "gptq", -0.05),
        ("code", "docs", 128, "neither", 0.005),
        ("code", "random", 128, "neither", -0.005),
        ("docs", "random", 1, "awq", 0.2),
    ],
)
def test_verdict_needs_twice_the_error(text: str, domain: str, windows: int, better: str, gap: float) -> None:
    assert vis.verdict(recording(), text, domain, windows) == (better, pytest.approx(gap), pytest.approx(0.005))


def test_verdict_table_names_the_better_method() -> None:
    found = {(row[0], row[1], row[2]): row[3:] for row in vis.verdict_table(recording()).rows}
    assert found["code", "code", "128"] == ["-0.050 ± 0.005", "GPTQ"]
    assert found["docs", "code", "1"] == ["+0.200 ± 0.005", "AWQ"]
    assert found["docs", "random", "128"] == ["-0.005 ± 0.005", "neither"]
    assert len(found) == 12


def test_calibration_table_sorts_domains_into_kinds() -> None:
    table = vis.calibration_table(recording())
    assert table.columns[3:] == ["matched", "mismatched", "random"]
    found = {tuple(row[:3]): row[3:] for row in table.rows}
    assert found["docs", "GPTQ", "128"] == ["0.1500 ± 0.0040", "0.2150 ± 0.0040", "0.2150 ± 0.0040"]
    assert found["code", "AWQ", "1"] == ["0.2100 ± 0.0030", "0.2200 ± 0.0030", "0.2300 ± 0.0030"]
    assert found["code", "rounding", ""] == ["0.3000 ± 0.0050", "", ""]
    assert len(found) == 10
    assert table.caption.endswith("recorded on NVIDIA H200, 2026-11-23, commit 0123456")


def test_calibration_table_leaves_what_was_not_measured_empty() -> None:
    found = {tuple(row[:3]): row[3:] for row in vis.calibration_table(recording(("code",), (128,))).rows}
    assert found["code", "AWQ", "128"] == ["0.2000 ± 0.0030", "", ""]
    assert found["docs", "AWQ", "128"] == ["", "0.2100 ± 0.0030", ""]
