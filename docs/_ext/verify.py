"""Look at a finished build from outside: `python docs/_ext/verify.py docs/_build/html [section or script …]`.

A gallery script that calls `sys.exit` ends the whole of Sphinx, with exit code 0 and what was written until
then. So this runs as a process of its own, and believes only what it finds.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import gallery_scripts
import ledger
from sphinx.errors import ConfigError


def problems(docs: Path, out: Path, only: str) -> list[str]:
    """One sentence for each thing that is missing."""
    gallery = docs.parent / "gallery"
    found = []
    if not (out / "index.html").is_file():
        found.append(f"{out} has no index.html: the build did not finish")
    for script in gallery_scripts.scripts(gallery):
        if not (out / f"{gallery_scripts.docname(script)}.html").is_file():
            found.append(f"{name(script)} has no page")
    for script in gallery_scripts.selected(gallery, only):
        entry = ledger.read(docs, script)
        if entry is None or not entry["executed"] or not entry["seconds"] > 0:
            found.append(f"{name(script)} was not executed to its end (does it call sys.exit?)")
    return found + missing_pages(out)


def name(script: Path) -> str:
    return f"{script.parent.name}/{script.name}"


def missing_pages(out: Path) -> list[str]:
    """Pages that a table of contents lists and that were not written."""
    environment = out / ".doctrees" / "environment.pickle"
    if not environment.is_file():
        return [f"{environment} is missing: the build did not finish"]
    with environment.open("rb") as file:
        listed = pickle.load(file).toctree_includes
    pages = sorted({page for pages in listed.values() for page in pages})
    missing = [page for page in pages if not (out / f"{page}.html").is_file()]
    return [f"{page} is listed in a table of contents and has no page" for page in missing]


def main() -> int:
    out = Path(sys.argv[1]).resolve()  # docs/_build/html
    docs = out.parents[1]
    try:
        found = problems(docs, out, " ".join(sys.argv[2:]))
    except ConfigError as error:
        found = [str(error)]
    for problem in found:
        print(problem, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
