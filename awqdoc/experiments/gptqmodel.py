"""GPTQModel itself, run on a model in a folder: what the side-by-side experiment compares with."""

from __future__ import annotations

import copy
import importlib.util
import io
import os
import tempfile
from contextlib import chdir, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import nn

from awqdoc.experiments.autoawq import now, silent
from awqdoc.models import Settings

# Before it is imported: on two cores its pool of one worker can wait for itself.
os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")


def why_not() -> str | None:
    """Say why GPTQModel cannot quantize here, or return None."""
    if importlib.util.find_spec("gptqmodel") is None:
        return "gptqmodel is not installed"
    return None


def quantize(model: Any, folder: Path, windows: torch.Tensor, settings: Settings, device: str) -> tuple[float, Any]:
    """Quantize the model in `folder` with GPTQModel and return the seconds and a copy of `model` with its weights.

    Group size, bits and zero points are those of `settings`; everything else is GPTQModel's default, but for its
    damping (0.05), which is set to ours, and its activation-group-aware order, which is off as ours is.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The same model in floating point.
    windows : torch.Tensor
        int64 [windows, length].

    Returns
    -------
    tuple
        Seconds for searching, rounding and packing, and a model whose linear layers hold the dequantized weights.
    """
    with silent(), redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as scratch, chdir(scratch):
        # It writes ./logs and tables on stdout.
        from gptqmodel import GPTQModel

        config, backend = _configuration(settings, device)
        peer = GPTQModel.load(str(folder), config, dtype=torch.float16)
        samples = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in windows.tolist()]
        start = now()
        peer.quantize(samples, batch_size=8, backend=backend)
        seconds = now() - start
        return seconds, _dequantized(copy.deepcopy(model), peer.model, device)


def _configuration(settings: Settings, device: str) -> tuple[Any, Any]:
    from gptqmodel import BACKEND
    from gptqmodel.quantization.config import FORMAT, METHOD, AWQConfig, GPTQConfig

    common = {
        "bits": settings.bits,
        "group_size": settings.group_size,
        "sym": settings.symmetric,
        "device": device,
        "pack_impl": "original",  # the default compiles C++ first
        "offload_to_disk": False,
    }
    if settings.method == "awq":
        # BACKEND.AUTO means a kernel that is compiled at run time.
        return AWQConfig(method=METHOD.AWQ, format=FORMAT.GEMM, **common), BACKEND.AWQ_TORCH
    # In memory the layers of FORMAT.GPTQ hold zero points less one, but compute without adding it.
    return GPTQConfig(
        method=METHOD.GPTQ, format=FORMAT.GPTQ_V2, desc_act=False, act_group_aware=False, damp_percent=0.01, **common
    ), BACKEND.GPTQ_TORCH


@torch.no_grad()
def _dequantized(model: Any, peer: nn.Module, device: str) -> Any:
    """Fill a model with a quantized one's parameters: of each quantized layer, what it makes of the identity."""
    from gptqmodel.nn_modules.qlinear import BaseQuantLinear

    state = {}
    for name, module in peer.named_modules():
        if isinstance(module, BaseQuantLinear):
            layer = copy.deepcopy(module).to(device)
            layer.post_init()
            identity = torch.eye(layer.in_features, dtype=torch.float16, device=device)
            state[f"{name}.weight"] = layer(identity).t()
        else:
            state |= {f"{name}.{key}": parameter for key, parameter in module.named_parameters(recurse=False)}
    model.load_state_dict(state, strict=False)
    return model
