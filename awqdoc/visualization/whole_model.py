"""A quantized model beside its original: how far it has moved after each block, its size, what it writes."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from textwrap import wrap
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from awqdoc.models import QuantizedLinear, stored_bytes
from awqdoc.visualization.style import Here, colour, describe, legend, new_figure, styled
from awqdoc.visualization.tables import Table

# As on the page on accuracy: plain rounding first, then AWQ.
LOOKS = (("muted", "o"), ("blue", "s"), ("orange", "D"), ("green", "^"))


@styled
def plot_block_errors(errors: Mapping[str, Sequence[float]], source: Here) -> Figure:
    """Draw the relative change of the hidden state after each block, a line for each way to quantize.

    Parameters
    ----------
    errors : dict
        Name -> for each block, from the first, the mean over tokens of ||h' - h|| / ||h||.
    """
    figure, axes = new_figure("Change of the hidden state, block after block")
    for (name, values), (hue, marker) in zip(errors.items(), LOOKS, strict=False):
        axes.plot(range(len(values)), values, marker=marker, color=colour(hue), label=name)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("after block")
    axes.set_ylabel("relative change of the hidden state")
    legend(axes)
    parts = "; ".join(
        f"{name}: {values[0]:.1%} after the first block, {values[-1]:.1%} after the last"
        for name, values in errors.items()
    )
    blocks = range(len(next(iter(errors.values()))))
    rows = [{"block": i, **{name: values[i] for name, values in errors.items()}} for i in blocks]
    alt = f"Mean relative change of the hidden state over {len(rows)} blocks. {parts}."
    return describe(figure, alt, source.holding("block-errors", rows))


def text_columns(texts: Mapping[str, str], width: int = 42) -> str:
    """Set texts beside each other in columns of `width` characters, below their names.

    Lines that are too long go on in the next one, as far indented.
    """
    columns = [[name, "-" * len(name), *_broken(text, width)] for name, text in texts.items()]
    lines = zip_longest(*columns, fillvalue="")
    return "\n".join(" | ".join(cell.ljust(width) for cell in line).rstrip() for line in lines)


def _broken(text: str, width: int) -> list[str]:
    lines = []
    for line in text.splitlines():
        words = line.lstrip()
        indent = line[: len(line) - len(words)][: width // 2]
        lines += wrap(words, width, initial_indent=indent, subsequent_indent=indent) or [""]
    return lines


def parts_table(original: Any, quantized: Any, source: Here) -> Table:
    """Tabulate the bytes of a model and of its quantized copy: the layers that are quantized, and all else.

    Both are counted with FP16 for everything that is not INT4, whatever they compute in here.
    """
    layers = [name for name, module in quantized.named_modules() if isinstance(module, QuantizedLinear)]
    halves = [copy.deepcopy(model).half() for model in (original, quantized)]
    whole = [stored_bytes(half) for half in halves]
    inner = [sum(stored_bytes(half.get_submodule(name)) for name in layers) for half in halves]
    parts = {"INT4 layers": inner, "all else": [a - b for a, b in zip(whole, inner, strict=True)], "model": whole}
    rows = [[name, f"{a / 1e6:.2f}", f"{b / 1e6:.2f}", f"{a / b:.2f}"] for name, (a, b) in parts.items()]
    return Table(["", "FP16, MB", "INT4, MB", "times smaller"], rows, source, "Memory")
