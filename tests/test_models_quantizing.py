"""Whole models quantized: what becomes of each layer, and what is refused before any work."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import MAKERS, logits, random_windows, tiny_llama, tiny_opt
from torch import nn

from awqdoc.errors import AwqdocError
from awqdoc.models import QuantizedLinear, Settings, quantize, quantizing
from awqdoc.quantize import round_to_nearest

pytestmark = pytest.mark.usefixtures("one_thread")


def plain(model: Any, dtype: torch.dtype = torch.float32) -> Any:
    """Put linear layers back, whose weights are what the codes stand for."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, QuantizedLinear):
            linear = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, dtype=dtype)
            weight = layer.quantized_weight
            zeros = weight.zeros.double().repeat_interleave(layer.group_size, 0)
            scales = weight.scales.double().repeat_interleave(layer.group_size, 0)
            linear.weight.data = ((weight.codes.double() - zeros) * scales).t().to(dtype)
            if layer.bias is not None:
                linear.bias.data = layer.bias.to(dtype)
            model.set_submodule(name, linear)
    return model


def quantized_names(model: Any) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, QuantizedLinear)]


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("bits", "group_size"), [(4, 64), (3, 32), (4, -1)])
@pytest.mark.parametrize("method", ["awq", "rtn", "gptq"])
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_a_quantized_model_computes_with_the_weights_its_codes_stand_for(
    make: Any, method: str, bits: int, group_size: int, symmetric: bool
) -> None:
    model, windows = make(layers=1), random_windows(count=2, length=32)
    expected = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and "layers" in n]
    original = logits(model, windows)
    quantize(model, windows, Settings(method, bits, group_size, symmetric), progress=False)
    assert sorted(quantized_names(model)) == sorted(expected)
    for name in expected:
        layer = model.get_submodule(name)
        assert (layer.bits, layer.group_size) == (bits, layer.in_features if group_size == -1 else group_size)
        assert int(layer.quantized_weight.codes.max()) < 2**bits
        assert not symmetric or (layer.quantized_weight.zeros == 2 ** (bits - 1)).all()
    found = logits(model, windows)
    torch.testing.assert_close(found, logits(plain(model), windows), rtol=2e-3, atol=2e-3)
    assert 0 < (found - original).abs().mean() < 0.7 * original.abs().mean()


def test_plain_rounding_rounds_every_weight_and_changes_nothing_else() -> None:
    model, before = tiny_opt(), tiny_opt()
    quantize(model, None, Settings("rtn", group_size=64), progress=False)
    for name in quantized_names(model):
        expected = round_to_nearest(before.get_submodule(name).weight.t(), 64)
        assert torch.equal(model.get_submodule(name).quantized_weight.codes, expected.codes)
        assert torch.equal(model.get_submodule(name).bias, before.get_submodule(name).bias.half())
    others = {
        name: t for name, t in before.state_dict().items() if name.rpartition(".")[0] not in quantized_names(model)
    }
    assert len(others) > 5
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in others.items())


@pytest.mark.parametrize("make", [tiny_llama, tiny_opt])
def test_searching_makes_rounding_better(make: Any) -> None:
    windows, unseen = random_windows(count=8), random_windows(count=4, seed=9)
    original = logits(make(), unseen)

    def loss(settings: Settings) -> float:
        model = make()
        quantize(model, windows, settings, progress=False)
        return float((logits(model, unseen) - original).square().mean())

    rtn, awq, unclipped, duo, gptq = (
        loss(settings)
        for settings in (
            Settings("rtn", 3, 64), Settings("awq", 3, 64), Settings("awq", 3, 64, clip=False),
            Settings("awq", 3, 64, duo_scaling=True), Settings("gptq", 3, 64),
        )
    )  # fmt: skip
    assert max(awq, unclipped, duo) < 0.8 * rtn
    assert gptq < 0.95 * rtn
    assert len({rtn, awq, unclipped, duo, gptq}) == 5


def test_the_report_tells_what_was_searched() -> None:
    report = quantize(tiny_opt(), random_windows(), Settings(group_size=64), progress=False)
    assert report.resumed == 0
    assert set(report.searches) == {0, 1}
    for searches in report.searches.values():
        assert set(searches) == {"self_attn.q_proj", "self_attn.out_proj", "fc1", "fc2"}
        for search in searches.values():
            assert len(search.losses) == 20
            assert search.losses[round(20 * search.alpha)] == min(search.losses)


@pytest.mark.parametrize("method", ["awq", "gptq"])
def test_windows_in_portions_give_the_same_searches(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for rounding, and what it makes of codes that lie on an edge."""
    windows = random_windows(count=5)
    whole, parts = tiny_llama(), tiny_llama()
    first = quantize(whole, windows, Settings(method, group_size=64), progress=False)
    monkeypatch.setattr(quantizing, "BATCH", 2)
    second = quantize(parts, windows, Settings(method, group_size=64), progress=False)
    for number, searches in first.searches.items():
        for name, search in searches.items():
            assert second.searches[number][name].losses == pytest.approx(search.losses, rel=1e-2)
    apart = (logits(whole, windows) - logits(parts, windows)).square().mean()
    assert apart < 0.01 * (logits(whole, windows) - logits(tiny_llama(), windows)).square().mean()


def test_one_block_at_a_time_is_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no other device here: "cpu:0" is the CPU by another name, to which nothing else is moved."""
    model = tiny_llama(layers=3)
    moves = []
    for number, block in enumerate(model.model.layers):
        move = block.to
        monkeypatch.setattr(
            block, "to", lambda where, n=number, move=move: moves.append((n, str(where))) or move(where)
        )
    quantize(model, random_windows(), Settings(group_size=64), device="cpu:0", progress=False)
    assert moves == [(0, "cpu:0"), (0, "cpu"), (1, "cpu:0"), (1, "cpu"), (2, "cpu:0"), (2, "cpu")]


def test_progress_is_shown_on_stderr_if_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    quantize(tiny_llama(), None, Settings("rtn", group_size=64))
    out, err = capsys.readouterr()
    assert out == ""
    assert "2/2" in err
    quantize(tiny_llama(), None, Settings("rtn", group_size=64), progress=False)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_models_in_half_precision_are_quantized(dtype: torch.dtype) -> None:
    model, windows = tiny_llama().to(dtype), random_windows()
    original = logits(model, windows).float()
    quantize(model, windows, Settings(group_size=64), progress=False)
    found = logits(model, windows)
    assert found.dtype == dtype
    assert (found.float() - original).square().mean() < 0.1 * original.square().mean()


# Refusals.


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is run and nothing is quantized."""
    monkeypatch.setattr(quantizing.walk, "first_calls", lambda *_: pytest.fail("the model was run"))
    monkeypatch.setattr(quantizing, "quantize_block", lambda *_: pytest.fail("a block was quantized"))


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("group_size", "words"),
    [
        (
            256,
            r"self_attn\.q_proj has 128 in_features, which the group size 256 does not divide; use 128, 64, 32, -1\.",
        ),
        (96, r"self_attn\.q_proj has 128 .* 96 does not divide; use 128, 64, 32, -1\."),
        (0, r"must be positive, or -1 for one group in each column; found 0\."),
        (-2, r"must be positive, or -1 for one group in each column; found -2\."),
    ],
)
@pytest.mark.parametrize("method", ["awq", "rtn", "gptq"])
def test_a_group_size_that_does_not_fit_is_refused_before_any_work(method: str, group_size: int, words: str) -> None:
    with pytest.raises(AwqdocError, match=words):
        quantize(tiny_llama(), random_windows(), Settings(method, group_size=group_size), progress=False)


@pytest.mark.usefixtures("no_work")
def test_a_size_that_only_another_layer_has_is_refused_with_its_name() -> None:
    with pytest.raises(AwqdocError, match=r"^mlp\.down_proj has 320 in_features, .* 128 .*; use 64, 32, -1\.$"):
        quantize(tiny_llama(intermediate=320), random_windows(), Settings(), progress=False)


@pytest.mark.usefixtures("no_work")
def test_a_width_that_does_not_fill_words_is_refused() -> None:
    with pytest.raises(AwqdocError, match=r"^mlp\.gate_proj has 388 out_features; .* a multiple of 8\.$"):
        quantize(tiny_llama(intermediate=388), None, Settings("rtn", group_size=-1), progress=False)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("method", ["awq", "gptq"])
def test_calibration_is_asked_for(method: str) -> None:
    with pytest.raises(AwqdocError, match=rf"^The method '{method}' needs calibration windows; .*\.$"):
        quantize(tiny_llama(), None, Settings(method, group_size=64), progress=False)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("windows", "words"),
    [
        (random_windows()[:0], r"one or more of each; found int64 \[0, 64\]\."),
        (random_windows()[:, :0], r"one or more of each; found int64 \[4, 0\]\."),
        (random_windows()[0], r"found int64 \[64\]\."),
        (random_windows().float(), r"found float32 \[4, 64\]\."),
        (random_windows().tolist(), r"found list\."),
        (
            random_windows() + 1000,
            r"^The calibration holds token 1\d+, but the model knows 256 tokens: is the tokenizer ",
        ),
        (random_windows() - 1000, r"^The calibration holds token -\d+, but the model knows 256 tokens: "),
        (random_windows(length=513), r"windows of 513 tokens, but the model's context is 512: "),
    ],
    ids=["no windows", "no tokens", "one row", "numbers", "a list", "large token", "negative token", "long"],
)
@pytest.mark.parametrize("method", ["awq", "gptq"])
def test_calibration_that_does_not_fit_is_refused_before_any_work(method: str, windows: Any, words: str) -> None:
    with pytest.raises(AwqdocError, match=words):
        quantize(tiny_opt(), windows, Settings(method, group_size=64), progress=False)


@pytest.mark.usefixtures("no_work")
def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(AwqdocError, match=r"^The model has no blocks .*\.$"):
        quantize(tiny_llama(layers=0), None, Settings("rtn", group_size=64), progress=False)


@pytest.mark.parametrize("bits", [0, 2, 8, "4", 4.0, True, None])
def test_bits_that_there_are_not_are_refused(bits: Any) -> None:
    with pytest.raises(AwqdocError, match=rf"^A code has 4 or 3 bits; found {bits!r}\.$"):
        Settings(bits=bits)


@pytest.mark.parametrize("group_size", [0, -5, "32", 32.0, None, True])
def test_group_sizes_that_there_are_not_are_refused(group_size: Any) -> None:
    with pytest.raises(AwqdocError, match=rf"^The group size must be positive, or -1 .*; found {group_size!r}\.$"):
        Settings(group_size=group_size)


def test_an_error_of_the_scale_search_names_the_layer() -> None:
    model = tiny_llama()
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.mul_(1e9)
    with pytest.raises(AwqdocError, match=r"^model\.layers\.1\.mlp\.down_proj: A group reaches from .*\.$"):
        quantize(model, random_windows(), Settings(group_size=64, clip=False), progress=False)


def test_a_bias_beyond_float16_is_refused_by_name() -> None:
    model = tiny_opt()
    with torch.no_grad():
        model.model.decoder.layers[1].fc2.bias[3] = 1e6
    with pytest.raises(AwqdocError, match=r"^model\.decoder\.layers\.1\.fc2: The bias reaches 1e\+06, .* 65504\.$"):
        quantize(model, None, Settings("rtn", group_size=64), progress=False)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(AwqdocError, match=r"^The method must be one of awq, rtn, gptq; found 'AWQ'\.$"):
        Settings("AWQ")


@pytest.mark.parametrize("method", ["awq", "rtn", "gptq"])
def test_a_damaged_weight_is_named(method: str) -> None:
    model = tiny_llama()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 3] = torch.nan
    with pytest.raises(AwqdocError, match=r"model\.layers\.1\.mlp\.(up|down)_proj.* inf or nan"):
        quantize(model, random_windows(), Settings(method, group_size=64), progress=False)


def test_a_model_that_overflows_is_named() -> None:
    model = tiny_llama().half()
    with torch.no_grad():
        model.model.layers[1].input_layernorm.weight[5] = 6e4
    with pytest.raises(
        AwqdocError, match=r"^The input of model\.layers\.1\.self_attn\.\w+ holds inf .* try float32\.$"
    ):
        quantize(model, random_windows(), Settings(group_size=64), progress=False)
