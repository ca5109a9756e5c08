"""Recordings: the rows that an experiment measured, where they came from, and whether the code still fits them.

A recording is one JSON file, ``<folder>/<gpu>/<experiment>.json``, with a digest over everything else in it.
The ones that ship with the package stand beside this file.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import math
import os
import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from awqdoc.errors import AwqdocError
from awqdoc.recordings.sources import source_hash

SCHEMA = 1
FOLDER = Path(__file__).parent

Row = dict[str, Any]
Parameters = dict[str, list[Any]]


@dataclass(frozen=True)
class Recording:
    """The result of one experiment on one machine.

    Attributes
    ----------
    experiment : str
        Its name.
    parameters : dict
        Axis -> values: each row belongs to one value of each axis.
    provenance : dict
        Machine, software, commit, date and the hash of the sources that made it.
    rows : list of dict
        Each with the values of its axes and what was measured, every sample kept; a backend that was left out
        has a row with the reason under ``skipped``.
    origin : str
        ``"measured"`` by this process or build, or ``"recorded"`` earlier.
    """

    experiment: str
    parameters: Parameters
    provenance: dict[str, Any]
    rows: list[Row]
    origin: str = "recorded"

    @cached_property
    def stale(self) -> bool:
        """Whether the code that this experiment depends on has changed since it ran."""
        return self.provenance["sources"] != source_hash(self.experiment)

    @property
    def label(self) -> str:
        """Whether this was measured here or recorded, on what, when and at which commit, as one line."""
        day = self.provenance["date"][:10]
        if self.origin == "measured":
            facts = (self.provenance["gpu"], day, self.provenance["clock"])
            return "measured here: " + ", ".join(fact for fact in facts if fact)
        commit = self.provenance["commit"] or "unknown"
        text = f"recorded on {self.provenance['gpu']}, {day}, commit {commit[:7]}"
        return text + ("; stale: the code has changed since" if self.stale else "")

    @property
    def filename(self) -> str:
        """A file stem that names GPU and experiment."""
        return f"{slug(self.provenance['gpu'])}-{self.experiment}"

    @property
    def skipped(self) -> list[Row]:
        """The rows that hold a reason instead of a measurement."""
        return [row for row in self.rows if "skipped" in row]

    def covers(self, parameters: Parameters) -> bool:
        """Whether every value asked for is among those of this recording."""
        return all(set(values) <= set(self.parameters.get(axis, [])) for axis, values in parameters.items())

    def select(self, **parameters: list[Any]) -> Recording:
        """Return the part of this recording that belongs to the given values of its axes."""
        rows = [row for row in self.rows if all(row[axis] in values for axis, values in parameters.items())]
        return replace(self, parameters={**self.parameters, **parameters}, rows=rows)

    def to_json(self) -> str:
        """Return the recording as text, one row to a line so that a difference can be read."""
        head = {"schema": SCHEMA, **_content(self)}
        rows = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in head.pop("rows"))
        lines = [f" {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in head.items()]
        return "{\n" + ",\n".join([*lines, f' "digest": "{digest(self)}"', f' "rows": [\n{rows}\n ]']) + "\n}\n"

    def to_csv(self) -> str:
        """Return the rows as CSV; lists, such as samples, become space-separated values."""
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        for row in self.rows:
            cells = {key: " ".join(map(str, cell)) if isinstance(cell, list) else cell for key, cell in row.items()}
            writer.writerow(cells)
        return text.getvalue()


def _content(recording: Recording) -> dict[str, Any]:
    return {
        "experiment": recording.experiment,
        "parameters": recording.parameters,
        "provenance": recording.provenance,
        "rows": [{key: _json_value(value) for key, value in row.items()} for row in recording.rows],
    }


def _json_value(value: Any) -> Any:
    """JSON knows neither nan nor inf; a browser refuses a file that holds one."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def digest(recording: Recording) -> str:
    """Return a hash of everything that was recorded; a file edited by hand no longer fits it."""
    canonical = json.dumps(_content(recording), sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


def slug(name: str) -> str:
    """``NVIDIA H200`` -> ``nvidia-h200``, as folders and files are named."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that an interruption leaves either the old one or the new one, never a half.

    Raises
    ------
    AwqdocError
        If the folder cannot be written to.
    """
    half = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        half.write_text(text, encoding="utf-8")
        half.replace(path)
    except OSError as error:
        raise AwqdocError(
            f"{path} cannot be written ({error.strerror}): choose a folder that you may write to."
        ) from None
    finally:  # after an interruption too
        with contextlib.suppress(OSError):
            half.unlink()


def save(recording: Recording, folder: Path) -> Path:
    """Write a recording below `folder` and return its path."""
    path = folder / slug(recording.provenance["gpu"]) / f"{recording.experiment}.json"
    write_atomically(path, recording.to_json())
    return path


def load(path: Path) -> Recording:
    """Read a recording and refuse it unless it is whole, of a known schema and untouched.

    Raises
    ------
    AwqdocError
        With what is wrong with the file and what to do.
    """
    again = "measure again with `awqdoc record`, or restore it with git"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AwqdocError(f"The recording {path} cannot be read ({error.strerror}): {again}.") from None
    except (ValueError, RecursionError):
        raise AwqdocError(f"The recording {path} is not whole JSON (truncated?): {again}.") from None
    schema = content.get("schema") if isinstance(content, dict) else None
    if not isinstance(schema, int):
        raise AwqdocError(f"{path} is not a recording (it has no schema number): {again}.")
    if schema > SCHEMA:
        raise AwqdocError(
            f"The recording {path} has schema {schema}; this awqdoc reads up to {SCHEMA}: install a newer awqdoc."
        )
    try:
        recording = Recording(**{key: content[key] for key in ("experiment", "parameters", "provenance", "rows")})
        fits = content["digest"] == digest(recording)
    except KeyError as error:
        raise AwqdocError(f"The recording {path} lacks {error}: {again}.") from None
    except (AttributeError, TypeError):  # rows that are no list, or a row that is no object
        fits = False
    if not fits:
        raise AwqdocError(f"The recording {path} was changed after it was made (its digest does not fit): {again}.")
    return recording


def published(folder: Path = FOLDER) -> list[Recording]:
    """Return all recordings below `folder`, those that ship by default, newest first."""
    found = [load(path) for path in sorted(folder.glob("*/*.json"))]
    return sorted(found, key=lambda recording: recording.provenance["date"], reverse=True)


def find(experiment: str, folder: Path = FOLDER) -> list[Recording]:
    """Return the recordings of one experiment, newest first."""
    paths = sorted(folder.glob(f"*/{experiment}.json"))
    found = [load(path) for path in paths]
    for path, recording in zip(paths, found, strict=True):
        if recording.experiment != experiment:
            raise AwqdocError(
                f"{path} holds a recording of {recording.experiment}: rename it to {recording.experiment}.json."
            )
    return sorted(found, key=lambda recording: recording.provenance["date"], reverse=True)
