"""The roofline explorer in a browser, against arithmetic from the definitions, which knows nothing of its data."""

from __future__ import annotations

import math
import random
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

pytestmark = [
    pytest.mark.site,
    pytest.mark.filterwarnings("ignore:Session-scoped fixtures defined as instance methods"),
]

# Bytes and dense FP16 FLOP per second from NVIDIA's data sheets, typed again.
SHEETS = {
    "t4": (320e9, 65e12),
    "a10": (600e9, 125e12),
    "l4": (300e9, 121e12),
    "rtx-4090": (1008e9, 165.2e12),
    "a100-80-gb-sxm": (2039e9, 312e12),
    "h100-sxm": (3.35e12, 989.5e12),
    "h200-sxm": (4.8e12, 989.5e12),
    "b200": (8e12, 2250e12),
}
GROUPS = {"fp16": 0, "int4-g128": 128, "int4-g64": 64, "int4-g32": 32, "int4-channelwise": -1}
SHAPES = [(28672, 4096), (4096, 14336), (6144, 4096), (4096, 4096), (5120, 5120), (64, 64), (152064, 8192)]
DRAW = random.Random(0)
CASES = [
    *((gpu, 16, "int4-g128", 28672, 4096) for gpu in SHEETS),
    *(("a100-80-gb-sxm", m, "int4-g64", 4096, 4096) for m in (1, 2, 7, 64, 100, 4096)),
    *(("l4", 8, format, 4096, 14336) for format in GROUPS),
    *(
        (DRAW.choice([*SHEETS]), DRAW.randint(1, 4096), DRAW.choice([*GROUPS]), *DRAW.choice(SHAPES[:-1]))
        for _ in range(40)
    ),
]
FACTORS = {"n": 1e-9, "µ": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def weight_bytes(format: str, n: int, k: int) -> float:
    """Two bytes in FP16; in INT4 half of one, and for each group of a column a scale of 2 bytes, half a zero point."""
    group = GROUPS[format] if GROUPS[format] > 0 else k
    return 2 * n * k if format == "fp16" else n * k / 2 + n * (k / group) * 2.5


def expected(gpu: tuple[float, float], m: int, format: str, n: int, k: int) -> dict[str, Any]:
    bandwidth, peak = gpu

    def bound(m: int) -> tuple[float, float]:
        return (weight_bytes(format, n, k) + 2 * m * n + 2 * m * k) / bandwidth, 2 * m * n * k / peak

    memory, compute = bound(m)
    # The first M at which compute binds, by bisection; never, if not at a billion.
    low, high = 0, 10**9
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if bound(middle)[1] >= bound(middle)[0] else (middle, high)
    return {
        "bytes, at least": memory * bandwidth,
        "operations": 2.0 * m * n * k,
        "FLOP per byte": 2 * m * n * k / (memory * bandwidth),
        "time by memory": memory,
        "time by compute": compute,
        "what binds": "memory" if memory >= compute else "compute",
        "least time": max(memory, compute),
        "compute binds from M": math.inf if high == 10**9 else high,
    }


def number(text: str) -> float | str:
    """Read "20.2 µs" or "1024"; what is no number stays."""
    found = re.fullmatch(r"([\d.]+) ?([nµmkMGT]?)(s|B|FLOP|B/s|FLOP/s)?", text)
    return float(found[1]) * FACTORS[found[2]] if found else text


def table(page: Page, name: str) -> dict[str, list[str]]:
    rows = page.locator(f'[data-table="{name}"] tbody tr')
    cells = rows.evaluate_all("rows => rows.map((row) => [...row.children].map((cell) => cell.textContent))")
    return {row[0]: row[1:] for row in cells}


def choose(page: Page, address: str, gpu: str, m: int, format: str, n: int, k: int) -> None:
    place = f"{address}/roofline.html"
    if not page.url.startswith(place):
        page.goto(place)
    page.evaluate(f"location.hash = 'gpu={gpu}&m={m}&format={format}&n={n}&k={k}'")
    values = {"gpu": gpu, "m": m, "format": format, "n": n, "k": k}
    for name, value in values.items():
        page.wait_for_function(f"document.querySelector('[data-focus={name}]').value === '{value}'")
    page.wait_for_function(f"document.querySelector('.awqdoc-answer').textContent.includes('{n} × {k}, M = {m}:')")


def chosen(page: Page) -> str:
    """The choice in the address; `page.url` would follow a little later."""
    return str(page.evaluate("location.hash"))


def test_it_shows_what_the_definitions_say(quiet: Page, address: str) -> None:
    for gpu, m, format, n, k in CASES:
        choose(quiet, address, gpu, m, format, n, k)
        shown = table(quiet, "least")
        columns = ["fp16"] if format == "fp16" else ["fp16", format]
        least = []
        for i, one in enumerate(columns):
            wanted = expected(SHEETS[gpu], m, one, n, k)
            least.append(wanted["least time"])
            for row, value in wanted.items():
                found = number(shown[row][i])
                if value == math.inf:
                    assert found == "never", (gpu, m, one, n, k)
                elif row == "compute binds from M":
                    assert found == value, (gpu, m, one, n, k)
                else:
                    near = value if isinstance(value, str) else pytest.approx(value, rel=0.0051)
                    assert found == near, (row, gpu, m, one, n, k)
            assert len(shown["least time"]) == len(columns)
            gain = least[0] / least[i]
            assert float(shown["speed-up allowed"][i]) == pytest.approx(gain, abs=0.0051)
        answer = quiet.locator(".awqdoc-answer").inner_text()
        binds = [f"bound by {expected(SHEETS[gpu], m, one, n, k)['what binds']}" for one in columns]
        assert re.findall(r"bound by \w+", answer) == binds
        if format != "fp16":
            won = re.search(r"at most ([\d.]+) times as fast", answer)
            assert (won is None) == (gain < 1.005)
            assert won is None or float(won[1]) == pytest.approx(gain, abs=0.0051)
            assert ("cannot hold" in answer) == (GROUPS[format] > 0 and k % GROUPS[format] > 0)


def test_the_point_stands_under_the_roof_at_its_intensity(quiet: Page, address: str) -> None:
    """Both axes are logarithmic: distances from the tick marks say what a point shows."""
    choose(quiet, address, "a10", 40, "int4-g32", 4096, 4096)
    drawing = quiet.locator(".awqdoc-roofline svg")
    ticks = drawing.locator("text.awqdoc-value").evaluate_all(
        "texts => texts.map((text) => [text.textContent, +text.getAttribute('x'), +text.getAttribute('y')])"
    )
    max_y = max(y for text, x, y in ticks if text == "0.1")  # the numbers of the other axis stand lower
    across = {float(text): x for text, x, y in ticks if text in ("1", "1024") and y > max_y}
    up = {float(text): y for text, x, y in ticks if text in ("0.1", "1000") and x < 50}
    marks = {
        "fp16": drawing.locator("circle.awqdoc-mark").evaluate("c => [+c.getAttribute('cx'), +c.getAttribute('cy')]"),
        "int4-g32": drawing.locator("path.awqdoc-mark").evaluate(
            "p => { const box = p.getBBox(); return [box.x + box.width / 2, box.y + box.height / 2]; }"
        ),
    }
    for format, (x, y) in marks.items():
        wanted = expected(SHEETS["a10"], 40, format, 4096, 4096)
        intensity = 1024 ** ((x - across[1]) / (across[1024] - across[1]))
        rate = 0.1 * 10_000 ** ((y - up[0.1]) / (up[1000] - up[0.1]))
        assert intensity == pytest.approx(wanted["FLOP per byte"], rel=0.01)
        assert rate * 1e12 == pytest.approx(wanted["operations"] / wanted["least time"], rel=0.01)


def test_what_was_measured_stands_beside_it(quiet: Page, address: str) -> None:
    """The medians of the recording and its floors, computed here once more."""
    from statistics import median

    from awqdoc import recordings
    from awqdoc.kernels import BACKENDS

    strong = {
        "cuda_overlapped": "INT4, our top step",
        "gptqmodel_marlin": "INT4, Marlin (vLLM)",
        "gptqmodel_machete_best": "INT4, Machete, its best schedule",
    }
    titles = {name: backend.title for name, backend in BACKENDS.items()} | strong
    kernels = {one.provenance["gpu"]: one for one in reversed(recordings.find("kernels"))}
    assert kernels, "nobody recorded kernels"
    sweeps = [one for one in recordings.find("batch-sweep") if any(row["backend"] == "copy" for row in one.rows)]
    assert sweeps, "no recording holds floors"
    for sweep in sweeps:
        timed = [row for row in sweep.rows if "seconds" in row]
        rate = [
            (row["backend"], row.get("bytes", row.get("flops")) / median(row["seconds"]))
            for row in timed
            if row["backend"] in ("read", "copy", "matmul")
        ]
        roofs = (
            max(found for name, found in rate if name != "matmul"),
            median(found for name, found in rate if name == "matmul"),
        )
        key = recordings.slug(sweep.provenance["gpu"])
        for shape, m in ((sweep.parameters["shape"][0], 1), (sweep.parameters["shape"][-1], 256)):
            n, k = map(int, shape.split("x"))
            choose(quiet, address, key, m, "int4-g128", n, k)
            shown = table(quiet, "measured")
            rows = [row for row in timed if row["shape"] == shape and row["m"] == m and row["backend"] in BACKENDS]
            if beside := kernels.get(sweep.provenance["gpu"]):
                here = [row for row in beside.rows if (row["shape"], row["m"], row["zero_points"]) == (shape, m, True)]
                rows += [row for row in here if row["backend"] in strong and "seconds" in row]
            assert len(shown) == len(rows) > 1
            for row in rows:
                time, times = shown[titles[row["backend"]]]
                format = "fp16" if row["backend"] == "fp16" else "int4-g128"
                least = expected(roofs, m, format, n, k)["least time"]
                assert number(time) == pytest.approx(median(row["seconds"]), rel=0.0051)
                assert float(times) == pytest.approx(median(row["seconds"]) / least, abs=0.0051)
            assert sweep.provenance["date"][:10] in quiet.locator(".awqdoc-roofline .awqdoc-label").inner_text()
        # Nobody measured groups of 32: FP16 remains, and the page says why it is alone.
        choose(quiet, address, key, m, "int4-g32", n, k)
        assert list(table(quiet, "measured")) == [BACKENDS["fp16"].title]
        assert "were not measured" in quiet.locator(".awqdoc-roofline").inner_text()
    choose(quiet, address, "h100-sxm", 1, "int4-g128", 28672, 4096)
    assert table(quiet, "measured") == {}
    assert "modelled" in quiet.locator(".awqdoc-roofline .awqdoc-label").inner_text()


def test_everything_can_be_chosen_with_the_keyboard_and_the_address_follows(quiet: Page, address: str) -> None:
    quiet.goto(f"{address}/roofline.html#gpu=a10&m=16&format=int4-g128&n=28672&k=4096")
    order = ("gpu", "format", "m", "slider", "layer", "n", "k")
    quiet.locator('[data-focus="gpu"]').focus()
    for name in order:
        assert quiet.evaluate("document.activeElement.dataset.focus") == name
        quiet.keyboard.press("Tab")
    slider = quiet.locator('[data-focus="slider"]')
    slider.focus()
    quiet.keyboard.press("ArrowRight")
    assert "m=32" in chosen(quiet)
    assert slider.get_attribute("aria-valuetext") == "M = 32"
    assert quiet.evaluate("document.activeElement.dataset.focus") == "slider"
    quiet.keyboard.press("End")
    assert "m=4096" in chosen(quiet)
    quiet.keyboard.press("Home")
    assert "m=1&" in chosen(quiet)
    quiet.locator('[data-focus="format"]').focus()
    quiet.keyboard.press("ArrowDown")
    assert "format=int4-g64" in chosen(quiet)
    box = quiet.locator('[data-focus="m"]')
    box.fill("300")
    box.press("Enter")
    assert "m=300" in chosen(quiet)
    assert slider.input_value() == "8"
    box = quiet.locator('[data-focus="k"]')
    box.fill("8192")
    box.press("Tab")
    assert "k=8192" in chosen(quiet)
    assert quiet.locator('[data-focus="layer"]').input_value() == "other"
    quiet.locator('[data-focus="layer"]').select_option("4096x14336")
    assert chosen(quiet).endswith("n=4096&k=14336")


def test_a_screen_reader_is_told(quiet: Page, address: str) -> None:
    choose(quiet, address, "l4", 2, "int4-g64", 4096, 4096)
    assert quiet.locator(".awqdoc-answer").get_attribute("aria-live") == "polite"
    assert quiet.locator(".awqdoc-roofline svg").get_attribute("role") == "img"
    title = quiet.locator(".awqdoc-roofline svg > title").text_content() or ""
    assert all(words in title for words in ("L4", "300 GB/s", "121 TFLOP/s", "FP16 at", "INT4, groups of 64 at"))
    for role, names in {
        "combobox": ("GPU", "format", "layer"),
        "spinbutton": ("batch size M", "N", "K"),
        "slider": ("M in powers of two",),
    }.items():
        for name in names:
            assert quiet.get_by_role(role, name=name, exact=True).count() == 1, name  # type: ignore[arg-type]


@pytest.mark.parametrize("hash", ["", "#gpu=nonsense&m=-4&format=x&n=1e99&k=", "#m=x&n=&k=0"])
def test_an_address_that_makes_no_sense_starts_somewhere(quiet: Page, address: str, hash: str) -> None:
    quiet.goto(f"{address}/roofline.html{hash}")
    for name, low, high in (("m", 1, 4096), ("n", 64, 131072), ("k", 64, 131072)):
        assert low <= int(quiet.locator(f'[data-focus="{name}"]').input_value()) <= high
    assert quiet.locator('[data-focus="format"]').input_value() in GROUPS
    assert "NaN" not in quiet.locator(".awqdoc-roofline").inner_text()


def test_the_farthest_choices_stay_inside_the_drawing(quiet: Page, address: str) -> None:
    for gpu, m, n, k in (("t4", 1, 64, 64), ("b200", 4096, 131072, 131072)):
        choose(quiet, address, gpu, m, "int4-g128", n, k)
        outside = quiet.locator(".awqdoc-roofline svg").evaluate(
            """drawing => {
              const [x, y, width, height] = drawing.getAttribute("viewBox").split(" ").map(Number);
              return [...drawing.querySelectorAll("text, circle, path, polyline")].filter((part) => {
                const box = part.getBBox();
                const [right, bottom] = [box.x + box.width, box.y + box.height];
                return box.x < x - 1 || box.y < y - 1 || right > x + width + 1 || bottom > y + height + 1;
              }).map((part) => part.outerHTML);
            }"""
        )
        assert outside == []


def test_it_works_from_files_without_a_server(quiet: Page, site: Path) -> None:
    quiet.goto(f"{(site / 'roofline.html').as_uri()}#gpu=a10&m=1&format=fp16&n=4096&k=4096")
    assert number(table(quiet, "least")["operations"][0]) == pytest.approx(2 * 4096 * 4096, rel=0.0051)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_a_phone_and_its_marks_can_be_seen(quiet: Page, address: str, theme: str) -> None:
    quiet.set_viewport_size({"width": 390, "height": 844})
    quiet.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    choose(quiet, address, "rtx-4090", 33, "int4-channelwise", 131072, 131072)
    assert quiet.evaluate("document.documentElement.scrollWidth") <= 390
    parts = quiet.locator(".awqdoc-roofline :is(input, select, svg, .awqdoc-table-wrap)")
    assert max(parts.evaluate_all("parts => parts.map((part) => part.getBoundingClientRect().right)")) <= 390
    # Contrast with the page: WCAG asks for 3 : 1 of drawings and 4.5 : 1 of their words.
    ratios = quiet.evaluate(
        """() => {
          const channel = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
          const light = (c) => c.match(/[\\d.]+/g).slice(0, 3).map(Number).map(channel)
            .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
          const ground = light(getComputedStyle(document.body).backgroundColor);
          const against = (colour) => {
            const own = light(colour);
            return (Math.max(own, ground) + 0.05) / (Math.min(own, ground) + 0.05);
          };
          const drawing = document.querySelector(".awqdoc-roofline svg");
          const of = (query, property) => [...drawing.querySelectorAll(query)]
            .map((part) => against(getComputedStyle(part)[property]));
          return {lines: of(".awqdoc-roof, .awqdoc-mark", "stroke"), words: of("text", "fill")};
        }"""
    )
    assert len(ratios["lines"]) == 3
    assert min(ratios["lines"]) >= 3
    assert min(ratios["words"]) >= 4.5


def test_without_javascript_there_is_a_table(browser: Any, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}/roofline.html")
    names = page.locator(".awqdoc-widget-off tbody td:first-child").all_inner_texts()
    assert len(names) >= len(SHEETS)
    assert "H100 SXM" in names
    context.close()
