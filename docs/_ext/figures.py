"""Figures of gallery pages: a light and a dark SVG, alternative text, their label, the data behind them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from textwrap import indent
from typing import Any

import ledger
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

FIGURE = """
.. container:: awqdoc-figure-box

   .. image:: {light}
      :alt: {alt}
      :class: only-light awqdoc-figure

   .. image:: {dark}
      :alt: {alt}
      :class: only-dark awqdoc-figure

   .. rst-class:: awqdoc-label

   {label}
"""


def light_dark(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Image scraper: save every open figure in both variants, return the reStructuredText that shows it."""
    import matplotlib.pyplot as plt

    docs = Path(gallery_conf["src_dir"])
    try:
        figures = [plt.figure(number) for number in plt.get_fignums()]
        paths = [Path(path) for _, path in zip(figures, block_vars["image_path_iterator"], strict=False)]
        shown = [save(*pair, docs, block_vars["src_file"]) for pair in zip(figures, paths, strict=True)]
    finally:
        plt.close("all")
    return "".join(shown)


def save(figure: Any, path: Path, docs: Path, script: str) -> str:
    from awqdoc import visualization

    alt = " ".join(getattr(figure, "awqdoc_alt", "").split())
    if not alt:
        raise ExtensionError(
            f"{Path(script).name} shows a figure without alternative text: give it one with "
            "awqdoc.visualization.describe"
        )
    if isinstance(figure.awqdoc_source, visualization.Here):
        ledger.computed_here.append(figure.awqdoc_source.label)
    light, dark = path.with_suffix(".svg"), path.with_suffix(".dark.svg")
    light.write_text(visualization.to_svg(figure, "light"), "utf-8")
    dark.write_text(visualization.to_svg(figure, "dark"), "utf-8")
    return FIGURE.format(
        light=f"/{light.relative_to(docs).as_posix()}",
        dark=f"/{dark.relative_to(docs).as_posix()}",
        alt=alt.replace("\\", "\\\\"),
        label=indent(label(figure.awqdoc_source, docs), "   ").strip(),
    )


def label(source: Any, docs: Path) -> str:
    """Which kind of number the figure shows; what was measured can be downloaded."""
    if source is None:
        return "modelled"
    data = ", ".join(f":download:`{file.suffix[1:].upper()} </{file.relative_to(docs).as_posix()}>`"
                     for file in data_files(source, docs))  # fmt: skip
    return f"{source.label} · data: {data}" if data else source.label


def data_files(source: Any, docs: Path) -> list[Path]:
    """The data as JSON and CSV, in a folder named after its content, which pages share."""
    from awqdoc.visualization import style

    texts = style.data_files(source)
    folder = docs / "_build" / "data" / hashlib.sha256("".join(texts.values()).encode()).hexdigest()[:12]
    files = [folder / name for name in texts]
    for file in files:
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            file.write_text(texts[file.name], "utf-8")
    return files


def add_dark_thumbnails(app: Sphinx, doctree: nodes.document) -> None:
    """Give each thumbnail its dark twin. sphinx-gallery copies one figure as the thumbnail: find which."""
    for image in list(doctree.findall(nodes.image)):
        if not image["uri"].endswith("_thumb.svg"):
            continue
        dark = dark_variant(Path(app.srcdir, image["uri"].lstrip("/")))
        if dark is not None:
            twin = image.deepcopy()
            image["classes"].append("only-light")
            twin["classes"].append("only-dark")
            twin["uri"] = f"/{dark.relative_to(app.srcdir).as_posix()}"
            image.parent.insert(image.parent.index(image) + 1, twin)


def dark_variant(thumbnail: Path) -> Path | None:
    stem = thumbnail.name.removesuffix("_thumb.svg")
    for dark in sorted(thumbnail.parent.parent.glob(f"{stem}_*.dark.svg")):
        light = dark.with_name(dark.name.replace(".dark.svg", ".svg"))
        if light.is_file() and light.read_bytes() == thumbnail.read_bytes():
            return dark
    return None


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-read", add_dark_thumbnails, priority=400)  # Sphinx collects images at 500
    return {"parallel_read_safe": True, "parallel_write_safe": True}
