"""Models of a few hundred thousand random weights, and tokens for them. Nothing is downloaded."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

VOCABULARY = 256


def tiny_llama(
    *, hidden: int = 128, intermediate: int = 384, layers: int = 2, heads: int = 4, kv_heads: int = 4,
    tied: bool = False, outliers: float = 20.0, seed: int = 0,
) -> Any:  # fmt: skip
    """Return a LlamaForCausalLM in float32; with kv_heads < heads its attention is grouped-query."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kv_heads, vocab_size=VOCABULARY, max_position_embeddings=512, tie_word_embeddings=tied,
    )  # fmt: skip
    return plant_outliers(LlamaForCausalLM(config).eval(), outliers, seed)


def tiny_gqa(**options: Any) -> Any:
    """Return a Llama with half as many key and value heads as query heads."""
    return tiny_llama(kv_heads=2, **options)


def tiny_opt(
    *, hidden: int = 128, intermediate: int = 384, layers: int = 2, heads: int = 4, outliers: float = 20.0,
    seed: int = 0, **options: Any,
) -> Any:  # fmt: skip
    """Return an OPTForCausalLM in float32, its embeddings tied as in every published OPT."""
    from transformers import OPTConfig, OPTForCausalLM

    torch.manual_seed(seed)
    config = OPTConfig(
        hidden_size=hidden, word_embed_proj_dim=hidden, ffn_dim=intermediate, num_hidden_layers=layers,
        num_attention_heads=heads, vocab_size=VOCABULARY, max_position_embeddings=512, **options,
    )  # fmt: skip
    model = OPTForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.02)  # zeros, as they are made, would hide a bias that is lost
    return plant_outliers(model, outliers, seed)


@torch.no_grad()
def plant_outliers(model: nn.Module, strength: float, seed: int) -> Any:
    """Make a few channels of every norm `strength` times as large.

    With purely random weights nearly every search ends at the edge of its grid, and tests nothing.
    """
    generator = torch.Generator().manual_seed(seed + 1)
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if "norm" in name and "layers" in name and weight is not None:
            weight[torch.randperm(len(weight), generator=generator)[: len(weight) // 32]] *= strength
    return model


MAKERS = {"llama": tiny_llama, "gqa": tiny_gqa, "opt": tiny_opt}


def half(model: Any) -> Any:
    """Put a model into float16, but for its rotary frequencies: a loaded model keeps them in float32."""
    for parameter in model.parameters():
        parameter.data = parameter.data.half()
    model.config.dtype = torch.float16
    return model


def random_windows(count: int = 4, length: int = 64, seed: int = 1) -> torch.Tensor:
    """Return int64 [count, length]."""
    return torch.randint(0, VOCABULARY, (count, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def logits(model: Any, windows: torch.Tensor) -> torch.Tensor:
    """Return what a model makes of windows, [windows, tokens, vocabulary]."""
    return model(input_ids=windows, use_cache=False).logits


def correlated_inputs(tokens: int, k: int, seed: int, outliers: int = 2) -> torch.Tensor:
    """Return inputs float32 [tokens, k] whose channels go together, `outliers` of them twenty times as large."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(tokens, k, generator=generator) @ torch.randn(k, k, generator=generator) / k**0.5
    mixed[:, torch.randperm(k, generator=generator)[:outliers]] *= 20
    return mixed
