"""The layout explorer as a directive: a place for its JavaScript, and the data that it works on.

In MyST: ```` ```{layout-explorer} ```` with the options ``layout``, ``k``, ``n`` (where it starts) and ``linked`` (its
state stands in the page's address; for one explorer of a page). Without JavaScript a reader sees a table.
"""

from __future__ import annotations

import html
import json
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import Directive, directives
from sphinx.application import Sphinx

SCRIPTS = ("awqdoc-widgets.js", "layout-explorer.js")


class explorer(nodes.raw):
    """Raw HTML that needs the scripts on its page."""


class LayoutExplorer(Directive):
    """Put an explorer here."""

    option_spec: ClassVar[Any] = {
        "layout": directives.unchanged,
        "k": directives.nonnegative_int,
        "n": directives.nonnegative_int,
        "linked": directives.flag,
    }

    def run(self) -> list[nodes.Node]:
        from awqdoc.packing import explorer_data

        start = {
            "layout": self.options.get("layout", "marlin"),
            "k": self.options.get("k", 3),
            "n": self.options.get("n", 21),
        }
        data = {"formats": explorer_data(), "start": start}
        if start["layout"] not in [known["name"] for known in data["formats"]]:
            raise self.error(f"there is no layout {start['layout']!r}")
        return [explorer("", page(data, "linked" in self.options), format="html")]


def page(data: dict[str, Any], linked: bool) -> str:
    # A script element ends at the first "</", wherever that stands.
    text = json.dumps(data).replace("</", "<\\/")
    return (
        f'<div class="awqdoc-widget" data-awqdoc-widget="layout-explorer" data-linked="{"yes" if linked else "no"}">'
        f'<script type="application/json">{text}</script>'
        f'<div class="awqdoc-widget-off">{table(data["formats"])}</div></div>'
    )


def table(formats: list[dict[str, Any]]) -> str:
    """What the explorer knows, for readers without JavaScript."""
    columns = ("name", "row", "word", "nibble")
    head = "".join(f"<th>{column}</th>" for column in columns)
    rows = ("".join(f"<td>{html.escape(format[column])}</td>" for column in columns) for format in formats)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return (
        '<div class="awqdoc-table-wrap"><table class="awqdoc-table table">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def add_scripts(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    if doctree is not None and any(True for _ in doctree.findall(explorer)):
        for script in SCRIPTS:
            app.add_js_file(script)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_node(explorer, html=(lambda self, node: self.visit_raw(node), None))
    app.add_directive("layout-explorer", LayoutExplorer)
    app.connect("html-page-context", add_scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
