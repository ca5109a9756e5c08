"""A quantization that is interrupted, and gone on with; a disk that is full; a folder that is taken."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from interruption import Interruption
from tiny_models import random_windows, tiny_gqa, tiny_llama, tiny_opt

from awqdoc.errors import AwqdocError
from awqdoc.models import Settings, quantize

pytestmark = pytest.mark.usefixtures("one_thread")

AWQ = Settings(group_size=64)
SMALL = {"hidden": 64, "intermediate": 128}
SETTINGS = [AWQ, Settings("gptq", group_size=64), Settings("rtn", group_size=-1)]


def small_llama() -> Any:
    return tiny_llama(**SMALL)


def run(keep: Path | None, settings: Settings = AWQ, make: Callable[[], Any] = small_llama, seed: int = 1) -> Any:
    """Return the quantized model and the report."""
    model = make()
    return model, quantize(model, random_windows(length=32, seed=seed), settings, keep=keep, progress=False)


def assert_same(model: Any, other: Any) -> None:
    expected = other.state_dict()
    found = model.state_dict()
    assert list(found) == list(expected)
    for name, tensor in found.items():
        assert tensor.dtype == expected[name].dtype, name
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("make", [tiny_llama, tiny_gqa, tiny_opt])
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: settings.method)
def test_an_interrupted_run_goes_on_to_the_same_result(
    settings: Settings, make: Callable[..., Any], interruption: Interruption, tmp_path: Path
) -> None:
    def three() -> Any:
        return make(layers=3, **SMALL)

    whole, _ = run(None, settings, three)
    interruption.places.clear()
    interruption.at = 2
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "kept", settings, three)
    assert interruption.places == ["0", "1"]
    model, report = run(tmp_path / "kept", settings, three)
    assert interruption.places == ["0", "1", "2"], "a finished block was searched again"
    assert (report.resumed, set(report.searches)) == (2, {2})
    assert_same(model, whole)
    # Once more, with all of them finished.
    model, report = run(tmp_path / "kept", settings, three)
    assert (report.resumed, report.searches) == (3, {})
    assert_same(model, whole)


def test_interruption_says_what_is_kept_and_where(
    interruption: Interruption, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interruption.at = 1
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "kept")
    err = capsys.readouterr().err
    assert (
        err == f"\nInterrupted: 1 of 2 blocks are kept in {tmp_path / 'kept'}; the same command goes on from there.\n"
    )


def test_interruption_while_a_block_is_stored_does_not_count_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("safetensors.torch.save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "kept")
    assert "Interrupted: 0 of 2 blocks are kept" in capsys.readouterr().err
    assert list((tmp_path / "kept").iterdir()) == []


def test_interruption_without_a_folder_promises_nothing(
    interruption: Interruption, capsys: pytest.CaptureFixture[str]
) -> None:
    interruption.at = 1
    with pytest.raises(KeyboardInterrupt):
        run(None)
    assert capsys.readouterr().err == ""


def other_weight(position: str) -> Callable[[], Any]:
    """Return a maker of a model that differs in some numbers of one tensor."""

    def make() -> Any:
        model = small_llama()
        with torch.no_grad():
            model.get_parameter(position).view(-1)[::7] += 0.01
        return model

    return make


@pytest.mark.parametrize("settings", [AWQ, Settings("gptq", group_size=64)], ids=lambda settings: settings.method)
@pytest.mark.parametrize(
    ("changed", "taken_over"),
    [
        ({"bits": 3}, 0),
        ({"group_size": 32}, 0),
        ({"symmetric": True}, 0),
        ({"clip": False}, 0),
        ({"duo_scaling": True}, 0),
        ({"seed": 2}, 0),
        ({"make": other_weight("model.embed_tokens.weight")}, 0),
        ({"make": other_weight("model.layers.0.mlp.up_proj.weight")}, 0),
        ({"make": other_weight("model.layers.0.input_layernorm.weight")}, 0),
        ({"make": lambda: small_llama().half()}, 0),
        # The first block is the same, and so is what it made.
        ({"make": other_weight("model.layers.1.mlp.up_proj.weight")}, 1),
        # What is behind the blocks changes none of them.
        ({"make": other_weight("lm_head.weight")}, 2),
        ({}, 2),
    ],
    ids=(
        "bits",
        "group size",
        "symmetric",
        "clip",
        "duo scaling",
        "windows",
        "embeddings",
        "weight",
        "norm",
        "dtype",
        "later block",
        "output layer",
        "nothing",
    ),
)
def test_blocks_of_other_work_are_not_taken_over(
    changed: dict[str, Any], taken_over: int, settings: Settings, tmp_path: Path
) -> None:
    run(tmp_path, settings)
    others = {name: changed[name] for name in ("make", "seed") if name in changed}
    other = replace(settings, **{name: value for name, value in changed.items() if name not in others})
    model, report = run(tmp_path, other, **others)
    assert report.resumed == taken_over
    assert_same(model, run(None, other, **others)[0])


def test_blocks_of_another_method_are_not_taken_over(tmp_path: Path) -> None:
    for settings in SETTINGS:
        _, report = run(tmp_path, settings)
        assert report.resumed == 0


@pytest.mark.parametrize("damage", ["truncated", "empty", "no safetensors", "a folder"])
def test_a_damaged_file_is_made_anew(damage: str, tmp_path: Path) -> None:
    whole, _ = run(tmp_path)
    file = tmp_path / "block-000.safetensors"
    content = file.read_bytes()
    file.unlink()
    if damage == "a folder":
        file.mkdir()
        with pytest.raises(AwqdocError, match=r"block-000\.safetensors cannot be written"):
            run(tmp_path)
        return
    file.write_bytes({"truncated": content[:-1], "empty": b"", "no safetensors": b"\0" * 100}[damage])
    model, report = run(tmp_path)
    assert report.resumed == 1
    assert file.read_bytes() == content
    assert_same(model, whole)


def full_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_one_sentence_and_keeps_what_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import torch as safetensors

    stored: list[Path] = []
    save_file = safetensors.save_file

    def nearly_full(tensors: Any, file: Path, *rest: Any) -> None:
        save_file(tensors, file, *rest)
        stored.append(file)
        if len(stored) == 2:
            full_disk()

    monkeypatch.setattr(safetensors, "save_file", nearly_full)
    with pytest.raises(AwqdocError, match=r"block-001\.safetensors cannot be written \(.*No space left.*\): .*\.$"):
        run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["block-000.safetensors"]
    _, report = run(tmp_path)
    assert report.resumed == 1
