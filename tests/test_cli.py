"""The command line: exit codes, one sentence for what is wrong, never a traceback."""

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_nvml import FakeNvml

from awqdoc import experiments, gpu, recordings
from awqdoc.cli import main
from awqdoc.experiments import EXPERIMENTS
from awqdoc.recordings import Recording, load, save
from awqdoc.recordings.sources import source_hash

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def plain(no_gpu: None) -> None:
    """Before every test, and before the fixtures that pretend a GPU."""


@pytest.fixture
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU on which every time is twice that of the newest recording, and a backend is missing."""
    published = {recording.experiment: recording for recording in reversed(recordings.published())}

    def run(experiment: Any, *_: Any, **__: Any) -> Recording:
        rows = [dict(row) for row in published[experiment.name].rows if row.get("backend") != "fp16"]
        for row in rows:
            if "seconds" in row:
                row["seconds"] = [2 * sample for sample in row["seconds"]]
        provenance = {**published[experiment.name].provenance, "gpu": "NVIDIA Pretended"}
        return replace(published[experiment.name], rows=rows, provenance=provenance, origin="measured")

    monkeypatch.setattr(gpu, "why_not_suitable", lambda: None)
    monkeypatch.setattr(gpu, "suitable", lambda: "NVIDIA Pretended")
    monkeypatch.setattr(gpu, "memory_bytes", lambda: 141_000_000_000)
    monkeypatch.setattr(experiments, "run", run)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the published recordings, none of them stale, that `awqdoc check` looks at."""
    for recording in recordings.published():
        provenance = {**recording.provenance, "sources": source_hash(recording.experiment)}
        save(replace(recording, provenance=provenance), tmp_path)
    monkeypatch.setattr(recordings, "FOLDER", tmp_path)
    return tmp_path


def environment(package: Path = ROOT) -> dict[str, Any]:
    """Return where and how `python -m awqdoc` finds a package and no GPU."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWQDOC_")}
    return {"cwd": package, "env": {**clean, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(package)}}


def program(*arguments: str, package: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run `python -m awqdoc` as its own process."""
    command = [sys.executable, "-m", "awqdoc", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **environment(package))


def assert_one_sentence(text: str) -> None:
    assert text.startswith("awqdoc: ")
    assert text.endswith(".\n")
    assert text.count("\n") == 1


REFUSED = {
    "unknown experiment": (["run", "nonsense"], "there are device, batch-sweep, training"),
    "file of another kind": (["run", "device", "--output", "rows.txt"], ".json or .csv"),
    "file without an ending": (["run", "device", "--output", "rows"], ".json or .csv"),
    "file below a file": (["run", "device", "--output", f"{__file__}/rows.csv"], "cannot be written"),
    "comparison without a GPU": (["run", "batch-sweep", "--compare"], "needs a measurement made here"),
    "record of nothing": (["record"], "device, batch-sweep, training"),
    "record of an unknown experiment": (["record", "nonsense"], "there are device, batch-sweep, training"),
    "record without a GPU": (["record", "--all"], "this machine has no GPU"),
}


@pytest.mark.parametrize(("arguments", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_done_is_one_sentence(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    err = capsys.readouterr().err
    assert words in err
    assert_one_sentence(err)


def test_bad_mode_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("AWQDOC_MODE", "quick")
    assert main(["run", "device"]) == 1
    err = capsys.readouterr().err
    assert "auto, live, recorded; found 'quick'" in err
    assert_one_sentence(err)


@pytest.mark.usefixtures("pretended_gpu")
def test_a_wrong_ending_is_refused_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiments, "run", lambda *_, **__: pytest.fail("it was measured first"))
    assert main(["run", "batch-sweep", "--output", "rows.txt"]) == 1


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_run_prints_the_label_and_a_line_for_each_row(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", name]) == 0
    label, *lines = capsys.readouterr().out.splitlines()
    (recording, *_) = recordings.find(name)
    assert label == recording.label
    assert len(lines) == len(recording.rows)


def test_run_prints_the_median_of_each_row(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"m": 1, "backend": "one", "seconds": [1e-5, 9e-5, 2e-5], "error": 2e-4},
        {"m": 1, "backend": "two", "skipped": "it needs a holiday"},
    ]
    (recording, *_) = recordings.find("device")
    result = replace(recording, experiment="batch-sweep", parameters={"m": [1]}, rows=rows)
    monkeypatch.setattr("awqdoc.cli.measure", lambda _: result)
    assert main(["run", "batch-sweep"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "m=1  one                    20.0 us  error 2.0e-04",
        "m=1  two              skipped: it needs a holiday",
    ]


def test_run_writes_json_that_can_be_loaded(tmp_path: Path) -> None:
    path = tmp_path / "new" / "sweep.json"
    assert main(["run", "batch-sweep", "--output", str(path)]) == 0
    assert load(path) == recordings.find("batch-sweep")[0]


def test_run_writes_csv_with_a_line_for_each_row(tmp_path: Path) -> None:
    path = tmp_path / "device.csv"
    assert main(["run", "device", "--output", str(path)]) == 0
    with path.open(newline="") as file:
        facts = {row["fact"]: row["value"] for row in csv.DictReader(file)}
    assert facts["name"] == recordings.find("device")[0].provenance["gpu"]


@pytest.mark.usefixtures("pretended_gpu")
def test_compare_tells_the_ratio_to_the_published_times(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "batch-sweep", "--compare"]) == 0
    label, *told = capsys.readouterr().out.splitlines()
    assert label.startswith("measured here: NVIDIA Pretended")
    published = recordings.find("batch-sweep")
    starts = [told.index(f"beside {recording.label}") for recording in published]  # one GPU after the other
    assert starts == sorted(starts)
    assert starts[0] == 0
    lines = told[1 : [*starts, len(told)][1]]
    assert all(line.endswith("2.00 times") for line in lines)
    assert len(lines) == sum("seconds" in row and row["backend"] != "fp16" for row in published[0].rows)


@pytest.mark.usefixtures("pretended_gpu")
def test_compare_shows_facts_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "device", "--compare"]) == 0
    assert "L2 cache" in capsys.readouterr().out


@pytest.fixture
def rows_of_another_kind(monkeypatch: pytest.MonkeyPatch) -> Recording:
    """A measurement whose rows tell neither a fact nor the times of a backend, and a recording of it."""
    (device, *_) = recordings.find("device")
    rows = [{"seed": 0, "step": 50, "loss": 2.5}, {"seed": 0, "sha256": "f00"}, {"seed": 0, "backend": "new"}]
    result = replace(device, experiment="training", parameters={"seed": [0]}, rows=rows, origin="measured")
    other = replace(result, rows=[{**row, "loss": 2.25} for row in rows] + [{"seed": 1, "step": 50}], origin="recorded")
    monkeypatch.setattr("awqdoc.cli.measure", lambda _: result)
    monkeypatch.setattr(recordings, "find", lambda _: [replace(other, parameters={"seed": [0, 1]})])
    return result


@pytest.mark.usefixtures("rows_of_another_kind")
def test_run_prints_what_a_row_of_another_kind_holds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "training"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "seed=0  step=50  loss=2.5",
        "seed=0  sha256=f00",
        "seed=0  backend=new",
    ]


def test_compare_shows_rows_of_another_kind_in_their_order(
    rows_of_another_kind: Recording, capsys: pytest.CaptureFixture[str]
) -> None:
    rows_of_another_kind.rows.pop()
    assert main(["run", "training", "--compare"]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == [
        "here   seed=0  step=50  loss=2.5",
        "there  seed=0  step=50  loss=2.25",
        "here   seed=0  sha256=f00",
        "there  seed=0  sha256=f00  loss=2.25",
    ]


@pytest.mark.usefixtures("rows_of_another_kind")
def test_compare_leaves_out_rows_without_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "training", "--compare"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_compare_needs_something_to_compare_with(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recordings, "find", lambda _: [])
    assert main(["run", "device", "--compare"]) == 1
    assert "no published recording of device" in capsys.readouterr().err


@pytest.fixture
def recorded_names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A GPU on which a recording takes no time, and no text to train on; the names of what was recorded."""
    names: list[str] = []
    doubts = ["1 of 2 rows are doubtful"]
    monkeypatch.delenv("AWQDOC_PYTHON_SOURCE", raising=False)
    monkeypatch.setattr(gpu, "why_not_suitable", lambda: None)
    monkeypatch.setattr(gpu, "memory_bytes", lambda: 141_000_000_000)
    monkeypatch.setattr("awqdoc.cli.record", lambda name, folder: names.append(name) or folder / name)
    monkeypatch.setattr("awqdoc.cli.recordings.load", lambda _: None)
    monkeypatch.setattr("awqdoc.cli.restless", lambda _: doubts.pop() if doubts else None)
    return names


def test_record_all_leaves_out_what_lacks_its_material_and_says_so(
    recorded_names: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    assert main(["record", "--all"]) == 0
    assert recorded_names == [name for name in EXPERIMENTS if name not in ("training", "agreement")]
    left_out, other, start, doubt = capsys.readouterr().err.splitlines()
    assert doubt == "device: 1 of 2 rows are doubtful"
    assert other == "agreement is left out: Nsight Compute (ncu) is not on the PATH."
    assert left_out.startswith("training is left out: the training text is not here: AWQDOC_PYTHON_SOURCE must name ")
    assert left_out.endswith("Python-3.11.2.tgz).")
    assert "training" not in start


def test_record_all_records_everything_where_the_material_is(
    recorded_names: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWQDOC_PYTHON_SOURCE", "Python-3.11.2.tgz")
    (tmp_path / "ncu").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["record", "--all"]) == 0
    assert recorded_names == list(EXPERIMENTS)


def test_record_by_name_is_refused_before_anything_is_measured(
    recorded_names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["record", "device", "training"]) == 1
    assert recorded_names == []
    err = capsys.readouterr().err
    assert "training cannot be recorded here: the training text is not here" in err
    assert_one_sentence(err)


def test_interruption_exits_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("awqdoc.cli.measure", interrupted)
    assert main(["run", "device"]) == 130


# check


def test_check_of_good_recordings_exits_with_0(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["ok"] * len(list(folder.glob("*/*.json")))
    assert all(f"/{name}.json" in out for name in EXPERIMENTS)
    assert err == ""


def assert_check_fails(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["check"]) == 1
    out, err = capsys.readouterr()
    states = [line.split()[0] for line in out.splitlines()]
    assert [state for state in states if state != "ok"] == list(words)
    assert "ok" in states
    assert err.count("\n") == 1
    return out + err


def test_check_tells_a_stale_recording(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = sorted(folder.glob("*/device.json"))[0]
    stale = replace(load(path), provenance={**load(path).provenance, "sources": "sha256:old"})
    save(stale, folder)
    assert "the code has changed since" in assert_check_fails(capsys, "stale")


def test_check_tells_a_missing_recording(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in folder.glob("*/device.json"):
        path.unlink()
    assert "device: nobody has recorded it" in assert_check_fails(capsys, "missing")


def test_check_goes_on_after_a_malformed_recording(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = sorted(folder.glob("*/batch-sweep.json"))[0]
    path.write_text(path.read_text()[:5000])
    assert "restore it with git" in assert_check_fails(capsys, "malformed")


def test_check_tells_a_recording_of_an_experiment_that_is_gone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sorted(folder.glob("*/device.json"))[0]
    save(replace(load(path), experiment="gone"), folder)
    assert_check_fails(capsys, "stale")


def test_check_tells_a_recording_that_lacks_published_values(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Replayed by a page, it would end the build."""
    path = sorted(folder.glob("*/batch-sweep.json"))[0]
    save(load(path).select(m=[1]), folder)
    assert main(["check"]) == 1
    assert "batch-sweep" in capsys.readouterr().out


# doctor


def test_doctor_tells_what_runs_and_why_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "none to measure with: this machine has no GPU" in out
    assert "fp16 runs here" in " ".join(out.split())
    assert "triton_fused it needs an NVIDIA GPU" in " ".join(out.split())
    for name in EXPERIMENTS:
        assert f"  {name:<14} replayed here; recorded on NVIDIA" in out


def test_doctor_tells_what_to_install(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from importlib import metadata

    def version(package: str) -> str:
        if package == "autoawq":
            raise metadata.PackageNotFoundError(package)
        return "1.2.3"

    monkeypatch.setattr(metadata, "version", version)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert (
        "  autoawq        missing, needed for AutoAWQ's kernels, shown beside ours: pip install autoawq==0.2.9" in out
    )
    assert "  torch          1.2.3" in out


def test_doctor_on_a_gpu_says_that_it_measures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "why_not_suitable", lambda: None)
    monkeypatch.setattr(gpu, "suitable", lambda: "NVIDIA Pretended")
    monkeypatch.setattr(gpu, "memory_bytes", lambda: 24_000_000_000)
    monkeypatch.setattr(gpu, "capability", lambda _: (8, 0))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "awq" else object())
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "NVIDIA Pretended: measurements are made here" in out
    assert "triton_fused runs here" in " ".join(out.split())
    assert "autoawq_triton autoawq is not installed" in " ".join(out.split())
    assert "measured here; recorded on" in out
    assert "decode replayed here (it needs 76 GB of GPU memory; this GPU has 24); recorded" in " ".join(out.split())


def test_doctor_tells_of_every_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    FakeNvml(monkeypatch, count=2)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for index in (0, 1):
        assert f"  GPU {index}\n    name                              NVIDIA Pretended {index} " in out
    assert out.count("software power cap, software thermal slowdown") == 2


# As programs of their own


def test_module_is_a_program() -> None:
    done = program("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()


def test_program_without_a_command_says_so() -> None:
    done = program()
    assert done.returncode == 2
    assert "COMMAND" in done.stderr
    assert "Traceback" not in done.stderr


def test_doctor_is_never_a_failure_even_with_a_broken_recording(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "awqdoc", tmp_path / "awqdoc", ignore=shutil.ignore_patterns("__pycache__"))
    path = sorted((tmp_path / "awqdoc" / "recordings").glob("*/device.json"))[0]
    content = json.loads(path.read_text())
    content["provenance"]["gpu"] = "NVIDIA B300"
    path.write_text(json.dumps(content))
    check = program("check", package=tmp_path)
    assert check.returncode == 1
    assert "was changed after it was made" in check.stdout
    doctor = program("doctor", package=tmp_path)
    assert (doctor.returncode, doctor.stderr) == (0, "")
    assert "was changed after it was made" in doctor.stdout


def test_closed_pipe_is_no_traceback() -> None:
    """As in `awqdoc run batch-sweep | head -1`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "awqdoc", "run", "batch-sweep"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **environment(),
    )  # fmt: skip
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    with process.stderr as stderr:
        assert stderr.read() == b""
    assert process.wait() != 0
