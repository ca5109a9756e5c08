"""How fast is packing? Ours and AutoAWQ's own packers, on the CPU and on the GPU, beside a copy of the codes."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import torch

from awqdoc.errors import AwqdocError
from awqdoc.experiments import SEED
from awqdoc.experiments.autoawq import now, silent
from awqdoc.formats import Problem, QuantizedWeight
from awqdoc.packing import LAYOUTS, pack, unpack

AXES: dict[str, tuple[Any, ...]] = {
    "shape": ("4096x4096", "28672x4096"),
    "format": ("awq", "awq_gemv", "awq_gemv_fast", "marlin"),
}
CPU = True
CLOCK = "time.perf_counter, the GPU synchronized before each reading"
GROUP_SIZE = 128
SAMPLES = 7
THREADS = 2  # of the CPU, for everyone: what the smallest hosted machines have
# Format -> where AutoAWQ packs it.
LAYERS = {
    "awq": ("gemm", "WQLinear_GEMM"),
    "awq_gemv": ("gemv", "WQLinear_GEMV"),
    "awq_gemv_fast": ("gemv_fast", "WQLinear_GEMVFast"),
    "marlin": ("marlin", "WQLinear_Marlin"),
}


def check(shape: str, format: str) -> None:
    """Refuse shapes that are none and formats that AutoAWQ does not pack."""
    Problem.parse(shape, m=1)
    if format not in LAYERS:
        raise AwqdocError(f"The format must be one of {', '.join(LAYERS)}, which AutoAWQ packs; found {format!r}.")


def forget() -> None:
    """Nothing is kept."""


def run(device: str, shape: str, format: str) -> list[dict[str, Any]]:
    """Pack a random weight on the CPU and, if there is one, on the GPU.

    Returns
    -------
    list of dict
        ``where`` cpu or cuda; ``work``: ``copy`` (of the codes, one byte each: the floor), ``codes`` (ours, these alone
        and unchecked), ``pack`` and ``unpack`` (ours), ``from weight`` (ours, from the FP16 weight to packed
        tensors, as AutoAWQ does), ``autoawq``; ``threads`` of the CPU; ``seconds``, every sample; ``bytes`` that the
        work must read and write. AutoAWQ's tensors are compared with ours, bit for bit, or there is no time. Or
        ``skipped`` with the reason. (Where there is a GPU, AutoAWQ packs the zero points of its GEMM format there,
        wherever the weight is.)
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        return [
            {"where": where, "threads": THREADS, **row}
            for where in dict.fromkeys(("cpu", device))
            for row in _on(where, shape, format)
        ]
    finally:
        torch.set_num_threads(threads)


def _on(where: str, shape: str, format: str) -> list[dict[str, Any]]:
    weight = _weight(where, shape, format)
    size = weight.codes.numel()
    packed = pack(weight, format)
    words = sum(tensor.nbytes for tensor in packed.values())
    k, n = weight.codes.shape
    linear = torch.nn.Linear(k, n, bias=False, dtype=torch.float16, device="meta")
    linear.weight = torch.nn.Parameter(weight.dequantize().t().contiguous(), requires_grad=False)
    target = torch.empty_like(weight.codes)
    order = LAYOUTS[format].weight
    works: dict[str, tuple[int, Callable[[], Any]]] = {
        "copy": (2 * size, lambda: target.copy_(weight.codes)),
        "codes": (size + packed["qweight"].nbytes, lambda: order.to_words(weight.codes)),
        "pack": (size + words, lambda: pack(weight, format)),
        "unpack": (size + words, lambda: unpack(packed, format, group_size=GROUP_SIZE)),
        "from weight": (2 * size + words, lambda: pack(_codes_of(linear, weight), format)),
    }
    rows = [{"work": work, "bytes": count, "seconds": _times(function)} for work, (count, function) in works.items()]
    row = {"work": "autoawq", "bytes": 2 * size + words}
    if importlib.util.find_spec("awq") is None:
        return [*rows, row | {"skipped": "autoawq is not installed"}]
    return [*rows, row | {"seconds": [_autoawq(linear, weight, format, packed)]}]


def _weight(where: str, shape: str, format: str) -> QuantizedWeight:
    problem = Problem.parse(shape, m=1)
    torch.manual_seed(SEED)
    groups = problem.k // GROUP_SIZE
    codes = torch.randint(0, 16, (problem.k, problem.n), dtype=torch.uint8)
    scales = (torch.rand(groups, problem.n) / 64 + 1e-3).half()
    zeros = None if format == "marlin" else torch.randint(1, 16, (groups, problem.n), dtype=torch.uint8).to(where)
    return QuantizedWeight(codes.to(where), scales.to(where), zeros, GROUP_SIZE)


def _codes_of(linear: torch.nn.Linear, weight: QuantizedWeight) -> QuantizedWeight:
    """Find the codes of a weight [N, K] once more, with known scales and zero points: AutoAWQ's formula, clamped."""
    zeros = 8 if weight.zeros is None else weight.zeros
    groups = linear.weight.t().unflatten(0, (-1, GROUP_SIZE))
    codes = (groups + (weight.scales * zeros).unsqueeze(1)).div_(weight.scales.unsqueeze(1)).round_().clamp_(0, 15)
    return QuantizedWeight(codes.flatten(0, 1).byte(), weight.scales, weight.zeros, GROUP_SIZE)


def _times(function: Callable[[], Any]) -> list[float]:
    function()  # allocates, and loads what a GPU needs
    samples = []
    for _ in range(SAMPLES):
        start = now()
        function()
        samples.append(float(f"{now() - start:.4g}"))
    return samples


def _autoawq(linear: torch.nn.Linear, weight: QuantizedWeight, format: str, packed: dict[str, torch.Tensor]) -> float:
    module, name = LAYERS[format]
    with silent():
        layer = getattr(importlib.import_module(f"awq.modules.linear.{module}"), name)
    scales, zeros = weight.scales, weight.zeros
    if format != "awq":
        scales, zeros = scales.t(), None if zeros is None else zeros.t()
    start = now()
    with torch.no_grad():
        theirs = layer.from_linear(linear, 4, GROUP_SIZE, scales=scales, zeros=zeros)
    seconds = float(f"{now() - start:.4g}")
    for key, tensor in packed.items():
        if not torch.equal(getattr(theirs, key).to(tensor.device), tensor):
            raise AssertionError(f"{key} of {format} is not AutoAWQ's")
    return seconds
