"""The layout explorer as a directive: a place for its JavaScript, and the data that it works on.

In MyST: ```` ```{layout-explorer} ```` with the options ``layout``, ``k``, ``n`` (where it starts) and ``linked`` (its
state stands in the page's address; for one explorer of a page). Without JavaScript a reader sees a table.
"""

from __future__ import annotations

from typing import Any, ClassVar

import widgets
from docutils import nodes
from docutils.parsers.rst import Directive, directives
from sphinx.application import Sphinx


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

        formats = explorer_data()
        start = {
            "layout": self.options.get("layout", "marlin"),
            "k": self.options.get("k", 3),
            "n": self.options.get("n", 21),
        }
        if start["layout"] not in [known["name"] for known in formats]:
            raise self.error(f"there is no layout {start['layout']!r}")
        columns = ("name", "row", "word", "nibble")
        table = widgets.table(columns, [[format[column] for column in columns] for format in formats])
        data = {"formats": formats, "start": start}
        return [widgets.place("layout-explorer", data, "linked" in self.options, table)]


def setup(app: Sphinx) -> dict[str, bool]:
    app.setup_extension("widgets")
    app.add_directive("layout-explorer", LayoutExplorer)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
