"""Miniature sites, built with the extensions of docs/_ext: what must break a build, what must run again."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
EXTENSIONS = ROOT / "docs" / "_ext"

CONF = f"""
import os, sys
from pathlib import Path

sys.path.insert(0, {str(EXTENSIONS)!r})
import freshness, gallery_scripts, stop

project = "tiny"
extensions = ["sphinx_gallery.gen_gallery", "figures", "freshness", "provenance"]
awqdoc_key = freshness.build_key()
with stop.one_sentence():
    only = os.environ.get("AWQDOC_ONLY", "")
    sphinx_gallery_conf = gallery_scripts.configuration(Path(__file__).parents[1] / "gallery", only)
exclude_patterns = ["_build", "gallery/**/*.ipynb"]
html_theme = "basic"
"""

SCRIPT = '''"""
A page
======

What it asks.
"""

from pathlib import Path

from matplotlib import pyplot as plt

from awqdoc import visualization

with Path("runs").open("a") as file:
    file.write("x")

# %%
# A block
# -------
'''

INDEX = """Tiny
====

.. toctree::

   gallery/index
   recordings
"""

FIGURE = """
figure, axes = plt.subplots()
axes.plot([1, 2], [1, 2], color=visualization.PALETTE["blue"][0])
"""
DESCRIBED = FIGURE + 'visualization.describe(figure, "A rising line.", None)\n'


class Site:
    """A tiny project with one script in each of two sections."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.docs = folder / "docs"
        self.docs.mkdir()
        (self.docs / "conf.py").write_text(CONF)
        (self.docs / "index.rst").write_text(INDEX)
        (self.docs / "recordings.rst").write_text("Recordings\n==========\n")
        self.write("GALLERY_HEADER.rst", "Gallery\n=======\n")
        for section in ("gpu", "profiling"):
            self.write(f"{section}/GALLERY_HEADER.rst", f"{section}\n-----------\n")
        self.write("gpu/plot_10_first.py", SCRIPT + DESCRIBED)
        self.write("profiling/plot_10_second.py", SCRIPT + DESCRIBED)

    def write(self, name: str, text: str) -> None:
        path = self.folder / "gallery" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def runs(self, section: str) -> int:
        """How often the script of a section was executed."""
        counter = self.folder / "gallery" / section / "runs"
        return len(counter.read_text()) if counter.exists() else 0

    def build(self, **environment: str) -> subprocess.CompletedProcess[str]:
        arguments = ("-W", "--keep-going", "-b", "html", "docs", "docs/_build/html")
        return self._python("-m", "sphinx", *arguments, **environment)

    def verify(self, *only: str) -> subprocess.CompletedProcess[str]:
        return self._python(str(EXTENSIONS / "verify.py"), "docs/_build/html", *only)

    def page(self, name: str) -> str:
        return (self.docs / "_build" / "html" / name).read_text("utf-8")

    def _python(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("AWQDOC_")}
        environment = {**inherited, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", **environment}
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_figures_have_two_variants_and_a_text(site: Site) -> None:
    result = site.build()
    assert result.returncode == 0, result.stderr
    images = site.docs / "gallery" / "gpu" / "images"
    light = (images / "sphx_glr_plot_10_first_001.svg").read_text("utf-8")
    dark = (images / "sphx_glr_plot_10_first_001.dark.svg").read_text("utf-8")
    assert light.startswith("<?xml")
    assert dark.startswith("<?xml")
    assert light != dark
    page = site.page("gallery/gpu/plot_10_first.html")
    assert page.count('alt="A rising line."') == 2
    assert "only-light" in page
    assert "only-dark" in page
    assert "modelled" in page
    assert "Computed, not measured" in page
    assert "sphx_glr_plot_10_first_001.dark.svg" in site.page("gallery/index.html"), "no dark thumbnail"
    assert site.verify().returncode == 0


HERE = """
here = visualization.Here("a sundial", "2026-11-24")
visualization.describe(figure, "A rising line.", here.holding("rise", [{"x": 1, "y": 2}]))
"""


def test_what_a_page_computed_itself_is_labelled_as_measured_here(site: Site) -> None:
    site.write("gpu/plot_10_first.py", SCRIPT + FIGURE + HERE)
    result = site.build()
    assert result.returncode == 0, result.stderr
    page = site.page("gallery/gpu/plot_10_first.html")
    assert "measured here: computed by this page on a sundial, 2026-11-24" in page
    assert re.search(r">Measured here</span>\s*computed by this page on a sundial, 2026-11-24</p>", page)
    assert "Computed, not measured" not in page
    assert "Computed, not measured" in site.page("gallery/profiling/plot_10_second.html"), "the next page did not"
    (link,) = re.findall(r'href="([^"]+/rise\.csv)"', page)
    assert (site.docs / "_build" / "html" / "gallery" / "gpu" / link).read_text() == "x,y\n1,2\n"


def test_an_exception_fails_the_build(site: Site) -> None:
    site.write("gpu/plot_10_first.py", SCRIPT + 'raise ValueError("no such tile")\n')
    result = site.build()
    assert result.returncode != 0
    assert "no such tile" in result.stderr
    assert site.verify().returncode == 1


def test_sys_exit_ends_sphinx_with_success_and_is_found(site: Site) -> None:
    assert site.build().returncode == 0
    site.write("gpu/plot_10_first.py", SCRIPT + "import sys\n\nsys.exit()\n")
    assert site.build().returncode == 0, "sphinx-gallery handles sys.exit now: verify.py may look for less"
    result = site.verify()
    assert result.returncode == 1
    assert result.stderr == "gpu/plot_10_first.py was not executed to its end (does it call sys.exit?)\n"


def test_a_figure_without_alternative_text_fails_the_build(site: Site) -> None:
    site.write("gpu/plot_10_first.py", SCRIPT + FIGURE)
    result = site.build()
    assert result.returncode != 0
    assert "plot_10_first.py shows a figure without alternative text" in result.stderr


def test_a_script_runs_again_when_the_key_changes_and_only_then(site: Site) -> None:
    assert site.build().returncode == 0
    assert site.runs("gpu") == 1
    assert site.build().returncode == 0
    assert site.runs("gpu") == 1, "nothing changed"
    assert site.build(AWQDOC_MODE="recorded").returncode == 0
    assert (site.runs("gpu"), site.runs("profiling")) == (2, 2), "the mode is part of the key"
    site.write("gpu/plot_10_first.py", SCRIPT + DESCRIBED + "print(1)\n")
    assert site.build(AWQDOC_MODE="recorded").returncode == 0
    assert (site.runs("gpu"), site.runs("profiling")) == (3, 2), "one script changed"


def test_a_part_is_built_and_kept(site: Site) -> None:
    assert site.build(AWQDOC_ONLY="profiling").returncode == 0
    assert (site.runs("gpu"), site.runs("profiling")) == (0, 1)
    assert "Not executed" in site.page("gallery/gpu/plot_10_first.html")
    assert "Not executed" not in site.page("gallery/profiling/plot_10_second.html")
    assert site.verify("profiling").returncode == 0
    assert site.verify().returncode == 1
    assert site.build(AWQDOC_ONLY="gpu/plot_10_first").returncode == 0
    assert site.build().returncode == 0
    assert (site.runs("gpu"), site.runs("profiling")) == (1, 1), "the whole build runs nothing twice"
    assert "Not executed" not in site.page("gallery/gpu/plot_10_first.html")
    assert site.verify().returncode == 0


def test_an_unknown_part_is_named_with_the_known_ones(site: Site) -> None:
    result = site.build(AWQDOC_ONLY="profilling")
    known = "gpu plot_10_first profiling plot_10_second"
    sentence = f"'profilling' is no section or script of the gallery; it has: {known}"
    assert result.returncode == 2
    assert result.stderr == f"The site cannot be built: {sentence}\n"
    assert site.verify("profilling").returncode == 1


def test_an_empty_section_is_refused(site: Site) -> None:
    site.write("packing/GALLERY_HEADER.rst", "Packing\n-------\n")
    result = site.build()
    assert result.returncode == 2
    assert "gallery/packing has a header and no plot_*.py" in result.stderr


def test_a_file_that_would_be_shown_but_not_run_is_refused(site: Site) -> None:
    site.write("gpu/helper.py", SCRIPT)
    result = site.build()
    assert result.returncode == 2
    assert "gallery/gpu/helper.py would be shown but not run" in result.stderr


def test_a_renamed_script_leaves_nothing_behind(site: Site) -> None:
    site.write("gpu/plot_20_old.py", SCRIPT + DESCRIBED)
    assert site.build().returncode == 0
    (site.folder / "gallery" / "gpu" / "plot_20_old.py").rename(site.folder / "gallery" / "gpu" / "plot_30_new.py")
    result = site.build()
    assert result.returncode == 0, result.stderr
    assert site.verify().returncode == 0
    assert [path for path in site.docs.rglob("*plot_20_old*") if "_sources" not in path.parts] == []


def test_a_torn_entry_of_the_ledger_runs_its_script_again(site: Site) -> None:
    assert site.build().returncode == 0
    entry = site.docs / "_build" / "ledger" / "gpu" / "plot_10_first.json"
    entry.write_text(entry.read_text()[:30])
    assert site.build().returncode == 0
    assert (site.runs("gpu"), site.runs("profiling")) == (2, 1)


def test_a_build_with_warnings_does_not_pass_the_second_time(site: Site) -> None:
    (site.docs / "index.rst").write_text(INDEX + "\n:doc:`missing`\n")
    assert site.build().returncode != 0
    assert site.build().returncode != 0
    assert site.runs("gpu") == 1, "the scripts themselves were fine"


def test_the_ledger_tells_what_ran(site: Site) -> None:
    assert site.build().returncode == 0
    entry = json.loads((site.docs / "_build" / "ledger" / "gpu" / "plot_10_first.json").read_text())
    assert entry["executed"]
    assert entry["seconds"] > 0
    assert entry["recordings"] == []


FACTS = {
    "gpu": "NVIDIA H200",
    "date": "2026-11-23T10:00:00Z",
    "commit": "1a2b3c4d5e",
    "dirty": False,
    "torch": "2.11.0",
    "driver": "580.95",
}


@pytest.mark.parametrize(
    ("origin", "stale", "badge"),
    [
        ("measured", False, "Measured here"),
        ("recorded", False, "Recorded"),
        ("recorded", True, "Stale recording"),
    ],
)
def test_the_box_says_where_numbers_come_from(
    monkeypatch: pytest.MonkeyPatch, origin: str, stale: bool, badge: str
) -> None:
    monkeypatch.syspath_prepend(str(EXTENSIONS))
    import provenance

    recording = {"experiment": "sweep", "label": "", "origin": origin, "stale": stale, "provenance": FACTS}
    (line,) = provenance.box({"recordings": [recording, recording]})
    text = line.astext()
    made = "by awqdoc run sweep on NVIDIA H200, 2026-11-23, commit 1a2b3c4, torch 2.11.0, driver 580.95"
    assert text.startswith(f"{badge} {made}")
    assert ("the code has changed since" in text) is stale
