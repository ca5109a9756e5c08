"""Gallery scripts as programs."""

import argparse
import builtins
import csv
import os
import runpy
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fake_nvml import FakeNvml
from matplotlib import pyplot as plt

import awqdoc
from awqdoc import monitor, recordings, script
from awqdoc.errors import AwqdocError
from awqdoc.kernels import BACKENDS
from awqdoc.kernels.floors import FLOORS
from awqdoc.visualization import Table

ROOT = Path(__file__).parents[1]
GALLERY = sorted((ROOT / "gallery").glob("*/plot_*.py"))
REPLAYED = [path for path in GALLERY if path.stem != "plot_80_whole_model"]  # that one: test_whole_model.py
# Layouts are the same everywhere: these compute all they show.
COMPUTED = [path.stem for path in (ROOT / "gallery" / "packing").glob("*.py") if path.stem != "plot_70_packing_speed"]
COMPUTED += ["plot_20_one_tile", "plot_20_launches"]
DEVICE = ROOT / "gallery" / "gpu" / "plot_10_device.py"
SWEEP = ROOT / "gallery" / "profiling" / "plot_10_batch_sweep.py"
XRAY = ROOT / "gallery" / "gpu" / "plot_50_xray.py"
MONITOR = ROOT / "gallery" / "gpu" / "plot_40_monitor.py"
SLOWER = ROOT / "gallery" / "marlin" / "plot_60_why_slower.py"
FIGURES = {
    "plot_10_device": {"memory_hierarchy.png"},
    "plot_30_hierarchy": {"latency.png", "hierarchy.png", "bytes_in_flight.png", "wgmma.png"},
    "plot_50_xray": {"blocks_1.png", "phases.png", "stalls.png", "tensor_activity.png", "live.png", "snapshot.png"},
    "plot_55_memory_snapshot": {"snapshot.png", "words.png"},
    "plot_40_claims": {"memory_parts.png", "claimed_speed.png"},
    "plot_10_batch_sweep": {"latency_comparison.png", "throughput_scaling.png", "performance_results.csv"},
}


def environment() -> dict[str, str]:
    """Return what a reader has on a machine with neither GPU nor screen."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWQDOC_")}
    return {**clean, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}


def run(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script as a reader would."""
    return subprocess.run(
        [sys.executable, "-W", "error", str(path), *arguments],
        env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip


def saved_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "performance_results.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


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


def test_sweep_of_a_model_dimension_writes_a_line_for_each_backend_and_floor(tmp_path: Path) -> None:
    batches = ["1", "2", "4", "8", "16", "32", "64"]
    done = run(SWEEP, "--model-dim", "4096", "--batch-sizes", *batches, "--output-dir", str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    rows = saved_rows(tmp_path)
    assert [row["m"] for row in rows if row["backend"] == "fp16"] == batches
    assert len(rows) == len(batches) * len([*BACKENDS, *FLOORS])
    assert {(row["shape"], row["origin"]) for row in rows} == {("4096x4096", "recorded")}
    assert {file.name for file in tmp_path.iterdir()} == FIGURES["plot_10_batch_sweep"]


def test_a_shape_that_is_named_is_the_only_one_even_if_it_is_the_default(tmp_path: Path) -> None:
    run(SWEEP, "--shapes", "28672x4096", "--output-dir", str(tmp_path))
    assert {row["shape"] for row in saved_rows(tmp_path)} == {"28672x4096"}


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_in_a_sweep_leaves_the_rows_of_the_finished_sizes(tmp_path: Path) -> None:
    sizes = ["--shapes", "64x128", "--batch-sizes", "1", "2", "20000"]  # the last one takes seconds
    program = subprocess.Popen(
        [sys.executable, "-W", "error", str(SWEEP), *sizes, "--output-dir", str(tmp_path)],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert program.stderr is not None
    for line in program.stderr:
        if line.startswith("batch-sweep 3/3"):
            program.send_signal(signal.SIGINT)
            break
    out, told = program.communicate(timeout=120)
    assert "Interrupted: what follows holds 2 of 3 cells." in told
    assert "Traceback" not in told
    assert program.returncode == 0
    assert f"saved {tmp_path / 'performance_results.csv'}" in out
    assert {row["m"] for row in saved_rows(tmp_path)} == {"1", "2"}


# In the order in which they are measured: in the first shape, which is not the one drawn; in that one; in the last.
@pytest.mark.usefixtures("program")
@pytest.mark.parametrize("count", [1, 14, 25, 43])
def test_ctrl_c_anywhere_in_the_published_sweep_is_no_mistake_of_the_page(
    count: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = recordings.find("batch-sweep")[0]
    axes = whole.parameters
    done = [(shape, m) for shape in axes["shape"] for m in axes["m"]][:count]
    parts = {
        "shape": [shape for shape in axes["shape"] if shape in {cell[0] for cell in done}],
        "group_size": axes["group_size"],
        "m": [m for m in axes["m"] if m in {cell[1] for cell in done}],
    }
    rows = [row for row in whole.rows if (row["shape"], row["m"]) in done]
    monkeypatch.setattr(awqdoc, "measure", lambda *_, **__: replace(whole, parameters=parts, rows=rows), raising=False)
    monkeypatch.setattr(sys, "argv", [str(SWEEP), "--output-dir", str(tmp_path)])
    runpy.run_path(str(SWEEP), run_name="__main__")
    assert {(row["shape"], int(row["m"])) for row in saved_rows(tmp_path)} == set(done)
    assert {file.name for file in tmp_path.iterdir()} == FIGURES["plot_10_batch_sweep"]


def test_a_folder_that_cannot_be_written_is_told_before_the_sweep(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run(SWEEP, "--shapes", "64x128", "--batch-sizes", "1", "--output-dir", str(tmp_path / "file"))
    assert done.returncode == 1
    assert done.stderr.startswith(f"plot_10_batch_sweep.py: {tmp_path / 'file'} cannot be written (")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--shapes", "64x128", "wide"], "NxK"),
        (["--batch-sizes", "0"], "1 or more"),
        (["--model-dim", "0"], "1 or more"),
        (["--model-dim", "100"], "K must be a multiple of the group size 128; K is 100"),
    ],
)
def test_bad_size_is_one_sentence(arguments: list[str], words: str) -> None:
    done = run(SWEEP, *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("plot_10_batch_sweep.py: ")
    assert words in done.stderr
    assert done.stderr.endswith(".\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--shape", "wide"], "NxK"),
        (["--m", "0"], "1 or more"),
        (["--shape", "4096x100"], "K must be a multiple of the group size 128; found 100"),
    ],
)
def test_a_layer_that_cannot_be_predicted_is_refused_in_one_sentence(arguments: list[str], words: str) -> None:
    done = run(SLOWER, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("plot_60_why_slower.py: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("seconds", "words"), [("10", "NVIDIA driver"), ("0.1", "at least one interval"), ("nan", "at least one interval")]
)
def test_what_cannot_be_watched_is_refused_in_one_sentence(seconds: str, words: str) -> None:
    done = run(MONITOR, "--monitor", seconds)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("plot_40_monitor.py: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "0"], "An NVIDIA driver is needed"),
        (["--benchmark"], "--benchmark measures on a GPU, but torch"),
        (["--monitor", "2"], "Watching a GPU needs an NVIDIA driver"),
        (["--kernel-config", "128,4;256"], "the three sizes of the grid, a semicolon and the three of a block"),
        (["--kernel-config", "1,1,1;2048,1,1"], "each from 1 to at most 1024, 1024 and 64 threads; found 2048x1x1"),
    ],
)
def test_an_xray_refuses_in_one_sentence_what_cannot_be_shown_here(arguments: list[str], words: str) -> None:
    done = run(XRAY, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("plot_50_xray.py: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "figures", "words"),
    [
        (["--snapshot"], {"snapshot.png"}, "l1tex__m_xbar2l1tex_read_bytes.sum"),
        (["--kernel-config", "133,1,1;288,1,1"], {"launch.png"}, "blocks in the last"),
    ],
)
def test_an_xray_shows_only_the_parts_that_are_asked_for(
    arguments: list[str], figures: set[str], words: str, tmp_path: Path
) -> None:
    done = run(XRAY, *arguments, "--output-dir", str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert words in done.stdout
    assert {file.name for file in tmp_path.iterdir()} == figures


@pytest.mark.usefixtures("program")
def test_a_gpu_is_watched_before_the_page_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    FakeNvml(monkeypatch)
    monkeypatch.setattr(monitor.time, "sleep", lambda _: None)
    monkeypatch.setattr(sys, "argv", [str(MONITOR), "--monitor", "1", "--output-dir", str(tmp_path)])
    runpy.run_path(str(MONITOR), run_name="__main__")
    out = capsys.readouterr().out
    assert "1 samples of GPU 0; each took" in out
    assert out.index("1 samples of GPU 0") < out.index("one thread spins")
    assert {file.name for file in tmp_path.iterdir()} == {"watched.png"}


def test_a_layer_that_nobody_measured_is_predicted() -> None:
    done = run(SLOWER, "--shape", "5120x5120", "--m", "3")
    assert (done.returncode, done.stdout.count("nobody measured 5120x5120 at M = 3")) == (0, 1)
    assert "Predicted, µs: 5120x5120 (N x K), M = 3" in done.stdout


@pytest.mark.parametrize(
    ("path", "arguments"),
    [
        (DEVICE, ["--nonsense"]),
        (SWEEP, ["--batch-sizes", "many"]),
        (SWEEP, ["--model-dim", "4096", "--shapes", "28672x4096"]),
    ],
)
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
    """Figures, unless the script says more: rows are to be had from `awqdoc run NAME --output FILE`."""
    assert "CSV" not in script.parser("Ask.").format_help()
    assert "save figures and a CSV in this folder" in script.parser("Ask.", "figures and a CSV").format_help()


@pytest.mark.parametrize("place", ["program", "notebook", "page"])
def test_only_a_program_with_a_folder_keeps_a_text(
    place: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    request.getfixturevalue(place)
    script.keep("rows.csv", "m\n1\n", None)
    script.keep("rows.csv", "m\n1\n", tmp_path)
    kept = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert kept == ({"rows.csv": "m\n1\n"} if place == "program" else {})
    assert capsys.readouterr().out == (f"saved {tmp_path / 'rows.csv'}\n" if place == "program" else "")


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
