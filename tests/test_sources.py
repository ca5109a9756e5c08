"""The source hash changes with what an experiment runs, and with nothing else."""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from awqdoc.recordings import Recording, sources

# A package with one of each way in which code of this package refers to other code.
PACKAGE = {
    "__init__.py": "",
    "errors.py": "class AwqdocError(Exception):\n    'For the user.'\n",
    "formats.py": "class Size:\n    rows: int\n    def bytes(self):\n        return 2 * self.rows\n",
    "table.py": "TABLE = {'fast': 'awqdoc.fast'}\nTABLE.update(slow=None)\ndef unrelated():\n    return 1\n",
    "fast.py": "def prepare():\n    return 4\n\ndef multiply(x):\n    return x * 2\n",
    "tools/__init__.py": "from awqdoc.tools.inner import watch as timer\n",
    "tools/inner.py": "def watch():\n    return 3\ndef unrelated():\n    return 1\n",
    "late.py": "def late():\n    return 5\n",
    "recordings/__init__.py": "def slug():\n    return 6\n",
    "experiments/__init__.py": "",
    "experiments/mini_sweep.py": '''"""Asks nothing."""
from awqdoc import table, tools
from awqdoc.errors import AwqdocError
from awqdoc.formats import Size
from awqdoc.recordings import slug

ROUNDS = 20
SPARE: int = 1

def run(device: str, m: int = 1) -> list:
    """Time it."""
    from awqdoc.late import late
    # Try hard.
    if m < 1:
        raise AwqdocError(f"M must be 1 or more; found {m}.")
    return [_time(m), late(), tools.timer(), table.TABLE, Size, slug()]

def _time(m):
    text = f"{m:>{ROUNDS}} rounds {m!r}"
    return {**{"m": m, None: ...}, "text": text} if ROUNDS else [x for x in range(m)][1:]

def unrelated():
    return 1
''',
}
RUN = "experiments/mini_sweep.py"
# Made with Python 3.11, and the same under 3.12 and 3.13. A change of it means that every recording becomes stale.
GOLDEN = "sha256:620fc2482fe8299198ba80cde8e0c776"

HARMLESS = {
    "comment": (RUN, "# Try hard.", "# Do try harder."),
    "docstring": (RUN, '"""Time it."""', '"""Time it\n\n    with care."""'),
    "docstring dropped": (RUN, '    """Time it."""\n', ""),
    "module docstring": (RUN, "Asks nothing.", "Asks much."),
    "blank lines": (RUN, "def _time", "\n\n\ndef _time"),
    "line break": (RUN, "[_time(m), late()", "[\n        _time(m),\n        late()"),
    "quotes": (RUN, '"text"', "'text'"),
    "error wording": (RUN, "M must be 1 or more; found", "A batch holds a token at least, not"),
    "annotations": (RUN, "device: str, m: int = 1) -> list:", "device, m = 1):"),
    "annotation of a field": ("formats.py", "rows: int", "rows: float"),
    "unrelated function": (RUN, "def unrelated():\n    return 1", "def unrelated():\n    return 2"),
    "unrelated constant": (RUN, "SPARE: int = 1", "SPARE: int = 2"),
    "unrelated function of a used module": ("tools/inner.py", "return 1", "return 2"),
    "class of errors": ("errors.py", "For the user.", "For the reader."),
    "code that handles recordings": ("recordings/__init__.py", "return 6", "return 7"),
    "unused import": (RUN, "import table, tools", "import late, table, tools"),
}
HARMFUL = {
    "own body": (RUN, "tools.timer()", "tools.timer"),
    "default": (RUN, "m: int = 1", "m: int = 2"),
    "a constant of a Triton kernel": (RUN, "m: int = 1", "m: tl.constexpr = 1"),
    "condition of an error": (RUN, "if m < 1", "if m < 2"),
    "constant": (RUN, "ROUNDS = 20", "ROUNDS = 21"),
    "callee": (RUN, "range(m)", "range(m + 1)"),
    "format of a text": (RUN, "{m!r}", "{m!s}"),
    "class": ("formats.py", "2 * self.rows", "4 * self.rows"),
    "table": ("table.py", "'fast':", "'faster':"),
    "table changed in place": ("table.py", "slow=None", "slow=1"),
    "adapter named by text": ("fast.py", "x * 2", "x * 3"),
    "all of an adapter": ("fast.py", "return 4", "return 5"),
    "re-exported function": ("tools/inner.py", "return 3", "return 4"),
    "function imported in a function": ("late.py", "return 5", "return 6"),
    "function that was an identity": ("late.py", "return 5", "return None"),
}

Edit = Callable[[str, str, str], None]


@pytest.fixture
def mini(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Edit]:
    """Point the hash at the miniature package; return a function that edits it."""
    monkeypatch.setattr(sources, "PACKAGE", tmp_path / "awqdoc")
    for name, text in PACKAGE.items():
        path = tmp_path / "awqdoc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def edit(name: str, old: str, new: str) -> None:
        path = tmp_path / "awqdoc" / name
        assert path.read_text().count(old) == 1
        path.write_text(path.read_text().replace(old, new))
        forget()

    forget()
    yield edit
    forget()


def forget() -> None:
    sources.source_hash.cache_clear()
    sources._module.cache_clear()


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS.keys())
def test_hash_stays_the_same(change: tuple[str, str, str], mini: Edit) -> None:
    before = sources.source_hash("mini-sweep")
    mini(*change)
    assert sources.source_hash("mini-sweep") == before


@pytest.mark.parametrize("change", HARMFUL.values(), ids=HARMFUL.keys())
def test_hash_changes(change: tuple[str, str, str], mini: Edit) -> None:
    before = sources.source_hash("mini-sweep")
    mini(*change)
    assert sources.source_hash("mini-sweep") != before


@pytest.mark.usefixtures("mini")
def test_hash_is_the_same_for_every_python() -> None:
    assert sources.source_hash("mini-sweep") == GOLDEN


def test_empty_text_that_python_312_puts_behind_a_nested_format_is_not_seen() -> None:
    (width,) = [node for node in ast.walk(ast.parse("f'{m:>{ROUNDS}}'")) if isinstance(node, ast.FormattedValue)][:1]
    assert isinstance(width.format_spec, ast.JoinedStr)
    specs = [value for value in width.format_spec.values if not (isinstance(value, ast.Constant) and value.value == "")]
    assert sources._normal(ast.JoinedStr(values=specs)) == sources._normal(
        ast.JoinedStr(values=[*specs, ast.Constant(value="")])
    )


def test_unknown_experiment_makes_a_recording_stale() -> None:
    assert sources.source_hash("nonsense") == "sha256:none"
    for name in ("device", "batch-sweep"):
        assert Recording("nonsense", {}, {"sources": sources.source_hash(name)}, []).stale


def test_recording_is_stale_once_its_code_changes(mini: Edit) -> None:
    provenance = {"sources": sources.source_hash("mini-sweep")}
    assert not Recording("mini-sweep", {}, provenance, []).stale
    mini(*HARMFUL["callee"])
    assert Recording("mini-sweep", {}, provenance, []).stale


def test_sweep_depends_on_what_it_runs_and_on_nothing_that_shows_it() -> None:
    found = set(sources.definitions("awqdoc.experiments.batch_sweep", "run"))
    assert found >= {
        "awqdoc.experiments.works.L2_MULTIPLE",
        "awqdoc.formats.QuantizedWeight",
        "awqdoc.nvml.state",
        "awqdoc.kernels.triton_fused.matmul_kernel",
        "awqdoc.kernels.autoawq_triton.matmul",
        "awqdoc.packing.pack",
        "awqdoc.profiling.interleaving.interleave",
        "awqdoc.quantize.rounding.round_to_nearest",
    }
    hidden = (
        "awqdoc.errors",
        "awqdoc.recordings",
        "awqdoc.visualization",
        "awqdoc.cli",
        "awqdoc.doctor",
        "awqdoc.script",
    )
    assert not [name for name in found if name.startswith(hidden)]
