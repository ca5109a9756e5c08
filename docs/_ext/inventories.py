"""Intersphinx without a network: small inventories made from inventories.toml when the build starts."""

from __future__ import annotations

import tomllib
import zlib
from pathlib import Path

HEADER = """\
# Sphinx inventory version 2
# Project: {project}
# Version: none
# The remainder of this file is compressed using zlib.
"""


def mapping(docs: Path) -> dict[str, tuple[str, str]]:
    """`intersphinx_mapping`: for each project its address and the file that was made for it."""
    folder = docs / "_build" / "inventories"
    folder.mkdir(parents=True, exist_ok=True)
    projects = tomllib.loads((docs / "inventories.toml").read_text("utf-8"))
    result = {}
    for project, entry in projects.items():
        file = folder / f"{project}.inv"
        file.write_bytes(inventory(project, entry["pages"]))
        result[project] = (entry["url"], str(file))
    return result


def inventory(project: str, pages: list[dict[str, str | list[str]]]) -> bytes:
    """The file: a line `name role priority address title` for each name; `-` means the name itself."""
    lines = [
        f"{name} {page['role']} 1 {str(page['page']).format(name=name)} -\n" for page in pages for name in page["names"]
    ]
    return HEADER.format(project=project).encode() + zlib.compress("".join(lines).encode())
