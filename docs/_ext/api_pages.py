"""API pages: thumbnails of the scripts that use an object, and a page for each module that there is."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import freshness
from sphinx.application import Sphinx


def add_examples(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Scripts may use an object by another path than the one documented, so compare objects, not names."""
    if what not in ("function", "class", "exception"):
        return
    used = [path for path in used_names(app) if resolve(path) is obj]
    if used:
        lines += ["", ".. rubric:: Examples using this", "", f".. minigallery:: {' '.join(used)}", ""]


def used_names(app: Sphinx) -> list[str]:
    folder = app.config.sphinx_gallery_conf["backreferences_dir"]
    file = Path(app.srcdir, folder, "backreferences_all.json")
    app.env.note_dependency(str(file))
    return list(json.loads(file.read_text("utf-8")))


def resolve(path: str) -> Any:
    """The object at a dotted path, or None."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None


def start_anew_with_other_modules(app: Sphinx) -> None:
    """autosummary keeps pages of modules that are gone, and looks for new ones only where a page changed."""
    pages = list(Path(app.srcdir, "api", "generated").glob("*.rst"))
    if {page.stem for page in pages} != public_modules():
        for page in pages:
            page.unlink()


def public_modules() -> set[str]:
    """The modules of awqdoc that have a page: all but those whose name begins with an underscore."""
    files = [file for file in freshness.package_files() if file.suffix == ".py"]
    root = min(files, key=lambda file: len(file.parts)).parent
    paths = [file.relative_to(root.parent).with_suffix("").parts for file in files]
    modules = [parts[:-1] if parts[-1] == "__init__" else parts for parts in paths]
    return {".".join(parts) for parts in modules if not any(part.startswith("_") for part in parts)}


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", start_anew_with_other_modules, priority=100)  # autosummary comes at 500
    app.connect("autodoc-process-docstring", add_examples, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
