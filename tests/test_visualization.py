"""Figures and tables: their colours, their words and their labels, on a recording whose numbers we know."""

import base64
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import matplotlib as mpl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from awqdoc import visualization as vis
from awqdoc.kernels import BACKENDS
from awqdoc.recordings import Recording
from awqdoc.visualization.style import label, si

pytestmark = pytest.mark.usefixtures("same_code")

LIGHT = {light for light, _ in vis.PALETTE.values()}
DARK = {dark for _, dark in vis.PALETTE.values()}
SHAPES = ["4096x4096", "28672x4096"]
PROVENANCE = {
    "commit": "0123456789", "sources": "sha256:now", "date": "2026-11-23T18:12:08+00:00", "clock": "a sundial",
    "gpu": "NVIDIA H200",
}  # fmt: skip
# Microseconds at batch 1 and 16 of the first shape; the other takes seven times as long. AutoAWQ's was skipped.
TIMES = {"fp16": (10, 20), "dequantize": (40, 50), "triton_fused": (5, 40)}


def rows(shape: str) -> Iterator[dict[str, Any]]:
    scale = 1e-6 if shape == SHAPES[0] else 7e-6
    for i, m in enumerate((1, 16)):
        for backend in BACKENDS:
            row = {"shape": shape, "group_size": 128, "m": m, "backend": backend}
            if backend in TIMES:
                median = scale * TIMES[backend][i]
                row |= {"seconds": [median, 0.75 * median, 1.25 * median], "error": 2e-4}
            else:
                row |= {"skipped": "it was away"}
            yield row


SWEEP = Recording(
    "batch-sweep",
    {"shape": SHAPES, "group_size": [128], "m": [1, 16]},
    PROVENANCE,
    [row for shape in SHAPES for row in rows(shape)],
)
FACTS = [
    ("SMs", 132, ""), ("registers per SM", 65536, "x 4 B"), ("shared memory per SM", 233472, "B"),
    ("L2 cache", 60 << 20, "B"), ("memory", 141 << 30, "B"), ("memory bandwidth", 4.8e12, "B/s"),
    ("power limit", 700.0, "W"), ("now: throttle_reasons", ["idle", "sync boost"], ""), ("ECC", "on", ""),
]  # fmt: skip
DEVICE = Recording(
    "device", {}, PROVENANCE, [{"fact": f, "value": v, "unit": u, "source": "NVML"} for f, v, u in FACTS]
)
FIGURES: dict[str, Callable[[Recording], Figure]] = {
    "latency": lambda sweep: vis.plot_latency(sweep, SHAPES[0]),
    "speed-up": lambda sweep: vis.plot_speedup(sweep, SHAPES[0]),
    "hierarchy": lambda sweep: vis.plot_hierarchy(replace(DEVICE, provenance=sweep.provenance, origin=sweep.origin)),
}
TABLES = {
    "device": lambda: vis.device_table(DEVICE),
    "summary": lambda: vis.summary(SWEEP, SHAPES[0]),
    "layers": lambda: vis.layers_table(SWEEP, layers=32),
}


@pytest.fixture(params=FIGURES.keys())
def figure(request: pytest.FixtureRequest) -> Figure:
    return FIGURES[request.param](SWEEP)


def texts(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]


def test_palette_can_be_exchanged_light_for_dark() -> None:
    assert len(LIGHT) == len(DARK) == len(vis.PALETTE)
    assert not LIGHT & DARK
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in LIGHT | DARK)


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("name", vis.PALETTE)
def test_every_colour_stands_out_from_its_page(name: str) -> None:
    light, dark = vis.PALETTE[name]
    on_light = 1.05 / (luminance(light) + 0.05)
    on_dark = (luminance(dark) + 0.05) / (luminance("#14181e") + 0.05)
    wanted = {"ink": 7, "muted": 4.5, "grid": 1}.get(name, 3)
    assert min(on_light, on_dark) >= wanted


def test_texts_and_lines_are_in_colours_of_the_palette(figure: Figure) -> None:
    figure.canvas.draw()  # some ticks are made only now
    assert {to_hex(text.get_color()) for text in texts(figure)} <= LIGHT
    assert {to_hex(line.get_color()) for line in figure.findobj(Line2D)} <= LIGHT


def colours(svg: str) -> set[str]:
    return set(re.findall(r"(?:fill|stroke|color)[:=]\s*\"?(#[0-9a-fA-F]{3,6})", svg))


def test_variants_hold_only_their_own_colours(figure: Figure) -> None:
    light, dark = vis.to_svg(figure, "light"), vis.to_svg(figure, "dark")
    assert colours(light) <= LIGHT
    assert colours(dark) <= DARK
    assert not [colour for colour in LIGHT if colour in dark]


def test_background_is_transparent(figure: Figure) -> None:
    svg = vis.to_svg(figure, "light")
    (background,) = re.findall(r'<g id="patch_1">\s*<path [^>]*style="([^"]*)"', svg)
    assert "fill: none" in background


def test_drawing_is_the_same_each_time(figure: Figure) -> None:
    assert vis.to_svg(figure, "light") == vis.to_svg(figure, "light")
    assert "<dc:date>" not in vis.to_svg(figure, "light")


@pytest.mark.parametrize("name", FIGURES)
def test_style_is_ours_whatever_the_caller_has_set(name: str) -> None:
    ours = vis.to_svg(FIGURES[name](SWEEP), "light")
    with mpl.rc_context({"text.color": "red", "font.size": 30, "axes.grid": False, "axes.facecolor": "pink"}):
        assert vis.to_svg(FIGURES[name](SWEEP), "light") == ours


ALT = {
    "latency": ["4096x4096", "FP16 (torch): 10 µs at batch 1, 20 µs at batch 16", "(ours): 5 µs at batch 1"],
    "speed-up": ["INT4 dequantize + matmul: 0.25 at batch 1, 0.40 at 16", "(ours): 2.00 at batch 1", "3.85"],
    "hierarchy": ["L2 cache 60 MiB", "memory 141 GiB", "registers 33 MiB", "4096 × 4096 INT4 8.31 MiB"],
}


@pytest.mark.parametrize("name", FIGURES)
def test_alt_text_tells_the_numbers(name: str) -> None:
    alt = FIGURES[name](SWEEP).awqdoc_alt  # type: ignore[attr-defined]
    assert [words for words in ALT[name] if words not in alt] == []
    assert alt.endswith(".")
    assert "\n" not in alt


def test_figure_carries_the_label_of_its_source(figure: Figure) -> None:
    assert " ".join(figure.get_supxlabel().split()) == "recorded on NVIDIA H200, 2026-11-23, commit 0123456"
    assert figure.awqdoc_source.provenance == PROVENANCE  # type: ignore[attr-defined]


def test_figure_without_a_source_is_labelled_as_modelled() -> None:
    figure, _ = vis.new_figure("Bytes of a weight")
    vis.describe(figure, "A drawing.", None)
    assert figure.get_supxlabel() == label(None) == "modelled: computed from formulas or data sheets, not measured"


STALE = {**PROVENANCE, "sources": "sha256:then"}
LONG_GPU = {
    **PROVENANCE,
    "gpu": "NVIDIA RTX PRO 6000 Blackwell Server Edition",
    "clock": "CUDA events around a graph replay, cold weights",
}
LONG_CPU = {
    **PROVENANCE,
    "gpu": "Intel(R) Core(TM) i7-10750H CPU @ 2.60GHz (12 cores)",
    "clock": "time.perf_counter, warm weights",
}


@pytest.mark.parametrize(
    ("name", "provenance", "origin"),
    [
        *((name, PROVENANCE, "recorded") for name in FIGURES),
        *((name, STALE, "recorded") for name in FIGURES),
        *((name, LONG_GPU, "measured") for name in FIGURES),
        ("latency", LONG_CPU, "measured"),
        ("speed-up", LONG_CPU, "measured"),
    ],
)
def test_nothing_written_is_cut_off(name: str, provenance: dict[str, Any], origin: str) -> None:
    figure = FIGURES[name](replace(SWEEP, provenance=provenance, origin=origin))
    figure.canvas.draw()
    left, right = figure.bbox.x0 - 1, figure.bbox.x1 + 1
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
    assert [words for words, box in boxes if box.x0 < left or box.x1 > right] == []


def test_skipped_backend_is_neither_drawn_nor_told() -> None:
    figure = vis.plot_latency(SWEEP, SHAPES[0])
    drawn = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert drawn == [BACKENDS[name].title for name in TIMES]
    assert "AutoAWQ" not in figure.awqdoc_alt  # type: ignore[attr-defined]


def test_speedups_pair_the_samples_of_a_round() -> None:
    assert vis.speedups(SWEEP, "triton_fused", SHAPES[0]) == {1: pytest.approx([2.0] * 3), 16: pytest.approx([0.5] * 3)}
    assert vis.speedups(SWEEP, "autoawq_triton", SHAPES[0]) == {}


class Images(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.images.append(dict(attrs))


def test_notebook_gets_both_variants_with_alt_text() -> None:
    figure, _ = vis.new_figure("T")
    vis.describe(figure, 'Bytes < 5 "at most" & more', None)
    parser = Images()
    parser.feed(vis.Display(figure)._repr_html_())
    assert [image["class"] for image in parser.images] == ["only-light awqdoc-figure", "only-dark awqdoc-figure"]
    assert {image["alt"] for image in parser.images} == {'Bytes < 5 "at most" & more'}
    for image, theme in zip(parser.images, ("light", "dark"), strict=True):
        head, data = str(image["src"]).split(",")
        assert head == "data:image/svg+xml;base64"
        assert base64.b64decode(data).decode() == vis.to_svg(figure, theme)
    assert not plt.fignum_exists(figure.number)


# Tables


@pytest.mark.parametrize("name", TABLES)
def test_table_carries_the_label_of_its_source(name: str) -> None:
    table = TABLES[name]()
    html = table._repr_html_()
    assert re.search(r'<p class="awqdoc-label">[^<]*recorded on NVIDIA H200, 2026-11-23, commit 0123456</p>', html)
    assert 'class="awqdoc-table' in html
    assert "recorded on NVIDIA H200" in repr(table).splitlines()[0]
    assert html.count("<tr>") == len(table.rows) + 1


def test_table_escapes_what_it_is_given() -> None:
    html = vis.Table(["<a>"], [['<script>&"'], [None]], None, title="1 < 2")._repr_html_()
    assert "<th>&lt;a&gt;</th>" in html
    assert "<td>&lt;script&gt;&amp;&quot;</td>" in html
    assert "<td></td>" in html
    assert '<p class="awqdoc-label">1 &lt; 2; modelled' in html


def test_table_is_text_in_a_terminal() -> None:
    table = vis.Table(["M", "backend"], [[1, "fp16"], [1024, "dequantize"]], None, title="Times")
    assert repr(table).splitlines() == [
        "Times; modelled: computed from formulas or data sheets, not measured",
        "M     backend",
        "----  ----------",
        "1     fp16",
        "1024  dequantize",
    ]


def test_table_without_rows_is_its_titles() -> None:
    assert repr(vis.Table(["M"], [], None)).splitlines()[1:] == ["M", "-"]


def test_summary_is_computed_from_medians() -> None:
    table = vis.summary(SWEEP, SHAPES[0], batches=[1])
    fp16, dequantize, fused = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    # 4096 x 4096 at batch 1: 33.55 MFLOP; 33.57 MB in FP16 and 8.733 MB in INT4, X and Y included.
    assert fp16 == {
        "M": "1", "backend": "FP16 (torch)", "µs": "10.0", "tokens/s": "100 k", "TFLOP/s": "3.4",
        "useful GB/s": "3357", "speed-up": "1.00", "of the roofline": "", "memory saved": "0%", "kernel error": "2e-04",
    }  # fmt: skip
    assert (dequantize["useful GB/s"], dequantize["speed-up"], dequantize["memory saved"]) == ("218", "0.25", "74%")
    assert (fused["useful GB/s"], fused["speed-up"], fused["TFLOP/s"]) == ("1747", "2.00", "6.7")


def test_layers_table_adds_up_the_shapes() -> None:
    first, second = vis.layers_table(SWEEP, layers=2).rows
    # Two layers of 10 + 70 us: 6250 tokens/s at batch 1.
    assert first == ["1", "6.25 k", "1.56 k", "12.5 k", ""]
    assert second[:2] == ["16", "50.0 k"]


def test_device_table_writes_units_and_lists() -> None:
    cells = {fact: value for fact, value, _ in vis.device_table(DEVICE).rows}
    assert cells["L2 cache"] == "60 MiB"
    assert cells["memory bandwidth"] == "4.80 TB/s"
    assert cells["power limit"] == "700 W"
    assert cells["registers per SM"] == "65536 x 4 B"
    assert cells["now: throttle_reasons"] == "idle, sync boost"


@pytest.mark.parametrize(
    ("value", "unit", "binary", "text"),
    [
        (0, "B", False, "0 B"),
        (0.5, "s", False, "0.50 s"),
        (1, "B", False, "1 B"),
        (999, "B", False, "999 B"),
        (1000, "B", False, "1 kB"),
        (1234, "B/s", False, "1.23 kB/s"),
        (999_700, "", False, "1.00 M"),
        (99.97, "s", False, "100 s"),
        (9.999, "s", False, "10.0 s"),
        (4.9e12, "B/s", False, "4.90 TB/s"),
        (1.0705e15, "FLOP/s", False, "1070 TFLOP/s"),
        (-2500, "", False, "-2.50 k"),
        (1023, "B", True, "1023 B"),
        (1024, "B", True, "1 KiB"),
        (8_716_288, "B", True, "8.31 MiB"),
        (60 << 20, "B", True, "60 MiB"),
        (150_754_820_096, "B", True, "140 GiB"),
    ],
)
def test_quantities_have_three_digits_and_a_prefix(value: float, unit: str, binary: bool, text: str) -> None:
    assert si(value, unit, binary=binary) == text


@given(value=st.floats(1, 9.9e14))
def test_quantities_are_read_back(value: float) -> None:
    number, _, prefix = si(value, "").partition(" ")
    assert float(number) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[prefix] == pytest.approx(value, rel=0.006)
    assert len(number.replace(".", "")) <= 3
