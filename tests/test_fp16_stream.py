"""FP16 with one token by our own kernel: what it compiles to, what it refuses, and on a GPU what it computes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import torch

from awqdoc import compile
from awqdoc.formats import Problem
from awqdoc.kernels import fp16_stream
from awqdoc.kernels.table import KERNELS, why_not

H200_SHARED = 227 << 10  # bytes, the most of a block and the sum of all on an SM


@pytest.mark.parametrize("k", [1024, 4096, 14336, 28672])
def test_it_fits_on_an_sm_once(k: int, tmp_path: Path) -> None:
    triton = pytest.importorskip("triton", reason="its package brings cuobjdump and nvdisasm; it is for Linux")
    tools = Path(triton.__file__).parent / "backends/nvidia/bin"
    code = tmp_path / "kernel.cubin"
    code.write_bytes(compile.cubin("fp16_stream.cu", "sm_90a", STAGES=fp16_stream.STAGES, PIECES=k // 1024).code)
    listed = subprocess.run([tools / "cuobjdump", "-res-usage", code], capture_output=True, text=True).stdout
    usage = {field: int(size) for field, size in re.findall(r"(\w+):(\d+)", listed)}
    shared = usage["SHARED"] + 2 * (fp16_stream.WARPS * fp16_stream.STAGES * fp16_stream.PIECE + k)
    assert H200_SHARED / 2 < shared + 1024 <= H200_SHARED  # two would leave another SM without any
    assert usage["STACK"] == 0
    sass = subprocess.run([tools / "nvdisasm", "-c", code], capture_output=True, text=True).stdout
    assert {"UBLKCP", "LDS.128"} <= set(re.findall(r"UBLKCP|LDS\.128", sass))


@pytest.mark.parametrize(
    ("m", "k", "capability", "reason"),
    [
        (2, 4096, (9, 0), "it takes one token; M is 2"),
        (1, 4608, (9, 0), "K and N must be multiples of 1024 and 8; they are 4608 and 4096"),
        (1, 4096, (8, 0), "it needs compute capability 9.0; this GPU has 8.0"),
        (1, 4096, (9, 0), None),
    ],
)
def test_what_it_does_not_take_is_refused(m: int, k: int, capability: tuple[int, int], reason: str | None) -> None:
    pytest.importorskip("cuda.core", reason="cuda-core is a package for Linux and Windows")
    assert why_not(KERNELS["fp16_stream"], Problem(m, 4096, k, 128), capability) == reason


@pytest.mark.gpu
@pytest.mark.parametrize(("n", "k"), [(8, 1024), (1000, 2048), (4096, 14336), (28680, 4096)])
def test_it_agrees_with_float32_and_with_itself(n: int, k: int) -> None:
    reason = why_not(KERNELS["fp16_stream"], Problem(1, n, k, 128), torch.cuda.get_device_capability())
    if reason:
        pytest.skip(reason)
    weight, x = torch.randn(n, k, device="cuda").half(), torch.randn(1, k, device="cuda").half()
    poison = torch.full((1, n), float("nan"), dtype=torch.float16, device="cuda")
    del poison  # the allocator gives the same bytes to the result
    found = fp16_stream.matmul(x, {"weight": weight})
    wanted = x.float() @ weight.float().t()
    assert float((found.float() - wanted).norm() / wanted.norm()) < 1e-3
    assert all(torch.equal(found, fp16_stream.matmul(x, {"weight": weight})) for _ in range(40))
