"""Gallery scripts as programs."""

import argparse
import builtins
import os
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib import pyplot as plt

from awqdoc import script
from awqdoc.errors import AwqdocError
from awqdoc.visualization import Table

ROOT = Path(__file__).parents[1]
GALLERY = sorted((ROOT / "gallery").glob("*/plot_*.py"))
REPLAYED = [path for path in GALLERY if path.stem != "plot_80_whole_model"]  # that one: test_whole_model.py
# Layouts are the same everywhere: these compute all they show.
COMPUTED = [path.stem for path in (ROOT / "gallery" / "packing").glob("*.py") if path.stem != "plot_70_packing_speed"]
DEVICE = ROOT / "gallery" / "gpu" / "plot_10_device.py"
SWEEP = ROOT / "gallery" / "profiling" / "plot_10_batch_sweep.py"
FIGURES = {
    "plot_10_device": {"memory_hierarchy.png"},
    "plot_10_batch_sweep": {"latency_comparison.png", "throughput_scaling.png"},
}


def run(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script as a reader would, on a machine with neither GPU nor screen."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWQDOC_")}
    return subprocess.run(
        [sys.executable, "-W", "error", str(path), *arguments],
        env={**clean, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_there_are_scripts() -> None:
    assert set(FIGURES) <= {path.stem for path in GALLERY}


@pytest.mark.parametrize("path", REPLAYED, ids=lambda path: path.stem)
def test_script_replays_and_saves_its_figures(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    done = run(path, "--output-dir", str(folder))
    assert (done.returncode, done.stderr) == (0, "")
    assert ("recorded on NVIDIA" in done.stdout) == (path.stem not in COMPUTED)
    saved = {file.name for file in folder.iterdir()}
    assert saved >= FIGURES.get(path.stem, set())
    for name in saved:
        assert f"saved {folder / name}" in done.stdout
        if name.endswith(".png"):
            assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_script_without_options_or_screen_prints_its_tables() -> None:
    done = run(DEVICE)
    assert done.returncode == 0
    assert done.stderr == "No screen to show figures on; --output-dir FOLDER saves them.\n"
    assert "L2 cache" in done.stdout


def test_sweep_measures_small_sizes_on_the_cpu() -> None:
    done = run(SWEEP, "--shapes", "64x128", "--batch-sizes", "1", "2")
    assert done.returncode == 0
    assert "batch-sweep 2/2 shape=64x128 group_size=128 m=2" in done.stderr
    assert "triton_fused at 64x128, M = 1: skipped, it needs an NVIDIA GPU" in done.stdout
    assert "time.perf_counter, warm weights" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"), [(["--shapes", "64x128", "wide"], "NxK"), (["--batch-sizes", "0"], "1 or more")]
)
def test_bad_size_is_one_sentence(arguments: list[str], words: str) -> None:
    done = run(SWEEP, *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("plot_10_batch_sweep.py: ")
    assert words in done.stderr
    assert done.stderr.endswith(".\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("path", "arguments"), [(DEVICE, ["--nonsense"]), (SWEEP, ["--batch-sizes", "many"])])
def test_bad_option_tells_the_usage(path: Path, arguments: list[str]) -> None:
    done = run(path, *arguments)
    assert done.returncode == 2
    assert "usage: " in done.stderr
    assert arguments[0] in done.stderr
    assert "Traceback" not in done.stderr


# The parts, in this process


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a notebook nor the build of the site."""
    monkeypatch.delattr(builtins, "__IPYTHON__", raising=False)
    monkeypatch.delitem(sys.modules, "sphinx_gallery", raising=False)
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)


@pytest.fixture
def notebook(program: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtins, "__IPYTHON__", True, raising=False)


@pytest.fixture
def page(program: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sphinx_gallery", object())


@pytest.mark.usefixtures("notebook")
def test_notebook_gets_the_defaults_whatever_its_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    assert script.parse(script.parser("Ask.")) == argparse.Namespace(output_dir=None)
    assert sys.excepthook is sys.__excepthook__


@pytest.mark.usefixtures("program")
def test_program_reads_its_command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["plot.py", "--output-dir", str(tmp_path / "there")])
    assert script.parse(script.parser("Ask.")).output_dir == tmp_path / "there"
    assert list((tmp_path / "there").iterdir()) == []


@pytest.mark.usefixtures("program")
@pytest.mark.parametrize("given", [True, False], ids=["given", "by default"])
def test_a_folder_for_figures_that_cannot_be_written_is_told_before_the_work(
    given: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    below = tmp_path / "file" / "below"
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(sys, "argv", ["plot.py", *(["--output-dir", str(below)] if given else [])])
    options = script.parser("Ask.")
    options.set_defaults(output_dir=below)
    with pytest.raises(AwqdocError, match=r"below cannot be written \(.+\): choose another --output-dir\.$"):
        script.parse(options)


@pytest.mark.parametrize("place", ["notebook", "page"])
def test_pages_make_no_folder(
    place: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    request.getfixturevalue(place)
    monkeypatch.setattr(sys, "argv", ["plot.py"])
    options = script.parser("Ask.")
    options.set_defaults(output_dir=tmp_path / "new")
    script.parse(options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("program")
def test_program_ends_with_the_sentence_of_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["folder/plot.py"])
    script.parse(script.parser("Ask."))
    sys.excepthook(AwqdocError, AwqdocError("Say please."), None)
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert capsys.readouterr().err == "plot.py: Say please.\ninterrupted\n"


@pytest.mark.usefixtures("program")
def test_program_shows_the_traceback_of_a_mistake_of_ours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["plot.py"])
    script.parse(script.parser("Ask."))
    sys.excepthook(ValueError, ValueError("oops"), None)
    assert "ValueError: oops" in capsys.readouterr().err


@pytest.mark.parametrize(("place", "printed"), [("program", True), ("notebook", False), ("page", False)])
def test_tables_are_printed_by_programs_and_returned_to_pages(
    place: str, printed: bool, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    request.getfixturevalue(place)
    table = Table(["M"], [[1]], None)
    assert script.display(table) is table
    assert bool(capsys.readouterr().out) == printed


@pytest.mark.parametrize("place", ["notebook", "page"])
def test_figures_of_pages_show_themselves(
    place: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    request.getfixturevalue(place)
    figure = plt.figure()
    script.show({"drawing": figure}, None)
    plt.close(figure)
    assert capsys.readouterr() == ("", "")


def test_saved_figure_is_sharp_and_on_white(tmp_path: Path) -> None:
    figure = plt.figure(figsize=(2, 1))
    script.save(figure, tmp_path / "drawing.png")
    plt.close(figure)
    pixels = plt.imread(tmp_path / "drawing.png")
    assert pixels.shape[:2] == (200, 400)
    assert (pixels == 1).all()


@pytest.mark.parametrize("place", ["notebook", "page"])
def test_pages_save_nothing_even_where_a_script_saves_by_default(
    place: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    request.getfixturevalue(place)
    figure = plt.figure()
    script.show({"drawing": figure}, tmp_path)
    plt.close(figure)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("program")
def test_unwritable_folder_is_a_sentence() -> None:
    figure = plt.figure()
    with pytest.raises(AwqdocError, match=r"drawing\.png cannot be written \(.+\): choose another --output-dir\.$"):
        script.show({"drawing": figure}, Path(__file__) / "below")
    plt.close(figure)


def test_help_promises_what_is_saved() -> None:
    """Figures only: rows are to be had from `awqdoc run NAME --output FILE`."""
    assert "CSV" not in script.parser("Ask.").format_help()


def test_a_notebook_shows_each_figure_of_a_script(tmp_path: Path) -> None:
    """Each cell that draws has a picture; the inline backend of notebooks once lost all but the first."""
    import nbformat
    from nbclient import NotebookClient

    cells = [
        "import awqdoc\nfrom awqdoc import visualization as vis\nsweep = awqdoc.measure('batch-sweep')",
        "latency = vis.plot_latency(sweep, '28672x4096')",
        "speedup = vis.plot_speedup(sweep, '28672x4096')",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    environment = {
        "AWQDOC_MODE": "recorded",
        "PYTHONPATH": str(ROOT),
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
    }
    NotebookClient(notebook).execute(cwd=str(tmp_path), env=environment)
    pictures = [[output for output in cell.outputs if "image/png" in output.get("data", {})] for cell in notebook.cells]
    assert [len(found) for found in pictures] == [0, 1, 1]
