"""What a reader downloads, run as a reader would: another folder, the site's own wheel, no GPU."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.site


@pytest.fixture(scope="module")
def unpacked(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of all examples, with the wheel's package beside its scripts' folders."""
    folder = tmp_path_factory.mktemp("downloads")
    with zipfile.ZipFile(site / "downloads" / "awqdoc-examples.zip") as archive:
        archive.extractall(folder)
    root = folder / "awqdoc-examples"
    with zipfile.ZipFile(next(root.glob("*.whl"))) as wheel:
        wheel.extractall(root / "installed")
    return root


def run(root: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWQDOC_")}
    environment |= {"PYTHONPATH": str(root / "installed"), "AWQDOC_MODE": "recorded", "MPLBACKEND": "agg"}
    return subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)


def test_each_script_runs_alone_on_the_wheel_of_the_site(unpacked: Path, tmp_path: Path) -> None:
    where = run(unpacked, "-c", "import awqdoc; print(awqdoc.__file__)", cwd=tmp_path)
    assert where.stdout.startswith(str(unpacked / "installed"))
    scripts = sorted(unpacked.glob("*/plot_*.py"))
    assert scripts
    for script in scripts:
        done = run(unpacked, str(script), "--output-dir", str(tmp_path / script.stem), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        labels = ("recorded on", "measured here: computed by this page", "modelled: computed from formulas")
        labelled = any(label in done.stdout for label in labels)
        assert labelled or script.parent.name == "packing"  # layouts are computed, the same everywhere
        assert list((tmp_path / script.stem).glob("*.png"))


def test_each_notebook_holds_the_code_of_its_script(unpacked: Path) -> None:
    for script in sorted(unpacked.glob("*/plot_*.py")):
        cells = json.loads(script.with_suffix(".ipynb").read_text())["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        assert code[0].startswith("%pip install")
        tree = ast.parse(script.read_text())
        del tree.body[0]  # the docstring is the notebook's first text
        assert ast.dump(ast.parse("\n".join(code[1:]))) == ast.dump(tree)
