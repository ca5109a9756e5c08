"""Which code an experiment depends on, and a hash of it.

The hash answers one question: would this experiment, run today, run the same code? So it covers the
functions, classes and constants of awqdoc that the experiment reaches, and nothing else: not comments, not
docstrings, not the wording of errors. It is computed from the text alone (nothing is imported), and is the
same under every version of Python.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
# Below these nothing is measured: what a user is told may be reworded without making a recording stale.
IGNORED = ("awqdoc.errors", "awqdoc.recordings")
# Modules that compile CUDA sources -> the folder of theirs.
CUDA_SOURCES = {"awqdoc.kernels.ladder.": "kernels/cuda", "awqdoc.gpu.probes.": "gpu/cuda"}


@cache
def source_hash(experiment: str) -> str:
    """Hash the code that an experiment's ``run`` depends on; ``sha256:none`` if there is no such experiment."""
    module = "awqdoc.experiments." + experiment.replace("-", "_")
    if _file(module) is None:
        return "sha256:none"
    found = definitions(module, "run")
    for modules, folder in CUDA_SOURCES.items():
        if any(key.startswith(modules) for key in found):
            found |= _cuda_sources(PACKAGE / folder)
    text = "\n".join(f"{key} {value}" for key, value in sorted(found.items()))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()[:32]


def _cuda_sources(folder: Path) -> dict[str, str]:
    """Return file -> code of all CUDA sources of a folder, and of what they include: without comments, spaces alike."""
    found: dict[str, str] = {}
    waiting = sorted(folder.glob("*.cu*"))
    while waiting:
        path = waiting.pop()
        code = re.sub("//.*", "", path.read_text(encoding="utf-8"))
        found[path.name] = " ".join(code.split())
        for name in re.findall(r'#include "(.+)"', code):  # from this folder, or a header of the ladder
            header = PACKAGE / "kernels" / "cuda" / name
            waiting += [header] if header.is_file() and name not in found else []
    return found


def definitions(module: str, name: str) -> dict[str, str]:
    """Return ``module.name`` -> normalized code for everything of awqdoc that a definition reaches, itself included."""
    found: dict[str, str] = {}
    waiting = [(module, name)]
    while waiting:
        module, name = waiting.pop()
        key = f"{module}.{name}"
        nodes = _module(module).definitions.get(name)
        if key in found or nodes is None or module.startswith(IGNORED):
            continue
        found[key] = " ".join(_normal(node) for node in nodes)
        for node in nodes:
            waiting.extend(_reached(module, node))
    return found


class _Module:
    """The top-level definitions of a module and what its imports bind."""

    def __init__(self, tree: ast.Module) -> None:
        self.definitions: dict[str, list[ast.stmt]] = {}
        self.imports = dict(_imports(tree.body))
        for node in tree.body:
            for defined in _names(node):
                self.definitions.setdefault(defined, []).append(node)


@cache
def _module(name: str) -> _Module:
    file = _file(name)
    return _Module(ast.parse(file.read_text(encoding="utf-8")) if file else ast.Module([], []))


def _file(module: str) -> Path | None:
    path = PACKAGE.parent.joinpath(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _names(node: ast.stmt) -> list[str]:
    """Names that a top-level statement defines; calls such as ``TABLE.update(...)`` count for what they change."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return []
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]
    return [n.id for n in ast.walk(node) if isinstance(n, ast.Name)]


def _imports(body: list[ast.stmt]) -> Iterator[tuple[str, tuple[str, str | None]]]:
    """Alias -> (module, name in it or None) for every import of awqdoc below these statements."""
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "awqdoc":
                for alias in node.names:
                    submodule = f"{node.module}.{alias.name}"
                    target = (submodule, None) if _file(submodule) else (str(node.module), alias.name)
                    yield alias.asname or alias.name, target


def _reached(module: str, node: ast.AST) -> Iterator[tuple[str, str]]:
    """Definitions that the code below `node` refers to."""
    here = _module(module)
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
            target = here.imports.get(part.value.id)
            if target and target[1] is None:
                yield from _resolve(target[0], part.attr)
        if isinstance(part, ast.Name):
            yield from _resolve(module, part.id)
        # A table names its adapters by text, because they are imported only where they can be.
        text = str(part.value) if isinstance(part, ast.Constant) else ""
        if re.fullmatch(r"awqdoc(\.\w+)+", text):
            yield from ((text, name) for name in _module(text).definitions)


def _resolve(module: str, name: str) -> Iterator[tuple[str, str]]:
    """Follow a name through the imports that pass it on."""
    here = _module(module)
    if here.definitions.get(name):
        yield module, name
    elif name in here.imports:
        source, original = here.imports[name]
        if original is not None:
            yield from _resolve(source, original)


def _normal(node: Any) -> str:
    """Write a syntax tree as text, alike in every Python: no positions, empty fields or docstrings, bare raises."""
    if isinstance(node, list):
        return "[" + ",".join(map(_normal, node)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    if isinstance(node, ast.Raise):
        return "Raise"
    fields = {}
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            value = value[1:] if ast.get_docstring(node, clean=False) is not None else value
        if isinstance(node, ast.JoinedStr):  # Python 3.12 puts an empty text behind a nested format
            value = [part for part in value if not (isinstance(part, ast.Constant) and part.value == "")]
        if name == "annotation" and (value is None or "constexpr" not in ast.dump(value)):
            continue  # of all annotations only this one changes what runs: Triton compiles by it
        if value not in (None, []) and name not in ("ctx", "kind", "returns"):
            fields[name] = _normal(value)
    return f"{type(node).__name__}({','.join(f'{name}={text}' for name, text in fields.items())})"
