"""The whole table: the backends of the first sweep, our ladder in CUDA C++, kernels of other projects, their limits."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict, dataclass, replace

from awqdoc.formats import Problem
from awqdoc.kernels import BACKENDS, Backend
from awqdoc.kernels import why_not as why_not_backend


@dataclass(frozen=True)
class Kernel(Backend):
    """A backend, and what else may keep it from a problem.

    Attributes
    ----------
    most_tokens : int
        Largest M that it takes; 0: any.
    newest : tuple of int or None
        Highest major compute capability that has its instructions; None: no limit.
    zero_points, symmetric : bool
        Whether it takes weights with zero points, and weights without.
    tried : bool
        Whether it is tried in a process of its own before it runs in this one (`awqdoc.kernels.trial`).
    """

    most_tokens: int = 0
    newest: int | None = None
    zero_points: bool = True
    symmetric: bool = True
    tried: bool = False


_CUDA = ("cuda.core",)
_GROUPS = (32, 64, 128)
_LADDER = (
    Kernel(
        "cuda_dequantize", "Step 1: dequantize, then matmul", "awqdoc.kernels.ladder.dequantize", bits=4, needs=_CUDA,
    ),
    Kernel(
        "cuda_fused", "Step 2: fused, CUDA cores", "awqdoc.kernels.ladder.fused", bits=4, needs=_CUDA,
        group_sizes=_GROUPS, most_tokens=32,
    ),
    Kernel("cuda_tensor_cores", "Step 3: tensor cores", "awqdoc.kernels.ladder.tensor_cores", bits=4),
    Kernel("cuda_pipeline", "Step 4: pipeline", "awqdoc.kernels.ladder.pipeline", bits=4),
    Kernel("cuda_stripes", "Step 5: stripes", "awqdoc.kernels.ladder.stripes", bits=4),
    Kernel(
        "cuda_warpgroups", "Step 6: warpgroups (Hopper)", "awqdoc.kernels.ladder.warpgroups", bits=4,
        capability=(9, 0), newest=9, n_multiple=256,
    ),
    Kernel(
        "cuda_small_batch", "Step 7: few tokens (Hopper)", "awqdoc.kernels.ladder.small_batch", bits=4,
        capability=(9, 0), most_tokens=32,
    ),
    Kernel(
        "cuda_overlapped", "Step 8: overlapped launches (Hopper)", "awqdoc.kernels.ladder.overlapped", bits=4,
        capability=(9, 0), newest=9, n_multiple=256,
    ),
)  # fmt: skip
_OPPONENT = Kernel(
    "fp16_stream",
    "FP16, one token by our kernel (Hopper)",
    "awqdoc.kernels.fp16_stream",
    bits=16,
    capability=(9, 0),
    k_multiple=1024,
    needs=_CUDA,
    most_tokens=1,
)
_PEERS = (
    Kernel(
        "marlin_ist", "Marlin (IST-DASLab)", "awqdoc.kernels.peers.marlin_ist", bits=4,
        k_multiple=128, n_multiple=256, needs=("marlin_cuda",), group_sizes=(128,), zero_points=False, tried=True,
    ),
    Kernel(
        "gptqmodel_marlin", "Marlin (vLLM, through GPTQModel)", "awqdoc.kernels.peers.gptqmodel_marlin", bits=4,
        k_multiple=128, n_multiple=64, needs=("gptqmodel",), group_sizes=_GROUPS,
    ),
    Kernel(
        "gptqmodel_machete", "Machete (vLLM, through GPTQModel)", "awqdoc.kernels.peers.gptqmodel_machete", bits=4,
        capability=(9, 0), newest=9, k_multiple=64, n_multiple=128, needs=("gptqmodel",),
        group_sizes=(64, 128),
    ),
    Kernel(
        "gptqmodel_machete_best", "Machete, its best schedule", "awqdoc.kernels.peers.gptqmodel_machete_best", bits=4,
        capability=(9, 0), newest=9, k_multiple=64, n_multiple=128, needs=("gptqmodel",),
        group_sizes=(64, 128),
    ),
    Kernel(
        "llm_awq", "llm-awq (CUDA)", "awqdoc.kernels.peers.awq_gemv", bits=4,
        k_multiple=128, n_multiple=128, needs=("awq_inference_engine",), group_sizes=(128,),
    ),
    Kernel(
        "awq_cuda", "AutoAWQ (CUDA GEMM)", "awqdoc.kernels.peers.awq_cuda", bits=4,
        k_multiple=32, n_multiple=128, needs=("awq_ext",), group_sizes=_GROUPS,
    ),
    Kernel(
        "tinygemm", "PyTorch's tinygemm (bfloat16)", "awqdoc.kernels.peers.tinygemm", bits=4,
        k_multiple=128, group_sizes=_GROUPS,
    ),
    Kernel(
        "gemlite", "gemlite (Triton)", "awqdoc.kernels.peers.gemlite", bits=4,
        k_multiple=32, n_multiple=32, needs=("triton", "gemlite"), group_sizes=_GROUPS,
    ),
)  # fmt: skip


def _on_records(kernel: Kernel) -> Kernel:
    """Add what the format of steps 3 to 8 asks for: tiles of 128 x 128."""
    multiple = max(128, kernel.n_multiple)
    return replace(kernel, needs=_CUDA, k_multiple=128, n_multiple=multiple, group_sizes=_GROUPS)


KERNELS = {name: Kernel(**asdict(backend)) for name, backend in BACKENDS.items()}
KERNELS[_OPPONENT.name] = _OPPONENT
KERNELS |= {kernel.name: kernel if kernel.needs else _on_records(kernel) for kernel in _LADDER}
KERNELS |= {kernel.name: kernel for kernel in _PEERS}
"""Name -> row."""
LADDER = tuple(kernel.name for kernel in _LADDER)
"""The names of our steps, in order."""
PEERS = tuple(kernel.name for kernel in _PEERS)
"""The names of other projects' kernels."""


def why_not(
    kernel: Kernel, problem: Problem, capability: tuple[int, int] | None, zero_points: bool | None = None
) -> str | None:
    """Say why a kernel cannot take a problem, or return None if it can.

    Parameters
    ----------
    capability : tuple or None
        Compute capability of the GPU; None for a CPU.
    zero_points : bool or None
        Whether the weight has zero points; None: either kind will do.
    """
    if capability is not None and kernel.needs == _CUDA and not _has_cuda_core():
        return "cuda-core is not installed (pip install awqdoc[cuda])"
    reason = why_not_backend(replace(kernel, needs=()) if kernel.needs == _CUDA else kernel, problem, capability)
    if reason is not None or capability is None:
        return reason
    if kernel.newest is not None and capability[0] > kernel.newest:
        found = "{}.{}".format(*capability)
        return f"its instructions are those of compute capability {kernel.newest}.x only; this GPU has {found}"
    if kernel.most_tokens and problem.m > kernel.most_tokens:
        most = "one token" if kernel.most_tokens == 1 else f"up to {kernel.most_tokens} tokens"
        return f"it takes {most}; M is {problem.m}"
    if zero_points is True and not kernel.zero_points:
        return "it takes symmetric weights only"
    if zero_points is False and not kernel.symmetric:
        return "it takes weights with zero points only"
    return None


def _has_cuda_core() -> bool:
    return importlib.util.find_spec("cuda") is not None and importlib.util.find_spec("cuda.core") is not None
