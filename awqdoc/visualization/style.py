"""How every figure looks: one palette, a light and a dark variant of the same drawing, a label."""

from __future__ import annotations

import base64
import csv
import functools
import html
import io
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, ParamSpec

import matplotlib as mpl
from cycler import cycler
from matplotlib import pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from awqdoc import gpu
from awqdoc.recordings import Recording

P = ParamSpec("P")

# Name -> colour on a light and on a dark page. The hues are Okabe and Ito's, which stay apart for
# colour-blind readers; each has 3 : 1 contrast or more against its page. No two light values are equal: dark
# is made by replacing them.
PALETTE = {
    "ink": ("#1f2328", "#e6edf3"),
    "muted": ("#656d76", "#9198a1"),
    "grid": ("#d8dee4", "#3d444d"),
    "blue": ("#0072b2", "#58b4e8"),
    "orange": ("#c65200", "#f08c4a"),
    "green": ("#00805c", "#3ec49a"),
    "purple": ("#a8487f", "#de93bf"),
    "ochre": ("#8a6a00", "#d9b62f"),
}

_STYLE: Any = {
    "axes.edgecolor": PALETTE["muted"][0],
    "axes.grid": True,
    "axes.labelcolor": PALETTE["ink"][0],
    "axes.prop_cycle": cycler(color=[PALETTE[name][0] for name in ("blue", "orange", "green", "purple", "ochre")]),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.axisbelow": True,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "grid.color": PALETTE["grid"][0],
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.labelcolor": PALETTE["ink"][0],
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "savefig.facecolor": "none",
    "text.color": PALETTE["ink"][0],
    "xtick.color": PALETTE["muted"][0],
    "xtick.labelcolor": PALETTE["ink"][0],
    "ytick.color": PALETTE["muted"][0],
    "ytick.labelcolor": PALETTE["ink"][0],
}

# 480 CSS pixels: half of a desktop column, and on a phone still 9-pixel letters.
WIDTH = 5.0


def colour(name: str) -> str:
    """Return a palette colour as figures must use it."""
    return PALETTE[name][0]


def styled(plot: Callable[P, Figure]) -> Callable[P, Figure]:
    """Give everything that a plotting function draws the common style, whatever style its caller has set."""

    @functools.wraps(plot)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        # A notebook's backend settles in with the first figure, and leaving the context would undo that.
        if not plt.get_fignums():
            plt.switch_backend(plt.get_backend())
        kept: Any = {name: mpl.rcParams[name] for name in ("backend", "interactive")}
        with mpl.rc_context({**mpl.rcParamsDefault, **kept, **_STYLE}):
            return plot(*args, **kwargs)

    return wrapper


def new_figure(title: str, height: float = 3.8) -> tuple[Figure, Axes]:
    """Return a figure of the common width with one pair of axes below a title; `height` is in inches."""
    figure, axes = plt.subplots(figsize=(WIDTH, height))
    figure.suptitle(textwrap.fill(title, 62), x=0.02, ha="left", fontsize=11)
    return figure, axes


def legend(axes: Axes, columns: int = 2) -> None:
    """Put the legend between title and axes, where it covers no data on any screen."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 1),
        fontsize=8.5,
        ncols=columns,
        columnspacing=0.9,
        handlelength=1.5,
    )


def log_axis(axis: Axis) -> None:
    """Give a logarithmic axis the ticks 1, 2 and 5 of each decade, in plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


@dataclass(frozen=True)
class Here:
    """Where numbers come from that a page computes itself each time it runs, and of which no recording is kept.

    Attributes
    ----------
    machine : str
        The GPU or the processor.
    date : str
        The day, as 2026-11-24.
    work : str
        What was done here, as the label says it.
    name : str
        File stem of the data behind a figure.
    rows : tuple of dict
        The data behind a figure: one dict for each line of its CSV file.
    """

    machine: str
    date: str
    work: str = "computed by this page"
    name: str = ""
    rows: tuple[dict[str, Any], ...] = ()

    @classmethod
    def now(cls, device: str = "cpu", work: str = "computed by this page") -> Here:
        """Return the source of what is computed today on ``"cpu"`` or ``"cuda"``."""
        machine = (gpu.suitable() if device != "cpu" else None) or gpu.cpu_name()
        return cls(machine, datetime.now(UTC).date().isoformat(), work)

    def holding(self, name: str, rows: list[dict[str, Any]]) -> Here:
        """Return the same source with the data behind one figure."""
        return replace(self, name=name, rows=tuple(rows))

    @property
    def label(self) -> str:
        """What was computed here, on what and when, as one line."""
        return f"measured here: {self.work} on {self.machine}, {self.date}"

    def to_csv(self) -> str:
        """Return the rows as CSV."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()


def describe(figure: Figure, alt: str, source: Recording | Here | None) -> Figure:
    """Say what a figure shows, for readers who cannot see it, and where its numbers come from.

    Parameters
    ----------
    alt : str
        What a sighted reader would take from it, in a sentence or two.
    source : Recording, awqdoc.visualization.Here or None
        The recording that it was drawn from; `Here` if the page computed it; None if everything in it is modelled. Its
        label is written below the drawing, so that a copied picture keeps it.
    """
    figure.awqdoc_alt = alt  # type: ignore[attr-defined]
    figure.awqdoc_source = source  # type: ignore[attr-defined]
    figure.supxlabel(textwrap.fill(label(source), 84), fontsize=7.5, color=colour("muted"), x=0.99, ha="right")
    return figure


def label(source: Recording | Here | None) -> str:
    """Return the kind of a figure's or table's numbers as one line."""
    return "modelled: computed from formulas or data sheets, not measured" if source is None else source.label


def data_files(source: Recording | Here | None) -> dict[str, str]:
    """Return the data behind a figure or table as files, name -> text; none if it is modelled."""
    if isinstance(source, Recording):
        return {f"{source.filename}.json": source.to_json(), f"{source.filename}.csv": source.to_csv()}
    return {f"{source.name}.csv": source.to_csv()} if source and source.rows else {}


def to_svg(figure: Figure, theme: str) -> str:
    """Return a figure as SVG for a ``"light"`` or a ``"dark"`` page, with a transparent background.

    Its label is left out: on a page the caption has it, in letters that a phone can show.
    """
    text = io.StringIO()
    footer = getattr(figure, "_supxlabel", None) if hasattr(figure, "awqdoc_source") else None
    # How many ticks fit is decided only when drawing, by the size that letters have then.
    style: Any = {"font.size": _STYLE["font.size"], "svg.fonttype": "path", "svg.hashsalt": "awqdoc"}
    with mpl.rc_context(style), _hidden(footer):
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    if theme == "dark":
        for light, dark in PALETTE.values():
            svg = svg.replace(light, dark)
    return svg


@contextmanager
def _hidden(artist: Artist | None) -> Iterator[None]:
    """Leave an artist out of the drawing and of its layout for a while."""
    if artist is not None:
        artist.set_visible(False)
    yield
    if artist is not None:
        artist.set_visible(True)


class Display:
    """A figure for a notebook: both variants as HTML, of which the page's theme shows one, its label and data."""

    def __init__(self, figure: Figure) -> None:
        self.figure = figure
        plt.close(figure)

    def _repr_html_(self) -> str:
        alt = html.escape(getattr(self.figure, "awqdoc_alt", ""), quote=True)
        source = getattr(self.figure, "awqdoc_source", None)
        images = [
            f'<img class="only-{theme} awqdoc-figure" alt="{alt}" src="{_data_uri(image, "image/svg+xml")}"{hidden}>'
            for theme, hidden in (("light", ""), ("dark", ' style="display: none"'))
            for image in [to_svg(self.figure, theme)]
        ]
        links = _data_links(source)
        caption = html.escape(label(source)) + (f" · data: {links}" if links else "")
        return (
            # No <figcaption>: the theme hides one that follows the dark variant on a light page.
            f'<div role="figure" class="awqdoc-figure-box">{"".join(images)}<p class="awqdoc-label">{caption}</p></div>'
        )


def _data_links(source: Recording | Here | None) -> str:
    kinds = {"json": "application/json", "csv": "text/csv"}
    return ", ".join(
        f'<a download="{name}" href="{_data_uri(text, kinds[suffix])}">{suffix.upper()}</a>'
        for name, text in data_files(source).items()
        for suffix in [name.rpartition(".")[2]]
    )


def _data_uri(text: str, kind: str) -> str:
    return f"data:{kind};base64," + base64.b64encode(text.encode()).decode()


def si(value: float, unit: str, digits: int = 3, binary: bool = False) -> str:
    """Write a quantity with a prefix: ``si(4.9e12, "B/s")`` is ``4.90 TB/s``; `binary` counts in 1024s: KiB, MiB."""
    base, mark = (1024, "i") if binary else (1000, "")
    for prefix in ("", "K" if binary else "k", "M", "G", "T"):
        if abs(value) < 999.5 * (base / 1000) or prefix == "T":
            break
        value /= base
    rounded = float(f"{value:.{digits}g}")  # first, for 9.999 has two digits before the point
    text = f"{value:.{max(0, digits - len(str(int(abs(rounded)))))}f}" if value != int(value) else f"{value:.0f}"
    return f"{text} {prefix}{mark if prefix else ''}{unit}".rstrip()
