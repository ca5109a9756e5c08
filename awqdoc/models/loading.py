"""Load a model by name: the embedded one, a folder, a hub's name, quantized or not. A pickle is never loaded."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from awqdoc.errors import AwqdocError
from awqdoc.models import manifest
from awqdoc.models.checkpoint import build_quantized, is_awq, quiet
from awqdoc.models.corpus import SHIPPED

EMBEDDED = "embedded"
"""The name of the model that ships with awqdoc."""

SHIPPED_MANIFEST = "ecd1971ecdbdcd7a9530d63a52e8570f0238da6906a03b922df91843cf4cad60"
"""SHA-256 of the list of what ships, here so that another model makes the recordings of this one stale."""


def load(name: str = EMBEDDED, device: str = "cpu", dtype: torch.dtype | None = None) -> tuple[Any, Any]:
    """Load a model and its tokenizer.

    Parameters
    ----------
    name : str
        ``"embedded"``, a folder with a ``config.json``, or a name on the Hugging Face hub, as
        ``facebook/opt-125m``. Weights are read from safetensors files only. An AWQ checkpoint (version
        ``gemm``), as AutoAWQ and `awqdoc.models.save` write it, is loaded with `QuantizedLinear` layers.
    device : str
        ``"cpu"`` or ``"cuda"``.
    dtype : torch.dtype or None
        None: float16 on a GPU, float32 on a CPU, where half precision is slow.

    Returns
    -------
    tuple
        The transformers model, ready to run, and its tokenizer.

    Raises
    ------
    AwqdocError
        If there is no such model, it cannot be reached, or its files are incomplete or damaged.
    """
    place, offline = _place(name)
    dtype = dtype or (torch.float32 if device == "cpu" else torch.float16)
    config = _from_pretrained("AutoConfig", name, place, offline)
    tokenizer = _from_pretrained("AutoTokenizer", name, place, offline)
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # for some models transformers makes one of nothing
        raise AwqdocError(f"The model {name!r} has no tokenizer: save its tokenizer beside it, or use {EMBEDDED!r}.")
    if is_awq(config):
        model = build_quantized(config, _local(place, offline), dtype)
    else:
        model = _model(name, place, offline, dtype)
    _refuse_damage(name, model)
    return model.to(device).eval(), tokenizer


def _place(name: str) -> tuple[str, bool]:
    """Return what to hand to transformers, a folder or a hub's name, and whether to stay off the network."""
    if name == EMBEDDED:
        _check_shipped()
    folder = SHIPPED if name == EMBEDDED else Path(name)
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise AwqdocError(f"The folder {name} has no config.json: give that of a saved model, or {EMBEDDED!r}.")
        if not list(folder.glob("*.safetensors")):
            raise AwqdocError(
                f"The folder {name} has no safetensors file; pickles (.bin, .pt) are not loaded, since they can run "
                f"any code: write it anew with a current transformers' save_pretrained, or use {EMBEDDED!r}."
            )
        return str(folder), True
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise AwqdocError(f"There is no folder {name}: give one, the name of a model on the hub, or {EMBEDDED!r}.")
    return name, _only_cached(name)


def _check_shipped() -> None:
    """Refuse a shipped model that was changed or cut off: its numbers would be compared with those of another."""
    manifest.verify(SHIPPED)
    found = manifest.sha256(SHIPPED / manifest.NAME)
    if found != SHIPPED_MANIFEST:
        raise AwqdocError(f"{SHIPPED / manifest.NAME} is not the one of this awqdoc ({found[:12]}…): install it again.")


def _only_cached(name: str) -> bool:
    """Ask the hub for a model, and say whether it has to come from the cache because the hub does not answer."""
    from huggingface_hub import model_info, snapshot_download

    try:
        # Asked first, because a download tries for half a minute to reach a hub that is not there.
        model_info(name, timeout=10)
        return False
    except Exception as error:  # of any of the kinds that a network knows
        with suppress(Exception):
            snapshot_download(name, allow_patterns=["config.json"], local_files_only=True)
            return True
        raise AwqdocError(
            f"The model {name!r} is no folder here and cannot be fetched from the hub ({_first_words(error)}): check "
            f"the name and the connection, or use the model that ships with awqdoc, {EMBEDDED!r}."
        ) from None


def _local(place: str, offline: bool) -> Path:
    """Return the folder of an AWQ checkpoint, fetched from the hub if it is there."""
    if Path(place).is_dir():
        return Path(place)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(place, allow_patterns=["*.safetensors", "*.json"], local_files_only=offline))
    except Exception as error:  # of any of the kinds that a network knows
        raise AwqdocError(
            f"The checkpoint {place!r} cannot be fetched from the hub ({_first_words(error)}): check the connection "
            "and try again; what is there already is kept."
        ) from None


def _first_words(error: Exception) -> str:
    return " ".join(str(error).split()).split(". ")[0][:160] or type(error).__name__


def _from_pretrained(kind: str, name: str, place: str, offline: bool, **options: Any) -> Any:
    """Call transformers' loader and turn what goes wrong into one sentence."""
    import transformers

    try:
        with quiet():
            return getattr(transformers, kind).from_pretrained(place, local_files_only=offline, **options)
    except Exception as error:  # transformers, tokenizers and safetensors have dozens of kinds
        raise AwqdocError(
            f"The model {name} cannot be loaded ({_first_words(error)}): its files are incomplete or damaged; "
            f"fetch or save them again, or use {EMBEDDED!r}."
        ) from None


def _model(name: str, place: str, offline: bool, dtype: torch.dtype) -> Any:
    """Load a model that is not quantized; what is missing in its files transformers would make up."""
    options = {"dtype": dtype, "use_safetensors": True, "output_loading_info": True}
    model, found = _from_pretrained("AutoModelForCausalLM", name, place, offline, **options)
    missing = sorted(found["missing_keys"])
    if missing:
        raise AwqdocError(
            f"The files of the model {name!r} lack {missing[0]} ({len(missing)} missing): fetch or save them again, or "
            f"use {EMBEDDED!r}."
        )
    return model


def _refuse_damage(name: str, model: Any) -> None:
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise AwqdocError(f"{key} of the model {name!r} holds inf or nan: its files are damaged, fetch them again.")
