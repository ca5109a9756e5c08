"""Through a model one block at a time: what goes into a block, what its layers see, what comes out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from awqdoc.models.families import Family, blocks_of, family_of
from awqdoc.quantize import InputStatistics


@dataclass
class Call:
    """A call of a module: its arguments and, once it has run, its output, [windows, tokens, channels]."""

    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    output: torch.Tensor | None = None


@dataclass
class Observation:
    """What was seen while a block ran on the calibration text.

    Attributes
    ----------
    statistics : dict
        First consumer of each fold -> statistics of the input that its consumers share.
    calls : dict
        Inspected module that is not a linear layer -> every call of it.
    outputs : list of torch.Tensor
        What the block made of each call.
    """

    statistics: dict[str, InputStatistics]
    calls: dict[str, list[Call]]
    outputs: list[torch.Tensor] = field(default_factory=list)


class _Reached(Exception):
    """The first block was reached; the rest of the model need not run."""


@torch.no_grad()
def first_calls(model: Any, block: nn.Module, windows: torch.Tensor, device: torch.device, batch: int) -> list[Call]:
    """Run the model up to its first block and return how it calls this for `batch` windows at a time."""
    calls: list[Call] = []

    def catch(_: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        calls.append(Call(_to(arguments, device), _to(keywords, device)))
        raise _Reached

    handle = block.register_forward_pre_hook(catch, with_kwargs=True)
    try:
        for rows in windows.split(batch):
            try:
                model(input_ids=rows.to(model.get_input_embeddings().weight.device), use_cache=False)
            except _Reached:
                continue
    finally:
        handle.remove()
    return calls


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, tuple | list):
        return type(value)(_to(part, device) for part in value)
    if isinstance(value, dict):
        return {key: _to(part, device) for key, part in value.items()}
    return value


@torch.no_grad()
def run(module: nn.Module, calls: Sequence[Call]) -> list[torch.Tensor]:
    """Run a module on every call and return the outputs, the first of each where there are several."""
    return [_first(module(*call.arguments, **call.keywords)) for call in calls]


def next_calls(calls: Sequence[Call], outputs: Sequence[torch.Tensor]) -> list[Call]:
    """Return how the block behind is called: with this block's outputs, all else alike."""
    return [Call((output, *call.arguments[1:]), call.keywords) for call, output in zip(calls, outputs, strict=True)]


def observe(block: nn.Module, place: str, family: Family, calls: Sequence[Call]) -> Observation:
    """Run a block and keep statistics of its linear layers' inputs and the calls of what is inspected.

    Parameters
    ----------
    place : str
        The block's name in the model, for errors.
    """
    seen = Observation(
        {fold.consumers[0]: InputStatistics(f"{place}.{fold.consumers[0]}") for fold in family.folds},
        {fold.inspected: [] for fold in family.folds if fold.inspected not in family.linears},
    )

    with ExitStack() as stack:
        for name, statistics in seen.statistics.items():
            stack.callback(block.get_submodule(name).register_forward_pre_hook(_adder(statistics)).remove)
        for name, kept in seen.calls.items():
            stack.callback(block.get_submodule(name).register_forward_hook(_keeper(kept), with_kwargs=True).remove)
        seen.outputs = run(block, calls)
    return seen


def observations(model: Any, windows: torch.Tensor, batch: int) -> Iterator[tuple[str, nn.Module, Observation]]:
    """Run a model block by block and yield of each its place, itself and what was seen; nothing is changed."""
    family = family_of(model)
    blocks = blocks_of(model, family)
    calls = first_calls(model, blocks[0], windows, model.device, batch)
    for number, block in enumerate(blocks):
        place = f"{family.blocks}.{number}"
        seen = observe(block, place, family, calls)
        yield place, block, seen
        calls = next_calls(calls, seen.outputs)


def _adder(statistics: InputStatistics) -> Any:
    def add(_: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        statistics.add(arguments[0])

    return add


def _keeper(kept: list[Call]) -> Any:
    def keep(_: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
        kept.append(Call(arguments, keywords, _first(output)))

    return keep


def _first(output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output
