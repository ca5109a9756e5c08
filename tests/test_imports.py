"""The floors of awqdoc: a module imports only what stands below it, and importing it needs no GPU and no docs tools."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the top down; modules on one line stand on the same floor.
FLOORS = (
    ("__main__",),
    ("cli",),
    ("doctor", "monitor", "script"),
    ("experiments",),
    ("visualization",),
    ("models",),
    ("kernels",),
    ("recordings",),
    ("quantize",),
    ("packing",),
    ("gpu",),
    ("profiling",),
    ("nvml",),
    ("compile",),
    ("formats",),
    ("errors",),
)
FLOOR_OF = {name: number for number, names in enumerate(FLOORS) for name in names}
FILES = sorted((ROOT / "awqdoc").rglob("*.py"))


def floor(module: str) -> str:
    """``awqdoc.gpu.report`` -> ``gpu``."""
    return module.split(".")[1] if "." in module else ""


def imported(file: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" if node.module == "awqdoc" else node.module for alias in node.names]
    return [name for name in names if name.split(".")[0] == "awqdoc"]


@pytest.mark.parametrize("file", [f for f in FILES if f.parent.name != "awqdoc" or f.stem != "__init__"], ids=str)
def test_a_module_imports_only_what_stands_below_it(file: Path) -> None:
    parts = file.relative_to(ROOT / "awqdoc").with_suffix("").parts
    here = parts[0]
    for name in imported(file):
        there = floor(name)
        if there in ("", "__version__", here):
            continue
        assert FLOOR_OF[here] < FLOOR_OF[there], f"{here} imports {name}, which stands above it"


def test_the_package_itself_imports_nothing_eagerly() -> None:
    tree = ast.parse((ROOT / "awqdoc" / "__init__.py").read_text())
    eager = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert {node.module for node in eager if isinstance(node, ast.ImportFrom)} == {"__future__", "typing"}
    assert len(eager) == 2


BLOCKED = ("triton", "awq", "cuda", "transformers", "sphinx", "sphinx_gallery", "myst_nb", "IPython")


def test_importing_everything_needs_no_gpu_no_triton_and_no_docs_tools() -> None:
    # What is Triton code is imported only where triton is, an adapter of a peer only where the peer is.
    modules = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for file in FILES
        if file.parent.name != "peers"
        and file.stem not in ("__main__", "triton_fused", "triton_pack", "triton_read", "autoawq_triton")
    ]
    program = f"""
import importlib, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(name + ' is blocked')
sys.meta_path.insert(0, Block())
for module in {modules!r}:
    importlib.import_module(module)
import torch
assert not torch.cuda.is_initialized()
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("file", FILES, ids=str)
def test_imports_have_the_forms_that_the_source_hash_follows(file: Path) -> None:
    """``from awqdoc.x import y`` and ``from awqdoc import x``: neither relative, nor ``*``, nor ``import awqdoc.x``."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            assert all(alias.name != "*" for alias in node.names)
        if isinstance(node, ast.Import):
            assert all(not alias.name.startswith("awqdoc.") for alias in node.names)
