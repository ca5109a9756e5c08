"""The list of the files that ship with the package, with the size and SHA-256 of each."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from awqdoc.errors import AwqdocError
from awqdoc.recordings import write_atomically

NAME = "manifest.json"


def describe(folder: Path) -> dict[str, dict[str, Any]]:
    """Return file name -> ``{"bytes": int, "sha256": str}`` for every file of a folder but the manifest, by name."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != NAME)
    return {path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in files}


def write(folder: Path) -> None:
    """Write the manifest of a folder into it."""
    write_atomically(folder / NAME, json.dumps(describe(folder), indent=1) + "\n")


def verify(folder: Path) -> None:
    """Refuse a folder whose files are not those of its manifest.

    Raises
    ------
    AwqdocError
        If the manifest cannot be read, or a file is missing, changed or not listed.
    """
    try:
        listed = json.loads((folder / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AwqdocError(f"{folder / NAME} cannot be read ({error}): install awqdoc again.") from None
    if not isinstance(listed, dict):
        raise AwqdocError(f"{folder / NAME} is not a list of files: install awqdoc again.")
    found = describe(folder)
    for name in sorted({*listed, *found}):
        if name not in found:
            raise AwqdocError(f"{folder / name} is listed in {NAME} but missing: install awqdoc again.")
        if found[name] != listed.get(name):
            raise AwqdocError(
                f"{folder / name} is not the file that {NAME} lists (its SHA-256 is {found[name]['sha256'][:12]}…): "
                "install awqdoc again."
            )


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
