"""The layout explorer in a browser, against the real libraries' packers, which know nothing of its data."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest
import torch
from playwright.sync_api import Page

pytestmark = [
    pytest.mark.site,
    pytest.mark.filterwarnings("ignore:Session-scoped fixtures defined as instance methods"),
]

K, N = 128, 512
# The corners, a few odd places and forty drawn at random, the same in every run.
DRAWN = torch.randint(0, K * N, (40,), generator=torch.Generator().manual_seed(0)).tolist()
PLACES = [(0, 0), (K - 1, N - 1), (3, 21), (9, 30), (63, 64), (64, 63), *(divmod(number, N) for number in DRAWN)]


def linear_layer(module: str, name: str) -> Any:
    with warnings.catch_warnings(record=True):  # `import awq` says that it is deprecated, whatever the filter
        pytest.importorskip("awq", reason="autoawq is a package for Linux")
        return getattr(importlib.import_module(f"awq.modules.linear.{module}"), name)


def packed_by_autoawq(format: str, codes: torch.Tensor) -> torch.Tensor:
    """Let AutoAWQ pack codes [K, N]: a linear layer whose weights are the codes less 8, with scales of 1."""
    linear = torch.nn.Linear(K, N, bias=False, dtype=torch.float16)
    linear.weight.data = (codes.float() - 8).half().t().contiguous()
    scales, zeros = torch.ones(1, N).half(), torch.full((1, N), 8, dtype=torch.uint8)
    if format in ("marlin", "awq_marlin"):  # vLLM's repacking makes the same qweight as the original
        layer = linear_layer("marlin", "WQLinear_Marlin").from_linear(linear, 4, K, scales=scales.t())
    elif format == "awq":
        layer = linear_layer("gemm", "WQLinear_GEMM").from_linear(linear, 4, K, scales=scales, zeros=zeros)
    else:
        name = {"awq_gemv": ("gemv", "WQLinear_GEMV"), "awq_gemv_fast": ("gemv_fast", "WQLinear_GEMVFast")}[format]
        layer = linear_layer(*name).from_linear(linear, 4, K, scales=scales.t(), zeros=zeros.t())
    return layer.qweight.long()


def packed_as_gptq(format: str, codes: torch.Tensor) -> torch.Tensor:
    """Eight rows to a word, the first lowest, as GPTQModel packs them (tests/test_interop.py asks it itself)."""
    words = torch.zeros(K // 8, N, dtype=torch.int64)
    for i in range(8):
        words |= codes[i::8].long() << 4 * i
    return words


PACKERS: dict[str, Callable[[str, torch.Tensor], torch.Tensor]] = {
    **dict.fromkeys(("awq", "awq_gemv", "awq_gemv_fast", "marlin", "awq_marlin"), packed_by_autoawq),
    **dict.fromkeys(("gptq", "gptq_v2"), packed_as_gptq),
}


@lru_cache
def oracle(format: str) -> dict[tuple[int, int], tuple[int, int, int]]:
    """Return (k, n) -> (row, word, nibble).

    Every weight is marked by its number k N + n, of which four packings carry one hexadecimal digit each.
    """
    number = torch.arange(K * N).view(K, N)
    nibbles = 4 if format == "awq_gemv_fast" else 8
    found: Any = 0
    for digit in range(4):
        words = PACKERS[format](format, (number >> 4 * digit & 15).to(torch.uint8))
        held = torch.stack([words >> 4 * i & 15 for i in range(nibbles)], dim=2)
        found = found | held << 4 * digit
    places = {}
    for row, words in enumerate(found.tolist()):
        for word, held in enumerate(words):
            for nibble, value in enumerate(held):
                places[divmod(value, N)] = row, word, nibble
    assert len(places) == K * N
    return places


def numbers(page: Page) -> tuple[int, ...]:
    """Row, word and nibble in the boxes of the page."""
    return tuple(int(page.locator(f'[data-focus="{name}"]').input_value()) for name in ("row", "word", "nibble"))


@pytest.mark.parametrize("format", PACKERS)
def test_every_weight_stands_where_the_real_packer_puts_it(page: Page, address: str, format: str) -> None:
    page.goto(f"{address}/explorer.html")
    for k, n in PLACES:
        page.evaluate(f"location.hash = 'layout={format}&k={k}&n={n}'")
        page.wait_for_function(
            f"document.querySelector('.awqdoc-answer').textContent.includes('k = {k}, n = {n}:')"
            f" && document.querySelector('[data-focus=layout]').value === '{format}'"
        )
        assert numbers(page) == oracle(format)[k, n], (k, n)
        lit = page.locator('[data-focus="memory"] .awqdoc-selected')
        assert lit.get_attribute("aria-label") == "word {}, nibble {}: k {}, n {}".format(
            *oracle(format)[k, n][1:], k, n
        )


@pytest.mark.parametrize("format", PACKERS)
def test_a_place_in_memory_leads_back_to_its_weight(page: Page, address: str, format: str) -> None:
    page.goto(f"{address}/explorer.html#layout={format}&k=0&n=0")
    for k, n in PLACES[2:12]:
        for name, value in zip(("row", "word", "nibble"), oracle(format)[k, n], strict=True):
            box = page.locator(f'[data-focus="{name}"]')
            box.fill(str(value))
            box.press("Tab")
        assert page.locator('[data-focus="k"]').input_value() == str(k)
        assert page.locator('[data-focus="n"]').input_value() == str(n)


def test_a_click_chooses_a_weight_and_the_address_says_so(page: Page, address: str) -> None:
    page.goto(f"{address}/explorer.html#layout=marlin&k=0&n=0")
    page.locator('[data-focus="tile"] [data-row="3"][data-column="5"]').click()
    assert page.url.endswith("#layout=marlin&k=3&n=5")
    assert numbers(page) == oracle("marlin")[3, 5]
    page.locator('[data-focus="memory"] [data-row="1"][data-column="0"]').click()
    row, word, _ = oracle("marlin")[3, 5]
    k, n = (int(page.locator(f'[data-focus="{axis}"]').input_value()) for axis in "kn")
    assert oracle("marlin")[k, n] == (row, word - word % 4 + 1, 7)


def test_the_same_weight_moves_when_the_format_changes(page: Page, address: str) -> None:
    page.goto(f"{address}/explorer.html#layout=awq&k=40&n=77")
    for format in PACKERS:
        page.locator('[data-focus="layout"]').select_option(format)
        assert numbers(page) == oracle(format)[40, 77]
        assert page.url.endswith(f"#layout={format}&k=40&n=77")


def test_the_keyboard_walks_the_grids_and_keeps_its_place(page: Page, address: str) -> None:
    page.goto(f"{address}/explorer.html#layout=marlin&k=15&n=15")
    page.locator('[data-focus="tile"]').focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowUp", "ArrowLeft"):  # beyond the edge, too
        page.keyboard.press(key)
    assert page.url.endswith("k=15&n=16")
    assert page.evaluate("document.activeElement.dataset.focus") == "tile"
    chosen = page.locator('[data-focus="tile"] [aria-selected="true"]')
    assert chosen.count() == 1
    assert page.locator('[data-focus="tile"]').get_attribute("aria-activedescendant") == chosen.get_attribute("id")
    page.locator('[data-focus="memory"]').focus()
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.activeElement.dataset.focus") == "memory"


def test_a_lane_holds_what_it_multiplies(page: Page, address: str) -> None:
    """PTX ISA, mma.m16n8k16: rows 2 (lane % 4) + {0, 1, 8, 9} of column lane // 4."""
    page.goto(f"{address}/explorer.html#layout=marlin&k=0&n=0")
    for lane in (0, 5, 21, 31):
        page.locator(f'[data-focus="lanes"] [data-row="{lane // 8}"][data-column="{lane % 8}"]').click()
        held = page.locator('[data-focus="tile"] .awqdoc-mine').evaluate_all(
            "cells => cells.map((cell) => [+cell.dataset.row, +cell.dataset.column])"
        )
        rows = [2 * (lane % 4) + row for row in (0, 1, 8, 9)]
        assert sorted(map(tuple, held)) == [(row, lane // 4 + column) for row in rows for column in (0, 8)]


@pytest.mark.parametrize("hash", ["", "#layout=nonsense&k=-4&n=1e99", "#k=&n=x"])
def test_an_address_that_makes_no_sense_starts_at_a_weight(page: Page, address: str, hash: str) -> None:
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(f"{address}/explorer.html{hash}")
    assert page.locator('[data-focus="layout"]').input_value() == "marlin"
    assert all(0 <= int(page.locator(f'[data-focus="{axis}"]').input_value()) <= 65535 for axis in "kn")
    assert problems == []


def test_it_works_from_files_without_a_server(page: Page, site: Any) -> None:
    page.goto(f"{(site / 'explorer.html').as_uri()}#layout=awq&k=3&n=21")
    assert numbers(page) == (3, 2, 6)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_a_phone_and_its_words_can_be_read(page: Page, address: str, theme: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    page.goto(f"{address}/explorer.html")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    # Contrast of the text with the cell below it: WCAG asks for 4.5 : 1.
    ratio = page.evaluate(
        """() => {
          const channel = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
          const light = (c) => c.match(/[\\d.]+/g).slice(0, 3).map(Number).map(channel)
            .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
          const cell = document.querySelector('[data-focus="tile"] .awqdoc-selected');
          const [a, b] = ["rect", "text"].map((tag) => light(getComputedStyle(cell.querySelector(tag)).fill));
          return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        }"""
    )
    assert ratio >= 4.5


def test_without_javascript_there_is_a_table(browser: Any, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}/explorer.html")
    assert page.locator(".awqdoc-widget-off tbody tr").count() == len(PACKERS)
    context.close()
