"""Under the title of each gallery page: what was measured or replayed for it, on which GPU and when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gallery_scripts
import ledger
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx


class Box(nodes.Admonition, nodes.Element):
    """The box. As an admonition it is left out of the description that search engines are given."""


NOT_EXECUTED = "This page was not executed in this build, so its output may be missing."


def add_box(app: Sphinx, doctree: nodes.document) -> None:
    docs, docname = Path(app.srcdir), app.env.current_document.docname
    by_docname = {gallery_scripts.docname(s): s for s in gallery_scripts.scripts(docs.parent / "gallery")}
    if docname in by_docname:
        script = by_docname[docname]
        app.env.note_dependency(str(ledger.path(docs, script)))
        insert_under_title(doctree, box(ledger.read(docs, script)))
    elif getattr(app.config, "nb_execution_mode", "") == "off" and has_cells(doctree):
        insert_under_title(doctree, [line("not-executed", "Not executed", [nodes.Text(NOT_EXECUTED)])])


def has_cells(doctree: nodes.document) -> bool:
    return any("cell" in node["classes"] for node in doctree.findall(nodes.container))


def insert_under_title(doctree: nodes.document, lines: list[nodes.Node]) -> None:
    title = next(iter(doctree.findall(nodes.title)))
    title.parent.insert(title.parent.index(title) + 1, Box("", *lines, classes=["awqdoc-provenance"]))


def box(entry: dict[str, Any] | None) -> list[nodes.Node]:
    if entry is None:
        return [line("not-executed", "Not executed", [nodes.Text(NOT_EXECUTED)])]
    here = [
        line("measured", "Measured here", [nodes.Text(without_kind(text))]) for text in entry.get("computed_here", [])
    ]
    lines = here + [recording_line(recording) for recording in distinct(entry["recordings"])]
    return lines or [line("computed", "Computed, not measured", [])]


def without_kind(label: str) -> str:
    """What stands behind the colon of a label: the badge before it says the kind."""
    return label.partition(": ")[2]


def distinct(recordings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A page may replay one recording many times; it is named once."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for recording in recordings:
        found.setdefault((recording["experiment"], recording["label"]), recording)
    return list(found.values())


def recording_line(recording: dict[str, Any]) -> nodes.Node:
    facts = recording["provenance"]
    text = f" on {facts['gpu']}, {facts['date'][:10]}, commit {commit(facts)}, torch {facts['torch']}"
    if facts.get("driver"):
        text += f", driver {facts['driver']}"
    command = nodes.literal("", f"awqdoc run {recording['experiment']}")
    content = [nodes.Text("by "), command, nodes.Text(text + " · "), link_to_recordings()]
    if recording["origin"] == "measured":
        return line("measured", "Measured here", content)
    if recording["stale"]:
        content.append(nodes.Text(" · stale: the code has changed since this was recorded"))
        return line("stale", "Stale recording", content)
    return line("recorded", "Recorded", content)


def commit(facts: dict[str, Any]) -> str:
    """The commit that was measured; "modified" if the working tree had changes on top of it."""
    return (facts.get("commit") or "unknown")[:7] + (" (modified)" if facts.get("dirty") else "")


def link_to_recordings() -> nodes.Node:
    text = nodes.inline("", "all recordings")
    return addnodes.pending_xref(
        "", text, refdomain="std", reftype="doc", reftarget="/recordings", refexplicit=True, refwarn=True
    )


def badge(kind: str, text: str) -> nodes.Node:
    return nodes.inline("", text, classes=["awqdoc-badge", f"awqdoc-{kind}"])


def line(kind: str, text: str, content: list[nodes.Node]) -> nodes.Node:
    return nodes.paragraph("", "", badge(kind, text), nodes.Text(" "), *content)


def visit(translator: Any, node: Box) -> None:
    translator.body.append(translator.starttag(node, "div"))


def depart(translator: Any, node: Box) -> None:
    translator.body.append("</div>\n")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_node(Box, html=(visit, depart))
    app.connect("doctree-read", add_box, priority=410)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
