"""Whole models through our AWQ and through AutoAWQ itself: the same scales, the same thresholds, the same codes.

We depart from AutoAWQ in one thing on purpose: a scale is rounded to float16 before codes are computed, because that
is what a kernel multiplies with. In models as small as these a code that falls the other way moves a loss by some
percent. So everything is compared twice: with this rounding switched off, where the two must agree but for ties; and
as we ship it, where what we choose must be as good by AutoAWQ's own measure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import autoawq_oracle
import pytest
import torch
from autoawq_oracle import Oracle, PackedLinear, autoawq
from tiny_models import MAKERS, random_windows

from awqdoc.models import FAMILIES, Report, Settings, blocks, calibration_windows, load, quantize
from awqdoc.quantize import rounding

pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass
class Case:
    """A model, made anew at each call, what to quantize it with, and what AutoAWQ made of it."""

    make: Callable[[], Any]
    windows: torch.Tensor
    group_size: int
    duo: bool
    oracle: Oracle


@dataclass
class Ours:
    """What we made of it."""

    model: Any
    report: Report
    thresholds: list[torch.Tensor] = field(default_factory=list)


def case(make: Callable[[], Any], windows: torch.Tensor, group_size: int, duo: bool) -> Case:
    # With at most 512 tokens AutoAWQ's clipping search looks at all of them, as ours does.
    assert windows.numel() <= 512
    autoawq()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    oracle = autoawq_oracle.quantize(make(), windows, group_size=group_size, duo_scaling=duo)
    torch.set_num_threads(threads)
    return Case(make, windows, group_size, duo, oracle)


def shipped() -> Any:
    """The first block of the shipped model, with its embeddings."""
    model, _ = load()
    model.model.layers = model.model.layers[:1]
    return model


def shipped_windows() -> torch.Tensor:
    return calibration_windows(load()[1], length=64, count=2)


TINY = [(name, group_size, True) for name in MAKERS for group_size in (64, 128)]
CASES = {
    **{f"{name}-{g}-{'duo' if duo else 'plain'}": (name, g, duo) for name, g, duo in TINY},
    "llama-64-plain": ("llama", 64, False),
    "opt-128-plain": ("opt", 128, False),
    "shipped-128-duo": ("shipped", 128, True),
}


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES.keys())
def both(request: pytest.FixtureRequest) -> Case:
    name, group_size, duo = request.param
    if name == "shipped":
        return case(shipped, shipped_windows(), group_size, duo)
    return case(MAKERS[name], random_windows(), group_size, duo)


def ours_of(both: Case, monkeypatch: pytest.MonkeyPatch) -> Ours:
    ours = Ours(both.make(), Report())
    search = blocks.search_clip

    def noted(*args: Any) -> torch.Tensor:
        ours.thresholds.append(search(*args))
        return ours.thresholds[-1]

    monkeypatch.setattr(blocks, "search_clip", noted)
    settings = Settings(group_size=both.group_size, duo_scaling=both.duo)
    ours.report = quantize(ours.model, both.windows, settings, progress=False)
    return ours


@pytest.fixture
def unrounded(both: Case, monkeypatch: pytest.MonkeyPatch) -> Ours:
    """Ours with scales in float32 until the codes are made, as AutoAWQ has them."""
    rounded = rounding.group_parameters

    def group_parameters(low: torch.Tensor, high: torch.Tensor, bits: int, symmetric: bool) -> Any:
        _, zeros = rounded(low, high, bits, symmetric)
        return ((high.clamp(min=0) - low.clamp(max=0)) / (2**bits - 1)).clamp(min=1e-5), zeros

    monkeypatch.setattr(rounding, "group_parameters", group_parameters)
    return ours_of(both, monkeypatch)


@pytest.fixture
def as_shipped(both: Case, monkeypatch: pytest.MonkeyPatch) -> Ours:
    return ours_of(both, monkeypatch)


def searches(both: Case, ours: Ours) -> Iterator[tuple[Any, Any]]:
    """Their search and ours for each fold of each block."""
    found = {
        name: search
        for number, block in ours.report.searches.items()
        for consumer, search in block.items()
        for name, module in ours.model.named_modules()
        if name.endswith(f"layers.{number}.{consumer}")
    }
    assert len(found) == len(both.oracle.groups) >= 3
    for group in both.oracle.groups:
        yield group, found[group.layers[0]]


def linears(both: Case, ours: Ours) -> Iterator[tuple[PackedLinear, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Their layer, and of ours codes [out, in], scales and zero points [out, groups]."""
    for name, theirs in both.oracle.linears.items():
        weight = ours.model.get_submodule(name).quantized_weight
        yield theirs, weight.codes.t(), weight.scales.t(), weight.zeros.t()


def test_scales_and_losses_are_autoawqs(both: Case, unrounded: Ours) -> None:
    for theirs, mine in searches(both, unrounded):
        torch.testing.assert_close(torch.tensor(mine.losses), torch.tensor(theirs.losses), rtol=1e-5, atol=0)
        assert mine.alpha == theirs.ratio
        torch.testing.assert_close(mine.scale, theirs.scales, rtol=1e-5, atol=0)


def test_every_linear_layer_of_every_block_is_quantized(both: Case, as_shipped: Ours) -> None:
    count = sum(isinstance(module, torch.nn.Linear) for module in both.make().modules())
    assert len(both.oracle.linears) == count - 1  # all but the output layer
    assert len(list(linears(both, as_shipped))) == count - 1


def test_clipping_thresholds_are_autoawqs_but_for_ties(both: Case, unrounded: Ours) -> None:
    """Here none differs; where two cost the same to six digits, another machine's last digit may decide."""
    family = FAMILIES[unrounded.model.config.model_type]
    names = [
        f"{family.blocks}.{number}.{name}"
        for number in unrounded.report.searches
        for name in family.linears
        if name not in family.unclipped
    ]
    assert {name for name, theirs in both.oracle.linears.items() if theirs.clip is not None} == set(names)
    for name, mine in zip(names, unrounded.thresholds, strict=True):
        theirs = both.oracle.linears[name].clip
        assert theirs is not None
        assert ((mine / theirs - 1).abs() > 1e-4).float().mean() < 0.01


def test_codes_are_autoawqs_but_for_ties(both: Case, unrounded: Ours) -> None:
    """AutoAWQ computes scales and codes in float16. What it rounds the other way lies on the edge between two codes.

    A group that is clipped on both sides has its zero point on such an edge, at 7.5: up to one in ten falls the other
    way, and all its codes with it.
    """
    for theirs, codes, scales, zeros in linears(both, unrounded):
        # 2^-24 is the step of numbers below 2^-14.
        torch.testing.assert_close(scales.float(), theirs.scales.float(), rtol=2**-9, atol=2**-24)
        groups = theirs.before.float().unflatten(1, (scales.shape[1], -1))
        low, high = groups.amin(dim=2), groups.amax(dim=2)
        edge = ((-15 * low / (high - low)) % 1 - 0.5).abs() < 0.01
        moved = zeros != theirs.zeros
        assert edge[moved].all()
        assert ((zeros.int() - theirs.zeros.int()).abs() <= 1).all()
        assert moved.float().mean() < 0.15
        stayed = ~moved.repeat_interleave(groups.shape[2], 1)
        apart = (codes.int() - theirs.codes.int()).abs()[stayed]
        assert apart.max() <= 1
        assert (apart > 0).float().mean() < 0.005


def test_what_we_ship_chooses_as_well_by_autoawqs_own_measure(both: Case, as_shipped: Ours) -> None:
    for theirs, mine in searches(both, as_shipped):
        torch.testing.assert_close(torch.tensor(mine.losses), torch.tensor(theirs.losses), rtol=0.15, atol=0)
        chosen = theirs.losses[round(mine.alpha * 20)]
        assert chosen <= 1.05 * min(theirs.losses)
