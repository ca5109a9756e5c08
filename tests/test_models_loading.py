"""Models by name: from a folder, from the hub, the embedded one; and what is said where there is none."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import half, logits, random_windows, tiny_llama, tiny_opt

from awqdoc.errors import AwqdocError
from awqdoc.models import EMBEDDED, Settings, load, loading, quantize, save

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"hidden": 64, "intermediate": 128, "layers": 1}
MAKERS = {"llama": tiny_llama, "opt": tiny_opt}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The hub does not answer, and nothing was fetched before."""

    def no_answer(*_: Any, **__: Any) -> None:
        raise ConnectionError("Failed to resolve 'huggingface.co'. Try again.")

    monkeypatch.setattr("huggingface_hub.model_info", no_answer)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr("socket.socket.connect", no_answer)


@pytest.fixture(scope="module")
def saved(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama and an OPT as transformers saves them, in float16."""
    folder = tmp_path_factory.mktemp("saved")
    for name, make in MAKERS.items():
        half(make(**SMALL)).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved / "opt", tmp_path / "model")


def refusal(name: object, **options: Any) -> str:
    with pytest.raises(AwqdocError) as caught:
        load(str(name), **options)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


def test_the_embedded_model_predicts_python() -> None:
    model, tokenizer = load(EMBEDDED)
    tokens = tokenizer("import os\nimport sys\n\n\ndef main(argv=None):\n    if argv is", return_tensors="pt")
    found = tokenizer.decode(model(**tokens).logits[0, -1].argmax())
    assert found.strip() in {"None", "not"}
    assert not model.training
    assert model.dtype == torch.float32
    assert load()[0].config.to_dict() == model.config.to_dict()


@pytest.mark.parametrize("name", MAKERS)
def test_a_folder_that_transformers_saved_is_loaded_and_quantized(name: str, saved: Path) -> None:
    model, tokenizer = load(str(saved / name))
    expected = half(MAKERS[name](**SMALL)).float()
    torch.testing.assert_close(logits(model, random_windows()), logits(expected, random_windows()))
    assert tokenizer("import os")["input_ids"]
    report = quantize(model, random_windows(), Settings(group_size=32), progress=False)
    assert set(report.searches) == {0}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_take_the_dtype_that_is_asked_for(dtype: torch.dtype, saved: Path) -> None:
    model, _ = load(str(saved / "llama"), dtype=dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}


def test_embeddings_that_are_stored_as_the_output_layer_only_are_read(folder: Path, saved: Path) -> None:
    """As in the safetensors that the hub made of facebook/opt-125m's pickle."""
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors.pop("model.decoder.embed_tokens.weight")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    model, _ = load(str(folder))
    assert torch.equal(logits(model, random_windows()), logits(load(str(saved / "opt"))[0], random_windows()))


def test_an_index_of_pieces_is_followed(saved: Path, tmp_path: Path, tokenizer: Any) -> None:
    half(tiny_opt(**SMALL)).save_pretrained(tmp_path / "pieces", max_shard_size="50KB")
    tokenizer.save_pretrained(tmp_path / "pieces")
    assert len(list((tmp_path / "pieces").glob("*.safetensors"))) > 1
    model, _ = load(str(tmp_path / "pieces"))
    assert torch.equal(logits(model, random_windows()), logits(load(str(saved / "opt"))[0], random_windows()))


# What cannot be loaded.


def test_a_folder_without_a_configuration_is_told(tmp_path: Path) -> None:
    assert refusal(tmp_path) == (
        f"The folder {tmp_path} has no config.json: give that of a saved model, or 'embedded'."
    )


@pytest.mark.parametrize("name", ["no/such/folder", "/nowhere", "a model", "~/model", "./nope", "../nope"])
def test_what_is_neither_a_folder_nor_a_name_is_told(name: str) -> None:
    assert refusal(name) == (f"There is no folder {name}: give one, the name of a model on the hub, or 'embedded'.")


@pytest.mark.parametrize("name", ["facebook/opt-125m", "gpt2", "embeded"])
def test_a_name_that_the_hub_cannot_be_asked_for_is_told(name: str) -> None:
    sentence = refusal(name)
    assert sentence.startswith(f"The model {name!r} is no folder here and cannot be fetched from the hub (Failed to ")
    assert sentence.endswith("or use the model that ships with awqdoc, 'embedded'.")


def fetched(folder: Path, name: str) -> None:
    """Put a folder into the hub's cache, in its layout."""
    from huggingface_hub import constants

    cached = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    shutil.copytree(folder, cached / "snapshots" / ("0" * 40))
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0" * 40)


def test_a_model_that_was_fetched_before_is_used_without_the_hub(saved: Path) -> None:
    fetched(saved / "opt", "someone/tiny-opt")
    model, _ = load("someone/tiny-opt")
    assert torch.equal(logits(model, random_windows()), logits(load(str(saved / "opt"))[0], random_windows()))


def test_a_pickle_that_was_fetched_before_is_not_used(folder: Path) -> None:
    """Not even one that holds nothing but weights."""
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    fetched(folder, "someone/pickled-opt")
    assert refusal("someone/pickled-opt").startswith("The model someone/pickled-opt cannot be loaded (")


def test_a_checkpoint_that_was_fetched_before_is_used_without_the_hub(tokenizer: Any, tmp_path: Path) -> None:
    model = tiny_opt(**SMALL)
    quantize(model, None, Settings("rtn", group_size=32), progress=False)
    save(model, tokenizer, tmp_path / "awq")
    fetched(tmp_path / "awq", "someone/tiny-opt-awq")
    again, _ = load("someone/tiny-opt-awq")
    assert torch.equal(logits(again, random_windows()), logits(load(str(tmp_path / "awq"))[0], random_windows()))


@pytest.mark.parametrize("size", [0, 4, 1000, -1])
def test_a_truncated_file_is_told(size: int, folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    assert refusal(folder).startswith(f"The model {folder} cannot be loaded (")


@pytest.mark.parametrize(
    ("file", "what"), [("config.json", "The model"), ("tokenizer.json", "The tokenizer of the model")]
)
def test_a_file_that_is_cut_off_is_told(file: str, what: str, folder: Path) -> None:
    (folder / file).write_text((folder / file).read_text()[:100])
    assert refusal(folder).startswith(f"{what} {folder} cannot be loaded (")


def test_a_folder_without_a_tokenizer_is_told(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()
    assert refusal(folder).startswith(f"The model '{folder}' has no tokenizer: ")


@pytest.mark.parametrize("name", ["model.decoder.layers.0.fc1.weight", "model.decoder.final_layer_norm.bias"])
def test_a_missing_tensor_is_told_instead_of_made_up(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    capsys.readouterr()
    assert refusal(folder).startswith(f"The files of the model '{folder}' lack {name} (1 missing): ")
    assert capsys.readouterr() == ("", "")


def test_a_tensor_of_another_shape_is_told_with_both_shapes(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.decoder.layers.0.fc1.bias"] = torch.zeros(64).half()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    name = "model.decoder.layers.0.fc1.bias"
    assert refusal(folder).startswith(
        f"The files of the model '{folder}' hold {name} as [64]; the configuration says [128]: "
    )


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_damaged_weight_is_told(value: float, folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.decoder.layers.0.fc1.weight"][3, 3] = value
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    assert refusal(folder) == (
        f"model.decoder.layers.0.fc1.weight of the model '{folder}' holds inf or nan: its files are damaged, fetch "
        "them again."
    )


def change_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize("kind", ["abacus", "t5", "gpt2", "bloom"])
def test_another_architecture_is_told_before_its_weights_are_read(kind: str, folder: Path) -> None:
    change_config(folder, model_type=kind)
    (folder / "model.safetensors").write_bytes(b"")
    assert refusal(folder) == f"Models of the type '{kind}' cannot be quantized here; supported are llama, opt."


def test_a_configuration_without_an_architecture_is_told(folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    assert refusal(folder) == (
        f"The config.json of the model {folder} has no model_type: fetch or save the model again."
    )


OWN_CODE = {
    "AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own", "AutoTokenizer": ["own.Own", None],
}  # fmt: skip


@pytest.fixture
def trapped(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with code beside it; someone who is asked whether to run it says yes."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    (folder / "own.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'sprung')!r}).touch()\n")
    return folder


def test_code_that_a_model_brings_is_refused_and_not_asked_about(trapped: Path, tmp_path: Path) -> None:
    change_config(trapped, model_type="own", auto_map=OWN_CODE)
    assert refusal(trapped) == (
        f"The model {trapped} brings code of its own (auto_map), which is not run here; supported are llama, opt."
    )
    assert not (tmp_path / "sprung").exists()


def test_code_that_a_tokenizer_brings_is_not_run(trapped: Path, tmp_path: Path) -> None:
    """Its tokenizer.json is read without."""
    file = trapped / "tokenizer_config.json"
    entries = {**json.loads(file.read_text()), "tokenizer_class": "Own", "auto_map": OWN_CODE}
    file.write_text(json.dumps(entries))
    load(str(trapped))
    assert not (tmp_path / "sprung").exists()


def test_a_model_that_transformers_knows_is_loaded_without_the_code_it_brings(
    trapped: Path, saved: Path, tmp_path: Path
) -> None:
    folder = trapped
    change_config(folder, auto_map=OWN_CODE)
    assert torch.equal(
        logits(load(str(folder))[0], random_windows()), logits(load(str(saved / "opt"))[0], random_windows())
    )
    assert not (tmp_path / "sprung").exists()


def test_blocks_that_the_configuration_does_not_count_are_told(saved: Path, tmp_path: Path, tokenizer: Any) -> None:
    folder = tmp_path / "model"
    half(tiny_opt(hidden=64, intermediate=128, layers=2)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    change_config(folder, num_hidden_layers=1)
    sentence = refusal(folder)
    assert sentence.startswith(f"The files of the model '{folder}' hold model.decoder.layers.1.fc1.bias, which its ")
    assert "(16 unknown)" in sentence


def test_a_name_that_no_file_system_takes_is_told() -> None:
    name = "x" * 300
    assert refusal(name) == f"The folder {name} cannot be read (File name too long): give another one, or 'embedded'."


def test_a_folder_that_may_not_be_read_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "exists", denied)
    assert (
        refusal(folder) == f"The folder {folder} cannot be read (Permission denied): give another one, or 'embedded'."
    )


def test_a_shipped_file_that_was_changed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = shutil.copytree(loading.SHIPPED, tmp_path / "shipped")
    monkeypatch.setattr(loading, "SHIPPED", copy)
    load()
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")
    assert "model.safetensors is not the file that manifest.json lists" in refusal(EMBEDDED)
