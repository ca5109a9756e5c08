"""The rows of a run in progress: shown as they come, kept on disk, so that an interruption loses no finished cell."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from awqdoc.errors import AwqdocError
from awqdoc.recordings import Row, slug, write_atomically

Cell = dict[str, Any]
# A journal is continued only by the same code on the same machine and software.
SAME = ("sources", "gpu", "driver", "torch", "triton", "autoawq", "commit", "dirty")


class Journal:
    """Collects the rows of each cell; with a folder, as JSON lines in ``<folder>/<gpu>/<experiment>.partial.jsonl``.

    The first line is the provenance, each other one a cell and its rows. A last line that was cut off is
    dropped.
    """

    def __init__(self, name: str, cells: list[Cell], provenance: dict[str, Any], folder: Path | None) -> None:
        self.name = name
        self.cells = cells
        self.provenance = provenance
        self.path = folder / slug(provenance["gpu"]) / f"{name}.partial.jsonl" if folder else None
        self.done: list[tuple[Cell, list[Row]]] = []
        self.started = time.monotonic()
        self.measured = 0

    def __enter__(self) -> Journal:
        if self.path is not None:
            self._resume(self.path)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is KeyboardInterrupt and self.path is not None:
            print(
                f"\nInterrupted: {len(self.done)} of {len(self.cells)} cells are kept; "
                "the same command goes on from there.",
                file=sys.stderr,
            )

    def _resume(self, path: Path) -> None:
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
            entries = [entry for entry in map(_entry, lines) if entry is not None]
            if entries and all(entries[0].get(key) == self.provenance.get(key) for key in SAME):
                self.provenance = entries[0]
                self.done = [(e["cell"], e["rows"]) for e in entries[1:] if e["cell"] in self.cells]
            entries = [self.provenance, *({"cell": cell, "rows": rows} for cell, rows in self.done)]
            write_atomically(path, "".join(json.dumps(entry) + "\n" for entry in entries))
        except OSError as error:
            raise AwqdocError(
                f"{path} cannot be written ({error.strerror}): choose a folder that you may write to."
            ) from None

    def remaining(self) -> Iterator[Cell]:
        """Yield the cells that are still to be measured, telling on stderr how far the run is."""
        finished = [cell for cell, _ in self.done]
        for number, cell in enumerate(self.cells, start=1):
            if cell in finished:
                continue
            self._progress(number, cell)
            yield cell

    def _progress(self, number: int, cell: Cell) -> None:
        left = len(self.cells) - number + 1
        # The first cells compile kernels; an estimate from them alone would be ten times too long.
        known = self.measured >= 3
        rest = left * (time.monotonic() - self.started) / self.measured if known else None
        text = " ".join(f"{axis}={value}" for axis, value in cell.items())
        time_left = "" if rest is None else f"  (about {rest:.0f} s left)"
        # sphinx-gallery would put it on the page instead of the terminal.
        stream = sys.__stderr__ if "sphinx_gallery" in sys.modules else sys.stderr
        print(f"{self.name} {number}/{len(self.cells)} {text}{time_left}".rstrip(), file=stream, flush=True)

    def add(self, cell: Cell, rows: list[Row]) -> None:
        """Keep the rows of a finished cell."""
        self.done.append((cell, rows))
        self.measured += 1
        if self.path is not None:
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"cell": cell, "rows": rows}) + "\n")
            except OSError as error:
                raise AwqdocError(
                    f"{self.path} cannot be written ({error.strerror}): make room and run it again."
                ) from None

    @property
    def rows(self) -> list[Row]:
        """All rows so far, in the order of the cells."""
        return [row for cell in self.cells for done, rows in self.done if done == cell for row in rows]

    def replace_by(self, result: Path) -> None:
        """Drop the journal: its rows now stand in `result`."""
        if self.path is not None and result.exists():
            self.path.unlink()


def _entry(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
