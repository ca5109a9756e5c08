"""What stands between the products of a Llama, in torch: what the Triton kernels are, and what runs on a CPU.

The same four functions as in ``triton_fused.py``, and what only a prompt needs.
"""

from __future__ import annotations

import torch
from torch.nn import functional


def norm(x: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Add `delta` to `x`, in place, and return RMSNorm(x) * weight; all [tokens, hidden size], weight [hidden size]."""
    if delta is not None:
        x += delta
    scale = torch.rsqrt(x.float().square().mean(-1, keepdim=True) + eps)
    return (x.float() * scale * weight.float()).to(x.dtype)


def activate(gate_up: torch.Tensor) -> torch.Tensor:
    """Return SiLU(gate) * up, [tokens, intermediate size], of both side by side."""
    gate, up = gate_up.float().chunk(2, dim=-1)
    return (functional.silu(gate) * up).to(gate_up.dtype)


def attend(
    qkv: torch.Tensor, cache: torch.Tensor, lengths: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> torch.Tensor:
    """Attend with one new token of each sequence, after its key and value have been appended to the cache.

    Parameters
    ----------
    qkv : torch.Tensor
        [batch, (heads + 2 kv heads) * head size]: query, key and value, not yet rotated.
    cache : torch.Tensor
        [2, batch, kv heads, length, head size]: keys and values of one layer. Row ``lengths`` of each is written.
    lengths : torch.Tensor
        int32 [batch]: tokens that each sequence has in the cache, and the position of its new one.
    cos, sin : torch.Tensor
        float32 [positions, head size / 2].

    Returns
    -------
    torch.Tensor
        [batch, heads * head size].
    """
    query, key, value = _split(qkv, cache, tokens=1)  # [batch, heads, 1, head size]
    places = lengths.long()
    turn = cos[places, None, None], sin[places, None, None]
    sequences = torch.arange(len(lengths), device=qkv.device)
    cache[0, sequences, :, places] = rotated(key, *turn)[:, :, 0]
    cache[1, sequences, :, places] = value[:, :, 0]
    known = torch.arange(cache.shape[3], device=qkv.device) <= places[:, None]
    found = functional.scaled_dot_product_attention(
        rotated(query, *turn), cache[0], cache[1], attn_mask=known[:, None, None], enable_gqa=True
    )
    return found.flatten(1)


def choose(logits: torch.Tensor, tokens: torch.Tensor, lengths: torch.Tensor) -> None:
    """Set `tokens`, int64 [batch], to those of the largest of `logits` [batch, vocabulary]; add one to `lengths`."""
    torch.argmax(logits, dim=-1, out=tokens)
    lengths += 1


def fill(qkv: torch.Tensor, cache: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Attend causally within prompts of one length, and put their keys and values at the cache's beginning.

    `qkv` is [batch * tokens, (heads + 2 kv heads) * head size], the result [batch * tokens, heads * head size].
    """
    tokens = len(qkv) // cache.shape[1]
    query, key, value = _split(qkv, cache, tokens)
    query, key = (rotated(part, cos[:tokens], sin[:tokens]) for part in (query, key))
    cache[0, :, :, :tokens], cache[1, :, :, :tokens] = key, value
    found = functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    return found.transpose(1, 2).flatten(0, 1).flatten(1)


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate each pair (i, i + head size / 2) of `x` [..., head size] by its angle; cos, sin [..., head size / 2]."""
    low, high = x.float().chunk(2, dim=-1)
    return torch.cat([low * cos - high * sin, high * cos + low * sin], dim=-1).to(x.dtype)


def _split(qkv: torch.Tensor, cache: torch.Tensor, tokens: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return query, key, value as [batch, heads, tokens, head size]."""
    batch, kv_heads, size = cache.shape[1], cache.shape[2], cache.shape[4]
    heads = qkv.view(batch, tokens, -1, size).transpose(1, 2)
    query, key, value = heads.split([heads.shape[1] - 2 * kv_heads, kv_heads, kv_heads], dim=1)
    return query, key, value
