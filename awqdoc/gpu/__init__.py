"""What GPU is here, whether it can measure, and what it says of itself."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from awqdoc.gpu.report import facts
from awqdoc.nvml import driver_versions, state

__all__ = [
    "capability",
    "cpu_name",
    "driver_versions",
    "facts",
    "l2_bytes",
    "memory_bytes",
    "state",
    "suitable",
    "why_not_suitable",
]

# mma.sync and cp.async, which every INT4 kernel here builds on, came with Ampere.
LOWEST_CAPABILITY = (8, 0)


def why_not_suitable() -> str | None:
    """Say why no live measurement can be made on this machine, or None if one can."""
    try:
        import torch
    except ImportError:
        return "torch is not installed"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a build without CUDA"
    if not torch.cuda.is_available():
        return "torch sees no NVIDIA GPU (is the driver installed and CUDA_VISIBLE_DEVICES not empty?)"
    capability = torch.cuda.get_device_capability(0)
    if capability < LOWEST_CAPABILITY:
        return (
            f"{torch.cuda.get_device_name(0)} has compute capability {capability[0]}.{capability[1]}; "
            f"the kernels need {LOWEST_CAPABILITY[0]}.{LOWEST_CAPABILITY[1]} or higher"
        )
    return None


def suitable() -> str | None:
    """Return the name of the GPU that live measurements would use, or None."""
    if why_not_suitable() is not None:
        return None
    import torch

    return torch.cuda.get_device_name(0)


def cpu_name() -> str:
    """Return the processor's name and the number of cores that this process may use."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{names[0] if names else platform.processor() or platform.machine()} ({cores} cores)"


def capability(device: str) -> tuple[int, int] | None:
    """Return the compute capability of a CUDA device, or None for ``"cpu"``."""
    if device == "cpu":
        return None
    import torch

    return torch.cuda.get_device_capability(device)


def l2_bytes(device: str) -> int:
    """Return the size of the L2 cache in bytes, as the device tells it."""
    import torch

    properties: Any = torch.cuda.get_device_properties(device)
    return int(properties.L2_cache_size)


def memory_bytes() -> int:
    """Return the bytes of memory of the GPU that live measurements would use."""
    import torch

    return int(torch.cuda.get_device_properties(0).total_memory)
