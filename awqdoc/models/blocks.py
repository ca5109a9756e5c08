"""One block from floating point to INT4: the searches, the folding, the rounding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from awqdoc.errors import AwqdocError
from awqdoc.formats import QuantizedWeight
from awqdoc.models import walk
from awqdoc.models.families import Family, Fold, applicable, linear_of
from awqdoc.models.linear import QuantizedLinear
from awqdoc.models.walk import Call, Observation
from awqdoc.quantize import (
    ScaleSearch,
    candidates,
    clamp_groups,
    fake_quantize,
    gptq,
    gram_loss,
    mean_relative_weight,
    round_to_nearest,
    search_clip,
    search_scale,
)

METHODS = ("awq", "rtn", "gptq")


@dataclass(frozen=True)
class Settings:
    """How to quantize.

    Attributes
    ----------
    method : str
        ``"awq"``, ``"rtn"`` (plain rounding) or ``"gptq"``.
    bits, group_size, symmetric
        As in `awqdoc.quantize.round_to_nearest`.
    duo_scaling : bool
        AutoAWQ's variant of the scale, its default; the paper and llm-awq have none.
    clip : bool
        Whether AWQ also searches for clipping thresholds.

    Raises
    ------
    AwqdocError
        If a method, bits or a group size is none of these.
    """

    method: str = "awq"
    bits: int = 4
    group_size: int = 128
    symmetric: bool = False
    duo_scaling: bool = False
    clip: bool = True

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise AwqdocError(f"The method must be one of {', '.join(METHODS)}; found {self.method!r}.")
        if type(self.bits) is not int or self.bits not in (3, 4):
            raise AwqdocError(f"A code has 4 or 3 bits; found {self.bits!r}.")
        if type(self.group_size) is not int or not (self.group_size == -1 or self.group_size >= 1):
            raise AwqdocError(
                f"The group size must be positive, or -1 for one group in each column; found {self.group_size!r}."
            )


@dataclass
class BlockResult:
    """What became of a block.

    Attributes
    ----------
    weights : dict
        Linear layer -> its quantized weight, [K, N].
    searches : dict
        First consumer of each fold that was made -> what the scale search found.
    outputs : list of torch.Tensor
        What the next block gets to see: the outputs of the original block, or with GPTQ of the quantized one.
    """

    weights: dict[str, QuantizedWeight] = field(default_factory=dict)
    searches: dict[str, ScaleSearch] = field(default_factory=dict)
    outputs: list[torch.Tensor] = field(default_factory=list)


@torch.no_grad()
def quantize_block(
    block: nn.Module, place: str, family: Family, calls: Sequence[Call], settings: Settings
) -> BlockResult:
    """Quantize a block in place: its linear layers become `QuantizedLinear`.

    Parameters
    ----------
    place : str
        The block's name in the model, for errors.
    calls : sequence of Call
        How the block is called on the calibration text; may be empty for plain rounding.

    Raises
    ------
    AwqdocError
        If a weight or an activation is not finite, float16 holds no scale or bias for it, or a size does not divide
        into groups; with the name of the layer.
    """
    result = BlockResult()
    linears = {name: linear_of(block, name) for name in family.linears}
    if settings.method != "rtn":
        seen = walk.observe(block, place, family, calls)
        result.outputs = seen.outputs
        if settings.method == "awq":
            result.searches = _scale(block, place, family, seen, settings)
        grams = {name: seen.statistics[fold.consumers[0]].gram for fold in family.folds for name in fold.consumers}
    for name, linear in linears.items():
        try:
            if settings.method == "awq" and settings.clip and name not in family.unclipped:
                threshold = search_clip(linear.weight, grams[name], *_grid(settings))
                linear.weight.copy_(clamp_groups(linear.weight, threshold))
            weight = linear.weight.t()
            if settings.method == "gptq":
                quantized = gptq(weight, grams[name], *_grid(settings))
            else:
                quantized = round_to_nearest(weight, *_grid(settings))
            packed = QuantizedLinear.of(quantized, linear.bias)
        except AwqdocError as error:
            raise AwqdocError(f"{place}.{name}: {error}") from None
        result.weights[name] = quantized
        block.set_submodule(name, packed)
    if settings.method == "gptq":
        result.outputs = walk.run(block, calls)
    return result


def _grid(settings: Settings) -> tuple[int, int, bool]:
    return settings.group_size, settings.bits, settings.symmetric


def _scale(
    block: nn.Module, place: str, family: Family, seen: Observation, settings: Settings
) -> dict[str, ScaleSearch]:
    """Search all scales on the unmodified block, then fold them, as the references do."""
    folds = [fold for fold in family.folds if applicable(fold, block)]
    searches: dict[str, ScaleSearch] = {}
    for fold in folds:
        try:
            searches[fold.consumers[0]] = _search(block, fold, seen, settings)
        except AwqdocError as error:
            raise AwqdocError(f"{place}.{fold.consumers[0]}: {error}") from None
    for fold in folds:
        scale = searches[fold.consumers[0]].scale
        fold_scale(block, fold, scale)
        seen.statistics[fold.consumers[0]].divide(scale)
    return searches


def _search(block: nn.Module, fold: Fold, seen: Observation, settings: Settings) -> ScaleSearch:
    statistics = seen.statistics[fold.consumers[0]]
    weights = [linear_of(block, name).weight for name in fold.consumers]
    relative = mean_relative_weight(weights, settings.group_size) if settings.duo_scaling else None
    if fold.inspected in fold.consumers:
        loss = gram_loss(weights, statistics.gram, statistics.tokens, *_grid(settings))
    else:
        inspected, calls = block.get_submodule(fold.inspected), seen.calls[fold.inspected]

        def loss(scale: torch.Tensor) -> float:
            return module_loss(inspected, calls, weights, scale, settings)

    return search_scale(loss, candidates(statistics.mean_abs, relative))


def module_loss(
    module: nn.Module, calls: Sequence[Call], weights: Sequence[torch.Tensor], scale: torch.Tensor, settings: Settings
) -> float:
    """Return the mean squared change of a module's output when its `weights` are scaled, rounded and scaled back.

    Where something that is not linear lies between the weights and the output (attention, SiLU) there is no Gram
    matrix to replace the tokens: the module runs on all of them.
    """
    originals = [weight.clone() for weight in weights]
    try:
        for weight in weights:
            rounded = fake_quantize(weight * scale, *_grid(settings)) / scale
            weight.copy_(rounded)
        total = torch.zeros((), dtype=torch.float64, device=scale.device)
        count = 0
        for call in calls:
            (output,) = walk.run(module, [call])
            assert call.output is not None
            total += (output.float() - call.output.float()).square().sum(dtype=torch.float64)
            count += output.numel()
        return float(total) / count
    finally:
        for weight, original in zip(weights, originals, strict=True):
            weight.copy_(original)


@torch.no_grad()
def fold_scale(block: nn.Module, fold: Fold, scale: torch.Tensor) -> None:
    """Divide the producer's output channels by `scale` [K] and multiply the consumers' input channels by it."""
    producer = block.get_submodule(fold.producer)
    for parameter in producer.parameters(recurse=False):
        # A norm's weight and bias, and a linear layer's bias, are [K]; a linear layer's weight is [K, its inputs].
        parameter.div_(scale.to(parameter.dtype).view(-1, *[1] * (parameter.dim() - 1)))
    for name in fold.consumers:
        weight = linear_of(block, name).weight
        weight.mul_(scale.to(weight.dtype))
