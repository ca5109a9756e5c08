"""Our checkpoints in AutoAWQ, and AutoAWQ's in ours: the same files, the same tensors, the same tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import autoawq_oracle
import pytest
import torch
from autoawq_oracle import autoawq, dequantize, on_a_cpu
from safetensors.torch import load_file
from tiny_models import MAKERS, half, logits, random_windows, tiny_llama, tiny_opt

from awqdoc.errors import AwqdocError
from awqdoc.models import QuantizedLinear, Settings, load, quantize, save

pytestmark = pytest.mark.usefixtures("one_thread")

RTN = Settings("rtn", group_size=64)
FAMILIES = {**MAKERS, "tied llama": lambda **options: tiny_llama(tied=True, **options)}


@pytest.fixture(scope="module", params=FAMILIES.values(), ids=FAMILIES.keys())
def make(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module")
def theirs(make: Any, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that AutoAWQ made and saved, in one file and in pieces of 100 kB."""
    autoawq()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    oracle = autoawq_oracle.quantize(half(make(layers=1)), random_windows(count=1), group_size=64)
    torch.set_num_threads(threads)
    folder = tmp_path_factory.mktemp("theirs")
    oracle.save(folder / "whole")
    oracle.save(folder / "pieces", shard_size="100KB")
    for part in folder.iterdir():
        tokenizer.save_pretrained(part)
    return folder


@pytest.fixture(scope="module")
def ours(make: Any, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a model of the same sizes, quantized and saved by us."""
    model = make(layers=1)
    quantize(model, None, RTN, progress=False)
    folder = tmp_path_factory.mktemp("ours") / "new"
    save(model, tokenizer, folder)
    return folder


def configuration(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def test_the_tensors_are_named_and_shaped_as_autoawqs(ours: Path, theirs: Path) -> None:
    found = {name: (t.dtype, t.shape) for name, t in load_file(ours / "model.safetensors").items()}
    expected = {name: (t.dtype, t.shape) for name, t in load_file(theirs / "whole" / "model.safetensors").items()}
    assert found == expected


def test_the_configuration_is_autoawqs(ours: Path, theirs: Path) -> None:
    found, expected = configuration(ours), configuration(theirs / "whole")
    assert found["quantization_config"] == expected["quantization_config"]
    assert found["dtype"] == expected["dtype"] == "float16"
    # `use_cache` was switched off for AutoAWQ's search, and it saves that.
    assert {key: value for key, value in found.items() if key != "use_cache"} == {
        key: value for key, value in expected.items() if key != "use_cache"
    }


def test_autoawq_computes_the_same_with_our_checkpoint(ours: Path) -> None:
    windows = random_windows()
    model, _ = load(str(ours), dtype=torch.float16)
    mine = logits(model, windows).float()
    with on_a_cpu():
        other = autoawq_oracle.load(ours)
        yours = logits(other.model.half(), windows).float()
    # Both multiply in float16, in another order.
    torch.testing.assert_close(yours, mine, rtol=0.01, atol=0.004)
    first, second = mine.topk(2).values.unbind(dim=2)
    clear = first - second > 0.02
    assert clear.float().mean() > 0.5
    assert torch.equal(mine.argmax(2)[clear], yours.argmax(2)[clear])


def test_we_read_the_weights_that_autoawq_meant(theirs: Path) -> None:
    model, _ = load(str(theirs / "whole"))
    other = autoawq_oracle.load(theirs / "whole").model
    layers = {
        name: module for name, module in other.named_modules() if isinstance(module, autoawq().gemm.WQLinear_GEMM)
    }
    assert set(layers) == {name for name, module in model.named_modules() if isinstance(module, QuantizedLinear)}
    for name, layer in layers.items():
        assert torch.equal(model.get_submodule(name).quantized_weight.dequantize().t(), dequantize(layer))
    left = {name: t for name, t in other.state_dict().items() if name.rpartition(".")[0] not in layers}
    assert all(torch.equal(model.state_dict()[name], tensor.float()) for name, tensor in left.items())
    assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))


def test_a_checkpoint_in_pieces_is_the_same(theirs: Path) -> None:
    assert len(list((theirs / "pieces").glob("*.safetensors"))) > 1
    whole, pieces = (load(str(theirs / kind))[0].state_dict() for kind in ("whole", "pieces"))
    assert list(whole) == list(pieces)
    assert all(torch.equal(tensor, pieces[name]) for name, tensor in whole.items())


def test_saving_leaves_the_model_as_it_was(make: Any, tokenizer: Any, tmp_path: Path) -> None:
    model, windows = make(), random_windows()
    quantize(model, None, RTN, progress=False)
    before = logits(model, windows)
    save(model, tokenizer, tmp_path / "new")
    assert not hasattr(model.config, "quantization_config")
    assert torch.equal(logits(model, windows), before)
    save(model, tokenizer, tmp_path / "again")
    for file in sorted((tmp_path / "new").iterdir()):
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file.name


def test_what_is_saved_is_what_is_loaded(make: Any, tokenizer: Any, tmp_path: Path) -> None:
    model, windows = half(make()), random_windows()
    quantize(model, None, Settings("rtn", group_size=32), progress=False)
    save(model, tokenizer, tmp_path / "new")
    again, _ = load(str(tmp_path / "new"), dtype=torch.float16)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert torch.equal(logits(again, windows), logits(model, windows))
    assert again.generation_config.to_dict() == model.generation_config.to_dict()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_only_what_is_not_packed_takes_the_dtype_that_is_asked_for(ours: Path, dtype: torch.dtype) -> None:
    model, _ = load(str(ours), dtype=dtype)
    layers = {id(t) for m in model.modules() if isinstance(m, QuantizedLinear) for t in (m.qweight, m.qzeros, m.scales)}
    tensors = {name: t for name, t in model.state_dict(keep_vars=True).items() if id(t) not in layers}
    assert {t.dtype for t in tensors.values()} == {dtype}
    assert logits(model, random_windows()).dtype == dtype


@pytest.mark.parametrize("make", [FAMILIES["tied llama"], tiny_opt], ids=["llama", "opt"], scope="module")
def test_tied_embeddings_are_stored_once_and_tied_again(ours: Path, make: Any) -> None:
    names = list(load_file(ours / "model.safetensors"))
    assert not any("lm_head" in name for name in names)
    assert sum("embed_tokens" in name for name in names) == 1
    model, _ = load(str(ours))
    assert model.lm_head.weight is model.get_input_embeddings().weight


@pytest.mark.parametrize("group_size", [32, 128, -1])
def test_the_group_size_is_written_down(group_size: int, tokenizer: Any, tmp_path: Path) -> None:
    model = tiny_llama()
    quantize(model, None, Settings("rtn", group_size=group_size), progress=False)
    save(model, tokenizer, tmp_path / "new")
    assert configuration(tmp_path / "new")["quantization_config"]["group_size"] == group_size
    again, _ = load(str(tmp_path / "new"))
    torch.testing.assert_close(logits(again, random_windows()), logits(model, random_windows()), rtol=0.02, atol=0.02)


def test_the_tokenizer_goes_with_it(ours: Path, tokenizer: Any) -> None:
    _, again = load(str(ours))
    text = "def windows(tokens, length=512):\n    return tokens"
    assert again(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_layers_that_were_left_out_stay_linear(make: Any, tokenizer: Any, tmp_path: Path) -> None:
    """As AutoAWQ leaves out what `modules_to_not_convert` names."""
    autoawq()
    model = half(make(layers=1))
    oracle = autoawq_oracle.quantize(model, random_windows(count=1), group_size=64, modules_to_not_convert=["k_proj"])
    oracle.save(tmp_path / "theirs")
    tokenizer.save_pretrained(tmp_path / "theirs")
    again, _ = load(str(tmp_path / "theirs"))
    left = [n for n, m in again.named_modules() if isinstance(m, torch.nn.Linear) and "layers" in n]
    assert [n.rpartition(".")[2] for n in left] == ["k_proj"]
    assert torch.equal(again.get_submodule(left[0]).weight, model.get_submodule(left[0]).weight.float())
    with pytest.raises(AwqdocError, match=rf"^{left[0]} is not quantized, .*\.$"):
        save(again, tokenizer, tmp_path / "ours")


# What cannot be saved.


def test_three_bits_are_no_awq_checkpoint(tokenizer: Any, tmp_path: Path) -> None:
    model = tiny_llama()
    quantize(model, None, Settings("rtn", 3, 64), progress=False)
    with pytest.raises(AwqdocError, match=r"^An AWQ checkpoint has layers of 4 bits; this model has \[3\]: .*\.$"):
        save(model, tokenizer, tmp_path / "new")


def test_a_model_that_is_not_quantized_is_no_awq_checkpoint(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(AwqdocError, match=r"this model has none: quantize it with bits=4\.$"):
        save(tiny_llama(), tokenizer, tmp_path / "new")


def test_layers_of_several_group_sizes_are_no_awq_checkpoint(tokenizer: Any, tmp_path: Path) -> None:
    model, other = tiny_llama(), tiny_llama()
    quantize(model, None, RTN, progress=False)
    quantize(other, None, Settings("rtn", group_size=32), progress=False)
    model.model.layers[1] = other.model.layers[1]
    with pytest.raises(AwqdocError, match=r"^An AWQ checkpoint has one group size; this model has \[32, 64\]\.$"):
        save(model, tokenizer, tmp_path / "new")


@pytest.mark.parametrize("name", ["model.norm.weight", "model.embed_tokens.weight"])
def test_what_float16_cannot_hold_is_not_saved(name: str, tokenizer: Any, tmp_path: Path) -> None:
    model = tiny_llama()
    quantize(model, None, RTN, progress=False)
    with torch.no_grad():
        model.get_parameter(name).view(-1)[5] = -1e6
    with pytest.raises(
        AwqdocError,
        match=rf"^{name} reaches 1e\+06, and a checkpoint in float16 holds at most 65504: it cannot be saved without "
        r"loss\.$",
    ):
        save(model, tokenizer, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
    assert not hasattr(model.config, "quantization_config")


def test_a_folder_is_also_given_as_text(tokenizer: Any, tmp_path: Path) -> None:
    model = tiny_llama()
    quantize(model, None, RTN, progress=False)
    save(model, tokenizer, str(tmp_path / "new"))
    assert (tmp_path / "new" / "config.json").exists()


@pytest.mark.parametrize("target", ["nothing", "empty"])
def test_a_link_is_refused_also_one_to_nothing(target: str, tokenizer: Any, tmp_path: Path) -> None:
    """A folder cannot take its place."""
    model = tiny_llama()
    quantize(model, None, RTN, progress=False)
    (tmp_path / "empty").mkdir()
    (tmp_path / "new").symlink_to(tmp_path / target)
    with pytest.raises(AwqdocError, match=rf"^{tmp_path / 'new'} is a symbolic link: .*\.$"):
        save(model, tokenizer, tmp_path / "new")
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "new"}


def test_a_name_that_no_file_system_takes_is_one_sentence(tokenizer: Any, tmp_path: Path) -> None:
    model = tiny_llama()
    quantize(model, None, RTN, progress=False)
    with pytest.raises(AwqdocError, match=r"xx cannot be written \(File name too long\): choose another folder\.$"):
        save(model, tokenizer, tmp_path / ("x" * 300))


def test_only_a_full_disk_is_told_to_make_room(tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_llama()
    quantize(model, None, RTN, progress=False)
    for error, advice in (
        (OSError(28, "No space left on device"), "make room or choose another folder"),
        (PermissionError(13, "Permission denied"), "choose another folder"),
    ):

        def fails(*_: Any, error: OSError = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr("transformers.modeling_utils.safe_save_file", fails)
        with pytest.raises(AwqdocError, match=rf"\): {advice}; nothing was left there\.$"):
            save(model, tokenizer, tmp_path / "new")


def test_a_checkpoint_never_replaces_anything(ours: Path, make: Any, tokenizer: Any) -> None:
    before = {path.name: path.read_bytes() for path in ours.iterdir()}
    model = make()
    quantize(model, None, RTN, progress=False)
    with pytest.raises(AwqdocError, match="exists and is not empty"):
        save(model, tokenizer, ours)
    assert {path.name: path.read_bytes() for path in ours.iterdir()} == before
    assert [path.name for path in ours.parent.iterdir()] == ["new"]
