"""AWQ checkpoints as they are exchanged: safetensors and a ``quantization_config``, version ``gemm``."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from awqdoc.errors import AwqdocError
from awqdoc.models.families import FAMILIES, blocks_of, family_of, linear_of
from awqdoc.models.linear import QuantizedLinear

AGAIN = "quantize again, or fetch the checkpoint again"
ROTARY = "rotary_emb.inv_freq"
"""How a name ends that old checkpoints hold, and that no model has a place for, because it is computed."""


def is_awq(config: Any) -> bool:
    """Whether a transformers configuration is that of an AWQ checkpoint; refuse other quantized ones."""
    found = _quantization(config)
    if found and found.get("quant_method") != "awq":
        raise AwqdocError(
            f"The model is quantized with {found.get('quant_method')!r}; give an AWQ checkpoint, or one in FP16."
        )
    return bool(found)


def _quantization(config: Any) -> dict[str, Any]:
    found = getattr(config, "quantization_config", None) or {}
    return found if isinstance(found, dict) else dict(found.to_dict())


def first_words(error: Exception) -> str:
    """Return the first sentence of an error of a library, on one line."""
    return " ".join(str(error).split()).split(". ")[0][:160] or type(error).__name__


def build_quantized(config: Any, folder: Path, dtype: torch.dtype) -> Any:
    """Build the model of an AWQ checkpoint and fill it from the folder's safetensors files.

    Parameters
    ----------
    config : transformers.PretrainedConfig
        With ``quantization_config``: ``quant_method`` awq, ``version`` gemm, ``bits`` 4, ``group_size``.
    dtype : torch.dtype
        Of everything that is not quantized.

    Raises
    ------
    AwqdocError
        If the configuration is none that can be read here, or a tensor is missing, left over, held twice, of another
        shape or truncated.
    """
    group_size, left_out = _read_config(_quantization(config), folder)
    del config.quantization_config
    model = _empty(config, folder, dtype)
    family = family_of(model)
    for number, block in enumerate(blocks_of(model, family)):
        for name in family.linears:
            if any(part in f"{family.blocks}.{number}.{name}" for part in left_out):
                continue
            linear = linear_of(block, name)
            with torch.device("meta"):
                k, n = linear.in_features, linear.out_features
                packed = QuantizedLinear(k, n, group_size, bias=linear.bias is not None)
            block.set_submodule(name, packed)
    _fill(model, _read_tensors(folder), dtype, folder)
    return model


def _empty(config: Any, folder: Path, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        with quiet(), torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    except Exception as error:  # of any kind that a size or a name in it may lead to
        raise AwqdocError(f"The config.json of {folder} describes no model ({first_words(error)}): {AGAIN}.") from None


def _read_config(found: dict[str, Any], folder: Path) -> tuple[int, list[str]]:
    # AutoAWQ's own names and those of transformers.
    bits = found.get("bits", found.get("w_bit"))
    group_size = found.get("group_size", found.get("q_group_size"))
    version = str(found.get("version", "gemm")).lower()
    if bits != 4 or version != "gemm" or type(group_size) is not int or group_size == 0 or group_size < -1:
        raise AwqdocError(
            f"The quantization_config of {folder} must say bits 4, version gemm and a group_size; it says bits "
            f"{bits!r}, version {version}, group_size {group_size!r}."
        )
    zero_point = found.get("zero_point", True)
    if zero_point is not True:
        raise AwqdocError(f"The quantization_config of {folder} must say zero_point true; it says {zero_point!r}.")
    left_out = found.get("modules_to_not_convert") or []
    if not isinstance(left_out, list) or not all(isinstance(part, str) for part in left_out):
        raise AwqdocError(
            f"The quantization_config of {folder} must have a list of names as modules_to_not_convert; it has "
            f"{left_out!r}."
        )
    return group_size, left_out


def _read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise AwqdocError(f"{folder} has no safetensors file; pickles are not loaded: {AGAIN}.")
    tensors: dict[str, torch.Tensor] = {}
    holder: dict[str, Path] = {}
    for file in files:
        try:
            found = load_file(file)
        except (OSError, SafetensorError) as error:
            raise AwqdocError(f"{file} cannot be read (truncated? {error}): {AGAIN}.") from None
        twice = sorted(holder.keys() & found.keys())
        if twice:
            raise AwqdocError(
                f"{twice[0]} is both in {holder[twice[0]]} and in {file}: leave only the files of one checkpoint."
            )
        holder |= dict.fromkeys(found, file)
        tensors |= found
    return tensors


def _fill(model: Any, tensors: dict[str, torch.Tensor], dtype: torch.dtype, folder: Path) -> None:
    wanted = model.state_dict()
    for copy, original in model.all_tied_weights_keys.items():
        # Stored under either name, or both: tie_weights makes the copy.
        if copy in tensors:
            tensors.setdefault(original, tensors.pop(copy))
    missing = [name for name in wanted if name not in tensors and name not in model.all_tied_weights_keys]
    unknown = [name for name in tensors if name not in wanted and not name.endswith(ROTARY)]
    if missing or unknown:
        what = f"lacks {missing[0]}" if missing else f"holds {unknown[0]}, which its configuration has no place for"
        raise AwqdocError(f"The checkpoint {folder} {what} ({len(missing)} missing, {len(unknown)} unknown): {AGAIN}.")
    for name, tensor in tensors.items():
        if name in wanted and _kind(tensor) != _kind(wanted[name]):
            raise AwqdocError(
                f"{name} of {folder} is {_kind(tensor)}; the configuration says {_kind(wanted[name])}: {AGAIN}."
            )
    kept = {name: tensor.to(_dtype(name, tensor, dtype)) for name, tensor in tensors.items() if name in wanted}
    model.load_state_dict(kept, assign=True, strict=False)
    model.tie_weights()
    _rebuild_rotary(model)


def _dtype(name: str, tensor: torch.Tensor, dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which a tensor is kept: scales are multiplied in float16, so what it can't hold shows."""
    if name.endswith((".qweight", ".qzeros")):
        return tensor.dtype
    return torch.float16 if name.endswith(".scales") else dtype


def _kind(tensor: torch.Tensor) -> str:
    """Return what has to be as it is wanted; one floating-point type can be made another."""
    dtype = "floating-point" if tensor.is_floating_point() else str(tensor.dtype).removeprefix("torch.")
    return f"{dtype} {list(tensor.shape)}"


def _rebuild_rotary(model: Any) -> None:
    """Make the buffers that no checkpoint has: they were built on the device that holds nothing."""
    for name, module in list(model.named_modules()):
        if any(buffer.is_meta for buffer in module.buffers(recurse=False)):
            model.set_submodule(name, type(module)(model.config))


def save(model: Any, tokenizer: Any, folder: Path | str) -> None:
    """Write a quantized model as a standard AWQ checkpoint; the folder appears whole or not at all.

    AutoAWQ reads it, and transformers does with gptqmodel installed. Configuration keys and tensor names are those of
    AutoAWQ's ``save_quantized``; what is not quantized is written in float16.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        With `QuantizedLinear` layers of 4 bits.

    Raises
    ------
    AwqdocError
        If the layers are not all quantized to the same 4 bits and group size, float16 cannot hold what is not
        quantized, the folder exists, or it cannot be written to.
    """
    folder = Path(folder)
    refuse_occupied(folder)
    half = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    write(model, tokenizer, folder, half, "nothing was left there")


def write(model: Any, tokenizer: Any, folder: Path, half: Path, kept: str) -> None:
    """Write a checkpoint as `save` does, in a folder `half` that becomes `folder` when it is complete.

    Parameters
    ----------
    kept : str
        What remains where it cannot be written, for the error.

    Raises
    ------
    AwqdocError
        As `save`.
    """
    layers = [module for module in model.modules() if isinstance(module, QuantizedLinear)]
    kinds = {(layer.bits, layer.group_size) for layer in layers}
    bits = {layer.bits for layer in layers}
    if bits != {4}:
        raise AwqdocError(
            f"An AWQ checkpoint has layers of 4 bits; this model has {sorted(bits) or 'none'}: quantize it with bits=4."
        )
    inside = f"{FAMILIES[model.config.model_type].blocks}."
    left = [n for n, module in model.named_modules() if n.startswith(inside) and isinstance(module, nn.Linear)]
    if left:
        raise AwqdocError(
            f"{left[0]} is not quantized, and only models with all layers quantized are saved: do so first."
        )
    whole = all(layer.group_size == layer.in_features for layer in layers)
    if len(kinds) > 1 and not whole:
        raise AwqdocError(f"An AWQ checkpoint has one group size; this model has {sorted(g for _, g in kinds)}.")
    config = model.config
    tensors = dict(_in_half(model))
    try:
        config.quantization_config = {
            "quant_method": "awq",
            "zero_point": True,
            "group_size": -1 if whole and len(kinds) > 1 else layers[0].group_size,
            "bits": 4,
            "version": "gemm",
            "modules_to_not_convert": None,
        }
        with quiet():
            model.save_pretrained(half, state_dict=tensors)
            tokenizer.save_pretrained(half)
        _set_dtype(half / "config.json")
        half.replace(folder)
    except Exception as error:  # safetensors and tokenizers have errors of their own for a full disk
        raise unwritten(folder, error, kept) from None
    finally:
        del config.quantization_config
        shutil.rmtree(half, ignore_errors=True)


def unwritten(path: Path, error: Exception, kept: str) -> AwqdocError:
    """Return the sentence on a file or folder that cannot be written; `kept` says what remains."""
    full = any(words in str(error) for words in ("No space left", "quota exceeded"))
    advice = "make room or choose another folder" if full else "choose another folder"
    return AwqdocError(f"{path} cannot be written ({error}): {advice}; {kept}.")


def _set_dtype(file: Path) -> None:
    """Say float16: transformers writes the dtype that the model has in memory, not the one that was saved."""
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(config | {"dtype": "float16"}, indent=2) + "\n", encoding="utf-8")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from drawing a progress bar for what takes a moment, and from reporting what we refuse."""
    from transformers.utils import logging

    was, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if was:
            logging.enable_progress_bar()


def _in_half(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    halves: dict[int, torch.Tensor] = {}
    for name, tensor in model.state_dict().items():
        # Tied weights stay one tensor, else both would be written.
        key = tensor.data_ptr()
        halves.setdefault(key, to_half(name, tensor) if tensor.is_floating_point() else tensor)
        yield name, halves[key]


def refuse_unsavable(model: nn.Module, quantized: Collection[str]) -> None:
    """Refuse a model in which anything but the weights in `quantized`, by name, is beyond float16."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and name not in quantized:
            to_half(name, tensor)


def to_half(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor in float16.

    Raises
    ------
    AwqdocError
        If a value is not finite then.
    """
    half = tensor.half()
    if not torch.isfinite(half).all():
        raise AwqdocError(
            f"{name} reaches {float(tensor.abs().max()):.3g}, and a checkpoint in float16 holds at most 65504: it "
            "cannot be saved without loss."
        )
    return half


def refuse_occupied(folder: Path) -> None:
    """Refuse a folder that holds something: a checkpoint never replaces another."""
    if not folder.name:
        raise AwqdocError(
            f"The checkpoint needs a folder of its own; found {str(folder)!r}: give the name of a new one."
        )
    try:
        link = folder.is_symlink()
        occupied = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise AwqdocError(f"{folder} cannot be written ({error.strerror}): choose another folder.") from None
    if occupied:
        raise AwqdocError(f"{folder} exists and is not empty: choose another folder, or delete it first.")
    if link:  # which a folder cannot replace
        raise AwqdocError(f"{folder} is a symbolic link: give the folder that it leads to, or delete it first.")
