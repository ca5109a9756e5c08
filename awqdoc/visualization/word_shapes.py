"""Which codes of a weight share a word, and which way a row of words goes, format beside format."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from awqdoc.packing import Layout
from awqdoc.visualization.style import colour, describe, new_figure, styled

_HUES = ("blue", "orange", "green", "purple")


def words_held(layout: Layout, words: int) -> list[list[tuple[int, int]]]:
    """Return the index (k, n) of every code in the first words of a format's first row, lowest nibble first."""
    order = layout.weight
    found = []
    for word in range(words):
        held = [order.at(0, word, nibble) for nibble in range(order.nibbles)]
        found.append([(index["k"], index["n"]) for index in held])
    return found


@styled
def plot_word_shapes(layouts: Mapping[str, Layout], title: str, size: int = 32) -> Figure:
    """Draw the upper left of a weight once for each format, with the first four words of its first row filled.

    Parameters
    ----------
    layouts : dict
        Name -> format; two stand beside each other.
    size : int
        Rows k and columns n that are drawn.
    """
    rows = -(-len(layouts) // 2)
    figure, axes = new_figure(title, height=0.7 + 2.6 * rows)
    axes.remove()
    told = []
    for number, (name, layout) in enumerate(layouts.items()):
        panel = figure.add_subplot(rows, 2, number + 1)
        held = words_held(layout, len(_HUES))
        for word, indices in enumerate(held):
            for k, n in indices:
                if k < size and n < size:
                    panel.add_patch(Rectangle((n, k), 1, 1, facecolor=colour(_HUES[word]), linewidth=0))
        panel.set_xlim(0, size)
        panel.set_ylim(size, 0)
        panel.set_aspect("equal")
        ticks = range(0, size + 1, 8)
        panel.set_xticks(ticks)
        panel.set_yticks(ticks)
        panel.tick_params(length=0, labelsize=8, top=True, labeltop=True, bottom=False, labelbottom=False)
        panel.set_title(name, fontsize=9.5)
        panel.set_xlabel("n", fontsize=8.5)
        panel.xaxis.set_label_position("top")
        panel.set_ylabel("k", fontsize=8.5)
        if number == 0:  # most of the panel is empty
            handles = [Rectangle((0, 0), 1, 1, facecolor=colour(hue)) for hue in _HUES]
            labels = [f"word {word}" for word in range(len(_HUES))]
            panel.legend(handles, labels, loc="lower right", fontsize=8.5, handlelength=1.2)
        shown = "; ".join(
            f"word {word} " + " ".join(f"({k}, {n})" for k, n in indices) for word, indices in enumerate(held)
        )
        told.append(f"{name}: {shown}")
    return describe(figure, f"Index (k, n) of the codes in the first four words of row 0. {' '.join(told)}.", None)
