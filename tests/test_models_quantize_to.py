"""From a model to a checkpoint: all of it or nothing, and never in place of something else."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from interruption import Interruption
from tiny_models import random_windows, tiny_llama

from awqdoc.errors import AwqdocError
from awqdoc.models import Report, Settings, checkpoint, quantize_to, quantizing

pytestmark = pytest.mark.usefixtures("one_thread")

AWQ = Settings(group_size=64)
SMALL = {"hidden": 64, "intermediate": 128}


def full_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def write(tokenizer: Any, tmp_path: Path) -> Callable[..., Report]:
    def write(folder: Path | None = None, settings: Settings = AWQ) -> Report:
        return quantize_to(folder or tmp_path / "new", tiny_llama(**SMALL), tokenizer, random_windows(), settings)

    return write


def test_the_checkpoint_leaves_nothing_beside_it(write: Callable[..., Report], tmp_path: Path) -> None:
    report = write()
    assert set(report.searches) == {0, 1}
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {p.name for p in (tmp_path / "new").iterdir()}


def test_an_interrupted_checkpoint_is_gone_on_with(
    write: Callable[..., Report], interruption: Interruption, tmp_path: Path
) -> None:
    interruption.at = 1
    with pytest.raises(KeyboardInterrupt):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["new.partial"]
    assert write().resumed == 1
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_a_full_disk_at_the_end_leaves_the_blocks_and_no_checkpoint(
    write: Callable[..., Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("transformers.modeling_utils.safe_save_file", full_disk)
        with pytest.raises(
            AwqdocError,
            match=r"new cannot be written \(.*No space left.*\): make room or choose another folder; all blocks are "
            rf"kept in {tmp_path}/new\.partial, and the same command goes on from there\.$",
        ):
            write()
    assert [path.name for path in sorted((tmp_path / "new.partial").iterdir())] == [
        "block-000.safetensors",
        "block-001.safetensors",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["new.partial"]
    assert write().resumed == 2


def interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_an_interruption_at_the_end_says_that_all_blocks_are_kept(
    write: Callable[..., Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("transformers.modeling_utils.safe_save_file", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write()
    assert capsys.readouterr().err.endswith(
        f"\nInterrupted: 2 of 2 blocks are kept in {tmp_path / 'new.partial'}; the same command goes on from there.\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["new.partial"]
    assert write().resumed == 2


def test_an_interruption_behind_the_end_leaves_nothing_beside_the_checkpoint(
    write: Callable[..., Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def complete_and_interrupt(*arguments: Any) -> None:
        checkpoint.write(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(quantizing, "write", complete_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    assert "Interrupted" not in capsys.readouterr().err


def test_what_a_kill_leaves_goes_with_a_later_run(
    write: Callable[..., Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed process cleans nothing up."""
    with monkeypatch.context() as patched:
        patched.setattr("transformers.modeling_utils.safe_save_file", full_disk)
        patched.setattr(checkpoint.shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(AwqdocError):
            write()
    assert [path.name for path in tmp_path.iterdir()] == ["new.partial"]
    assert list((tmp_path / "new.partial").glob("checkpoint.*"))
    write()
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_a_place_that_cannot_be_written_to_is_refused_before_any_work(
    write: Callable[..., Report], tmp_path: Path, interruption: Interruption
) -> None:
    (tmp_path / "file").write_text("all of it")
    with pytest.raises(
        AwqdocError, match=r"below cannot be written \((Not a directory|File exists)\): choose another folder\.$"
    ):
        write(tmp_path / "file" / "below")
    assert interruption.places == []
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_place_that_may_not_be_written_to_is_refused_before_any_work(
    write: Callable[..., Report], tmp_path: Path, interruption: Interruption, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(**_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(quantizing.tempfile, "TemporaryFile", denied)
    with pytest.raises(AwqdocError, match=r"new cannot be written \(Permission denied\): choose another folder\.$"):
        write()
    assert interruption.places == []
    assert list(tmp_path.iterdir()) == []


def test_what_a_checkpoint_cannot_hold_is_refused_before_any_work(
    tokenizer: Any, tmp_path: Path, interruption: Interruption
) -> None:
    model = tiny_llama(**SMALL)
    with torch.no_grad():
        model.model.layers[1].input_layernorm.weight[3] = 1e6
    with pytest.raises(AwqdocError, match=r"^model\.layers\.1\.input_layernorm\.weight reaches 1e\+06, and .*\.$"):
        quantize_to(tmp_path / "new", model, tokenizer, random_windows(), AWQ)
    assert interruption.places == []
    assert list(tmp_path.iterdir()) == []


def test_bad_input_leaves_no_folder(write: Callable[..., Report], tmp_path: Path) -> None:
    with pytest.raises(AwqdocError, match="the group size 48 does not divide"):
        write(settings=Settings(group_size=48))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("taken_by", ["a folder", "a file"])
def test_an_occupied_place_is_refused_before_any_work(
    taken_by: str, write: Callable[..., Report], tmp_path: Path, interruption: Interruption
) -> None:
    place = tmp_path / "new"
    if taken_by == "a folder":
        place.mkdir()
        (place / "thesis.txt").write_text("all of it")
    else:
        place.write_text("all of it")
    with pytest.raises(AwqdocError, match=rf"^{place} exists and is not empty: .*\.$"):
        write()
    assert interruption.places == []
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_bits_that_a_checkpoint_cannot_have_are_refused_before_any_work(
    write: Callable[..., Report], tmp_path: Path, interruption: Interruption
) -> None:
    with pytest.raises(AwqdocError, match=r"^An AWQ checkpoint has layers of 4 bits; found 3: .*\.$"):
        write(settings=Settings(bits=3, group_size=64))
    assert interruption.places == []
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_and_one_below_a_new_folder_are_written_to(
    write: Callable[..., Report], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty", Settings("rtn", group_size=64))
    write(tmp_path / "new" / "below", Settings("rtn", group_size=64))
    assert (tmp_path / "empty" / "config.json").exists()
    assert (tmp_path / "new" / "below" / "config.json").exists()


def test_the_folder_that_one_stands_in_is_refused(
    tokenizer: Any, interruption: Interruption, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be replaced, and a shell left behind in the old one."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AwqdocError, match=r"^The checkpoint needs a folder of its own; found '\.': .*\.$"):
        quantize_to(Path(), tiny_llama(**SMALL), tokenizer, random_windows(), AWQ)
    assert interruption.places == []
