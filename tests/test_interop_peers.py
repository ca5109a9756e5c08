"""What our adapters hand to gptqmodel's Marlin and Machete, beside what its own layers hand them, without a GPU."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch

from awqdoc.packing import convert, pack
from awqdoc.quantize import round_to_nearest

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("one_thread")]
SHAPES = [(512, 256, 128), (256, 128, 64), (256, 128, -1)]


class Ops:
    """In place of the compiled functions: notes the calls of the product, and packs as Marlin's kernels do."""

    def __init__(self) -> None:
        self.products: list[tuple[Any, ...]] = []
        self.types: list[tuple[Any, ...]] = []

    def op(self, extension: str, name: str) -> Callable[..., torch.Tensor]:
        return {
            "gptq_marlin_gemm_fp16": self.product,
            "machete_mm": self.product,
            "awq_marlin_repack": lambda qweight, k, n, bits: codes_as("awq", {"qweight": qweight}, k, n),
            "gptq_marlin_repack": lambda qweight, perm, k, n, bits: codes_as("gptq_v2", {"qweight": qweight}, k, n),
            "machete_prepack_B": self.prepack,
        }[name]

    def prepack(self, qweight: torch.Tensor, *types: Any) -> torch.Tensor:
        assert qweight.stride(0) == 1
        self.types.append(types)
        return qweight.contiguous()

    def product(self, *call: Any) -> torch.Tensor:
        self.products.append(call)
        return torch.zeros(call[0].shape[0], 1)


def codes_as(format: str, packed: dict[str, torch.Tensor], k: int, n: int) -> torch.Tensor:
    """Repack codes as Marlin wants them; scales and zero points do not matter."""
    rest = {"scales": torch.ones(1, n).half(), "qzeros": torch.zeros(1, n // 8).int()}
    return convert({**packed, **rest}, format, "awq_marlin", group_size=-1)["qweight"]


@pytest.fixture
def ops(monkeypatch: pytest.MonkeyPatch) -> Ops:
    """Stand-ins for all that needs a GPU."""
    found = Ops()
    monkeypatch.setattr("gptqmodel.extension.op", found.op)
    for module in ("gptqmodel.nn_modules.qlinear.marlin", "gptqmodel.nn_modules.qlinear.marlin_awq"):
        monkeypatch.setattr(f"{module}.marlin_import_exception", None)
        monkeypatch.setattr(f"{module}.marlin_validate_runtime_device", lambda device, **_: (9, 0))
        monkeypatch.setattr(f"{module}.marlin_runtime_available", lambda _: True)
        monkeypatch.setattr(f"{module}.marlin_make_workspace_new", lambda _: torch.zeros(128).int())
    monkeypatch.setattr("gptqmodel.utils.marlin.marlin_make_workspace_new", lambda _: torch.zeros(128).int())
    for module in ("gptqmodel.nn_modules.qlinear.machete", "gptqmodel.nn_modules.qlinear.machete_awq"):
        monkeypatch.setattr(f"{module}.machete_extension_available", lambda: True)
    return found


def same(ours: Any, theirs: Any) -> bool:
    if isinstance(theirs, torch.Tensor) and theirs.numel():
        return ours.dtype == theirs.dtype and ours.stride() == theirs.stride() and torch.equal(ours, theirs)
    return ours is None if isinstance(theirs, torch.Tensor) else ours == theirs  # they pass empty tensors for none


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("k", "n", "group_size"), SHAPES)
@pytest.mark.parametrize("kernel", ["marlin", "machete"])
def test_our_arguments_are_those_of_gptqmodels_layers(
    ops: Ops, kernel: str, symmetric: bool, k: int, n: int, group_size: int
) -> None:
    module = f"gptqmodel.nn_modules.qlinear.{kernel}" + ("" if symmetric else "_awq")
    layer_class = getattr(importlib.import_module(module), ("" if symmetric else "Awq") + f"{kernel.title()}Linear")
    weight = round_to_nearest(
        torch.randn(k, n, generator=torch.Generator().manual_seed(k)), group_size, symmetric=symmetric
    )
    layer = layer_class(
        bits=4, group_size=group_size, sym=symmetric, desc_act=False, in_features=k, out_features=n,
        register_buffers=True,
    )  # fmt: skip
    for name, tensor in pack(weight, "gptq_v2" if symmetric else "awq").items():
        getattr(layer, name).data.copy_(tensor)
    layer.post_init()
    x = torch.randn(3, k).half()
    with pytest.raises(RuntimeError, match="shape"):  # the product's stand-in returns nothing of use
        layer(x)
    backend = importlib.import_module(f"awqdoc.kernels.peers.gptqmodel_{kernel}")
    backend.matmul(x, backend.prepare(weight))
    theirs, ours = ops.products
    assert len(ours) == len(theirs)
    assert len(set(ops.types)) == (kernel == "machete")  # of both calls the same
    assert [number for number, pair in enumerate(zip(ours, theirs, strict=True)) if not same(*pair)] == []
