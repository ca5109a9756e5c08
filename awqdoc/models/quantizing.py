"""A whole model, block by block: one block at a time on the device, finished ones kept on disk."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from awqdoc import __version__
from awqdoc.errors import AwqdocError
from awqdoc.models import walk
from awqdoc.models.blocks import Settings, quantize_block
from awqdoc.models.checkpoint import refuse_occupied, refuse_unsavable, unwritten, write
from awqdoc.models.families import Family, blocks_of, family_of, linear_of
from awqdoc.models.linear import QuantizedLinear
from awqdoc.models.walk import Call
from awqdoc.quantize import ScaleSearch

# Windows that run at a time. What the calls of one attention module hold for 16 windows of 512 tokens and 4096
# channels is 67 MB in float16.
BATCH = 16


@dataclass
class Report:
    """What was found while a model was quantized.

    Attributes
    ----------
    searches : dict
        Block number -> first linear layer of each scaled input -> what the scale search found. Blocks that were
        taken over from an interrupted run are missing.
    resumed : int
        Blocks that were taken over.
    """

    searches: dict[int, dict[str, ScaleSearch]] = field(default_factory=dict)
    resumed: int = 0


def quantize(
    model: Any,
    windows: torch.Tensor | None,
    settings: Settings,
    device: str | torch.device | None = None,
    keep: Path | None = None,
    progress: bool = True,
) -> Report:
    """Quantize a transformers model in place: the linear layers of its blocks become `QuantizedLinear`.

    Embeddings, norms and the output layer stay as they are, as in AutoAWQ. Only one block at a time is on `device`,
    beside the activations of the calibration text, so a model that fits into the host's memory can be
    quantized on a small GPU.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A Llama or an OPT.
    windows : torch.Tensor or None
        Calibration tokens, int64 [windows, tokens], as `awqdoc.quantize.windows` cuts them; None for plain rounding.
    settings : Settings
        Method, bits, groups.
    device : str or torch.device or None
        Where to search; None: where each block is.
    keep : Path or None
        Folder for finished blocks. A run that was interrupted goes on behind the last of them, if model,
        settings and calibration are the same.
    progress : bool
        Whether to show a progress bar on stderr.

    Returns
    -------
    Report

    Raises
    ------
    AwqdocError
        If the model is of another family, a size does not divide into groups, something is not finite, the
        calibration is missing or does not fit the model, or the folder cannot be written to.
    """
    family, blocks = _check(model, windows, settings)
    if settings.method == "rtn":
        windows = None
    where = torch.device(device) if device is not None else linear_of(blocks[0], family.linears[0]).weight.device
    model.eval()
    report = Report()
    with _interruption(keep, len(blocks), report), _bar(blocks, progress) as bar:
        calls = [] if windows is None else walk.first_calls(model, blocks[0], windows, where, BATCH)
        # What goes into the first block stands for the windows and the embeddings.
        key = "" if keep is None else _hash(__version__, settings, *[call.arguments[0] for call in calls])
        for number, block in enumerate(bar):
            home = next(block.parameters()).device
            block.to(where)
            key = "" if keep is None else _hash(key, *block.state_dict().values())
            file = None if keep is None else keep / f"block-{number:03}.safetensors"
            kept = None if file is None else _load(file, key)
            if kept is None:
                result = quantize_block(block, f"{family.blocks}.{number}", family, calls, settings)
                if file is not None:
                    _store(block, file, key)
                outputs = result.outputs
                report.searches[number] = result.searches
            else:
                outputs = _take_over(block, family, calls, settings, kept)
                report.resumed += 1
            calls = walk.next_calls(calls, outputs)
            block.to(home)
    return report


def _check(model: Any, windows: torch.Tensor | None, settings: Settings) -> tuple[Family, nn.ModuleList]:
    """Refuse before any work what would fail in it; return the model's family and its blocks."""
    family = family_of(model)
    blocks = blocks_of(model, family)
    _check_sizes(blocks[0], family, settings.group_size)
    if settings.method != "rtn":
        if windows is None:
            raise AwqdocError(f"The method {settings.method!r} needs calibration windows; only 'rtn' goes without.")
        _check_windows(model, windows)
    return family, blocks


def _check_windows(model: Any, windows: Any) -> None:
    """Refuse calibration that is none, or that of another model."""
    if not isinstance(windows, torch.Tensor):
        raise AwqdocError(f"The calibration must be a tensor, int64 [windows, tokens]; found {type(windows).__name__}.")
    if windows.dtype != torch.int64 or windows.dim() != 2 or windows.numel() == 0:
        raise AwqdocError(
            "The calibration must be int64 [windows, tokens] with one or more of each; found "
            f"{str(windows.dtype).removeprefix('torch.')} {list(windows.shape)}."
        )
    low, high = (int(bound) for bound in windows.aminmax())
    vocabulary = model.get_input_embeddings().num_embeddings
    if low < 0 or high >= vocabulary:
        raise AwqdocError(
            f"The calibration holds token {low if low < 0 else high}, but the model knows {vocabulary} tokens: is the "
            "tokenizer that of another model?"
        )
    context = model.config.max_position_embeddings
    if windows.shape[1] > context:
        raise AwqdocError(
            f"The calibration has windows of {windows.shape[1]} tokens, but the model's context is {context}: cut "
            "shorter ones."
        )


def _take_over(
    block: nn.Module, family: Family, calls: list[Call], settings: Settings, kept: dict[str, torch.Tensor]
) -> list[torch.Tensor]:
    """Put a finished block's tensors into a block and return what the next one gets to see."""
    if settings.method != "gptq":
        outputs = walk.run(block, calls)
        _restore(block, family, kept, settings)
        return outputs
    _restore(block, family, kept, settings)
    return walk.run(block, calls)


def _check_sizes(block: nn.Module, family: Family, group_size: int) -> None:
    """Refuse before the first search what would fail in it: sizes that groups, or words of eight, do not fit."""
    for name in family.linears:
        n, k = linear_of(block, name).weight.shape
        if group_size != -1 and (group_size < 1 or k % group_size):
            fitting = [str(g) for g in (128, 64, 32) if k % g == 0]
            raise AwqdocError(
                f"{name} has {k} in_features, which the group size {group_size} does not divide; "
                f"use {', '.join([*fitting, '-1'])}."
            )
        if n % 8:
            raise AwqdocError(f"{name} has {n} out_features; INT4 words hold 8 codes, so it must be a multiple of 8.")


def _hash(*parts: Any) -> str:
    state = hashlib.sha256()
    for part in parts:
        if isinstance(part, torch.Tensor):
            state.update(repr((part.dtype, part.shape)).encode())
            state.update(part.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        else:
            state.update(repr(part).encode())
    return state.hexdigest()


def _store(block: nn.Module, file: Path, key: str) -> None:
    """Keep a finished block; the file appears whole or not at all."""
    from safetensors.torch import save_file

    half = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: t.contiguous().cpu() for name, t in block.state_dict().items()}, half, {"key": key})
        half.replace(file)
    except Exception as error:  # safetensors has an error of its own for a full disk
        raise unwritten(file, error, "what is finished is kept") from None
    finally:
        with suppress(OSError):
            half.unlink()


def _load(file: Path, key: str) -> dict[str, torch.Tensor] | None:
    """Return the tensors of a finished block, or None if there is no file of just this work: it is only a cache."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as opened:
            if (opened.metadata() or {}).get("key") != key:
                return None
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None


def _restore(block: nn.Module, family: Family, tensors: dict[str, torch.Tensor], settings: Settings) -> None:
    for name in family.linears:
        linear = linear_of(block, name)
        n, k = linear.weight.shape
        packed = QuantizedLinear(k, n, settings.group_size, settings.bits, linear.bias is not None)
        block.set_submodule(name, packed.to(linear.weight.device))
    block.load_state_dict(tensors)


@contextmanager
def _interruption(keep: Path | None, blocks: int, report: Report) -> Iterator[None]:
    """After Ctrl-C say what is kept."""
    try:
        yield
    except KeyboardInterrupt:
        if keep is not None:
            done = report.resumed + len(report.searches)
            _tell_interrupted(keep, done, blocks)
        raise


def _tell_interrupted(keep: Path, done: int, blocks: int) -> None:
    print(
        f"\nInterrupted: {done} of {blocks} blocks are kept in {keep}; the same command goes on from there.",
        file=sys.stderr,
    )


@contextmanager
def _bar(blocks: nn.ModuleList, progress: bool) -> Iterator[Any]:
    from tqdm import tqdm

    # sphinx-gallery would put the bar on the page instead of the terminal.
    stream = sys.__stderr__ if "sphinx_gallery" in sys.modules else sys.stderr
    with tqdm(blocks, desc="quantizing", unit="block", file=stream, disable=not progress) as bar:
        yield bar


def quantize_to(
    folder: Path | str,
    model: Any,
    tokenizer: Any,
    windows: torch.Tensor | None,
    settings: Settings,
    device: str | torch.device | None = None,
) -> Report:
    """Quantize a model and save it as an AWQ checkpoint in `folder`.

    Finished blocks are kept in ``<folder>.partial`` until the checkpoint is complete: after an interruption, also one
    while the checkpoint is written, the same call goes on from there.

    Raises
    ------
    AwqdocError
        As `quantize` and `awqdoc.models.save`; before any work if the checkpoint could not be written.
    """
    if settings.bits != 4:
        raise AwqdocError(f"An AWQ checkpoint has layers of 4 bits; found {settings.bits}: quantize with bits=4.")
    folder = Path(folder)
    refuse_occupied(folder)
    family, blocks = _check(model, windows, settings)
    places = [f"{family.blocks}.{number}.{name}.weight" for number in range(len(blocks)) for name in family.linears]
    refuse_unsavable(model, places)
    keep = folder.with_name(folder.name + ".partial")
    try:
        _probe(folder, keep)
        report = quantize(model, windows, settings, device, keep)
        _finish(model, tokenizer, folder, keep, report)
    finally:
        if _complete(folder):  # nothing of what was kept is needed any more
            shutil.rmtree(keep, ignore_errors=True)
        with suppress(OSError):
            keep.rmdir()  # if nothing is kept in it
    return report


def _probe(folder: Path, keep: Path) -> None:
    """Refuse a place that cannot be written to, before hours of work for it."""
    try:
        keep.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=keep):
            pass
    except OSError as error:
        raise AwqdocError(f"{folder} cannot be written ({error.strerror}): choose another folder.") from None


def _finish(model: Any, tokenizer: Any, folder: Path, keep: Path, report: Report) -> None:
    """Write the checkpoint, beside the finished blocks until it is complete: what a kill leaves goes with them."""
    half = keep / f"checkpoint.{os.getpid()}.tmp"
    kept = f"all blocks are kept in {keep}, and the same command goes on from there"
    try:
        write(model, tokenizer, folder, half, kept)
    except KeyboardInterrupt:
        if not _complete(folder):
            done = report.resumed + len(report.searches)
            _tell_interrupted(keep, done, done)
        raise


def _complete(folder: Path) -> bool:
    """Whether a checkpoint was written: it appears whole."""
    return (folder / "config.json").exists()
