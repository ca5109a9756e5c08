"""How long does AWQ take for a large model? Blocks of Llama-3-8B's shape, by us and by AutoAWQ, on the same samples."""

from __future__ import annotations

import copy
from typing import Any

import torch

from awqdoc.errors import AwqdocError
from awqdoc.experiments import SEED, autoawq
from awqdoc.models import Settings, quantize_block, walk
from awqdoc.models.families import blocks_of, family_of
from awqdoc.models.quantizing import BATCH

AXES: dict[str, tuple[Any, ...]] = {"shape": ("llama-3-8b",), "round": (0, 1)}
CPU = True
CLOCK = "time.perf_counter, the GPU synchronized before each reading"
SHAPES: dict[str, dict[str, int]] = {
    "llama-3-8b": {
        "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8,
        "vocab_size": 8192,
    },
    "tiny": {
        "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2,
        "vocab_size": 512,
    },
}  # fmt: skip
BLOCKS = 2
# AutoAWQ's defaults.
SAMPLES, LENGTH = 128, 512
HELD_OUT = 16
SETTINGS = Settings("awq", bits=4, group_size=128, duo_scaling=True)


def check(shape: str, round: int) -> None:
    """Refuse shapes that there are not."""
    if shape not in SHAPES:
        raise AwqdocError(f"The shape must be one of {', '.join(SHAPES)}; found {shape!r}.")


def run(device: str, shape: str, round: int) -> list[dict[str, Any]]:
    """Quantize the same blocks of random weights with both, the other one first in every second round.

    Returns
    -------
    list of dict
        ``quantizer`` and ``block``; ``seconds`` for search, folding, clipping, rounding and packing; and the mean
        squared error of the block's output against the original on the calibration tokens, ``loss``, and on others,
        ``loss_held_out``, both as a share of the mean square of what the block adds to its input. For AutoAWQ also
        what of these seconds it took to collect the layers' inputs, to search scales and clip thresholds, and to
        round and pack: ``seconds_inputs``, ``seconds_scales``, ``seconds_clip``, ``seconds_pack``.
        Or ``skipped`` with the reason.
    """
    model = _model(shape, device, round)
    generator = torch.Generator().manual_seed(SEED + round)
    tokens = torch.randint(model.config.vocab_size, (SAMPLES + HELD_OUT, LENGTH), generator=generator)
    warm = _model("tiny", device, round)
    rows: list[dict[str, Any]] = []
    for name in ("awqdoc", "autoawq") if round % 2 == 0 else ("autoawq", "awqdoc"):
        lack = autoawq.why_not(model) if name == "autoawq" else None
        if lack is not None:
            rows.append({"quantizer": name, "skipped": lack})
            continue
        _QUANTIZERS[name](copy.deepcopy(warm), tokens[:4] % warm.config.vocab_size)  # compiles and loads libraries
        result = copy.deepcopy(model)
        seconds = _QUANTIZERS[name](result, tokens[:SAMPLES])
        losses = [_losses(model, result, part) for part in (tokens[:SAMPLES], tokens[SAMPLES:])]
        for block in range(BLOCKS):
            spent = {phase: float(f"{value:.6g}") for phase, value in seconds[block].items()}
            row: dict[str, Any] = {"quantizer": name, "block": block, "seconds": [spent.pop("total")]}
            row |= {"loss": losses[0][block], "loss_held_out": losses[1][block]}
            rows.append(row | {f"seconds_{phase}": value for phase, value in spent.items()})
        del result
    return rows


def forget() -> None:
    """Nothing is kept."""


def _ours(model: Any, windows: torch.Tensor) -> list[dict[str, float]]:
    family = family_of(model)
    blocks = blocks_of(model, family)
    calls = walk.first_calls(model, blocks[0], windows, model.device, BATCH)
    seconds = []
    for number, block in enumerate(blocks):
        start = autoawq.now()
        result = quantize_block(block, f"{family.blocks}.{number}", family, calls, SETTINGS)
        calls = walk.next_calls(calls, result.outputs)
        seconds.append({"total": autoawq.now() - start})
    return seconds


def _theirs(model: Any, windows: torch.Tensor) -> list[dict[str, float]]:
    return autoawq.quantize(model, windows, SETTINGS)


_QUANTIZERS = {"awqdoc": _ours, "autoawq": _theirs}


@torch.no_grad()
def _model(shape: str, device: str, seed: int) -> Any:
    """Build a Llama of random weights whose channels differ in size as those of trained models do."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**SHAPES[shape], num_hidden_layers=BLOCKS, max_position_embeddings=2 * LENGTH, use_cache=False)
    torch.manual_seed(SEED + seed)
    with torch.device(device):
        model = LlamaForCausalLM(config).to(torch.float16 if device != "cpu" else torch.float32).eval()
        # A spread of one e-fold between channels of the stream, and of the weights that read them a quarter of it.
        width = config.hidden_size
        model.model.embed_tokens.weight.mul_(50 * torch.randn(width).exp())
        for name, parameter in model.model.layers.named_parameters():
            if "layernorm" in name:
                parameter.copy_((0.5 * torch.randn(width)).exp())
            else:
                parameter.mul_((0.25 * torch.randn(parameter.shape[1])).exp())
    return model


@torch.no_grad()
def _losses(model: Any, result: Any, windows: torch.Tensor) -> list[float]:
    """Squared error of each quantized block, given the original's inputs, as a share of what the block adds."""
    family = family_of(model)
    pairs = zip(blocks_of(model, family), result.model.layers.to(model.device), strict=True)
    calls = walk.first_calls(model, blocks_of(model, family)[0], windows, model.device, BATCH)
    found = []
    for original, quantized in pairs:
        wanted = walk.run(original, calls)
        error = added = 0.0
        for call, output in zip(calls, wanted, strict=True):
            (got,) = walk.run(quantized, [call])
            error += float((got.float() - output.float()).square().sum())
            added += float((output.float() - call.arguments[0].float()).square().sum())
        found.append(float(f"{error / added:.6g}"))
        calls = walk.next_calls(calls, wanted)
    return found
