"""The built site as a reader meets it: in a browser, in both themes, on a phone, its links and downloads."""

from __future__ import annotations

import io
import json
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import Page, Response

pytestmark = [
    pytest.mark.site,
    # pytest-base-url, which pytest-playwright brings, is what does so.
    pytest.mark.filterwarnings("ignore:Session-scoped fixtures defined as instance methods"),
]

SCRIPTS = sorted((Path(__file__).parents[2] / "gallery").glob("*/plot_*.py"))


class Visit:
    """A page opened in the browser, and what went wrong on the way."""

    def __init__(self, page: Page, url: str, theme: str = "light") -> None:
        self.page = page
        self.problems: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: message.type == "error" and self.problems.append(message.text))
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("requestfailed", lambda request: self.problems.append(f"failed: {request.url}"))
        page.on("response", self.note)
        page.on("request", lambda request: self.requests.append(request.url))
        page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
        page.goto(url, wait_until="load")

    def note(self, response: Response) -> None:
        if response.status >= 400:
            self.problems.append(f"{response.status}: {response.url}")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_page_shows_the_figures_of_its_theme(page: Page, address: str, name: str, theme: str) -> None:
    visit = Visit(page, f"{address}/{name}", theme)
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    assert visit.problems == []
    away = [url for url in visit.requests if not url.startswith((address, "data:"))]
    assert away == [], "the page asks another server for something"
    other = {"light": "dark", "dark": "light"}[theme]
    shown, hidden = page.locator(f"img.only-{theme}"), page.locator(f"img.only-{other}")
    assert shown.count() == hidden.count()
    for image in shown.all():
        assert image.is_visible()
        assert image.evaluate("image => image.complete && image.naturalWidth > 0")
        assert image.evaluate("image => getComputedStyle(image).filter") == "none"
        assert image.evaluate("image => getComputedStyle(image).backgroundColor") == "rgba(0, 0, 0, 0)"
    for image in hidden.all():
        assert not image.is_visible()


# How far what is drawn reaches beyond the picture, in its own units, at the worst; what is clipped on purpose aside.
REACHES_OUT = """() => {
    const svg = document.querySelector("svg");
    const frame = svg.getBoundingClientRect();
    const unit = svg.viewBox.baseVal.width / frame.width;
    const drawn = [...svg.querySelectorAll("path, use, text")]
        .filter((one) => !one.closest("defs, clipPath, [clip-path]"))
        .map((one) => one.getBoundingClientRect())
        .filter((box) => box.width || box.height);
    const beyond = drawn.flatMap((box) => [
        box.right - frame.right, frame.left - box.left, box.bottom - frame.bottom, frame.top - box.top,
    ]);
    return [drawn.length, unit * Math.max(...beyond)];
}"""


def test_no_figure_is_cut_off(page: Page, site: Path) -> None:
    figures = [file for file in sorted(site.glob("_images/sphx_glr_*.svg")) if "thumb" not in file.name]
    assert len(figures) > 50
    for file in figures:
        text = file.read_text(encoding="utf-8")
        page.set_content(f'<body style="margin: 20px">{text[text.index("<svg") :]}</body>')
        drawn, beyond = page.evaluate(REACHES_OUT)
        assert drawn > 3, file.name
        assert beyond < 1, file.name


def test_images_have_alternative_text(page: Page, address: str, name: str) -> None:
    Visit(page, f"{address}/{name}")
    for image in page.locator("img.awqdoc-figure").all():
        assert len(image.get_attribute("alt") or "") > 10
    assert page.locator("img:not([alt])").count() == 0


def test_page_fits_a_phone(page: Page, address: str, name: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    Visit(page, f"{address}/{name}")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_provenance_stands_under_each_gallery_title(page: Page, address: str, name: str) -> None:
    if "/plot_" not in name:
        return
    Visit(page, f"{address}/{name}")
    box = page.locator("h1 + .awqdoc-provenance")
    assert box.count() == 1
    assert box.locator(".awqdoc-badge").count() >= 1
    assert "Not executed" not in box.inner_text()


def test_every_script_has_a_page(site: Path) -> None:
    assert SCRIPTS
    for script in SCRIPTS:
        assert (site / "gallery" / script.parent.name / f"{script.stem}.html").is_file()


def test_downloads_of_each_page_say_how_to_install(page: Page, address: str, site: Path) -> None:
    wheel = next((site / "downloads").glob("awqdoc-*.whl")).name
    for script in SCRIPTS:
        Visit(page, f"{address}/gallery/{script.parent.name}/{script.stem}.html")
        links = page.locator("a.download").evaluate_all("links => links.map(link => link.href)")
        (source,) = [url for url in links if url.endswith(".py")]
        (notebook,) = [url for url in links if url.endswith(".ipynb")]
        text = page.request.get(source).text()
        assert text.startswith("# Needs awqdoc")
        assert wheel in text.splitlines()[0]
        cells = json.loads(page.request.get(notebook).text())["cells"]
        assert "".join(cells[1]["source"]).startswith("%pip install")
        assert wheel in "".join(cells[1]["source"])


def test_archive_holds_everything(page: Page, address: str) -> None:
    Visit(page, f"{address}/gallery/index.html")
    link = page.get_by_role("link", name="awqdoc-examples.zip").get_attribute("href")
    assert link is not None
    answer = page.request.get(f"{address}/gallery/{link}")
    names = zipfile.ZipFile(io.BytesIO(answer.body())).namelist()
    expected = [f"{s.parent.name}/{s.stem}{suffix}" for s in SCRIPTS for suffix in (".py", ".ipynb")]
    for member in [*expected, "README.txt"]:
        assert f"awqdoc-examples/{member}" in names
    assert any(name.endswith(".whl") for name in names)


def test_recorded_data_can_be_downloaded(page: Page, address: str) -> None:
    Visit(page, f"{address}/recordings.html")
    links = page.locator("a.download").evaluate_all("links => links.map(link => link.href)")
    for url in links:
        answer = page.request.get(url)
        assert answer.ok
        if url.endswith(".json"):
            assert json.loads(answer.text())["rows"]
        else:
            assert len(answer.text().splitlines()) > 1


class Links(HTMLParser):
    """The ids of a page, and what it points to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = {"", "top"}
        self.targets: list[str] = []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for key, value in attributes:
            if key == "id" and value:
                self.ids.add(value)
            if key in ("href", "src") and value:
                self.targets.append(value)


def test_every_internal_link_leads_somewhere(site: Path) -> None:
    pages = {path: Links(path) for path in site.rglob("*.html") if "_static" not in path.parts}
    broken = []
    for path, links in pages.items():
        for target in links.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            file = file / "index.html" if file.is_dir() else file
            if not file.is_file():
                broken.append(f"{path.relative_to(site)} -> {target}")
            elif parts.fragment and file in pages and unquote(parts.fragment) not in pages[file].ids:
                broken.append(f"{path.relative_to(site)} -> {target} (no such place on that page)")
    assert broken == []
