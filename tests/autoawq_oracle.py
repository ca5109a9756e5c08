"""AutoAWQ 0.2.9 on a CPU, as an oracle: its own search and its own loader, with everything it decides written down.

Where AutoAWQ is not installed (it is a package for Linux) the test that asks for it is skipped.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn


@lru_cache(maxsize=1)
def autoawq() -> SimpleNamespace:
    """Import AutoAWQ, or skip the test."""
    with warnings.catch_warnings(record=True):
        # `import awq` calls simplefilter("default", DeprecationWarning) and then warns that it is deprecated.
        # record=True swallows the warning (a filter set by us would not: theirs goes in front of it) and takes their
        # filter back.
        pytest.importorskip("awq", reason="autoawq is a package for Linux")
        import awq.models.base as base
        import awq.modules.linear.gemm as gemm
        from awq import AutoAWQForCausalLM
        from awq.models.llama import LlamaAWQForCausalLM
        from awq.models.opt import OptAWQForCausalLM
        from awq.quantize.quantizer import AwqQuantizer
        from awq.utils import packing_utils
    return SimpleNamespace(
        base=base,
        gemm=gemm,
        packing=packing_utils,
        Loader=AutoAWQForCausalLM,
        adapters={"llama": LlamaAWQForCausalLM, "opt": OptAWQForCausalLM},
        Quantizer=AwqQuantizer,
        Recorder=type("Recorder", (RecorderMixin, AwqQuantizer), {}),
    )


@dataclass
class ScaleGroup:
    """One search of AutoAWQ: the layers that share an input."""

    x_mean: torch.Tensor
    """[in]: mean of |x| over all tokens, in x's dtype."""
    w_mean: torch.Tensor
    """[in]: mean over the outputs of |w| / max|w of its group|, all layers of the search together."""
    losses: list[float] = field(default_factory=list)
    """20 values, for the ratios 0/20 .. 19/20: mean squared error of the inspected module's output."""
    layers: tuple[str, ...] = ()
    scales: torch.Tensor | None = None
    """[in]: what the weights were multiplied by."""

    @property
    def ratio(self) -> float:
        """The ratio that AutoAWQ kept: the first of the smallest losses (it compares with <)."""
        return self.losses.index(min(self.losses)) / len(self.losses)


@dataclass
class PackedLinear:
    """One linear layer as AutoAWQ packed it."""

    before: torch.Tensor
    """float16 [out, in]: scaled and clipped, not yet rounded."""
    scales: torch.Tensor
    """float16 [out, groups]."""
    zeros: torch.Tensor
    """uint8 [out, groups]."""
    codes: torch.Tensor
    """uint8 [out, in], read back from the packed qweight with AutoAWQ's own unpacking."""
    clip: torch.Tensor | None
    """[out, groups]: |w| was clamped to this; None for q and k, which AutoAWQ does not clip."""


@dataclass
class Oracle:
    """All that AutoAWQ decided for one model."""

    groups: list[ScaleGroup]
    linears: dict[str, PackedLinear]
    adapter: Any
    """AutoAWQ's model object; .model is the transformers model, whose linears now are WQLinear_GEMM."""

    def save(self, folder: Path, shard_size: str = "5GB") -> None:
        """Save with AutoAWQ's save_quantized."""
        with quiet():
            self.adapter.save_quantized(str(folder), shard_size=shard_size)


class RecorderMixin:
    """In front of AutoAWQ's quantizer: every method calls theirs and notes what went in and came out."""

    model: nn.Module

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.groups: list[ScaleGroup] = []
        self.linears: dict[str, PackedLinear] = {}
        self.clips: dict[str, torch.Tensor] = {}
        self._rounding: list[tuple[torch.Tensor, ...]] | None = None
        super().__init__(*args, **kwargs)  # runs the model up to its first block

    def _name(self, module: nn.Module) -> str:
        return next(name for name, candidate in self.model.named_modules() if candidate is module)

    def _search_best_scale(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        found = super()._search_best_scale(module, *args, **kwargs)
        group = self.groups[-1]
        group.layers = tuple(f"{self._name(module)}.{name}" for name in found[1])
        group.scales = found[2].clone()
        return found

    def _compute_best_scale(self, x: Any, w_mean: Any, x_mean: Any, inspected: Any, *args: Any, **kwargs: Any) -> Any:
        self.groups.append(ScaleGroup(x_mean.detach().clone().view(-1), w_mean.detach().clone().view(-1)))
        # AutoAWQ saves the weights with `{k: v.cpu() ...}` and then scales them in place. On a GPU .cpu() copies; on a
        # CPU it returns the same storage, so every "restore" brings back W * scales[ratio 0] and the search, and the
        # model, are spoilt. Let it save copies, which is what happens on a GPU.
        inspected.state_dict = lambda: {name: t.clone() for name, t in nn.Module.state_dict(inspected).items()}
        try:
            return super()._compute_best_scale(x, w_mean, x_mean, inspected, *args, **kwargs)
        finally:
            del inspected.state_dict

    def _compute_loss(self, *args: Any, **kwargs: Any) -> float:
        loss = super()._compute_loss(*args, **kwargs)
        self.groups[-1].losses.append(loss)
        return loss

    def _search_best_clip(self, layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
        found = super()._search_best_clip(layer, *args, **kwargs)
        self.clips |= {f"{self._name(layer)}.{name}": value.squeeze(2).clone() for name, value in found}
        return found

    def pseudo_quantize_tensor(self, w: torch.Tensor) -> Any:
        before = w.clone() if self._rounding is not None else w
        result = super().pseudo_quantize_tensor(w)
        if self._rounding is not None:
            self._rounding.append((before, *(part.clone() for part in result[1:])))
        return result

    def _apply_quant(self, module: nn.Module, named_linears: dict[str, nn.Linear]) -> None:
        for name, linear in named_linears.items():
            self._rounding = []
            super()._apply_quant(module, {name: linear})
            ((before, scales, zeros),) = self._rounding
            full = f"{self._name(module)}.{name}"
            codes, _ = unpack(module.get_submodule(name))
            self.linears[full] = PackedLinear(before, scales, zeros.byte(), codes, self.clips.get(full))
        self._rounding = None


def unpack(layer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return AutoAWQ's codes uint8 [out, in] and zeros uint8 [out, groups] from a WQLinear_GEMM."""
    packing = autoawq().packing
    codes, zeros = packing.unpack_awq(layer.qweight, layer.qzeros, layer.w_bit)
    codes, zeros = packing.reverse_awq_order(codes, zeros, layer.w_bit)
    return (codes & 15).byte().t().contiguous(), (zeros & 15).byte().t().contiguous()


def dequantize(layer: Any) -> torch.Tensor:
    """Return float16 [out, in]: AutoAWQ's own naive dequantization of a WQLinear_GEMM."""
    dequantized = autoawq().packing.dequantize_gemm(
        layer.qweight, layer.qzeros, layer.scales, layer.w_bit, layer.group_size
    )
    return dequantized.t().contiguous()


def quantize(
    model: Any,
    windows: torch.Tensor,
    *,
    group_size: int = 128,
    duo_scaling: bool = True,
    modules_to_not_convert: list[str] | None = None,
) -> Oracle:
    """Quantize `model` in place with AutoAWQ, on the CPU; `windows` [count, length] come through as they are."""
    # transformers' default, use_cache=True, hands the blocks one DynamicCache, to which every forward pass of the
    # search would append its keys and values. AutoAWQ's own from_pretrained switches it off.
    config = model.config
    config.use_cache = False
    adapter = autoawq().adapters[config.model_type](
        model.eval(), config.model_type, is_quantized=False, config=config, quant_config=None, processor=None
    )
    if modules_to_not_convert is not None:
        adapter.modules_to_not_convert = modules_to_not_convert
    with rotary_for_opt(model), without_gpu(), quiet():
        adapter.quantize(
            tokenizer=None,
            quant_config={"zero_point": True, "q_group_size": group_size, "w_bit": 4, "version": "GEMM"},
            # Windows longer than max_calib_seq_len would be left out, shorter ones run together.
            calib_data=windows.tolist(),
            max_calib_samples=len(windows),
            max_calib_seq_len=windows.shape[1],
            duo_scaling=duo_scaling,
            quantizer_cls=autoawq().Recorder,
        )
    return Oracle(adapter.quantizer.groups, adapter.quantizer.linears, adapter)


@contextlib.contextmanager
def without_gpu() -> Iterator[None]:
    """AutoAWQ moves every module to cuda:0 where there is one."""
    with mock.patch("torch.cuda.is_available", return_value=False):
        yield


@contextlib.contextmanager
def rotary_for_opt(model: Any) -> Iterator[None]:
    """For a model without rotary embeddings: AutoAWQ calls model.model.rotary_emb whatever the architecture."""
    if hasattr(model.model, "rotary_emb"):
        yield
        return
    model.model.rotary_emb = lambda hidden, positions: None  # a plain attribute, not a submodule
    try:
        yield
    finally:
        del model.model.rotary_emb


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide AutoAWQ's progress bars and the warnings of its loader."""
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def on_a_cpu() -> Iterator[None]:
    """Let AutoAWQ load and run GEMM layers on a CPU without intel_extension_for_pytorch.

    Two decisions of AutoAWQ are overruled, no code of its layers is:
    - from_quantized turns on IPEX where get_best_device() answers "cpu" (awq.models.base reads the name); there is a
      plain PyTorch path in WQLinear_GEMM, and any other answer leads to it.
    - WQLinear_GEMM.forward prefers Triton where it can be imported. It has no CPU backend.
    """
    base, gemm = autoawq().base, autoawq().gemm
    with (
        # Neither "cpu" nor "xpu:0", so neither IPEX nor fusing.
        mock.patch.object(base, "get_best_device", return_value="cpu:0"),
        mock.patch.object(gemm, "TRITON_AVAILABLE", False),
        mock.patch.object(gemm, "awq_ext", None),
        mock.patch.object(gemm, "user_has_been_warned", True),  # "Using naive (slow) implementation."
        without_gpu(),
    ):
        yield


def load(folder: Path) -> Any:
    """Read an AWQ GEMM checkpoint with AutoAWQ; run the result inside `with on_a_cpu():`."""
    with on_a_cpu(), quiet():
        return autoawq().Loader.from_quantized(
            str(folder), fuse_layers=False, device_map={"": "cpu"}, trust_remote_code=False, safetensors=True
        )
