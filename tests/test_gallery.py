"""The form of a gallery script: what a page needs that the build itself would not miss."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[1] / "gallery").glob("*/plot_*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_is_a_page_and_a_program(script: Path) -> None:
    text = script.read_text()
    tree = ast.parse(text)
    assert 80 <= len(text.splitlines()) <= 200
    assert 5 <= text.count("\n# %%\n") <= 12
    assert "# Limits\n# ------\n" in text
    assert any(isinstance(node, ast.Assert) for node in ast.walk(tree)), "it asserts what its prose says"
    assert ast.unparse(tree.body[-1]).startswith("script.show("), "it ends by saving or showing its figures"
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not calls & {"sys.exit", "exit", "quit", "plt.show"}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_every_table_ends_its_block(script: Path) -> None:
    """sphinx-gallery shows only what the last expression of a block returns."""
    for block in script.read_text().split("\n# %%\n"):
        tree = ast.parse(block)
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        tables = [call for call in calls if ast.unparse(call.func) == "script.display"]
        last = tree.body[-1] if tree.body else None
        assert tables == [] or (len(tables) == 1 and isinstance(last, ast.Expr) and last.value is tables[0])


def test_there_are_scripts() -> None:
    assert SCRIPTS
