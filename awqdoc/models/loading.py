"""Load a model by name: the embedded one, a folder, a hub's name, quantized or not. A pickle is never loaded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from awqdoc.errors import AwqdocError
from awqdoc.models import manifest
from awqdoc.models.checkpoint import ROTARY, build_quantized, first_words, is_awq, quiet
from awqdoc.models.corpus import SHIPPED
from awqdoc.models.families import FAMILIES

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
        ``gemm``), as AutoAWQ and `awqdoc.models.save` write it, is loaded with `QuantizedLinear` layers. Code
        that a model brings along is never run.
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
        If there is no such model, it cannot be reached, it is none that can be quantized, or its files are
        incomplete or damaged or do not fit its configuration.
    """
    place, offline = _place(name)
    dtype = dtype or (torch.float32 if device == "cpu" else torch.float16)
    config = _config(name, place, offline)
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
    if _is_model(name, folder):
        return str(folder), True
    if not re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", name):
        raise AwqdocError(f"There is no folder {name}: give one, the name of a model on the hub, or {EMBEDDED!r}.")
    return name, _only_cached(name)


def _is_model(name: str, folder: Path) -> bool:
    """Return whether there is a folder; refuse one that cannot be a model's."""
    try:
        if not folder.is_dir():
            return False
        configured, files = (folder / "config.json").exists(), list(folder.glob("*.safetensors"))
    except OSError as error:
        raise AwqdocError(
            f"The folder {name} cannot be read ({error.strerror}): give another one, or {EMBEDDED!r}."
        ) from None
    if not configured:
        raise AwqdocError(f"The folder {name} has no config.json: give that of a saved model, or {EMBEDDED!r}.")
    if not files:
        raise AwqdocError(
            f"The folder {name} has no safetensors file; pickles (.bin, .pt) are not loaded, since they can run "
            f"any code: write it anew with a current transformers' save_pretrained, or use {EMBEDDED!r}."
        )
    return True


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
            f"The model {name!r} is no folder here and cannot be fetched from the hub ({first_words(error)}): check "
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
            f"The checkpoint {place!r} cannot be fetched from the hub ({first_words(error)}): check the connection "
            "and try again; what is there already is kept."
        ) from None


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Turn what goes wrong in transformers into one sentence, which begins with `what`."""
    try:
        with quiet():
            yield
    except Exception as error:  # transformers, tokenizers and safetensors have dozens of kinds
        if "trust_remote_code" in str(error):
            raise _own_code(what) from None
        raise AwqdocError(
            f"{what} cannot be loaded ({first_words(error)}): its files are incomplete or damaged; "
            f"fetch or save them again, or use {EMBEDDED!r}."
        ) from None


def _own_code(what: str) -> AwqdocError:
    return AwqdocError(
        f"{what} brings code of its own (auto_map), which is not run here; supported are {', '.join(FAMILIES)}."
    )


def _from_pretrained(kind: str, name: str, place: str, offline: bool, **options: Any) -> Any:
    """Call transformers' loader."""
    import transformers

    with _reading(f"The tokenizer of the model {name}" if kind == "AutoTokenizer" else f"The model {name}"):
        # Left open, transformers asks on the terminal whether to run a model's own code.
        options |= {"local_files_only": offline, "trust_remote_code": False}
        return getattr(transformers, kind).from_pretrained(place, **options)


def _config(name: str, place: str, offline: bool) -> Any:
    """Read the configuration; refuse a model that cannot be quantized before its weights are fetched or read."""
    from transformers import PretrainedConfig

    with _reading(f"The model {name}"):
        entries, _ = PretrainedConfig.get_config_dict(place, local_files_only=offline)
        kind, own_code = entries.get("model_type"), "auto_map" in entries
    if kind is None:
        raise AwqdocError(f"The config.json of the model {name} has no model_type: fetch or save the model again.")
    if kind not in FAMILIES and own_code:
        raise _own_code(f"The model {name}")
    if kind not in FAMILIES:
        raise AwqdocError(f"Models of the type {kind!r} cannot be quantized here; supported are {', '.join(FAMILIES)}.")
    return _from_pretrained("AutoConfig", name, place, offline)


def _model(name: str, place: str, offline: bool, dtype: torch.dtype) -> Any:
    """Load a model that is not quantized; what does not fit in its files transformers would make up or pass over."""
    options = {
        "dtype": dtype,
        "use_safetensors": True,
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,  # listed then, with both shapes
    }
    model, found = _from_pretrained("AutoModelForCausalLM", name, place, offline, **options)
    again = f"fetch or save them again, or use {EMBEDDED!r}."
    mismatched = sorted(found["mismatched_keys"])
    if mismatched:
        key, stored, wanted = mismatched[0]
        raise AwqdocError(
            f"The files of the model {name!r} hold {key} as {list(stored)}; the configuration says {list(wanted)}: "
            f"{again}"
        )
    missing = sorted(found["missing_keys"])
    if missing:
        raise AwqdocError(f"The files of the model {name!r} lack {missing[0]} ({len(missing)} missing): {again}")
    blocks = FAMILIES[model.config.model_type].blocks.rpartition(".")[2]
    unknown = sorted(key for key in found["unexpected_keys"] if f"{blocks}." in key and not key.endswith(ROTARY))
    if unknown:
        raise AwqdocError(
            f"The files of the model {name!r} hold {unknown[0]}, which its configuration has no place for "
            f"({len(unknown)} unknown): {again}"
        )
    return model


def _refuse_damage(name: str, model: Any) -> None:
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise AwqdocError(f"{key} of the model {name!r} holds inf or nan: its files are damaged, fetch them again.")
