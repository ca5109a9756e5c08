"""Downloads that work alone: each says how to install the wheel of awqdoc that this site was built with.

The wheel lies under `downloads/` of the site, beside one archive of all scripts and notebooks.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import freshness
import gallery_scripts
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

ARCHIVE = "downloads/awqdoc-examples.zip"
PACKAGE_FILES = ("pyproject.toml", "README.md", "LICENSE")
README = """\
The examples of the awqdoc site, as Python scripts and as Jupyter notebooks.

    python -m pip install {wheel}
    python {example}

Install the wheel in an environment of its own; it brings all that a script needs. No GPU is needed:
without one, a script replays the recordings that the package carries, and says where they come from.
On Linux without an NVIDIA GPU, add --extra-index-url https://download.pytorch.org/whl/cpu to the first
line, or pip takes several GB of CUDA packages along with PyTorch.
"""


def build_wheel(root: Path, cache: Path) -> Path:
    """The wheel of the package as it is now, built once for each key, from a copy that holds no leftovers."""
    folder = cache / freshness.build_key()[:16]
    if not list(folder.glob("*.whl")):
        shutil.rmtree(cache, ignore_errors=True)
        with tempfile.TemporaryDirectory() as copy:
            for name in PACKAGE_FILES:
                shutil.copy(root / name, copy)
            shutil.copytree(root / "awqdoc", Path(copy, "awqdoc"), ignore=shutil.ignore_patterns("__pycache__"))
            options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
            pip = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(folder), copy]
            result = subprocess.run(pip, capture_output=True, text=True)
        if result.returncode:
            raise ExtensionError(f"the wheel of awqdoc could not be built:\n{result.stdout}{result.stderr}")
    return next(folder.glob("*.whl"))


def script_with_install(text: str, wheel: str) -> str:
    return f'# Needs awqdoc, as this page was built with: python -m pip install "{wheel}"\n{text}'


def notebook_with_install(text: str, wheel: str) -> str:
    notebook = json.loads(text)
    note = "This notebook needs `awqdoc`. The next cell installs the version that its page was built with."
    cells: list[dict[str, Any]] = [
        {"cell_type": "markdown", "metadata": {}, "source": [note]},
        {"cell_type": "code", "metadata": {}, "source": [f'%pip install --quiet "{wheel}"'],
         "execution_count": None, "outputs": []},
    ]  # fmt: skip
    notebook["cells"] = cells + notebook["cells"]
    return json.dumps(notebook, indent=1)


WITH_INSTALL = {".py": script_with_install, ".ipynb": notebook_with_install}


def finish(app: Sphinx, exception: Exception | None) -> None:
    if exception is not None or app.builder.format != "html":
        return
    docs, out = Path(app.srcdir), Path(app.outdir)
    wheel = build_wheel(docs.parent, docs / "_build" / "wheel")
    folder = out / "downloads"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    hosted = Path(shutil.copy(wheel, folder))
    address = wheel_address(app, hosted.name)
    scripts = gallery_scripts.scripts(docs.parent / "gallery")
    sources = [docs / f"{gallery_scripts.docname(s)}{suffix}" for s in scripts for suffix in WITH_INSTALL]
    for source in sources:
        # Sphinx puts each download into a folder of its own below _downloads.
        for copy in out.glob(f"_downloads/*/{source.name}"):
            copy.write_text(WITH_INSTALL[source.suffix](source.read_text("utf-8"), address), "utf-8")
    write_archive(out / ARCHIVE, hosted, sources)


def wheel_address(app: Sphinx, name: str) -> str:
    """Where the wheel will lie: on the published site, or in the folder of a site that was built at home."""
    base = app.config.html_baseurl.rstrip("/")
    return f"{base}/downloads/{name}" if base else Path(app.outdir, "downloads", name).as_uri()


class InstallCommand(SphinxDirective):
    """The command that installs the wheel of this site, to be copied."""

    def run(self) -> list[nodes.Node]:
        name = f"awqdoc-{self.config.release}-py3-none-any.whl"
        command = f'python -m pip install "{wheel_address(self.env.app, name)}"'
        return [nodes.literal_block(command, command, language="console")]


def write_archive(archive: Path, wheel: Path, sources: list[Path]) -> None:
    example = next((f"{s.parent.name}/{s.name}" for s in sources), "")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("awqdoc-examples/README.txt", README.format(wheel=wheel.name, example=example))
        file.write(wheel, f"awqdoc-examples/{wheel.name}")
        for source in sources:
            text = WITH_INSTALL[source.suffix](source.read_text("utf-8"), f"../{wheel.name}")
            file.writestr(f"awqdoc-examples/{source.parent.name}/{source.name}", text)


def link_archive(app: Sphinx, doctree: nodes.document) -> None:
    """In place of sphinx-gallery's archive for each page, whose files do not say what they need."""
    docname = app.env.current_document.docname
    if not docname.startswith("gallery/"):
        return
    for note in list(doctree.findall(nodes.note)):
        if "sphx-glr-download-link-note" in note["classes"]:
            note.parent.remove(note)
    uri = "../" * docname.count("/") + ARCHIVE
    link = nodes.reference("", "Download all examples: awqdoc-examples.zip", refuri=uri, internal=True)
    if docname == "gallery/index":
        doctree[-1].append(nodes.paragraph("", "", link, classes=["awqdoc-archive"]))
    for footer in doctree.findall(nodes.container):
        if "sphx-glr-download-zip" in footer["classes"]:
            footer.children = []
            footer.append(nodes.paragraph("", "", link.deepcopy()))


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-read", link_archive, priority=400)  # Sphinx collects downloads at 500
    app.connect("build-finished", finish, priority=900)
    app.add_directive("install-command", InstallCommand)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
