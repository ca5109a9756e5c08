"""The adapters of other projects' kernels, with stand-ins that read the tensors as the library says and multiply.

That Marlin's and AWQ's layouts are those of the libraries, `test_packing.py` and `test_interop.py` hold to account.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from awqdoc.errors import AwqdocError
from awqdoc.formats import Problem, QuantizedWeight
from awqdoc.kernels.table import KERNELS, PEERS, why_not
from awqdoc.packing import pack, unpack
from awqdoc.quantize import round_to_nearest

pytestmark = pytest.mark.usefixtures("one_thread")
M, N, K = 3, 256, 512


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ModuleType]]:
    """Import an adapter anew, with stand-ins for the modules that it imports: module name -> its attributes."""
    names: list[str] = []

    def load(name: str, **modules: dict[str, Any]) -> ModuleType:
        for path, attributes in modules.items():
            module = ModuleType(path.replace("__", "."))
            vars(module).update(attributes)
            monkeypatch.setitem(sys.modules, module.__name__, module)
        names.append(f"awqdoc.kernels.peers.{name}")
        return importlib.import_module(names[-1])

    yield load
    for name in names:
        sys.modules.pop(name, None)


def quantized(symmetric: bool = False, group_size: int = 128) -> QuantizedWeight:
    weight = torch.randn(K, N, generator=torch.Generator().manual_seed(5))
    return round_to_nearest(weight, group_size, symmetric=symmetric)


def activations(m: int = M) -> torch.Tensor:
    return torch.randn(m, K, generator=torch.Generator().manual_seed(m)).half()


def product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return (x.float() @ weight.float()).to(x.dtype)


def assert_multiplies(backend: ModuleType, weight: QuantizedWeight, m: int = M, within: float = 2e-3) -> None:
    x = activations(m)
    found, wanted = backend.matmul(x, backend.prepare(weight)), x.float() @ weight.dequantize().float()
    assert found.dtype == torch.float16
    assert found.shape == wanted.shape
    assert (found.float() - wanted).norm() / wanted.norm() < within


@pytest.mark.parametrize("group_size", [128, K])
def test_marlin_gets_its_layout_and_clean_locks(peer: Callable[..., ModuleType], group_size: int) -> None:
    def mul(a: Any, b: Any, c: Any, s: Any, workspace: Any, max_par: int) -> None:
        assert workspace.dtype == torch.int32
        assert workspace.numel() >= c.shape[1] // 128 * max_par  # what marlin_cuda.cpp checks
        assert not workspace.any()
        assert (b.shape, b.dtype) == ((K // 16, 2 * N), torch.int32)
        weight = unpack({"qweight": b, "scales": s}, "marlin", group_size=a.shape[1] // s.shape[0])
        c.copy_(product(a, weight.dequantize()))

    assert_multiplies(peer("marlin_ist", marlin={"mul": mul}), quantized(symmetric=True, group_size=group_size))


@pytest.mark.parametrize("symmetric", [False, True])
def test_autoawq_gets_what_its_own_layer_passes(peer: Callable[..., ModuleType], symmetric: bool) -> None:
    gemm = pytest.importorskip("autoawq_oracle").autoawq().gemm
    calls = []
    backend = peer("awq_cuda", awq_ext={"gemm_forward_cuda": lambda *call: calls.append(call) or call[0][:, :N]})
    weight, x = quantized(symmetric), activations()
    packed = pack(weight, "awq")
    prepared = backend.prepare(weight)
    backend.matmul(x, prepared)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gemm, "awq_ext", SimpleNamespace(gemm_forward_cuda=sys.modules["awq_ext"].gemm_forward_cuda))
        tensors = (packed["qweight"], packed["qzeros"], packed["scales"])
        gemm.WQLinearMMFunction.apply(x.unsqueeze(0), *tensors, 4, 128, None, N)
    ours, theirs = calls
    assert ours[4] == theirs[4]
    assert all(torch.equal(one, other) for one, other in zip(ours[:4], theirs[:4], strict=True))


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("m", "kernel"), [(1, "gemv"), (7, "gemv"), (8, "gemm"), (40, "gemm")])
def test_llm_awq_gets_its_second_version(
    peer: Callable[..., ModuleType], tmp_path: Path, symmetric: bool, m: int, kernel: str
) -> None:
    called = []

    def gemm(x: Any, qweight: Any, scales: Any, scaled_zeros: Any) -> torch.Tensor:
        called.append("gemm")
        assert qweight.dtype == torch.int16
        tensors = {"qweight": qweight, "scales": scales, "qzeros": scaled_zeros}
        return product(x, unpack(tensors, "awq_gemv_fast", group_size=128).dequantize())

    def gemv(x: Any, qweight: Any, scales: Any, scaled_zeros: Any, *sizes: int) -> torch.Tensor:
        assert sizes == (*x.shape[:1], N, K, 128)
        y = gemm(x, qweight, scales, scaled_zeros)
        called[-1] = "gemv"
        return y

    names = {"gemm_forward_cuda_new": gemm, "gemv_forward_cuda_new": gemv, **built(tmp_path, PER_THREAD)}
    assert_multiplies(peer("awq_gemv", awq_inference_engine=names), quantized(symmetric), m)
    assert called == [kernel]


# Functions of CUDA's runtime that a build for one stream or the other asks the loader for.
PER_THREAD, LEGACY = b"\0cudaLaunchKernel_ptsz\0", b"\0cudaLaunchKernel\0"


def built(folder: Path, launches: bytes) -> dict[str, str]:
    (folder / "engine.so").write_bytes(b"\x7fELF" + launches)
    return {"__file__": str(folder / "engine.so")}


def test_llm_awq_built_for_the_default_stream_is_refused(peer: Callable[..., ModuleType], tmp_path: Path) -> None:
    names = {"gemm_forward_cuda_new": None, "gemv_forward_cuda_new": None, **built(tmp_path, LEGACY)}
    with pytest.raises(AwqdocError, match="--default-stream per-thread"):
        peer("awq_gemv", awq_inference_engine=names).prepare(quantized())


SCALAR_TYPES = SimpleNamespace(uint4="u4", uint4b8="u4b8")
TYPES = {"gptqmodel__utils__marlin_scalar_type": {"scalar_types": SCALAR_TYPES}}


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("group_size", [32, 128, K])
def test_vllms_marlin_gets_zero_points_unless_symmetric(
    peer: Callable[..., ModuleType], symmetric: bool, group_size: int
) -> None:
    def gemm(a: Any, c: None, b: Any, bias: None, s: Any, g: None, z: Any, order: None, permutation: None,
             workspace: Any, kind: str, **options: Any) -> torch.Tensor:  # fmt: skip
        assert (c, bias, g, order, permutation) == (None,) * 5
        assert not workspace.any()
        sizes = {"size_m": M, "size_n": N, "size_k": K}
        assert options == {**sizes, "use_atomic_add": False, "use_fp32_reduce": True}
        assert (z is None, kind) == (symmetric, "u4b8" if symmetric else "u4")
        tensors = {"qweight": b, "scales": s, "qzeros": z if z is not None else eights(len(s))}
        return product(a, unpack(tensors, "awq_marlin", group_size=K // len(s)).dequantize())

    utilities = {"gptq_marlin_gemm": gemm, "marlin_make_workspace_new": lambda device: torch.zeros(128).int()}
    backend = peer("gptqmodel_marlin", gptqmodel__utils__marlin=utilities, **TYPES)
    assert_multiplies(backend, quantized(symmetric, group_size))


def eights(groups: int) -> torch.Tensor:
    """Zero points of 8 in any order of nibbles."""
    return torch.full((groups, N // 8), 0x88888888 - (1 << 32)).int()


def prepack(b: torch.Tensor, a_type: Any, b_type: str, group_scales_type: Any) -> torch.Tensor:
    """Check what Machete's prepack_B checks, and leave the weight as it is."""
    assert (a_type, group_scales_type) == (torch.float16, torch.float16)
    assert (b.shape, b.dtype) == ((K // 8, N), torch.int32)
    assert b.stride(0) == 1  # column-major
    return b.contiguous()


def machete_mm(*, a: Any, b_q: Any, b_type: str, b_group_scales: Any, b_group_zeros: Any, b_group_size: int,
               schedule: str | None) -> torch.Tensor:  # fmt: skip
    """w = code * s + zero, or (code - 8) * s; code k is nibble k % 8 of its column's word k // 8."""
    codes = torch.stack([b_q >> 4 * nibble & 15 for nibble in range(8)], dim=1).flatten(0, 1).float()
    assert b_group_scales.dtype == torch.float16
    assert (b_group_zeros is None) == (b_type == "u4b8")
    scales = b_group_scales.float().repeat_interleave(b_group_size, dim=0)
    if b_group_zeros is None:
        return product(a, (codes - 8) * scales)
    assert b_group_zeros.dtype == torch.float16
    y = product(a, codes * scales + b_group_zeros.float().repeat_interleave(b_group_size, dim=0))
    return y if schedule != "wrong" else y + 1


MACHETE = {
    "machete_mm": machete_mm,
    "machete_prepack_B": prepack,
    "machete_supported_schedules": lambda *types, **more: ["slow", "fast"],
}


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("group_size", [64, 128, K])
def test_machete_gets_columns_and_scaled_zero_points(
    peer: Callable[..., ModuleType], symmetric: bool, group_size: int
) -> None:
    backend = peer("gptqmodel_machete", gptqmodel__utils__machete=MACHETE, **TYPES)
    assert_multiplies(backend, quantized(symmetric, group_size))


def test_machetes_best_schedule_is_the_one_that_took_least(peer: Callable[..., ModuleType]) -> None:
    used = []

    def mm(**call: Any) -> torch.Tensor:
        used.append(call["schedule"])
        return machete_mm(**call)

    peer("gptqmodel_machete", gptqmodel__utils__machete={**MACHETE, "machete_mm": mm}, **TYPES)
    best = peer("gptqmodel_machete_best")
    with pytest.MonkeyPatch.context() as patch:
        times = {"slow": [1.0, 1.0, 9.0, 3.0, 3.0], "fast": [2.0, 2.0, 2.0, 2.0, 2.0]}
        patch.setattr(best, "interleave", lambda calls, device, rounds: {name: times[name] for name in calls})
        assert_multiplies(best, quantized())
    assert used == ["fast"]
    assert_multiplies(best, quantized())  # timed no more: on a CPU that would now take the real interleave
    assert used == ["fast", "fast"]


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("group_size", [32, 128])
def test_tinygemm_multiplies_the_same_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, symmetric: bool, group_size: int
) -> None:
    from awqdoc.kernels.peers import tinygemm

    def convert(pairs: torch.Tensor, inner_k_tiles: int) -> torch.Tensor:
        """On a GPU two codes come in a byte, the even one above; on a CPU each in an int32."""
        assert (pairs.shape, pairs.dtype) == ((N, K // 2), torch.uint8)
        assert pairs.is_contiguous()
        codes = torch.stack([pairs >> 4, pairs & 15], dim=2).flatten(1).int()
        return torch._convert_weight_to_int4pack_for_cpu(codes, inner_k_tiles)

    monkeypatch.setattr(torch, "_convert_weight_to_int4pack", convert)
    monkeypatch.setattr(torch, "_weight_int4pack_mm", torch._weight_int4pack_mm_for_cpu)
    assert_multiplies(tinygemm, quantized(symmetric, group_size), within=5e-3)


class GemLiteLinear:
    """As gemlite says of its layer: W [N, K] = (W_q - zeros) * scales, both [N, K / g], zeros perhaps one number."""

    def __init__(self, bits: int, **options: Any) -> None:
        self.bits, self.options = bits, options

    def pack(self, codes: Any, scales: Any, zeros: Any, bias: None) -> None:
        n, groups = N, K // self.options["group_size"]
        assert (codes.shape, codes.dtype, codes.is_contiguous()) == ((n, K), torch.uint8, True)
        assert (scales.shape, scales.is_contiguous()) == ((n, groups), True)
        assert zeros == 8 if isinstance(zeros, int) else zeros.shape == (n, groups)
        shifts = torch.as_tensor(zeros).float().reshape(-1, 1 if isinstance(zeros, int) else groups, 1)
        grouped = codes.unflatten(1, (groups, -1)).float() - shifts
        self.weight = torch.nn.Parameter((grouped * scales.float().unsqueeze(2)).flatten(1).t().contiguous(), False)

    def get_tensor_args(self) -> list[torch.Tensor]:
        return [self.weight, torch.zeros(1), torch.zeros(1), torch.zeros(())]

    def get_meta_args(self) -> list[int]:
        return [0, self.bits, self.options["group_size"]]


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("group_size", [64, K])
def test_gemlite_gets_rows_of_outputs(peer: Callable[..., ModuleType], symmetric: bool, group_size: int) -> None:
    def forward(x: Any, bias: None, tensors: list[torch.Tensor], numbers: list[int]) -> torch.Tensor:
        assert (len(tensors), numbers) == (4, [0, 4, group_size])
        assert all(type(number) is int for number in numbers)
        return product(x, tensors[0])

    names = {"DType": SimpleNamespace(FP16="fp16"), "GemLiteLinear": GemLiteLinear, "forward_functional": forward}
    backend = peer("gemlite", gemlite=names)
    weight = quantized(symmetric, group_size)
    assert_multiplies(backend, weight)
    metadata = backend.prepare(weight)["metadata"]
    assert metadata.device.type == "cpu"  # read at each call: on a GPU that would wait for it


@pytest.mark.parametrize(
    ("name", "problem", "capability", "zero_points", "reason"),
    [
        ("marlin_ist", Problem(1, 4096, 4096), (9, 0), True, "it takes symmetric weights only"),
        ("marlin_ist", Problem(1, 4096, 4096), (9, 0), False, None),
        ("marlin_ist", Problem(1, 4096, 4096), (9, 0), None, None),
        ("marlin_ist", Problem(1, 4096, 4096, 64), (9, 0), False, "the group size must be 128; it is 64"),
        ("gptqmodel_machete", Problem(1, 4096, 4096), (10, 0), True, "compute capability 9.x only; this GPU has 10.0"),
        ("tinygemm", Problem(1, 4096, 4096), (8, 0), True, None),
        ("tinygemm", Problem(1, 4096, 4032, 64), (8, 0), True, "multiples of 128 and 8; they are 4032 and 4096"),
    ],
)
def test_what_keeps_a_peer_from_a_problem(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    problem: Problem,
    capability: tuple[int, int],
    zero_points: bool | None,
    reason: str | None,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    found = why_not(KERNELS[name], problem, capability, zero_points)
    assert found is reason is None or str(reason) in str(found)


def test_every_peer_has_an_adapter_and_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    adapters = {path.stem for path in (Path(__file__).parents[1] / "awqdoc/kernels/peers").glob("[a-z]*.py")}
    assert {KERNELS[name].module for name in PEERS} == {f"awqdoc.kernels.peers.{name}" for name in adapters}
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    for name in set(PEERS) - {"tinygemm"}:
        assert str(why_not(KERNELS[name], Problem(1, 4096, 4096), (9, 0))).endswith("is not installed")
