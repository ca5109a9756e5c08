"""The occupancy page in a browser, against the package's own computation, which is tested against NVIDIA's header."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from awqdoc.errors import AwqdocError
from awqdoc.gpu import footprints
from awqdoc.gpu.occupancy import LIMITS, Launch, launch

pytestmark = [
    pytest.mark.site,
    pytest.mark.filterwarnings("ignore:Session-scoped fixtures defined as instance methods"),
]

Case = tuple[str, int, int, int, int, int]  # capability, SMs, threads, registers, bytes, blocks


def cases() -> list[Case]:
    """Kernels of ours, edges, and random launches on every compute capability."""
    draw = random.Random(0)
    found: list[Case] = [("9.0", 132, one.threads, one.regs, one.smem, one.grid) for one in footprints.LADDER.values()]
    found += [
        ("7.5", 40, 1, 0, 0, 1),
        ("8.0", 108, 1024, 64, 0, 217),
        ("8.0", 108, 1024, 65, 0, 217),
        ("9.0", 1, 33, 255, 232448, 3),
    ]
    for capability, limits in LIMITS.items():
        for _ in range(8):
            threads, regs = draw.randint(1, 1024), draw.choice([draw.randint(0, 255), draw.randint(0, 64)])
            smem = draw.choice([0, draw.randint(0, 16384), draw.randint(0, limits.block_shared)])
            found.append(
                ("{}.{}".format(*capability), draw.randint(1, 200), threads, regs, smem, draw.randint(1, 9999))
            )
    return found


def choose(page: Page, address: str, case: Case) -> None:
    place = f"{address}/occupancy.html"
    if not page.url.startswith(place):
        page.goto(place)
    names = ("capability", "sms", "threads", "regs", "smem", "blocks")
    page.evaluate("hash => { location.hash = hash; }", "&".join(f"{n}={v}" for n, v in zip(names, case, strict=True)))
    for name, value in zip(names, case, strict=True):
        page.wait_for_function(f"document.querySelector('[data-focus={name}]').value === '{value}'")


def table(page: Page) -> dict[str, str]:
    rows = page.locator('[data-table="launch"] tbody tr')
    return dict(rows.evaluate_all("rows => rows.map((row) => [...row.children].map((cell) => cell.textContent))"))


def expected(found: Launch) -> dict[str, int | float]:
    return {
        "warps of a block": found.warps,
        "registers of a block, rounded up": found.registers,
        "shared bytes of a block, rounded up": found.shared,
        **{f"blocks by {name}": blocks for name, blocks in found.fits.items()},
        "blocks on an SM": found.blocks_per_sm,
        "warps on an SM": found.resident_warps,
        "theoretical occupancy": found.occupancy,
        "with this grid, first wave": found.grid_occupancy,
        "blocks that the GPU holds": found.slots,
        "waves": found.waves,
        "blocks in the last": found.last_wave,
        "places empty, mean of all waves": found.lost,
    }


def test_it_shows_what_python_computes(quiet: Page, address: str) -> None:
    refused = 0
    for case in cases():
        capability, sms, threads, regs, smem, blocks = case
        choose(quiet, address, case)
        answer = quiet.locator(".awqdoc-answer")
        try:
            found = launch((blocks,), (threads,), regs, smem, f"{capability}x{sms}")
        except AwqdocError as error:
            refused += 1
            (most,) = re.findall(r"at most (\d+) registers", str(error))
            assert f"at most {most} registers" in answer.inner_text(), case
            assert table(quiet) == {}
            continue
        wanted, shown = expected(found), table(quiet)
        assert list(shown) == list(wanted), case
        for name, value in wanted.items():
            if shown[name].endswith("%"):
                assert float(shown[name][:-1]) == pytest.approx(100 * value, abs=0.051), (name, case)
            else:
                assert int(shown[name]) == value, (name, case)
        assert f"limited by {' and '.join(found.limiters)}:" in answer.inner_text(), case
    assert 3 < refused < len(cases()) / 2


def test_a_gpu_and_a_kernel_can_be_chosen_by_name(quiet: Page, address: str) -> None:
    quiet.goto(f"{address}/occupancy.html")
    assert quiet.locator('[data-focus="kernel"]').input_value() == "marlin"
    assert quiet.locator(".awqdoc-answer").inner_text().startswith("H200 SXM, 132 SMs: an SM holds 2 blocks")
    quiet.locator('[data-focus="gpu"]').select_option("a100-80-gb-sxm")
    assert quiet.locator('[data-focus="sms"]').input_value() == "108"
    assert (
        "an SM holds 1 block, limited by shared memory: 8 of 64 warps, 12.5%"
        in quiet.locator(".awqdoc-answer").inner_text()
    )
    quiet.locator('[data-focus="kernel"]').select_option("cuda_fused")
    for name, value in zip(("blocks", "threads", "regs", "smem"), footprints.LADDER["cuda_fused"], strict=True):
        assert quiet.locator(f'[data-focus="{name}"]').input_value() == str(value)
    assert "gpu=a100-80-gb-sxm" in str(quiet.evaluate("location.hash"))
    # The sizes of no GPU that is listed: the name goes.
    quiet.locator('[data-focus="sms"]').fill("28")
    quiet.locator('[data-focus="sms"]').press("Enter")
    assert quiet.locator('[data-focus="gpu"]').input_value() == "other"
    assert quiet.locator(".awqdoc-answer").inner_text().startswith("Compute capability 8.0, 28 SMs:")


def test_everything_can_be_reached_with_the_keyboard_and_is_named(quiet: Page, address: str) -> None:
    quiet.goto(f"{address}/occupancy.html")
    quiet.locator('[data-focus="gpu"]').focus()
    for name in ("gpu", "capability", "sms", "kernel", "threads", "regs", "smem", "blocks"):
        assert quiet.evaluate("document.activeElement.dataset.focus") == name
        quiet.keyboard.press("Tab")
    assert quiet.locator(".awqdoc-answer").get_attribute("aria-live") == "polite"
    titles = quiet.locator(".awqdoc-occupancy svg[role=img] > title").all_text_contents()
    assert titles[0].startswith(
        "2 blocks on an SM: warps 25.0% taken, 8 would fit; registers 100.0% taken, 2 would fit;"
    )
    assert "25.0% now" in titles[1]


@pytest.mark.parametrize(
    ("axis", "low", "high"),
    [("threads", 32, 1024), ("regs", 0, 255), ("smem", 0, 232448)],
    ids=["threads", "regs", "smem"],
)
def test_the_stairs_are_the_occupancies_that_python_computes(
    quiet: Page, address: str, axis: str, low: int, high: int
) -> None:
    choose(quiet, address, ("9.0", 132, 256, 76, 40000, 100))
    line = quiet.locator("polyline.awqdoc-stairs").nth(["threads", "regs", "smem"].index(axis))
    points = [[float(part) for part in point.split(",")] for point in str(line.get_attribute("points")).split()]
    floor = {"threads": 76, "regs": 184, "smem": 292}[axis]
    draw = random.Random(axis)
    for _ in range(40):
        value = draw.randrange(low, high + 1, {"threads": 32, "regs": 1, "smem": 512}[axis])
        asked = {"threads": 256, "regs": 76, "smem": 40000, axis: value}
        try:
            wanted = launch((1,), (asked["threads"],), asked["regs"], asked["smem"], "9.0x132").occupancy
        except AwqdocError:
            wanted = 0
        x = 34 + (value - low) / (high - low) * (336 - 34)
        heights = [y for at, y in points if at == pytest.approx(x, abs=1e-6)]
        assert floor - wanted * 66 == pytest.approx(heights[0], abs=1e-6), value


@pytest.mark.parametrize("hash", ["", "#capability=3.5&threads=-4&regs=x&smem=1e99&blocks=&sms=0", "#gpu=x&regs=1e99"])
def test_an_address_that_makes_no_sense_starts_somewhere(quiet: Page, address: str, hash: str) -> None:
    quiet.goto(f"{address}/occupancy.html{hash}")
    for name, low, high in (
        ("threads", 1, 1024),
        ("regs", 0, 255),
        ("smem", 0, 232448),
        ("blocks", 1, 2**31),
        ("sms", 1, 1000),
    ):
        assert low <= int(quiet.locator(f'[data-focus="{name}"]').input_value()) <= high
    assert "NaN" not in quiet.locator(".awqdoc-occupancy").inner_text()


def test_what_a_gpu_cannot_give_is_brought_down_to_what_it_can(quiet: Page, address: str) -> None:
    quiet.goto(f"{address}/occupancy.html")
    quiet.locator('[data-focus="gpu"]').select_option("t4")
    assert quiet.locator('[data-focus="smem"]').input_value() == "65536"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_a_phone(quiet: Page, address: str, theme: str) -> None:
    quiet.set_viewport_size({"width": 390, "height": 844})
    quiet.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    choose(quiet, address, ("9.0", 132, 1, 1, 0, 2147483647))
    assert quiet.evaluate("document.documentElement.scrollWidth") <= 390
    parts = quiet.locator(".awqdoc-occupancy :is(input, select, svg, .awqdoc-table-wrap)")
    assert max(parts.evaluate_all("parts => parts.map((part) => part.getBoundingClientRect().right)")) <= 390
    outside = quiet.locator(".awqdoc-occupancy svg").evaluate_all(
        """drawings => drawings.flatMap((drawing) => {
          const [x, y, width, height] = drawing.getAttribute("viewBox").split(" ").map(Number);
          return [...drawing.querySelectorAll("text, circle, rect, polyline")].filter((part) => {
            const box = part.getBBox();
            const [right, bottom] = [box.x + box.width, box.y + box.height];
            return box.x < x - 1 || box.y < y - 1 || right > x + width + 1 || bottom > y + height + 1;
          }).map((part) => part.outerHTML);
        })"""
    )
    assert outside == []


def test_it_works_from_files_without_a_server(quiet: Page, site: Path) -> None:
    quiet.goto(f"{(site / 'occupancy.html').as_uri()}#threads=1024&regs=32")
    assert table(quiet)["warps of a block"] == "32"


def test_without_javascript_there_is_a_table_of_limits(browser: Any, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}/occupancy.html")
    rows = page.locator(".awqdoc-widget-off tbody tr").evaluate_all(
        "rows => rows.map((row) => [...row.children].map((cell) => cell.textContent))"
    )
    context.close()
    assert [row[0] for row in rows] == ["{}.{}".format(*capability) for capability in LIMITS]
    assert rows[5] == ["9.0", "64", "32", "228", "227"]
