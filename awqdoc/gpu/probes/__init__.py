"""Probes of memory and tensor cores: small kernels, each of which does one thing and shows that it did.

Their sources lie in ``awqdoc/gpu/cuda`` and include the ladder's headers. What a probe returns are samples, one for
each launch unless it says otherwise, and whether its result was right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import torch

from awqdoc import compile
from awqdoc.errors import AwqdocError
from awqdoc.profiling import CUDATimer

SOURCES = Path(__file__).parents[1] / "cuda"
SAMPLES = 8
WARM_UPS = 2


@dataclass(frozen=True)
class Probed:
    """What a probe found: whether its result was right, seconds of each launch, cycles as the probe says."""

    right: bool
    cycles: list[float]
    seconds: list[float] = field(default_factory=list)


def cubin(file: str, arch: str, **defines: int) -> Any:
    """Compile a source of `SOURCES`, as `awqdoc.compile.cubin` does."""
    return compile.cubin(str(SOURCES / file), arch, **defines)


@cache
def kernel(file: str, shared: int = 0, **defines: int) -> Any:
    """Return the kernel of a file, named as the file, for the current GPU, with `shared` bytes of shared memory."""
    from cuda.bindings import driver

    found = cubin(file, compile.architecture(), **defines).get_kernel(file.removesuffix(".cu"))
    attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    (status,) = driver.cuKernelSetAttribute(attribute, shared, found.handle, torch.cuda.current_device())
    if status != driver.CUresult.CUDA_SUCCESS:
        raise AwqdocError(f"{file} needs {shared} bytes of shared memory in a block, more than this GPU has.")
    return found


def sms() -> int:
    """Return the number of SMs: a probe of the whole GPU has one block on each."""
    return torch.cuda.get_device_properties("cuda").multi_processor_count


def launches(call: Callable[[], object], cycles: torch.Tensor) -> tuple[list[float], list[float]]:
    """Time launches of a kernel that writes the cycles of each block.

    Returns
    -------
    cycles, seconds : list of float
        Of each launch: the median over its blocks, and the time between two CUDA events.
    """
    counted, timed = [], []
    for number in range(WARM_UPS + SAMPLES):
        torch.cuda._sleep(200_000)  # the host launches meanwhile
        with CUDATimer("cuda") as timer:
            call()
        if number >= WARM_UPS:
            counted.append(float(median(cycles.tolist())))
            timed.append(timer.elapsed_ms / 1e3)
    return counted, timed
