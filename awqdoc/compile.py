"""CUDA C++ sources of awqdoc, compiled where they run: by NVRTC, through NVIDIA's cuda-core. No toolkit is needed."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import torch

from awqdoc.errors import AwqdocError

SOURCES = Path(__file__).parent / "kernels" / "cuda"


def missing() -> str | None:
    """Say that cuda-core is not installed, or return None: what an experiment with kernels of ours needs."""
    there = importlib.util.find_spec("cuda") and importlib.util.find_spec("cuda.core")
    return None if there else "cuda-core is not installed (pip install awqdoc[cuda])"


@cache
def cubin(file: str, arch: str, **defines: int) -> Any:
    """Compile a source of `SOURCES` to machine code; needs no GPU.

    Parameters
    ----------
    file : str
        ``small_batch.cu``
    arch : str
        ``sm_90a``
    **defines
        Macros, the sizes for which the kernel is made.

    Returns
    -------
    cuda.core.ObjectCode

    Raises
    ------
    AwqdocError
        With the compiler's log, if it does not compile.
    """
    if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.core") is None:
        raise AwqdocError(
            "CUDA sources are compiled with NVIDIA's cuda-core: install it with `pip install awqdoc[cuda]`."
        )
    from cuda.core import Program, ProgramOptions

    options = ProgramOptions(
        name=file, arch=arch, std="c++17", include_path=str(SOURCES),
        define_macro=[(name, str(value)) for name, value in defines.items()] or None,
    )  # fmt: skip
    try:
        return Program((SOURCES / file).read_text(encoding="utf-8"), "c++", options).compile("cubin")
    except Exception as error:  # cuda-core has no class of its own for what NVRTC says
        raise AwqdocError(f"{file} does not compile for {arch} with {defines}: {error}") from None


@cache
def architecture() -> str:
    """Name the architecture of the current GPU as NVRTC does, with what only this generation has: ``sm_90a``."""
    major, minor = torch.cuda.get_device_capability()
    return f"sm_{major}{minor}{'a' if major >= 9 else ''}"


@cache
def kernel(file: str, shared: int = 0, **defines: int) -> Any:
    """Return the kernel of a file, named as the file, for the current GPU, with `shared` bytes of shared memory."""
    from cuda.bindings import driver

    found = cubin(file, architecture(), **defines).get_kernel(file.removesuffix(".cu"))
    attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    (status,) = driver.cuKernelSetAttribute(attribute, shared, found.handle, torch.cuda.current_device())
    if status != driver.CUresult.CUDA_SUCCESS:
        raise AwqdocError(f"{file} needs {shared} bytes of shared memory in a block, more than this GPU has.")
    return found


def tensor_map(matrix: torch.Tensor, box: tuple[int, int]) -> Any:
    """Describe a float16 matrix for tensor copies of `box` (rows, columns), in shared memory with 128-byte swizzle."""
    from cuda.core._tensor_map import TensorMapSwizzle
    from cuda.core.utils import StridedMemoryView

    view = StridedMemoryView.from_any_interface(matrix, stream_ptr=-1)
    return view.as_tensor_map(box_dim=box, swizzle=TensorMapSwizzle.SWIZZLE_128B)


def launch(kernel: Any, grid: tuple[int, ...], block: int, shared: int, *arguments: Any, overlap: bool = False) -> None:
    """Launch on torch's current stream; tensors are passed as pointers, integers as int, tensor maps as they are.

    With `overlap` the kernel may start while the one before it on the stream still runs (programmatic dependent
    launch): it waits for it by itself, with ``griddepcontrol.wait``.

    Raises
    ------
    AwqdocError
        If the launch fails.
    """
    import numpy
    from cuda.core import LaunchConfig, Stream
    from cuda.core import launch as launch_kernel

    values = [
        a.data_ptr() if isinstance(a, torch.Tensor) else numpy.int32(a) if isinstance(a, int) else a for a in arguments
    ]
    config = LaunchConfig(grid=grid, block=block, shmem_size=shared, programmatic_stream_serialization=overlap)
    launch_kernel(Stream.from_handle(torch.cuda.current_stream().cuda_stream), config, kernel, *values)
