"""The directive `recordings`: a table of the recordings that awqdoc ships, with provenance and data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import figures
import provenance
from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx import addnodes
from sphinx.application import Sphinx

COLUMNS = ("Experiment", "State", "Data", "GPU", "Recorded", "Rows", "Made with", "Skipped")


class Recordings(Directive):
    """One row for each recording."""

    def run(self) -> list[nodes.Node]:
        from awqdoc import recordings

        env = self.state.document.settings.env
        for file in sorted(recordings.FOLDER.rglob("*.json")):
            env.note_dependency(str(file))
        published = recordings.published()
        if not published:
            return [nodes.paragraph("", "There are no recordings yet.")]
        rows = [cells(recording, Path(env.srcdir)) for recording in published]
        return [nodes.container("", table(rows), classes=["awqdoc-scroll"])]


def cells(recording: Any, docs: Path) -> list[list[nodes.Node]]:
    """The contents of a row, one list of nodes for each of COLUMNS."""
    facts = recording.provenance
    state = provenance.badge("stale", "stale") if recording.stale else provenance.badge("recorded", "current")
    rows = str(len(recording.rows) - len(recording.skipped))
    software = f"commit {provenance.commit(facts)}, torch {facts['torch']}"
    if facts.get("driver"):
        software += f", driver {facts['driver']}"
    return [
        [nodes.literal("", recording.experiment)],
        [state],
        data(recording, docs),
        [nodes.Text(facts["gpu"])],
        [nodes.Text(facts["date"][:10])],
        [nodes.Text(rows)],
        [nodes.Text(software)],
        skipped(recording),
    ]


def skipped(recording: Any) -> list[nodes.Node]:
    """Each reason once, with the backends that it kept from running."""
    reasons: dict[str, list[str]] = {}
    for row in recording.skipped:
        backends = reasons.setdefault(str(row["skipped"]), [])
        name = str(row.get("backend", "a row"))
        if name not in backends:
            backends.append(name)
    lines = [f"{', '.join(backends)}: {reason}" for reason, backends in reasons.items()]
    return [nodes.Text("; ".join(lines) or "–")]


def data(recording: Any, docs: Path) -> list[nodes.Node]:
    links: list[nodes.Node] = []
    for file in figures.data_files(recording, docs):
        target = f"/{file.relative_to(docs).as_posix()}"
        text = nodes.literal("", file.suffix[1:].upper(), classes=["xref", "download"])
        links += [addnodes.download_reference("", "", text, reftarget=target), nodes.Text(" ")]
    return links


def table(rows: list[list[list[nodes.Node]]]) -> nodes.table:
    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in COLUMNS), cols=len(COLUMNS))
    group += nodes.thead("", row([[nodes.Text(name)] for name in COLUMNS]))
    group += nodes.tbody("", *map(row, rows))
    return nodes.table("", group, classes=["awqdoc-recordings"])


def row(contents: list[list[nodes.Node]]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", *content)) for content in contents))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("recordings", Recordings)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
