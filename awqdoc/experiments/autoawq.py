"""AutoAWQ itself, run on a model in memory: what the speed and side-by-side experiments compare with."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch

from awqdoc.models import QuantizedLinear, Settings

PHASES = {
    "_get_input_feat": "inputs",
    "_search_best_scale": "scales",
    "_search_best_clip": "clip",
    "_apply_quant": "pack",
}
"""Method of AutoAWQ's ``AwqQuantizer`` -> what we call the part of the work that it does in each block."""


def why_not(model: Any) -> str | None:
    """Say why AutoAWQ cannot quantize a model here, or return None."""
    if importlib.util.find_spec("awq") is None:
        return "autoawq is not installed"
    try:
        with silent():
            importlib.import_module("awq.quantize.quantizer")
    except Exception as error:  # beside some releases of transformers it does not load
        return f"autoawq cannot be imported ({error})"
    if model.device.type == "cpu":
        # awq/quantize/quantizer.py keeps the weights with `.cpu()`, which copies from a GPU only.
        return "on a CPU AutoAWQ's search does not restore the weights between candidates, so its results mean nothing"
    if model.config.model_type != "llama":
        return "AutoAWQ with a current transformers quantizes Llamas only"
    return None


def quantize(model: Any, windows: torch.Tensor, settings: Settings) -> list[dict[str, float]]:
    """Quantize a Llama in place with AutoAWQ: its linear layers become `QuantizedLinear` with AutoAWQ's tensors.

    Nothing of AutoAWQ is changed but for a clock around the `PHASES` of each block. That its result is then run by our
    layer makes sure that two quantizers are compared, not two kernels.

    Parameters
    ----------
    windows : torch.Tensor
        int64 [windows, length]; all of one length, so that AutoAWQ's own cutting leaves them as they are.
    settings : Settings
        4 bits with zero points; its other options are AutoAWQ's arguments of the same names.

    Returns
    -------
    list of dict
        Seconds of each block: ``total`` (search, folding, clipping, rounding and packing), and each of the `PHASES`.
    """
    with silent():
        from awq.models.llama import LlamaAWQForCausalLM
        from awq.quantize.quantizer import AwqQuantizer

    starts: list[float] = []
    blocks: list[dict[str, float]] = []

    def timed(method: str, phase: str) -> Callable[..., Any]:
        def call(self: Any, *arguments: Any, **keywords: Any) -> Any:
            start = now()
            if phase == "inputs":  # the first of each block
                starts.append(start)
                blocks.append(dict.fromkeys(PHASES.values(), 0.0))
            result = getattr(AwqQuantizer, method)(self, *arguments, **keywords)
            blocks[-1][phase] += now() - start
            return result

        return call

    model.config.use_cache = False  # else every pass of the search appends to one cache, as without from_pretrained
    peer = LlamaAWQForCausalLM(
        model, "llama", is_quantized=False, config=model.config, quant_config=None, processor=None
    )
    with silent():
        peer.quantize(
            tokenizer=None,
            quant_config={
                "zero_point": not settings.symmetric,
                "q_group_size": settings.group_size,
                "w_bit": settings.bits,
                "version": "GEMM",
            },
            calib_data=windows.tolist(),
            max_calib_samples=len(windows),
            max_calib_seq_len=windows.shape[1],
            duo_scaling=settings.duo_scaling,
            apply_clip=settings.clip,
            quantizer_cls=type("Timed", (AwqQuantizer,), {name: timed(name, phase) for name, phase in PHASES.items()}),
        )
    ends = [*starts[1:], now()]
    _take_over(model)
    totals = [end - start for start, end in zip(starts, ends, strict=True)]
    return [{"total": total} | phases for total, phases in zip(totals, blocks, strict=True)]


def _take_over(model: Any) -> None:
    for name, theirs in list(model.named_modules()):
        if type(theirs).__name__ == "WQLinear_GEMM":
            ours = QuantizedLinear(theirs.in_features, theirs.out_features, theirs.group_size, theirs.w_bit)
            for tensor in ("qweight", "qzeros", "scales", "bias"):
                setattr(ours, tensor, getattr(theirs, tensor))
            model.set_submodule(name, ours)


def now() -> float:
    """Return the clock in seconds when the GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Hide AutoAWQ's banner and progress bars."""
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings(record=True):
        yield
