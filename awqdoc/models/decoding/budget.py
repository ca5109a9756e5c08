"""What a step must move, and how long it should take: bytes, and a prediction from the recorded kernels."""

from __future__ import annotations

from statistics import median
from typing import Any

import torch

from awqdoc.errors import AwqdocError
from awqdoc.recordings import Recording

GROUP_SIZE = 128


def head_size(config: Any) -> int:
    """Return the size of an attention head."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def shapes(config: Any) -> dict[str, tuple[int, int]]:
    """Return the products of one layer, name -> (N, K): q, k and v are one, gate and up are one."""
    hidden, between = config.hidden_size, config.intermediate_size
    queries, keys = (heads * head_size(config) for heads in (config.num_attention_heads, config.num_key_value_heads))
    return {
        "qkv": (queries + 2 * keys, hidden),
        "output": (hidden, queries),
        "gate_up": (2 * between, hidden),
        "down": (hidden, between),
    }


def bytes_per_weight(bits: int) -> float:
    """Bytes of a weight of 16 bits, or of 4 with its part of a scale and a zero point, in groups of 128."""
    return 2.0 if bits == 16 else (bits + (16 + bits) / GROUP_SIZE) / 8


def linear_bytes(config: Any, bits: int) -> int:
    """Bytes of the products of all layers."""
    return round(config.num_hidden_layers * sum(n * k for n, k in shapes(config).values()) * bytes_per_weight(bits))


def head_bytes(config: Any, bits: int) -> int:
    """Bytes of the product with lm_head."""
    return round(config.vocab_size * config.hidden_size * bytes_per_weight(bits))


def model_bytes(config: Any, bits: int, head_bits: int = 16) -> int:
    """Bytes of all weights, the embedding and the norms in 16 bits; a tied lm_head of 16 bits is the embedding."""
    hidden = config.hidden_size
    rest = 2 * (config.vocab_size * hidden + (2 * config.num_hidden_layers + 1) * hidden)
    head = 0 if config.tie_word_embeddings and head_bits == 16 else head_bytes(config, head_bits)
    return linear_bytes(config, bits) + head + rest


def cache_bytes(config: Any, batch: int, length: int, size: int = 2) -> int:
    """Bytes of keys and values of `length` tokens of `batch` sequences, `size` bytes each number."""
    return 2 * config.num_hidden_layers * batch * config.num_key_value_heads * length * head_size(config) * size


def step_bytes(config: Any, batch: int, context: int, bits: int, head_bits: int = 16) -> int:
    """Bytes that one step cannot do without: every weight but the embedding once, and the cache of every sequence."""
    return linear_bytes(config, bits) + head_bytes(config, head_bits) + cache_bytes(config, batch, context)


def bandwidth(recording: Recording) -> float:
    """Return the bytes per second at which the read floor of a recording of ``kernels`` read its largest weight."""
    row = max((row for row in recording.rows if row["backend"] == "read"), key=lambda row: row["bytes"])
    return row["bytes"] / median(row["seconds"])


def linear_seconds(recording: Recording, config: Any, backend: str, batch: int) -> float:
    """Add up the recorded medians of a backend for the products of all layers, weights with zero points.

    Raises
    ------
    AwqdocError
        If one of them is not recorded.
    """
    total = 0.0
    for n, k in shapes(config).values():
        cell = {"backend": backend, "shape": f"{n}x{k}", "zero_points": True, "m": batch}
        found = [row for row in recording.rows if all(row[axis] == value for axis, value in cell.items())]
        if not found or "seconds" not in found[0]:
            raise AwqdocError(
                f"The recording of kernels has no time of {backend} on {n}x{k} at M = {batch}: record it."
            )
        total += median(found[0]["seconds"])
    return config.num_hidden_layers * total


def predicted_seconds(
    recording: Recording, config: Any, backend: str, batch: int, remainder: float, head_bits: int = 16
) -> float:
    """Predict a step: the recorded products of the layers, lm_head by its bytes, and what was measured of the rest.

    Parameters
    ----------
    recording : Recording
        Of the experiment ``kernels``.
    remainder : float
        Seconds of everything else in the step.
    head_bits : int
        16 or 4.
    """
    head = head_bytes(config, head_bits) / bandwidth(recording)
    return linear_seconds(recording, config, backend, batch) + head + remainder


def free_bytes(device: str) -> int | None:
    """Bytes that torch can still allocate on a GPU; None for a CPU, which is not asked."""
    if torch.device(device).type != "cuda":
        return None
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


def refuse_large_model(config: Any, bits: int, head_bits: int, device: str) -> None:
    """Refuse a model whose weights do not fit, before anything of it is allocated."""
    needed, free = model_bytes(config, bits, head_bits), free_bytes(device)
    if free is not None and needed > free:
        raise AwqdocError(
            f"The model's weights take {_gb(needed)}, and {_gb(free)} of the GPU's memory are free: choose a smaller "
            "model or fewer bits, or end what else uses the GPU."
        )


def refuse_large_cache(config: Any, batch: int, length: int, size: int, device: str) -> None:
    """Refuse a cache that does not fit, before it is allocated, and say how many sequences would."""
    needed, free = cache_bytes(config, batch, length, size), free_bytes(device)
    if free is not None and needed > free:
        fitting = free // cache_bytes(config, 1, length, size)
        advice = f"choose a batch of {fitting} or less, or" if fitting else "choose"
        raise AwqdocError(
            f"The cache of {batch} sequences of {length} tokens takes {_gb(needed)}, and {_gb(free)} of the GPU's "
            f"memory are free: {advice} a shorter length."
        )


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
