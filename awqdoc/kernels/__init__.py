"""The backends: every way to multiply by an INT4 weight that the pages measure, as one table.

An adapter is a module with two functions: ``prepare(weight: QuantizedWeight) -> dict[str, Tensor]`` lays the
weight out (untimed), and ``matmul(x, prepared) -> Tensor`` computes X @ W for X of float16 [M, K] (timed).
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from types import ModuleType

from awqdoc.formats import Problem


@dataclass(frozen=True)
class Backend:
    """One row of the table.

    Attributes
    ----------
    name, title : str
        For programs, for readers.
    module : str
        Where its adapter is.
    bits : int
        Bits per weight that the timed part reads: 16 or 4.
    cpu : bool
        Whether it also runs on a CPU.
    capability : tuple
        Lowest compute capability.
    k_multiple, n_multiple : int
        What K and N must be multiples of.
    needs : tuple of str
        Packages beyond torch that must be importable on a GPU.
    group_sizes : tuple of int
        Group sizes that its kernel on a GPU takes; empty for all.
    """

    name: str
    title: str
    module: str
    bits: int
    cpu: bool = False
    capability: tuple[int, int] = (8, 0)
    k_multiple: int = 1
    n_multiple: int = 8
    needs: tuple[str, ...] = ()
    group_sizes: tuple[int, ...] = ()


_GROUPS = (32, 64, 128)
_TABLE = (
    Backend("fp16", "FP16 (torch)", "awqdoc.kernels.fp16", bits=16, cpu=True, n_multiple=1),
    Backend(
        "dequantize", "INT4 dequantize + matmul", "awqdoc.kernels.dequantize", bits=4, cpu=True,
        needs=("triton",), group_sizes=_GROUPS,
    ),
    Backend(
        "triton_fused", "INT4 fused Triton (ours)", "awqdoc.kernels.triton_fused", bits=4,
        k_multiple=64, n_multiple=64, needs=("triton",), group_sizes=_GROUPS,
    ),
    Backend(
        "autoawq_triton", "INT4 AutoAWQ Triton", "awqdoc.kernels.autoawq_triton", bits=4,
        k_multiple=32, needs=("triton", "awq"), group_sizes=_GROUPS,
    ),
)  # fmt: skip
BACKENDS = {backend.name: backend for backend in _TABLE}

# The name under which pip knows an importable package.
_DISTRIBUTION = {"awq": "autoawq"}


def why_not(backend: Backend, problem: Problem, capability: tuple[int, int] | None) -> str | None:
    """Say why a backend cannot take a problem, or return None if it can.

    Parameters
    ----------
    capability : tuple or None
        Compute capability of the GPU; None for a CPU.
    """
    if capability is None and not backend.cpu:
        return "it needs an NVIDIA GPU"
    if capability is not None:
        if capability < backend.capability:
            wanted = "{}.{}".format(*backend.capability)
            return f"it needs compute capability {wanted}; this GPU has {capability[0]}.{capability[1]}"
        for package in backend.needs:
            if importlib.util.find_spec(package) is None:
                return f"{_DISTRIBUTION.get(package, package)} is not installed"
    if capability is not None and backend.group_sizes and problem.group_size not in backend.group_sizes:
        known = ", ".join(map(str, backend.group_sizes))
        return f"the group size must be {known}; it is {problem.group_size}"
    if problem.k % problem.group_size:
        return f"K must be a multiple of the group size {problem.group_size}; K is {problem.k}"
    if problem.k % backend.k_multiple or problem.n % backend.n_multiple:
        return (
            f"K and N must be multiples of {backend.k_multiple} and {backend.n_multiple}; "
            f"they are {problem.k} and {problem.n}"
        )
    return None


def adapter(backend: Backend) -> ModuleType:
    """Import and return a backend's adapter."""
    return importlib.import_module(backend.module)
