"""Run a script or a page again when anything that it shows could have changed, not only its own text.

sphinx-gallery and jupyter-cache look at the text alone. Everything else that a result depends on goes into
one key. A script's entry in the ledger carries the key under which it ran; where that is no longer the key,
the entry and sphinx-gallery's `.md5` are deleted before sphinx-gallery starts. So a page is current if it has
an entry.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
from pathlib import Path

import gallery_scripts
import ledger
from sphinx.application import Sphinx

LIBRARIES = ("matplotlib", "numpy", "torch", "triton", "transformers", "autoawq", "sphinx-gallery")


@functools.cache
def build_key() -> str:
    """Hash of the package with its recordings, of these extensions, the GPU, the mode and the libraries."""
    from awqdoc import gpu

    state = hashlib.sha256()
    facts = [gpu.suitable(), os.environ.get("AWQDOC_MODE", "auto"), *map(version, LIBRARIES)]
    state.update(repr(facts).encode())
    for file in [*package_files(), *sorted(Path(__file__).parent.glob("*.py"))]:
        state.update(f"{file.name}\0".encode() + file.read_bytes() + b"\0")
    return state.hexdigest()


def package_files() -> list[Path]:
    """Every file of awqdoc: sources of all languages and the recordings."""
    package = importlib.util.find_spec("awqdoc")
    assert package is not None
    assert package.origin is not None
    files = Path(package.origin).parent.rglob("*")
    return sorted(file for file in files if file.is_file() and "__pycache__" not in file.parts)


def version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def script_key(script: Path) -> str:
    """The key under which the page of this script is current."""
    return hashlib.sha256(build_key().encode() + script.read_bytes()).hexdigest()


def forget_outdated(app: Sphinx) -> None:
    """Make sphinx-gallery run every script whose entry in the ledger is missing or has another key."""
    docs = Path(app.srcdir)
    for script in gallery_scripts.scripts(docs.parent / "gallery"):
        entry = ledger.read(docs, script)
        if entry is None or entry["key"] != script_key(script):
            ledger.path(docs, script).unlink(missing_ok=True)
            (docs / f"{gallery_scripts.docname(script)}.py.md5").unlink(missing_ok=True)


def forget_removed(app: Sphinx) -> None:
    """Delete what a script left that was removed or renamed since: sphinx-gallery and Sphinx keep it, and -W fails."""
    docs, out = Path(app.srcdir), Path(app.outdir)
    scripts = gallery_scripts.scripts(docs.parent / "gallery")
    known = {gallery_scripts.docname(script) for script in scripts}
    known |= {f"gallery/{script.parent.name}/index" for script in scripts}
    for page in docs.glob("gallery/*/*.rst"):
        docname = page.relative_to(docs).with_suffix("").as_posix()
        if docname not in known:
            entry = ledger.path(docs, page.relative_to(docs / "gallery"))
            leftovers = [entry, out / f"{docname}.html", Path(app.doctreedir, f"{docname}.doctree")]
            leftovers += [*out.glob(f"_downloads/*/{page.stem}.*"), *out.glob(f"_images/sphx_glr_{page.stem}_*")]
            for place in (page.parent, page.parent / "images", page.parent / "images" / "thumb"):
                leftovers += [*place.glob(f"{page.stem}.*"), *place.glob(f"sphx_glr_{page.stem}_*")]
            for file in leftovers:
                file.unlink(missing_ok=True)


def forget_failed_build(app: Sphinx, exception: Exception | None) -> None:
    """After warnings, read every page again next time: Sphinx would not repeat them, and so pass."""
    if exception is not None or app._warncount:
        Path(app.doctreedir, "environment.pickle").unlink(missing_ok=True)


def jupyter_cache(docs: Path) -> Path:
    """The folder of executed concept pages for this key. Those of other keys are deleted."""
    current = docs / "_build" / "jupyter" / build_key()[:16]
    for folder in current.parent.glob("*"):
        if folder != current:
            shutil.rmtree(folder)
    return current


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_config_value("awqdoc_key", "", "env", types=[str])  # another key: every page is read again
    app.connect("builder-inited", forget_removed, priority=100)
    app.connect("builder-inited", forget_outdated, priority=100)  # sphinx-gallery comes at 500
    app.connect("build-finished", forget_failed_build)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
