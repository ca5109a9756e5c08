"""Recordings as figures and tables, in one style."""

from awqdoc.visualization.hierarchy import plot_hierarchy
from awqdoc.visualization.style import PALETTE, Display, describe, new_figure, to_svg
from awqdoc.visualization.sweep import plot_latency, plot_speedup, summary
from awqdoc.visualization.tables import Table

__all__ = [
    "PALETTE",
    "Display",
    "Table",
    "describe",
    "new_figure",
    "plot_hierarchy",
    "plot_latency",
    "plot_speedup",
    "summary",
    "to_svg",
]
