"""What stands between the products, in Triton: as in transformers, and through Triton's compiler, without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is a package for Linux")
ROOT = Path(__file__).parents[1]

INTERPRETED = """
import torch
from tiny_models import random_windows, tiny_gqa
from transformers.models.llama import modeling_llama as llama

from awqdoc.models.decoding import Decoder, decoder, triton_fused as ours, weights_of

torch.manual_seed(0)
x, delta = torch.randn(3, 96), torch.randn(3, 96)
norm = llama.LlamaRMSNorm(96, 1e-5)
norm.weight.data.normal_()
added = x + delta
torch.testing.assert_close(ours.norm(x, delta, norm.weight.data, 1e-5), norm(added).detach())
assert torch.equal(x, added)
torch.testing.assert_close(ours.norm(x, None, norm.weight.data, 1e-5), norm(x).detach())

mlp = llama.LlamaMLP(llama.LlamaConfig(hidden_size=32, intermediate_size=1100))
gate, up = torch.randn(2, 2, 1100)
torch.testing.assert_close(ours.activate(torch.cat([gate, up], 1)), mlp.act_fn(gate) * up)

logits = torch.randn(3, 9000).round()  # the largest are many
tokens, lengths = torch.zeros(3, dtype=torch.int64), torch.tensor([0, 7, 5], dtype=torch.int32)
ours.choose(logits, tokens, lengths)
assert tokens.tolist() == [row.index(max(row)) for row in logits.tolist()] and lengths.tolist() == [1, 8, 6]

few = ours.FOR_FEW
# sequences, kv heads, query heads to each, head size, length; one part of four tiles, two parts of two, nine of one
cases = (5, 2, 1, 32, 200, 1), (2, 2, 4, 32, 200, 2), (1, 1, 3, 64, 513, 9)
for batch, kv_heads, group, size, length, parts in cases:
    ours.FOR_FEW = 64, 2, batch * kv_heads * parts
    assert ours.cut(batch * kv_heads, length).parts == parts
    sizes = dict(hidden_size=size * kv_heads * group, num_attention_heads=kv_heads * group, head_dim=size)
    config = llama.LlamaConfig(num_key_value_heads=kv_heads, **sizes)
    cos, sin = llama.LlamaRotaryEmbedding(config)(torch.zeros(1), torch.arange(length)[None])
    cache = torch.randn(2, batch, kv_heads, length, size)
    lengths = torch.randint(0, length, (batch,), dtype=torch.int32)
    lengths[0] = length - 1
    qkv = torch.randn(batch, (group + 2) * kv_heads * size)
    attention = llama.LlamaAttention(config, 0)
    wanted, keys = torch.empty(batch, group * kv_heads * size), cache.clone()
    for one, at in enumerate(lengths.tolist()):
        q, k, v = qkv[one].view(1, -1, 1, size).split([group * kv_heads, kv_heads, kv_heads], 1)
        q, k = llama.apply_rotary_pos_emb(q, k, cos[:, at : at + 1], sin[:, at : at + 1])
        keys[0, one, :, at], keys[1, one, :, at] = k[0, :, 0], v[0, :, 0]
        k, v = keys[:, one : one + 1, :, : at + 1]
        found, _ = llama.eager_attention_forward(attention, q, k, v, None, attention.scaling)
        wanted[one] = found.flatten()
    half = cos[0, :, : size // 2].contiguous(), sin[0, :, : size // 2].contiguous()
    found = ours.attend(qkv, cache, lengths, *half)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(cache, keys)

ours.FOR_FEW = few
model, prompts = tiny_gqa(), random_windows(2, 5)
decoder._between = lambda device: ours
found = Decoder(weights_of(model), 2, 100).generate(prompts, 4)
assert torch.equal(found, model.generate(prompts, max_new_tokens=4, do_sample=False, pad_token_id=0)[:, 5:])
print("agrees")
"""


def test_our_kernels_agree_with_transformers_in_tritons_interpreter() -> None:
    # A process of its own: TRITON_INTERPRET counts when a kernel is defined.
    paths = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", INTERPRETED], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "agrees", done.stderr


ATTEND = {
    **dict.fromkeys(("qkv", "cache", "y"), "*fp16"), **dict.fromkeys(("cos", "sin", "partial", "peaks"), "*fp32"),
    "lengths": "*i32", "length": "i32", "second": "i32", "factor": "fp32", "tiles": "i32",
}  # fmt: skip
HEADS = {"KV_HEADS": 8, "GROUP": 4, "ROWS": 16, "HALF": 64, "TILE": 64}
PARTS = {"best": "*fp32", "places": "*i32"}
COMPILED = {
    "norm_kernel": ({**dict.fromkeys(("x", "delta", "weight", "y"), "*fp16"), "size": "i32", "eps": "fp32"},
                    {"ADD": True, "BLOCK": 4096}),
    "activate_kernel": ({"gate_up": "*fp16", "y": "*fp16", "size": "i32"}, {"BLOCK": 1024}),
    "attend_kernel": (ATTEND, {**HEADS, "PARTS": 17}),
    "combine_kernel": ({"partial": "*fp32", "peaks": "*fp32", "y": "*fp16"},
                       {"GROUP": 4, "SIZE": 128, "PARTS": 17, "BLOCK": 32}),
    "choose_kernel": ({"logits": "*fp16", **PARTS, "size": "i32", "parts": "i32"}, {"BLOCK": 4096}),
    "follow_kernel": ({**PARTS, "tokens": "*i64", "lengths": "*i32", "parts": "i32"}, {"BLOCK": 32}),
}  # fmt: skip


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("name", COMPILED)
def test_a_kernel_compiles_and_from_hopper_on_waits_for_the_one_before(name: str, capability: int) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from awqdoc.models.decoding import triton_fused

    kernel = getattr(triton_fused, name)
    pointers, constants = COMPILED[name]
    overlap = {"launch_pdl": True} if capability >= 90 else {}
    constants = {**constants, "OVERLAP": bool(overlap)}
    signature = {**pointers, **dict.fromkeys(constants, "constexpr")}
    aligned = [i for i, kind in enumerate(signature.values()) if kind[0] == "*"]
    source = ASTSource(
        kernel, signature=signature, constexprs=constants, attrs={(i,): [["tt.divisibility", 16]] for i in aligned}
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 4, **overlap})
    code = compiled.asm["ptx"]
    assert compiled.metadata.shared <= 100 << 10  # fits the smallest SM of these generations (8.6, 8.9)
    before, _, after = code.partition("griddepcontrol.wait")
    assert bool(after) is bool(overlap)
    assert not overlap or ("st.global" not in before and "st.global" in after)
    assert name != "attend_kernel" or ("mma.sync" in code and "cp.async" in code)
    assert ("prefetch.global.L2" in before) is (overlap != {} and name == "attend_kernel")
