"""AWQ checkpoints that are damaged, incomplete or of another kind: one sentence each, and no pickle is opened."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import logits, random_windows, tiny_llama, tiny_opt

from awqdoc.errors import AwqdocError
from awqdoc.models import Settings, load, quantize, save

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"hidden": 64, "intermediate": 128, "layers": 1, "outliers": 1.0}
UP = "model.layers.0.mlp.up_proj"
Change = Callable[[dict[str, torch.Tensor]], object]


@pytest.fixture(scope="module")
def saved(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good checkpoint of a Llama, and one of an OPT."""
    folder = tmp_path_factory.mktemp("saved")
    for name, make in (("llama", tiny_llama), ("opt", tiny_opt)):
        model = make(**SMALL)
        quantize(model, None, Settings("rtn", group_size=32), progress=False)
        save(model, tokenizer, folder / name)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved / "llama", tmp_path / "checkpoint")


def change_tensors(folder: Path, change: Change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def change_config(folder: Path, **changes: Any) -> None:
    """Change entries of quantization_config; `...` takes one away."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    entries = {**config["quantization_config"], **changes}
    config["quantization_config"] = {key: value for key, value in entries.items() if value is not ...}
    file.write_text(json.dumps(config))


def refusal(folder: Path) -> str:
    with pytest.raises(AwqdocError) as caught:
        load(str(folder))
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    assert str(folder) in sentence
    return sentence


def to_dtype(name: str, dtype: torch.dtype) -> Change:
    return lambda tensors: tensors.update({name: tensors[name].to(dtype)})


def fill(name: str, value: float) -> Change:
    return lambda tensors: tensors[name].view(-1)[5:6].fill_(value)


DAMAGES: dict[str, tuple[Change, str]] = {
    "missing weight": (lambda t: t.pop(f"{UP}.qweight"), f"lacks {UP}.qweight (1 missing, 0 unknown)"),
    "missing norm": (lambda t: t.pop("model.norm.weight"), "lacks model.norm.weight (1 missing, 0 unknown)"),
    "missing output layer": (lambda t: t.pop("lm_head.weight"), "lacks lm_head.weight (1 missing, 0 unknown)"),
    "unknown tensor": (lambda t: t.update(extra=torch.zeros(1)), "holds extra, which its configuration has no place"),
    "weight in floating point": (
        lambda t: t.update({f"{UP}.weight": t.pop(f"{UP}.qweight")}),
        f"lacks {UP}.qweight (1 missing, 1 unknown)",
    ),
    "shorter weight": (
        lambda t: t.update({f"{UP}.qweight": t[f"{UP}.qweight"][:32].clone()}),
        "is int32 [32, 16]; the configuration says int32 [64, 16]",
    ),
    "transposed weight": (
        lambda t: t.update({f"{UP}.qweight": t[f"{UP}.qweight"].t().contiguous()}),
        "is int32 [16, 64]; the configuration says int32 [64, 16]",
    ),
    "longer norm": (
        lambda t: t.update({"model.norm.weight": torch.ones(65).half()}),
        "is floating-point [65]; the configuration says floating-point [64]",
    ),
    "codes in floating point": (to_dtype(f"{UP}.qweight", torch.float32), "is floating-point [64, 16]; the"),
    "codes of 8 bits": (to_dtype(f"{UP}.qzeros", torch.int8), "is int8 [2, 16]; the configuration says int32"),
    "scales as integers": (to_dtype(f"{UP}.scales", torch.int32), f"{UP}.scales of "),
    "norm as integers": (to_dtype("model.norm.weight", torch.int64), "model.norm.weight of "),
    "scale that is not finite": (fill(f"{UP}.scales", torch.inf), f"{UP}.scales of the model"),
    "norm that is not finite": (fill("model.norm.weight", torch.nan), "model.norm.weight of the model"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "words"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_checkpoint_is_refused_by_the_name_of_the_tensor(change: Change, words: str, folder: Path) -> None:
    change_tensors(folder, change)
    assert words in refusal(folder)


@pytest.mark.parametrize("size", [0, 4, 1000, -1])
def test_a_truncated_file_is_refused(size: int, folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    assert f"{file} cannot be read (truncated?" in refusal(folder)


OTHER_KINDS: dict[str, tuple[dict[str, Any], str]] = {
    "8 bits": ({"bits": 8}, "bits 8"),
    "no bits": ({"bits": ...}, "bits None"),
    "other version": ({"version": "gemv"}, "version gemv"),
    "no group size": ({"group_size": ...}, "group_size None"),
    "group size of nothing": ({"group_size": 0}, "group_size 0"),
    "group size as text": ({"group_size": "32"}, "group_size '32'"),
    "other group size": ({"group_size": 64}, "is int32 [4, 8]; the configuration says int32 ["),
    "group size above all": ({"group_size": 4096}, "is int32 [4, 8]; the configuration says int32 ["),
    "group size that is true": ({"group_size": True}, "group_size True"),
    "bits as text": ({"bits": "4"}, "bits '4'"),
    "no zero points": ({"zero_point": False}, "must say zero_point true; it says False"),
    "zero points as text": ({"zero_point": "yes"}, "must say zero_point true; it says 'yes'"),
    "left out as text": ({"modules_to_not_convert": "lm_head"}, "names as modules_to_not_convert; it has 'lm_head'"),
    "left out as number": ({"modules_to_not_convert": [1]}, "names as modules_to_not_convert; it has [1]"),
    "group size that does not divide": ({"group_size": 48}, "is int32 [4, 8]; the configuration says int32 ["),
}


@pytest.mark.parametrize(("changes", "words"), OTHER_KINDS.values(), ids=OTHER_KINDS.keys())
def test_a_checkpoint_of_another_kind_is_refused(changes: dict[str, Any], words: str, folder: Path) -> None:
    change_config(folder, **changes)
    assert words in refusal(folder)


@pytest.mark.parametrize("changes", [{"hidden_act": "nonsense"}, {"hidden_size": "wide"}, {"vocab_size": -1}])
def test_a_configuration_of_no_model_is_refused(changes: dict[str, Any], folder: Path) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    assert "(" in refusal(folder)


@pytest.mark.parametrize("value", ["awq", [1]])
def test_a_quantization_that_is_no_table_is_refused(value: Any, folder: Path) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "quantization_config": value}))
    with pytest.raises(AwqdocError, match=r"^[^\n]*\.$"):
        load(str(folder))


def test_a_tensor_that_two_files_hold_is_refused_with_both(folder: Path) -> None:
    shutil.copy(folder / "model.safetensors", folder / "model-00001-of-00001.safetensors")
    sentence = refusal(folder)
    assert sentence.startswith("lm_head.weight is both in ")
    assert f"{folder / 'model-00001-of-00001.safetensors'} and in {folder / 'model.safetensors'}: " in sentence


def test_scales_beyond_float16_are_refused(folder: Path) -> None:
    name = f"{UP}.scales"
    change_tensors(folder, lambda tensors: tensors.update({name: tensors[name].float() * 1e9}))
    assert refusal(folder).startswith(f"{name} of the model")


def test_another_quantization_is_refused(folder: Path) -> None:
    change_config(folder, quant_method="gptq")
    with pytest.raises(
        AwqdocError, match=r"^The model is quantized with 'gptq'; give an AWQ checkpoint, or one in FP16\.$"
    ):
        load(str(folder))


@pytest.mark.parametrize(
    "names", [{"w_bit": 4, "q_group_size": 32, "bits": ..., "group_size": ...}, {"version": "GEMM"}, {"version": ...}]
)
def test_autoawqs_own_names_are_understood(names: dict[str, Any], folder: Path, saved: Path) -> None:
    change_config(folder, **names)
    windows = random_windows()
    assert torch.equal(logits(load(str(folder))[0], windows), logits(load(str(saved / "llama"))[0], windows))


def test_rotary_frequencies_that_old_checkpoints_hold_are_passed_over(folder: Path, saved: Path) -> None:
    old = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}
    change_tensors(folder, lambda tensors: tensors.update(old))
    windows = random_windows()
    assert torch.equal(logits(load(str(folder))[0], windows), logits(load(str(saved / "llama"))[0], windows))


def test_an_output_layer_that_is_stored_beside_its_twin_is_read(saved: Path, tmp_path: Path) -> None:
    """Some tools write tied weights twice."""
    folder = shutil.copytree(saved / "opt", tmp_path / "checkpoint")
    embeddings = load_file(folder / "model.safetensors")["model.decoder.embed_tokens.weight"]
    change_tensors(folder, lambda tensors: tensors.update({"lm_head.weight": embeddings.clone()}))
    windows = random_windows()
    assert torch.equal(logits(load(str(folder))[0], windows), logits(load(str(saved / "opt"))[0], windows))


def test_embeddings_that_are_stored_as_the_output_layer_only_are_read(saved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved / "opt", tmp_path / "checkpoint")
    change_tensors(folder, lambda t: t.update({"lm_head.weight": t.pop("model.decoder.embed_tokens.weight")}))
    windows = random_windows()
    assert torch.equal(logits(load(str(folder))[0], windows), logits(load(str(saved / "opt"))[0], windows))


def test_tied_embeddings_that_are_missing_are_refused(saved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved / "opt", tmp_path / "checkpoint")
    change_tensors(folder, lambda tensors: tensors.pop("model.decoder.embed_tokens.weight"))
    assert "lacks model.decoder.embed_tokens.weight" in refusal(folder)


def test_a_piece_that_is_missing_is_refused(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    for number, part in enumerate((names[:8], names[8:]), start=1):
        save_file({name: tensors[name] for name in part}, folder / f"model-0000{number}-of-00002.safetensors")
    load(str(folder))
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert "lacks" in refusal(folder)


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> Any:
        return Path.touch, (self.sentinel,)


@pytest.mark.parametrize("quantized", [True, False])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "pytorch_model-00001-of-00002.bin"])
def test_a_pickle_is_never_opened(name: str, quantized: bool, folder: Path, tmp_path: Path) -> None:
    sentinel = tmp_path / "sprung"
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps({"model.norm.weight": Trap(sentinel)}))
    if not quantized:
        config = json.loads((folder / "config.json").read_text())
        del config["quantization_config"]
        (folder / "config.json").write_text(json.dumps(config))
    assert "has no safetensors file; pickles" in refusal(folder)
    assert not sentinel.exists()
    pickle.loads((folder / name).read_bytes())
    assert sentinel.exists(), "the trap works"
