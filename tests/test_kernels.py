"""The backends: each against float32, ours also in Triton's interpreter and through its compiler, all without a GPU."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from awqdoc.formats import Problem
from awqdoc.kernels import BACKENDS, adapter, why_not
from awqdoc.quantize import round_to_nearest

ROOT = Path(__file__).parents[1]
HOPPER = (9, 0)
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is a package for Linux")


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found.float() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("name", [name for name, backend in BACKENDS.items() if backend.cpu])
@pytest.mark.parametrize(("m", "n", "k", "group_size"), [(1, 64, 128, 128), (7, 72, 256, 64)])
def test_a_backend_that_runs_on_a_cpu_agrees_with_float32(name: str, m: int, n: int, k: int, group_size: int) -> None:
    weight = round_to_nearest(torch.randn(k, n), group_size)
    x = torch.randn(m, k).half()
    backend = adapter(BACKENDS[name])
    found = backend.matmul(x, backend.prepare(weight))
    assert found.dtype == torch.float16
    assert found.shape == (m, n)
    assert relative_error(found, x.float() @ weight.dequantize().float()) < 1e-3


INTERPRETED = """
import torch
from awqdoc.kernels import triton_fused as fused
from awqdoc.kernels import triton_read
from awqdoc.quantize import round_to_nearest

torch.manual_seed(0)
sizes = [(1, 128, 256, 128), (5, 64, 128, 32), (17, 128, 512, 64), (3, 192, 256, 256), (130, 64, 64, 32)]
for m, n, k, group_size in sizes:
    weight = round_to_nearest(torch.randn(k, n) * 0.02, group_size)
    packed = fused.prepare(weight)
    x = torch.randn(m, k).half()
    assert torch.equal(fused.dequantize(packed), weight.dequantize()), (m, n, k)
    found, wanted = fused.matmul(x, packed), x.float() @ weight.dequantize().float()
    error = float((found.float() - wanted).norm() / wanted.norm())
    assert error < 1e-3, (m, n, k, error)
words = torch.randint(-9, 9, (10_001,), dtype=torch.int32)
assert triton_read.read(words).sum() == words.sum()
print("agrees")
"""


@needs_triton
def test_our_kernels_agree_with_torch_in_tritons_interpreter() -> None:
    # A process of its own: TRITON_INTERPRET counts when a kernel is defined.
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", INTERPRETED], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "agrees", done.stderr


@needs_triton
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("m", [1, 256])
def test_the_fused_kernel_compiles_to_tensor_core_code(capability: int, m: int) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from awqdoc.kernels import triton_fused as fused

    sizes = fused.configuration(m, 28672, 4096, 128)
    options = {name: sizes.pop(name) for name in ("num_warps", "num_stages")}
    pointers = {"x": "*fp16", "qweight": "*i32", "qzeros": "*i32", "scales": "*fp16", "partial": "*fp32"}
    constants = {"GROUP": 128, **sizes}
    signature = {**pointers, "M": "i32", "N": "i32", "K": "i32", **dict.fromkeys(constants, "constexpr")}
    source = ASTSource(fused.matmul_kernel, signature=signature, constexprs=constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    assert "wgmma" in compiled.asm["ptx"] or "mma.sync" in compiled.asm["ptx"]
    assert compiled.metadata.shared <= 100 << 10  # fits the smallest SM of these generations (8.6, 8.9)


@needs_triton
@pytest.mark.parametrize(
    ("m", "n", "k", "group_size"),
    [(1, 28672, 4096, 128), (64, 4096, 14336, 128), (1024, 8256, 4096, 32), (3, 64, 192, 64)],
)
def test_the_tiles_of_the_fused_kernel_cover_the_problem_exactly(m: int, n: int, k: int, group_size: int) -> None:
    from awqdoc.kernels.triton_fused import configuration

    sizes = configuration(m, n, k, group_size)
    assert n % sizes["BLOCK_N"] == 0
    assert k % (sizes["SPLITS"] * sizes["BLOCK_K"]) == 0
    assert group_size % sizes["BLOCK_K"] == 0


@pytest.mark.parametrize("name", list(BACKENDS))
def test_a_backend_says_why_it_cannot_take_a_problem(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda *name: object())  # as if every package were installed
    backend = BACKENDS[name]
    assert "multiple of the group size" in str(why_not(backend, Problem(1, 512, 192, 128), HOPPER))
    if not backend.cpu:
        assert "NVIDIA GPU" in str(why_not(backend, Problem(1, 512, 512), None))
    assert why_not(backend, Problem(1, 512, 512), HOPPER) is None
    assert "it needs compute capability 8.0; this GPU has 7.5" in str(why_not(backend, Problem(1, 512, 512), (7, 5)))
    if backend.group_sizes:
        assert "the group size must be 32, 64, 128; it is 16" in str(why_not(backend, Problem(1, 512, 512, 16), HOPPER))
    if backend.n_multiple > 1:
        assert "must be multiples" in str(why_not(backend, Problem(1, 513, 512), HOPPER))


def test_a_backend_whose_package_is_missing_names_what_pip_installs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "awq" else object())
    assert why_not(BACKENDS["autoawq_triton"], Problem(1, 512, 512), HOPPER) == "autoawq is not installed"


@pytest.mark.gpu
@pytest.mark.parametrize("name", list(BACKENDS))
@pytest.mark.parametrize("m", [1, 3, 16, 65, 200])
@pytest.mark.parametrize(("n", "k", "group_size"), [(512, 1024, 128), (8256, 512, 64), (8192, 256, 32)])
def test_a_backend_agrees_with_float32_on_the_gpu(name: str, m: int, n: int, k: int, group_size: int) -> None:
    weight = round_to_nearest(torch.randn(k, n, device="cuda") * 0.02, group_size)
    x = torch.randn(m, k, device="cuda").half()
    backend = adapter(BACKENDS[name])
    found = backend.matmul(x, backend.prepare(weight))
    assert relative_error(found, x.float() @ weight.dequantize().float()) < 5e-3
