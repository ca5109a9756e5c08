"""Folding and planting outliers leave a model's function as it is; walking through its blocks sees all inputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tiny_models import MAKERS, logits, random_windows, tiny_gqa, tiny_llama, tiny_opt
from torch import nn

from awqdoc.errors import AwqdocError
from awqdoc.models import FAMILIES, Settings, add_outliers, quantize, walk
from awqdoc.models.blocks import fold_scale
from awqdoc.models.families import applicable, blocks_of, family_of

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=MAKERS.values(), ids=MAKERS.keys())
def model(request: pytest.FixtureRequest) -> Any:
    """In float64, so that what a fold changes is told from rounding."""
    return request.param(outliers=1.0).double()


def folds(model: Any) -> Iterator[tuple[nn.Module, Any]]:
    family = family_of(model)
    for block in blocks_of(model, family):
        yield from ((block, fold) for fold in family.folds if applicable(fold, block))


def test_every_fold_leaves_the_function_as_it_is(model: Any) -> None:
    windows = random_windows()
    before = logits(model, windows)
    random = torch.Generator().manual_seed(0)
    for block, fold in folds(model):
        weight = block.get_submodule(fold.consumers[0]).weight
        scale = torch.exp2(4 * torch.rand(weight.shape[1], generator=random, dtype=torch.float64) - 2)
        was = weight.clone()
        fold_scale(block, fold, scale)
        assert not torch.equal(weight, was)
        torch.testing.assert_close(logits(model, windows), before, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("make", "count"), [(tiny_llama, 4), (tiny_gqa, 3), (tiny_opt, 4)])
def test_values_are_not_folded_into_the_output_layer_of_grouped_queries(make: Any, count: int) -> None:
    model = make(layers=1)
    found = [fold.producer for _, fold in folds(model)]
    assert len(found) == count
    assert ("self_attn.v_proj" in found) == (count == 4)


def test_grouped_queries_are_quantized_without_that_search() -> None:
    model = tiny_gqa()
    report = quantize(model, random_windows(), Settings(group_size=64), progress=False)
    expected = {"self_attn.q_proj", "mlp.gate_proj", "mlp.down_proj"}
    assert [set(searches) for searches in report.searches.values()] == [expected, expected]


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_every_linear_layer_of_a_block_takes_up_exactly_one_scale(make: Any) -> None:
    model = make(layers=1)
    family = family_of(model)
    (block,) = blocks_of(model, family)
    found = sorted(name for name, module in block.named_modules() if isinstance(module, nn.Linear))
    assert sorted(family.linears) == found


# Outliers.


def norm_outputs(model: Any, windows: torch.Tensor) -> list[torch.Tensor]:
    """The mean magnitude of each channel behind each norm of the blocks."""
    seen: list[torch.Tensor] = []
    family = family_of(model)
    names = [fold.producer for fold in family.folds if "norm" in fold.producer]
    hooks = [
        block.get_submodule(name).register_forward_hook(
            lambda _, __, out: seen.append(out.abs().flatten(0, -2).mean(dim=0))
        )
        for block in blocks_of(model, family)
        for name in names
    ]
    logits(model, windows)
    for hook in hooks:
        hook.remove()
    assert len(seen) == 2 * 2
    return seen


def test_outliers_leave_the_function_as_it_is_and_are_as_large_as_asked_for(model: Any) -> None:
    windows = random_windows()
    before, sizes = logits(model, windows), norm_outputs(model, windows)
    assert add_outliers(model, share=0.05, factor=30) is model
    torch.testing.assert_close(logits(model, windows), before, rtol=1e-6, atol=1e-6)  # 1 / 30 has 24 bits
    for was, now in zip(sizes, norm_outputs(model, windows), strict=True):
        ratio = now / was
        assert (ratio > 2).sum() == round(0.05 * 128)
        torch.testing.assert_close(ratio[ratio > 2], torch.full((6,), 30.0, dtype=torch.float64), rtol=1e-5, atol=0)
        assert (ratio[ratio <= 2] - 1).abs().max() < 1e-5


def test_outliers_stand_where_the_seed_says() -> None:
    windows = random_windows()
    first, again, other = (norm_outputs(add_outliers(tiny_llama(), seed=seed), windows) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.allclose(a, b, rtol=0.1) for a, b in zip(first, other, strict=True))


def test_outliers_make_rounding_worse() -> None:
    """What they are for."""
    windows = random_windows()

    def loss(model: Any) -> float:
        before = logits(model, windows)
        quantize(model, None, Settings("rtn", group_size=64), progress=False)
        return float((logits(model, windows) - before).square().mean())

    assert loss(add_outliers(tiny_llama(outliers=1.0), share=0.1)) > 3 * loss(tiny_llama(outliers=1.0))


# Walking.


def test_statistics_are_those_of_every_input_of_every_layer(model: Any) -> None:
    """Beside hooks on the whole model, whose blocks are here run one by one and in portions of unequal size."""
    windows = random_windows(count=5)
    model.float()
    family = family_of(model)
    inputs: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Any:
        return lambda _, arguments: inputs.update({name: arguments[0].double().flatten(0, -2)})

    names = [f"{family.blocks}.{i}.{fold.consumers[0]}" for i in range(2) for fold in family.folds]
    hooks = [model.get_submodule(name).register_forward_pre_hook(keep(name)) for name in names]
    logits(model, windows)
    for hook in hooks:
        hook.remove()
    seen = 0
    for place, _, observation in walk.observations(model, windows, batch=2):
        for name, statistics in observation.statistics.items():
            x = inputs[f"{place}.{name}"]
            assert statistics.tokens == len(x) == windows.numel()
            torch.testing.assert_close(statistics.gram.double(), x.t() @ x, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(statistics.mean_abs.double(), x.abs().mean(dim=0), rtol=1e-4, atol=1e-6)
            seen += 1
    assert seen == 2 * len(family.folds)


def test_walking_block_by_block_is_running_the_model(model: Any) -> None:
    windows = random_windows(count=3)
    *_, (_, _, last) = walk.observations(model, windows, batch=2)
    hidden = model(input_ids=windows, output_hidden_states=True, use_cache=False).hidden_states
    # Behind its last block a model has one more norm, which is applied here too.
    norm = model.model.norm if hasattr(model.model, "norm") else model.model.decoder.final_layer_norm
    torch.testing.assert_close(norm(torch.cat(last.outputs)), hidden[-1])


# What can't be quantized.


def test_other_architectures_are_refused_with_the_list_of_those_that_are_not() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=64, n_positions=32))
    with pytest.raises(
        AwqdocError, match=r"^Models of the type 'gpt2' \(GPT2LMHeadModel\) .* supported are llama, opt\.$"
    ):
        quantize(model, None, Settings("rtn"), progress=False)
    assert list(FAMILIES) == ["llama", "opt"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"do_layer_norm_before": False}, r"^This OPT normalizes after .* as facebook/opt-125m\.$"),
        ({"layer_norm_elementwise_affine": False}, r"^This OPT .* norms without weights"),
        ({"activation_function": "gelu"}, r"^This OPT has the activation 'gelu', .*; supported is 'relu'\.$"),
    ],
)
def test_an_opt_into_which_no_scale_folds_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(AwqdocError, match=words):
        quantize(tiny_opt(outliers=1.0, **options), random_windows(), Settings(), progress=False)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("replacement", [nn.Bilinear(8, 8, 8), nn.Conv1d(8, 8, 1), nn.Linear(128, 384).half()])
def test_a_layer_that_is_no_linear_one_is_named(replacement: nn.Module, number: int) -> None:
    class Other(nn.Linear):
        """Of another kind, though it is derived from a linear layer."""

    if isinstance(replacement, nn.Linear):
        replacement = Other(128, 384)
    model = tiny_llama()
    model.model.layers[number].mlp.up_proj = replacement
    place = rf"model\.layers\.{number}\.mlp\.up_proj is a {type(replacement).__name__}, which"
    with pytest.raises(AwqdocError, match=rf"^{place} can't be quantized; supported are Linear .*mlp\.down_proj\.$"):
        quantize(model, random_windows(), Settings(group_size=64), progress=False)


def test_a_layer_too_many_is_named() -> None:
    model = tiny_llama()
    model.model.layers[1].mlp.extra = nn.Linear(8, 8)
    with pytest.raises(AwqdocError, match=r"^model\.layers\.1\.mlp\.extra is a Linear, which can't be quantized"):
        quantize(model, random_windows(), Settings(group_size=64), progress=False)


def test_a_quantized_model_is_not_quantized_again() -> None:
    model = tiny_llama()
    settings = Settings("rtn", group_size=64)
    quantize(model, None, settings, progress=False)
    with pytest.raises(AwqdocError, match=r"^The model is quantized already: give its original\.$"):
        quantize(model, None, settings, progress=False)
