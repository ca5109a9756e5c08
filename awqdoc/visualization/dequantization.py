"""Forms of dequantization side by side: how often their results differ, and by how much of a step they err."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MultipleLocator, NullFormatter

from awqdoc.visualization.style import Here, colour, describe, new_figure, styled
from awqdoc.visualization.tables import Table

Row = dict[str, Any]
ROUNDING = 12**-0.5
"""Root mean square, in steps, of errors that spread evenly over plus and minus half a step, as rounding makes them."""
_LOOKS = (("blue", "o"), ("orange", "s"))


@styled
def plot_forms(rows: list[Row], source: Here) -> Figure:
    """Draw how many results of each form differ from those of the first, and how far they are from the truth.

    Parameters
    ----------
    rows : list of dict
        One for each ``form`` and ``dtype``, forms in the order of the drawing: ``differs`` and ``differs_at_zero``,
        shares of all results and of those with q = z, and ``error``, root mean square in steps.
    source : Here
        Where they were computed.
    """
    forms = list(dict.fromkeys(row["form"] for row in rows))
    dtypes = list(dict.fromkeys(row["dtype"] for row in rows))
    figure, whole = new_figure("Which forms give other numbers, and how wrong they are", height=1.5 + 0.5 * len(forms))
    whole.remove()
    strip, left, right = figure.subplot_mosaic(
        [["strip", "strip"], ["left", "right"]], width_ratios=[1.2, 1], height_ratios=[0.16, len(forms)]
    ).values()
    for row in rows:
        number = dtypes.index(row["dtype"])
        hue, marker = _LOOKS[number]
        height = forms.index(row["form"]) + 0.3 * (number - (len(dtypes) - 1) / 2)
        look: Row = {"color": colour(hue), "marker": marker, "linestyle": "none"}
        left.plot([0, 100 * row["differs"]], [height, height], color=colour(hue), linewidth=1.2)
        left.plot([100 * row["differs"]], [height], **look)
        left.plot([100 * row["differs_at_zero"]], [height], **look, markerfacecolor="none", markersize=8)
        right.plot([row["error"]], [height], **look)
    right.axvline(ROUNDING, color=colour("muted"), linestyle="--", linewidth=1.2)
    left.set_yticks(range(len(forms)), forms, fontsize=8.5)
    right.set_yticks(range(len(forms)), [""] * len(forms))
    left.set_xlim(-4, 104)
    left.xaxis.set_major_locator(MultipleLocator(25))
    right.set_xscale("log")
    right.set_xlim(5e-4, 1)
    right.set_xticks([0.001, 0.01, 0.1, 1], ["0.001", "0.01", "0.1", "1"])
    for axes in (left, right):
        axes.set_ylim(len(forms) - 0.45, -0.55)
        axes.tick_params(axis="x", labelsize=9)
    right.xaxis.set_minor_formatter(NullFormatter())
    left.set_xlabel("% of results that differ", fontsize=9)
    right.set_xlabel("error in steps (log)", fontsize=9)
    marks: list[Any] = [
        Line2D([], [], color=colour(hue), marker=marker, linestyle="none", label=dtype)
        for (hue, marker), dtype in zip(_LOOKS, dtypes, strict=False)
    ]
    marks.append(
        Line2D([], [], color=colour("muted"), marker="o", markersize=8, markerfacecolor="none", linestyle="none",
               label="where q = z")
    )  # fmt: skip
    marks.append(Line2D([], [], color=colour("muted"), linestyle="--", label="rounding to INT4"))
    strip.axis("off")
    strip.legend(handles=marks, loc="center", ncols=4, fontsize=8.5, columnspacing=0.7, handlelength=1.5)
    told = "; ".join(
        f"{row['form']} in {row['dtype']}: {row['differs']:.1%} differ, {row['differs_at_zero']:.1%} where q = z, "
        f"error {row['error']:.2g} steps"
        for row in rows
    )
    alt = f"Results that differ from the first form's, and errors; rounding to INT4 errs {ROUNDING:.2g} steps. {told}."
    return describe(figure, alt, source.holding("dequantization-forms", rows))


def forms_table(rows: list[Row], source: Here) -> Table:
    """Tabulate the rows of `plot_forms`."""
    cells = [
        [row["form"], row["dtype"], f"{row['differs']:.1%}", f"{row['differs_at_zero']:.1%}", f"{row['error']:.4f}",
         f"{row['largest']:.4f}"]
        for row in rows
    ]  # fmt: skip
    columns = ["form", "in", "differ", "differ where q = z", "error, steps (RMS)", "largest"]
    return Table(columns, cells, source, "Dequantized numbers against those of (q - z) s")
