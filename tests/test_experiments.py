"""measure() and record(): here, or replayed; interrupted, and gone on with."""

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import awqdoc
from awqdoc import experiments, gpu, profiling, recordings
from awqdoc.errors import AwqdocError
from awqdoc.experiments import EXPERIMENTS, Experiment, ledger, measure, record
from awqdoc.kernels import floors
from awqdoc.recordings import Recording, load, save

PROVENANCE = {
    "commit": "0123456789abcdef", "dirty": False, "sources": "sha256:now", "date": "2026-11-23T18:12:08+00:00",
    "clock": "a sundial", "gpu": "NVIDIA Test", "driver": "1.2", "torch": "3.4", "triton": None,
}  # fmt: skip
AXES = {"size": [1, 2, 3], "kind": ["a", "b"]}


class Toy(ModuleType):
    """An experiment that counts how often it is run, and may be interrupted at a cell."""

    AXES = AXES
    CPU = True

    def __init__(self) -> None:
        super().__init__("awqdoc.experiments.toy")
        self.measured: list[dict[str, Any]] = []
        self.devices: set[str] = set()
        self.interrupted_at: int | None = None
        self.full_at: int | None = None
        self.forgotten = False
        self.lack: str | None = None

    def missing(self) -> str | None:
        return self.lack

    def check(self, size: int, kind: str) -> None:
        if size < 0:
            raise AwqdocError(f"The size must not be negative; found {size}.")

    def forget(self) -> None:
        self.forgotten = True

    def run(self, device: str, **cell: Any) -> list[dict[str, Any]]:
        if self.full_at is not None and self.full_at == len(self.measured):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
        if self.interrupted_at == len(self.measured):
            self.interrupted_at = None
            raise KeyboardInterrupt
        self.measured.append(cell)
        self.devices.add(device)
        return [{"backend": backend, "seconds": [len(self.measured) / 8]} for backend in ("one", "two")]


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, no_gpu: None) -> None:
    """An empty ledger, and only code that has not changed."""
    monkeypatch.setattr(recordings, "source_hash", lambda _: "sha256:now")
    ledger.clear()


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Toy:
    module = Toy()
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(EXPERIMENTS, "toy", Experiment("toy", "What is asked?", minutes=0))
    return module


@pytest.fixture
def recorded(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> Recording:
    """A published recording of the toy."""
    rows = [{"size": size, "kind": kind, "backend": "one", "seconds": [0.5]} for size in (1, 2, 3) for kind in "ab"]
    recording = Recording("toy", AXES, PROVENANCE, rows)
    monkeypatch.setattr(experiments, "find", lambda name: [recording] if name == "toy" else [])
    return recording


@pytest.fixture
def pretended_gpu(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A GPU that can measure; returns the provenance that a measurement made now would get."""
    provenance = dict(PROVENANCE)
    monkeypatch.setattr(gpu, "why_not_suitable", lambda: None)
    monkeypatch.setattr(gpu, "suitable", lambda: provenance["gpu"])
    monkeypatch.setattr(experiments, "collect", lambda *_: dict(provenance))
    return provenance


def refusal(call: Callable[..., Any], *arguments: Any, **named: Any) -> str:
    with pytest.raises(AwqdocError) as caught:
        call(*arguments, **named)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


def test_measure_is_the_name_that_the_package_exports() -> None:
    assert awqdoc.measure is measure


@pytest.mark.parametrize("mode", [None, "auto", "recorded"])
def test_without_a_gpu_the_recording_is_replayed(
    mode: str | None, toy: Toy, recorded: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mode:
        monkeypatch.setenv("AWQDOC_MODE", mode)
    assert measure("toy") == recorded
    assert measure("toy").label.startswith("recorded on NVIDIA Test")
    assert toy.measured == []


def test_live_mode_insists_on_a_gpu(recorded: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWQDOC_MODE", "live")
    sentence = refusal(measure, "toy")
    assert "AWQDOC_MODE=live" in sentence
    assert "this machine has no GPU" in sentence


def test_unknown_mode_is_refused(recorded: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWQDOC_MODE", "fast")
    assert refusal(measure, "toy") == "AWQDOC_MODE must be one of auto, live, recorded; found 'fast'."


@pytest.mark.usefixtures("pretended_gpu")
@pytest.mark.parametrize("mode", ["auto", "live"])
def test_with_a_gpu_it_is_measured(mode: str, toy: Toy, recorded: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWQDOC_MODE", mode)
    result = measure("toy")
    assert result.label == "measured here: NVIDIA Test, 2026-11-23, a sundial"
    assert len(toy.measured) == 6
    assert toy.devices == {"cuda"}
    assert [(row["size"], row["kind"], row["backend"]) for row in result.rows[:3]] == [
        (1, "a", "one"), (1, "a", "two"), (1, "b", "one"),
    ]  # fmt: skip


@pytest.mark.usefixtures("pretended_gpu")
def test_recorded_mode_never_measures(toy: Toy, recorded: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWQDOC_MODE", "recorded")
    assert measure("toy").origin == "recorded"
    assert toy.measured == []


def test_part_of_a_recording_is_replayed(toy: Toy, recorded: Recording) -> None:
    part = measure("toy", size=[3, 1], kind="b")
    assert part.rows == [recorded.rows[1], recorded.rows[5]]
    assert part.parameters == {"size": [3, 1], "kind": ["b"]}
    assert toy.measured == []


def test_what_nobody_recorded_runs_on_the_cpu_and_says_so(toy: Toy, recorded: Recording) -> None:
    result = measure("toy", size=[5, 1])
    assert toy.devices == {"cpu"}
    assert [(cell["size"], cell["kind"]) for cell in toy.measured] == [(5, "a"), (5, "b"), (1, "a"), (1, "b")]
    assert result.label.startswith(f"measured here: {gpu.cpu_name()}, 20")
    assert result.label.endswith(profiling.clock_name("cpu"))


def test_published_sizes_are_not_run_on_the_cpu(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiments, "find", lambda _: [])
    sentence = refusal(measure, "toy")
    assert "Nobody has recorded toy yet" in sentence
    assert "`awqdoc record toy`" in sentence
    assert toy.measured == []


@pytest.mark.parametrize("why", ["recorded mode", "no CPU version"])
def test_what_cannot_be_had_lists_what_can(
    why: str, toy: Toy, recorded: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    if why == "recorded mode":
        monkeypatch.setenv("AWQDOC_MODE", "recorded")
    else:
        monkeypatch.setattr(toy, "CPU", False, raising=False)
    sentence = refusal(measure, "toy", size=[2, 5, 6])
    assert "does not hold size 5, 6" in sentence
    assert "it holds size 1, 2, 3; kind a, b" in sentence


def test_unknown_experiment_lists_the_known_ones() -> None:
    assert refusal(measure, "nonsense") == f"There is no experiment 'nonsense'; there are {', '.join(EXPERIMENTS)}."


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"widths": 3}, ["no parameter 'widths'", "shape, group_size, m"]),
        ({"m": "1"}, ["m", "int", "'1'"]),
        ({"m": 1.0}, ["m", "int", "1.0"]),
        ({"m": True}, ["m", "int", "True"]),
        ({"m": [1, None]}, ["m", "int", "None"]),
        ({"m": []}, ["one or more m", "none"]),
        ({"m": 0}, ["1 or more", "M = 0"]),
        ({"m": [1, -2]}, ["1 or more", "M = -2"]),
        ({"shape": 4096}, ["shape", "str", "4096"]),
        ({"shape": "wide"}, ["NxK", "28672x4096", "'wide'"]),
        ({"shape": "0x4096"}, ["1 or more", "0x4096"]),
        ({"shape": ["256x128", "4096"]}, ["NxK", "'4096'"]),
        ({"shape": "100x4096"}, ["100x4096", "multiples of"]),
        ({"shape": "256x100"}, ["256x100", "group size 128"]),
        ({"group_size": 96}, ["6144x4096", "group size 96"]),
        ({"group_size": 0}, ["1 or more", "group size 0"]),
    ],
)
def test_bad_parameter_is_refused_before_anything_is_measured(parameters: dict[str, Any], words: list[str]) -> None:
    sentence = refusal(measure, "batch-sweep", **parameters)
    assert [word for word in words if word not in sentence] == []
    assert ledger == []


def test_impossible_size_is_called_so_even_where_nothing_could_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWQDOC_MODE", "recorded")
    assert "1 or more" in refusal(measure, "batch-sweep", m=0)


def test_experiment_without_parameters_says_so() -> None:
    assert refusal(measure, "device", m=1) == "The experiment device has no parameter 'm'; it has none."


def test_a_value_given_twice_is_measured_once(toy: Toy, recorded: Recording) -> None:
    result = measure("toy", size=[5, 5], kind="a")
    assert len(toy.measured) == 1
    assert len(result.rows) == 2


def test_ledger_holds_what_was_given_in_order(recorded: Recording) -> None:
    given = [measure("toy", size=3), measure("toy", size=9), measure("toy")]
    assert ledger == given
    with pytest.raises(AwqdocError):
        measure("toy", size=-1)
    assert ledger == given


def test_sweep_runs_on_the_cpu() -> None:
    result = measure("batch-sweep", shape="64x128", m=[1, 3])
    assert {row["m"] for row in result.rows} == {1, 3}
    timed = {row["backend"]: row for row in result.rows if "seconds" in row}
    assert list(timed) == ["fp16", "dequantize", "read", "copy", "matmul"]
    assert all(len(row["seconds"]) == 5 for row in timed.values())
    assert all(timed[backend]["error"] < 1e-3 for backend in ("fp16", "dequantize"))
    # Codes, a scale of two bytes and a zero point of half a byte for each column of the one group.
    assert timed["read"]["bytes"] == 64 * 128 // 2 + 64 * 2 + 64 // 2
    assert timed["copy"]["bytes"] == 2 * floors.COPIED["cpu"]
    assert timed["matmul"]["flops"] == 2 * floors.SIDE["cpu"] ** 3
    assert {row["skipped"] for row in result.skipped} == {"it needs an NVIDIA GPU"}
    json.loads(result.to_json())


# What needs more than a GPU.


@pytest.mark.usefixtures("pretended_gpu")
@pytest.mark.parametrize("mode", ["auto", "live", "recorded"])
def test_what_lacks_its_material_is_replayed(
    mode: str, toy: Toy, recorded: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWQDOC_MODE", mode)
    toy.lack = "the cheese is missing"
    assert measure("toy", size=1).origin == "recorded"
    assert toy.measured == []


def test_beside_a_replay_of_another_gpu_that_gpu_is_replayed_too(
    toy: Toy, recorded: Recording, pretended_gpu: dict[str, Any]
) -> None:
    other = replace(recorded, experiment="other", provenance=PROVENANCE | {"gpu": "NVIDIA Other"})
    pretended_gpu["gpu"] = "NVIDIA Here"
    assert measure("toy", beside=recorded) == recorded  # of the same GPU, and not the one here
    assert ledger == [recorded]
    assert measure("toy", beside=recorded, size=[2, 3]).parameters["size"] == [2, 3]
    assert toy.measured == []
    assert measure("toy", beside=other, size=1).origin == "measured"  # nobody recorded it on that GPU
    assert measure("toy", beside=replace(recorded, origin="measured"), size=1).origin == "measured"
    pretended_gpu["gpu"] = PROVENANCE["gpu"]
    assert measure("toy", beside=recorded, size=1).origin == "measured"


@pytest.mark.parametrize(("gigabytes", "measured"), [(24, False), (80, True)])
@pytest.mark.parametrize("mode", ["auto", "live"])
def test_what_does_not_fit_into_the_memory_is_replayed(
    mode: str, gigabytes: int, measured: bool, toy: Toy, recorded: Recording, pretended_gpu: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    large = Experiment("toy", "What is asked?", minutes=0, gigabytes=64)
    monkeypatch.setitem(EXPERIMENTS, "toy", large)
    monkeypatch.setattr(gpu, "memory_bytes", lambda: gigabytes * 10**9)
    monkeypatch.setenv("AWQDOC_MODE", mode)
    assert measure("toy").origin == ("measured" if measured else "recorded")
    lack = "it needs 64 GB of GPU memory; this GPU has 24"
    assert large.missing() == (None if measured else lack)
    assert measured or refusal(record, "toy").endswith(f"cannot be recorded here: {lack}.")


def test_sizes_of_ones_own_are_tried_whatever_the_published_ones_need(
    toy: Toy, recorded: Recording, pretended_gpu: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(EXPERIMENTS, "toy", Experiment("toy", "What is asked?", minutes=0, gigabytes=64))
    monkeypatch.setattr(gpu, "memory_bytes", lambda: 24 * 10**9)
    assert measure("toy", size=1).origin == "measured"
    monkeypatch.setenv("AWQDOC_RESULTS", str(tmp_path))  # there the published ones are measured, all of them
    assert measure("toy", size=1).origin == "recorded"


def test_live_mode_insists_on_a_gpu_even_where_the_material_is_missing_too(
    toy: Toy, recorded: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWQDOC_MODE", "live")
    toy.lack = "the cheese is missing"
    assert refusal(measure, "toy").endswith("but this machine has no GPU.")


@pytest.mark.usefixtures("pretended_gpu")
def test_live_mode_refuses_what_can_be_neither_measured_nor_replayed(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWQDOC_MODE", "live")
    monkeypatch.setattr(experiments, "find", lambda _: [])
    toy.lack = "the cheese is missing"
    assert refusal(measure, "toy").endswith("to measure toy on a GPU, but the cheese is missing.")


@pytest.mark.usefixtures("recorded")
def test_what_lacks_its_material_does_not_run_on_the_cpu_either(toy: Toy) -> None:
    toy.lack = "the cheese is missing"
    assert "does not hold size 5" in refusal(measure, "toy", size=5)
    assert toy.measured == []


@pytest.mark.usefixtures("pretended_gpu", "recorded")
def test_refusal_of_unrecorded_values_names_the_material(toy: Toy) -> None:
    toy.lack = "the cheese is missing"
    assert "it is not measured here (the cheese is missing); it holds" in refusal(measure, "toy", size=5)


@pytest.mark.usefixtures("pretended_gpu")
def test_record_of_what_lacks_its_material_is_refused(toy: Toy, tmp_path: Path) -> None:
    toy.lack = "the cheese is missing"
    sentence = "The experiment toy cannot be recorded here: the cheese is missing."
    assert refusal(record, "toy", tmp_path) == sentence
    assert toy.measured == []


# With AWQDOC_RESULTS, as the build of the site uses it.


@pytest.fixture
def results(pretended_gpu: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AWQDOC_RESULTS", str(tmp_path))
    return tmp_path / "nvidia-test" / "toy.json"


def test_results_are_measured_once_and_used_again(toy: Toy, results: Path) -> None:
    first = measure("toy")
    part = measure("toy", size=2, kind=["a"])
    assert len(toy.measured) == 6
    assert part.rows == first.select(size=[2], kind=["a"]).rows
    assert part.label.startswith("measured here: NVIDIA Test")
    assert load(results).rows == first.rows
    assert [file.name for file in results.parent.iterdir()] == ["toy.json"]


def test_results_hold_all_published_values_even_if_part_is_asked_for_first(toy: Toy, results: Path) -> None:
    assert len(measure("toy", size=2, kind="a").rows) == 2
    assert len(toy.measured) == 6
    assert load(results).covers(AXES)


def test_unpublished_values_are_measured_and_not_kept(toy: Toy, results: Path) -> None:
    assert measure("toy", size=9, kind="a").parameters["size"] == [9]
    assert not results.exists()


def test_stale_results_are_measured_again(
    toy: Toy, results: Path, pretended_gpu: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    measure("toy")
    pretended_gpu["sources"] = "sha256:newer"
    monkeypatch.setattr(recordings, "source_hash", lambda _: "sha256:newer")
    assert not measure("toy").stale
    assert len(toy.measured) == 12


def test_results_that_lack_a_published_value_are_measured_again(toy: Toy, results: Path) -> None:
    save(Recording("toy", {**AXES, "size": [1]}, PROVENANCE, []), results.parents[1])
    assert len(measure("toy").rows) == 12


@pytest.mark.parametrize("package", ["torch", "autoawq"])
def test_results_of_other_packages_are_measured_again(
    package: str, toy: Toy, results: Path, pretended_gpu: dict[str, Any]
) -> None:
    measure("toy")
    pretended_gpu[package] = "3.5"
    assert measure("toy").provenance[package] == "3.5"


def test_broken_results_do_not_stand_in_the_way(toy: Toy, results: Path) -> None:
    measure("toy")
    results.write_text(results.read_text()[:200])
    assert len(measure("toy").rows) == 12


# Recording, and the journal that an interrupted run leaves.


def test_record_needs_a_gpu(tmp_path: Path) -> None:
    assert refusal(record, "device", tmp_path) == "A recording is made on a GPU, but this machine has no GPU."
    assert list(tmp_path.iterdir()) == []


def test_record_of_an_unknown_experiment_is_refused(tmp_path: Path) -> None:
    assert "no experiment 'nonsense'" in refusal(record, "nonsense", tmp_path)


@pytest.mark.usefixtures("pretended_gpu")
def test_record_stores_all_cells_and_drops_the_journal(toy: Toy, tmp_path: Path) -> None:
    path = record("toy", tmp_path)
    assert path == tmp_path / "nvidia-test" / "toy.json"
    assert len(load(path).rows) == 12
    assert load(path).provenance == PROVENANCE
    assert [file.name for file in path.parent.iterdir()] == ["toy.json"]


@pytest.mark.usefixtures("pretended_gpu")
def test_record_below_a_file_is_a_sentence_before_anything_is_measured(toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert "cannot be written" in refusal(record, "toy", tmp_path / "file")
    assert toy.measured == []


@pytest.mark.usefixtures("pretended_gpu")
def test_full_disk_while_measuring_is_a_sentence(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_file = Path.open

    def full(self: Path, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        if mode == "a":
            raise OSError(28, "No space left on device")
        return open_file(self, mode, *arguments, **named)

    monkeypatch.setattr(Path, "open", full)
    assert "No space left on device" in refusal(record, "toy", tmp_path)


def interrupt(toy: Toy, cell: int, folder: Path) -> Path:
    """Record, interrupted while that cell is measured; return the journal."""
    toy.interrupted_at = cell
    with pytest.raises(KeyboardInterrupt):
        record("toy", folder)
    return folder / "nvidia-test" / "toy.partial.jsonl"


@pytest.mark.usefixtures("pretended_gpu")
@pytest.mark.parametrize("cell", range(6))
def test_interrupted_run_goes_on_where_it_was(
    cell: int, toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = interrupt(toy, cell, tmp_path)
    assert not (journal.parent / "toy.json").exists()
    assert f"{cell} of 6 cells are kept" in capsys.readouterr().err
    rows = load(record("toy", tmp_path)).rows
    assert len(toy.measured) == 6
    assert [row["seconds"][0] * 8 for row in rows[::2]] == [1, 2, 3, 4, 5, 6]
    assert not journal.exists()


@pytest.mark.usefixtures("pretended_gpu")
def test_a_run_may_be_interrupted_again_and_again(toy: Toy, tmp_path: Path) -> None:
    for cell in (2, 2, 3, 5):
        interrupt(toy, cell, tmp_path)
    assert len(load(record("toy", tmp_path)).rows) == 12
    assert len(toy.measured) == 6


@pytest.mark.usefixtures("pretended_gpu")
@pytest.mark.parametrize("lost", [2, 10, 60, 100])
def test_torn_last_line_is_dropped_and_measured_again(lost: int, toy: Toy, tmp_path: Path) -> None:
    journal = interrupt(toy, 3, tmp_path)
    whole = journal.read_bytes()
    assert whole.splitlines()[-1][:-lost]  # the cut is within the last line
    journal.write_bytes(whole[:-lost])
    assert len(load(record("toy", tmp_path)).rows) == 12
    assert [(cell["size"], cell["kind"]) for cell in toy.measured[3:]] == [
        (2, "a"),
        (2, "b"),
        (3, "a"),
        (3, "b"),
    ]


@pytest.mark.usefixtures("pretended_gpu")
def test_garbage_behind_the_last_line_is_dropped(toy: Toy, tmp_path: Path) -> None:
    journal = interrupt(toy, 3, tmp_path)
    journal.write_bytes(journal.read_bytes() + b"\0\0\xff")
    assert len(load(record("toy", tmp_path)).rows) == 12
    assert len(toy.measured) == 6


@pytest.mark.parametrize("key", ["sources", "gpu", "driver", "torch", "triton", "commit", "dirty"])
def test_journal_of_other_code_or_another_machine_is_not_gone_on_with(
    key: str, toy: Toy, tmp_path: Path, pretended_gpu: dict[str, Any]
) -> None:
    interrupt(toy, 3, tmp_path)
    pretended_gpu[key] = "other"
    recording = load(record("toy", tmp_path))
    assert len(toy.measured) == 3 + 6
    assert recording.provenance[key] == "other"


@pytest.mark.usefixtures("pretended_gpu")
def test_cells_that_are_no_longer_asked_for_are_left_out(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(toy, 4, tmp_path)
    monkeypatch.setattr(toy, "AXES", {"size": [2, 3], "kind": ["b"]}, raising=False)
    recording = load(record("toy", tmp_path))
    assert [(row["size"], row["kind"]) for row in recording.rows[::2]] == [(2, "b"), (3, "b")]
    assert len(toy.measured) == 5


@pytest.mark.usefixtures("pretended_gpu")
def test_interruption_while_the_journal_is_opened_again_loses_nothing(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(toy, 4, tmp_path)

    def crash(self: Path, *_: Any, **__: Any) -> None:
        self.write_bytes(b"")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", crash)
        with pytest.raises(KeyboardInterrupt):
            record("toy", tmp_path)
    record("toy", tmp_path)
    assert len(toy.measured) == 6


@pytest.mark.usefixtures("pretended_gpu")
def test_progress_is_told_on_stderr(toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    interrupt(toy, 2, tmp_path)
    record("toy", tmp_path)
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if line.startswith("toy ")]
    assert [line.split("  (about")[0] for line in lines] == [
        "toy 1/6 size=1 kind=a",
        "toy 2/6 size=1 kind=b",
        "toy 3/6 size=2 kind=a",
        "toy 3/6 size=2 kind=a",
        "toy 4/6 size=2 kind=b",
        "toy 5/6 size=3 kind=a",
        "toy 6/6 size=3 kind=b",
    ]
    assert re.search(r"about \d+ s left", lines[-1])


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=EXPERIMENTS.keys())
def test_published_parameters_are_possible(experiment: Experiment) -> None:
    assert experiment.question.endswith("?")
    assert experiment.cells(experiment.axes)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_shipped_recordings_hold_the_published_parameters(name: str) -> None:
    assert measure(name).parameters == EXPERIMENTS[name].axes


def test_journal_is_not_taken_for_a_recording(toy: Toy, tmp_path: Path, pretended_gpu: dict[str, Any]) -> None:
    interrupt(toy, 1, tmp_path)
    assert recordings.published(tmp_path) == []


def test_recording_made_elsewhere_is_replayed_beside_a_newer_one(
    recorded: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = replace(recorded.select(size=[1]), provenance={**PROVENANCE, "gpu": "NVIDIA Newer"})
    monkeypatch.setattr(experiments, "find", lambda _: [newer, recorded])
    assert measure("toy", size=1).provenance["gpu"] == "NVIDIA Newer"
    assert measure("toy", size=2).provenance["gpu"] == "NVIDIA Test"


@pytest.mark.usefixtures("pretended_gpu")
def test_full_memory_is_one_sentence_and_loses_no_finished_cell(toy: Toy, tmp_path: Path) -> None:
    toy.full_at = 2
    with pytest.raises(AwqdocError, match=r"^size 2, kind a does not fit into the memory of this machine"):
        record("toy", tmp_path)
    toy.full_at = None
    record("toy", tmp_path)
    assert len(toy.measured) == 6
    assert toy.forgotten
