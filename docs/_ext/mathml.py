"""Formulas as MathML, which browsers draw themselves: no script, no web font, no other server."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.utils.math import MathError, unichar2tex
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

logger = logging.getLogger(__name__)


def convert(node: nodes.Element, as_block: bool) -> str:
    try:
        return tex2mathml(node.astext().translate(unichar2tex.uni2tex_table), as_block=as_block)
    except MathError as error:
        logger.warning("this formula cannot be converted to MathML: %s", error, location=node)
        return ""


def visit_inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(convert(node, as_block=False))
    raise nodes.SkipNode


def visit_block(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(translator.starttag(node, "div", "", CLASS="math awqdoc-scroll"))
    if node["number"]:
        translator.body.append(f'<span class="eqno">({get_node_equation_number(translator, node)})')
        translator.add_permalink_ref(node, "Link to this equation")
        translator.body.append("</span>")
    translator.body.append(convert(node, as_block=True) + "</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
