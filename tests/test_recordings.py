"""Recordings: what is written can be read, and what is broken is refused with a sentence."""

import csv
import getpass
import io
import json
import os
import re
import socket
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awqdoc import gpu, recordings
from awqdoc.errors import AwqdocError
from awqdoc.recordings import Recording, load, published, save
from awqdoc.recordings.provenance import collect

RECORDING = Recording(
    experiment="toy",
    parameters={"size": [1, 2], "kind": ["a", "b"]},
    provenance={
        "commit": "0123456789abcdef", "dirty": False, "sources": "sha256:then", "date": "2026-11-23T18:12:08+00:00",
        "clock": "a sundial", "gpu": "NVIDIA H200", "power_limit_w": 700.0, "driver": None,
    },
    rows=[
        {"size": 1, "kind": "a", "seconds": [1.5e-05, 2e-05]},
        {"size": 1, "kind": "b", "skipped": 'not "here", and\nnot there'},
        {"size": 2, "kind": "a", "seconds": [0.25]},
        {"size": 2, "kind": "b", "seconds": []},
    ],
)  # fmt: skip
TEXT = RECORDING.to_json()
# The last bytes are "}" and a line feed: without the line feed the file is still whole.
LAST_BRACE = len(TEXT.encode()) - 2

values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code is as it was when RECORDING was made."""
    monkeypatch.setattr(recordings, "source_hash", lambda _: "sha256:then")


def refusal(text: str | bytes) -> str:
    """Return the sentence with which a file of this content is refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "toy.json"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(AwqdocError) as caught:
            load(path)
        sentence = str(caught.value)
        assert str(path) in sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


@given(rows=st.lists(st.dictionaries(st.text(), values | st.lists(values)), max_size=4), name=st.text())
@settings(deadline=None, max_examples=50)
def test_what_is_saved_is_loaded(rows: list[dict[str, Any]], name: str) -> None:
    recording = replace(RECORDING, rows=rows, provenance={**RECORDING.provenance, "clock": name})
    with tempfile.TemporaryDirectory() as folder:
        assert load(save(recording, Path(folder))) == recording


def test_file_is_named_by_gpu_and_experiment(tmp_path: Path) -> None:
    assert save(RECORDING, tmp_path) == tmp_path / "nvidia-h200" / "toy.json"
    assert RECORDING.filename == "nvidia-h200-toy"
    assert recordings.slug("NVIDIA GeForce RTX 4090 (24 GB)") == "nvidia-geforce-rtx-4090-24-gb"


def test_json_has_one_row_to_a_line() -> None:
    lines = TEXT.split("\n")
    rows = [line.strip().rstrip(",") for line in lines if line.startswith("  ")]
    assert [json.loads(row) for row in rows] == RECORDING.rows
    assert json.loads(TEXT)["schema"] == recordings.SCHEMA


def test_json_without_rows_is_json() -> None:
    assert json.loads(replace(RECORDING, rows=[]).to_json())["rows"] == []


def test_a_value_that_json_does_not_know_is_not_written() -> None:
    """Browsers and other languages refuse NaN, which Python writes unless it is told not to."""
    text = replace(RECORDING, rows=[{"size": 1, "kind": "a", "error": float("nan")}]).to_json()
    json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))


@given(length=st.integers(0, LAST_BRACE))
@settings(deadline=None)
def test_truncated_file_is_refused(length: int) -> None:
    sentence = refusal(TEXT.encode()[:length])
    assert "truncated" in sentence
    assert "`awqdoc record`" in sentence
    assert "git" in sentence


def test_bytes_that_are_not_text_are_refused() -> None:
    assert "`awqdoc record`" in refusal(b"\xff\xfe\x00{")


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if not isinstance(value, dict | list):
        return [path]
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return [leaf for key, inner in items for leaf in leaves(inner, (*path, key))]


RECORDED = {key: value for key, value in json.loads(TEXT).items() if key not in ("schema", "digest")}


@given(leaf=st.sampled_from(leaves(RECORDED)), new=values)
@settings(deadline=None)
def test_a_value_changed_by_hand_is_refused(leaf: tuple[Any, ...], new: Any) -> None:
    content = json.loads(TEXT)
    inner = content
    for key in leaf[:-1]:
        inner = inner[key]
    if json.dumps(inner[leaf[-1]]) == json.dumps(new):
        new = "another"
    inner[leaf[-1]] = new
    sentence = refusal(json.dumps(content))
    assert "changed after it was made" in sentence
    assert "`awqdoc record`" in sentence


@pytest.mark.parametrize("change", ["drop", "swap", "double"])
def test_rows_dropped_swapped_or_doubled_by_hand_are_refused(change: str) -> None:
    content = json.loads(TEXT)
    first, second, *rest = content["rows"]
    content["rows"] = {
        "drop": [first, *rest],
        "swap": [second, first, *rest],
        "double": [first, *content["rows"]],
    }[change]
    assert "changed after it was made" in refusal(json.dumps(content))


def test_reformatted_file_is_still_good(tmp_path: Path) -> None:
    path = tmp_path / "toy.json"
    path.write_text(json.dumps(json.loads(TEXT), indent=4, sort_keys=True))
    assert load(path) == RECORDING


def test_newer_schema_asks_for_a_newer_awqdoc() -> None:
    sentence = refusal(TEXT.replace('"schema": 1', '"schema": 2'))
    assert "schema 2" in sentence
    assert "install a newer awqdoc" in sentence


@pytest.mark.parametrize("key", ["experiment", "parameters", "provenance", "rows", "digest"])
def test_missing_key_is_named(key: str) -> None:
    content = json.loads(TEXT)
    del content[key]
    sentence = refusal(json.dumps(content))
    assert f"lacks '{key}'" in sentence
    assert "`awqdoc record`" in sentence


@pytest.mark.parametrize("rows", [None, [1], [[1]], "text"])
def test_rows_of_another_kind_are_refused(rows: Any) -> None:
    assert "its digest does not fit" in refusal(json.dumps({**json.loads(TEXT), "rows": rows}))


def test_json_without_an_end_is_refused() -> None:
    assert "not whole JSON" in refusal("[" * 100_000)


@pytest.mark.parametrize(
    "text", ["[]", "{}", "3", "null", '"text"', '{"schema": "1"}', '{"type": "FeatureCollection"}']
)
def test_other_json_is_not_a_recording(text: str) -> None:
    assert "is not a recording" in refusal(text)


def test_missing_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(AwqdocError, match="cannot be read"):
        load(tmp_path / "none.json")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("moment", ["write_text", "replace"])
def test_interrupted_save_leaves_the_old_file_and_nothing_else(
    moment: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(RECORDING, tmp_path)

    def crash(self: Path, *_: Any, **__: Any) -> None:
        self.write_bytes(TEXT.encode()[:100])
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Path, moment, crash)
        with pytest.raises((AwqdocError, KeyboardInterrupt)):
            save(replace(RECORDING, rows=[]), tmp_path)
    assert load(path) == RECORDING
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["toy.json"]


def test_full_disk_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(AwqdocError, match=r"toy\.json cannot be written \(No space left on device\): choose a folder"):
        save(RECORDING, tmp_path)


def test_unwritable_folder_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(AwqdocError, match=r"cannot be written \(.+\): choose a folder that you may"):
        save(RECORDING, tmp_path / "file" / "below")


def test_select_keeps_the_rows_asked_for() -> None:
    part = RECORDING.select(size=[2], kind=["b", "a"])
    assert part.rows == RECORDING.rows[2:]
    assert part.parameters == {"size": [2], "kind": ["b", "a"]}
    assert part.provenance == RECORDING.provenance
    assert RECORDING.select() == RECORDING


def test_covers_what_it_holds_and_no_more() -> None:
    assert RECORDING.covers({})
    assert RECORDING.covers({"size": [2]})
    assert RECORDING.covers({"size": [1, 2], "kind": ["a"]})
    assert not RECORDING.covers({"size": [1, 3]})
    assert not RECORDING.covers({"colour": ["red"]})


def test_skipped_rows_hold_a_reason() -> None:
    assert [row["kind"] for row in RECORDING.skipped] == ["b"]


@pytest.mark.usefixtures("fresh")
def test_label_of_a_recording() -> None:
    assert RECORDING.label == "recorded on NVIDIA H200, 2026-11-23, commit 0123456"


def test_label_of_a_stale_recording_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordings, "source_hash", lambda _: "sha256:now")
    stale = replace(RECORDING)
    assert stale.stale
    assert stale.label.endswith("; stale: the code has changed since")


@pytest.mark.usefixtures("fresh")
def test_label_of_a_measurement_names_its_clock() -> None:
    assert replace(RECORDING, origin="measured").label == "measured here: NVIDIA H200, 2026-11-23, a sundial"


@pytest.mark.usefixtures("fresh")
def test_label_without_a_commit_is_honest() -> None:
    provenance = {**RECORDING.provenance, "commit": None}
    assert "commit unknown" in replace(RECORDING, provenance=provenance).label


def test_csv_is_read_back() -> None:
    first, skipped, _, empty = csv.DictReader(io.StringIO(RECORDING.to_csv()))
    assert first == {"size": "1", "kind": "a", "seconds": "1.5e-05 2e-05", "skipped": ""}
    assert skipped["skipped"] == 'not "here", and\nnot there'
    assert empty["seconds"] == ""


cells = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]) | st.just("\n"))


@given(rows=st.lists(st.fixed_dictionaries({"kind": cells, "skipped": cells}), max_size=4))
@settings(deadline=None, max_examples=50)
def test_csv_keeps_any_text(rows: list[dict[str, str]]) -> None:
    text = replace(RECORDING, rows=rows).to_csv()
    assert list(csv.DictReader(io.StringIO(text, newline=""))) == rows


def test_published_is_newest_first(tmp_path: Path) -> None:
    for year in ("2025", "2027", "2026"):
        save(
            replace(RECORDING, experiment=year, provenance={**RECORDING.provenance, "date": f"{year}-01-01"}),
            tmp_path,
        )
    assert [recording.experiment for recording in published(tmp_path)] == ["2027", "2026", "2025"]


def test_published_refuses_a_malformed_recording(tmp_path: Path) -> None:
    path = save(RECORDING, tmp_path)
    path.write_text(TEXT[:300])
    with pytest.raises(AwqdocError, match="truncated"):
        published(tmp_path)


def test_a_recording_under_another_name_is_not_taken_for_that_experiment(tmp_path: Path) -> None:
    path = save(RECORDING, tmp_path)
    path.rename(path.with_name("device.json"))
    with pytest.raises(AwqdocError, match="toy"):
        recordings.find("device", tmp_path)


def test_all_shipped_recordings_are_whole() -> None:
    assert {recording.experiment for recording in published()} >= {"device", "batch-sweep"}


def test_provenance_names_neither_host_nor_user(monkeypatch: pytest.MonkeyPatch) -> None:
    words = set(re.split(r"[^\w-]+", json.dumps(collect("device", "cpu", seed=0))))
    users = {getpass.getuser(), os.environ.get("USER"), Path.home().name}
    assert not words & ({socket.gethostname(), socket.getfqdn()} | users)


def test_provenance_of_a_gpu_holds_no_serial_number(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {
        "name": "NVIDIA H200",
        "compute capability": "9.0",
        "serial": "1650",
        "UUID": "GPU-0c",
        "power limit": 700.0,
    }
    monkeypatch.setattr(gpu, "facts", lambda: [{"fact": fact, "value": value} for fact, value in facts.items()])
    provenance = collect("device", "cuda", seed=7)
    assert not {"1650", "GPU-0c"} & set(map(str, provenance.values()))
    assert provenance["gpu"] == "NVIDIA H200"
    assert provenance["power_limit_w"] == 700.0
    assert provenance["seed"] == 7


def test_provenance_of_the_cpu_names_it_and_its_clock() -> None:
    provenance = collect("device", "cpu", seed=0, clock="time.perf_counter, warm")
    assert provenance["gpu"] == gpu.cpu_name()
    assert provenance["clock"].startswith("time.perf_counter")
    assert provenance["date"].endswith("+00:00")


@pytest.mark.parametrize(("given", "wanted"), [("0123abc", ("0123abc", False)), ("0123abc-dirty", ("0123abc", True))])
def test_commit_may_be_handed_in(given: str, wanted: tuple[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWQDOC_COMMIT", given)
    provenance = collect("device", "cpu", seed=0)
    assert (provenance["commit"], provenance["dirty"]) == wanted


def test_commit_is_unknown_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWQDOC_COMMIT", raising=False)
    monkeypatch.setattr("awqdoc.recordings.provenance.CHECKOUT", tmp_path)
    provenance = collect("device", "cpu", seed=0)
    assert (provenance["commit"], provenance["dirty"]) == (None, None)
