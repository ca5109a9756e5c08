"""Recordings as figures and tables, in one style."""

from awqdoc.visualization.hierarchy import device_table, plot_hierarchy
from awqdoc.visualization.prediction import plot_prediction, predicted_seconds
from awqdoc.visualization.style import PALETTE, Display, describe, new_figure, to_svg
from awqdoc.visualization.sweep import layers_table, plot_latency, plot_speedup, speedups, summary
from awqdoc.visualization.tables import Table

__all__ = [
    "PALETTE",
    "Display",
    "Table",
    "describe",
    "device_table",
    "layers_table",
    "new_figure",
    "plot_hierarchy",
    "plot_latency",
    "plot_prediction",
    "plot_speedup",
    "predicted_seconds",
    "speedups",
    "summary",
    "to_svg",
]
