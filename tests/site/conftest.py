"""The built site, served on localhost, and Debian's Chromium."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

SITE = Path(os.environ.get("AWQDOC_SITE", Path(__file__).parents[2] / "docs" / "_build" / "html"))

# The session `tests`, which runs none of them, has no playwright to import either.
BROWSING = ["test_site.py", "test_explorer.py", "test_roofline.py", "test_occupancy_page.py"]
collect_ignore = [] if importlib.util.find_spec("playwright") else BROWSING


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture(scope="session")
def site() -> Path:
    """The folder of the built site."""
    if not (SITE / "index.html").is_file():
        pytest.fail(f"{SITE} has no index.html: build the site first with `nox -s docs`.")
    return SITE


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    """Where the site is served."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    """The system's Chromium where there is one; else the one that playwright has installed."""
    found = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    return {**browser_type_launch_args, "executable_path": next(found, None), "args": flags}


@pytest.fixture
def quiet(page: Page) -> Iterator[Page]:
    """A page that must not complain."""
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: message.type == "error" and problems.append(message.text))
    yield page
    assert problems == []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for `name` once for each page that a reader meets."""
    if "name" in metafunc.fixturenames:
        found = [*sorted(SITE.glob("gallery/**/*.html")), *sorted(SITE.glob("concepts/*.html"))]
        top = (
            "index.html",
            "run.html",
            "explorer.html",
            "roofline.html",
            "occupancy.html",
            "recordings.html",
            "glossary.html",
            "references.html",
            "api/index.html",
        )
        metafunc.parametrize("name", [*top, *(path.relative_to(SITE).as_posix() for path in found)])
