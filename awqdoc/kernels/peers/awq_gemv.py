"""llm-awq's CUDA kernels (mit-han-lab/llm-awq, ``awq/kernels/csrc/quantization_new``): a GEMV for few tokens, a GEMM.

They are chosen as its Linear layer chooses (``awq/quantize/qmodule.py``). Both take group size 128 alone, and the GEMM
N in multiples of 128. AutoAWQ's ``awq_v2_ext`` is a copy of them for float16.

They launch on CUDA's default stream, whatever torch's current one is, so that a CUDA graph would not hold them. Built
with nvcc's ``--default-stream per-thread`` (the variable NVCC_APPEND_FLAGS carries it), that is a stream which can be
joined with torch's, here and in a graph. Any other build is refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import awq_inference_engine
import torch
from awq_inference_engine import gemm_forward_cuda_new, gemv_forward_cuda_new

from awqdoc.errors import AwqdocError
from awqdoc.formats import QuantizedWeight
from awqdoc.packing import pack

GROUP_SIZE = 128
# From so many tokens on WQLinear calls the GEMM.
FEWEST_FOR_GEMM = 8
# The handle that means the calling thread's default stream (cudaStreamPerThread in driver_types.h).
PER_THREAD_STREAM = 2
# The function of CUDA's runtime by which a build for that stream launches.
LAUNCH = b"cudaLaunchKernel_ptsz"


def prepare(weight: QuantizedWeight) -> dict[str, torch.Tensor]:
    """Return ``qweight``, ``qzeros`` (llm-awq's scaled_zeros, -s z) and ``scales`` of version 2.

    Raises
    ------
    AwqdocError
        If the library launches its kernels on CUDA's default stream.
    """
    if LAUNCH not in Path(awq_inference_engine.__file__).read_bytes():
        raise AwqdocError(
            "awq_inference_engine must launch on the thread's default stream, and launches on the device's: build it "
            'with NVCC_APPEND_FLAGS="--default-stream per-thread".'
        )
    return pack(weight, "awq_gemv_fast")


def matmul(x: torch.Tensor, prepared: dict[str, torch.Tensor]) -> torch.Tensor:
    """Compute X @ W, float16 [M, N]; sums are float16 too."""
    (m, k), n = x.shape, prepared["scales"].shape[1]
    tensors = (x, prepared["qweight"], prepared["scales"], prepared["qzeros"])
    with _joined() if x.is_cuda else contextlib.nullcontext():
        y: torch.Tensor = (
            gemv_forward_cuda_new(*tensors, m, n, k, GROUP_SIZE)
            if m < FEWEST_FOR_GEMM
            else gemm_forward_cuda_new(*tensors)
        )
    return y


@contextlib.contextmanager
def _joined() -> Iterator[None]:
    """Let what goes to the thread's default stream run between what is before and after it on torch's current one."""
    theirs, ours = torch.cuda.ExternalStream(PER_THREAD_STREAM), torch.cuda.current_stream()
    theirs.wait_stream(ours)
    yield
    ours.wait_stream(theirs)
