"""A table that reads well as HTML and in a terminal, and says where its numbers come from."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any

from awqdoc.recordings import Recording
from awqdoc.visualization.style import Here, label


class Table:
    """Rows of cells under column titles, with a title and the label of their source.

    Parameters
    ----------
    columns : sequence of str
        Titles.
    rows : sequence of sequence
        Cells, already formatted where the format matters.
    source : Recording, awqdoc.visualization.Here or None
        Where the numbers come from; None if they are modelled.
    title : str
        What the table shows.
    """

    def __init__(
        self, columns: Sequence[str], rows: Sequence[Sequence[Any]], source: Recording | Here | None, title: str = ""
    ) -> None:
        self.columns = [str(column) for column in columns]
        self.rows = [["" if cell is None else str(cell) for cell in row] for row in rows]
        self.caption = f"{title}; {label(source)}" if title else label(source)

    def __repr__(self) -> str:
        lines = [self.columns, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        text = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        ]
        return "\n".join([self.caption, text[0], "  ".join("-" * width for width in widths), *text[1:]])

    def _repr_html_(self) -> str:
        # Numbers are read down their column, so they end at the same place; text begins at one.
        classes = [
            ' class="number"' if all(_is_number(row[column]) for row in self.rows) else ""
            for column in range(len(self.columns))
        ]

        def line(cells: Sequence[str], tag: str) -> str:
            inner = (f"<{tag}{kind}>{html.escape(cell)}</{tag}>" for cell, kind in zip(cells, classes, strict=True))
            return f"<tr>{''.join(inner)}</tr>"

        body = "".join(line(row, "td") for row in self.rows)
        caption = html.escape(self.caption)
        return (
            '<div role="figure" class="awqdoc-table-box"><div class="awqdoc-table-wrap">'
            f'<table class="awqdoc-table table" aria-label="{html.escape(self.caption, quote=True)}">'
            f"<thead>{line(self.columns, 'th')}</thead><tbody>{body}</tbody></table></div>"
            # Outside of what scrolls on a phone: a label that is cut off is none.
            f'<p class="awqdoc-label">{caption}</p></div>'
        )


def _is_number(cell: str) -> bool:
    return cell == "" or re.fullmatch(r"[-+]?[\d.,]+(e[-+]?\d+)?( ?[kMGT%]i?B?)?", cell) is not None
