"""What the directives of interactive figures share: a place for JavaScript, its data, what is there without it."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

SHARED = "awqdoc-widgets.js"


class widget(nodes.raw):
    """Raw HTML that needs the script ``<name>.js`` on its page."""


def place(name: str, data: dict[str, Any], linked: bool, table: str) -> widget:
    """Return the place of a widget; `table` is what readers without JavaScript see."""
    # A script element ends at the first "</", wherever that stands.
    text = json.dumps(data).replace("</", "<\\/")
    markup = (
        f'<div class="awqdoc-widget" data-awqdoc-widget="{name}" data-linked="{"yes" if linked else "no"}">'
        f'<script type="application/json">{text}</script><div class="awqdoc-widget-off">{table}</div></div>'
    )
    return widget("", markup, format="html", script=f"{name}.js")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    lines = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return (
        '<div class="awqdoc-table-wrap"><table class="awqdoc-table table">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def add_scripts(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    scripts = [node["script"] for node in doctree.findall(widget)] if doctree is not None else []
    for script in dict.fromkeys([SHARED, *scripts] if scripts else []):
        app.add_js_file(script)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_node(widget, html=(lambda self, node: self.visit_raw(node), None))
    app.connect("html-page-context", add_scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
