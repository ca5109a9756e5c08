"""`awqdoc doctor`: what this machine can run, what it cannot and why, and what to install."""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
from typing import Any

import pynvml

from awqdoc import gpu, nvml
from awqdoc.errors import AwqdocError
from awqdoc.experiments import EXPERIMENTS
from awqdoc.experiments.device import STATE
from awqdoc.formats import Problem
from awqdoc.kernels.table import KERNELS, why_not
from awqdoc.recordings import find

# Package -> what it is needed for here, and how to get it.
PACKAGES = {
    "torch": ("everything that is measured", "pip install torch"),
    "triton": ("our Triton kernels and AutoAWQ's", "pip install triton (Linux)"),
    "cuda-core": ("our CUDA kernels", "pip install awqdoc[cuda]"),
    "autoawq": ("AutoAWQ's kernels, shown beside ours", "pip install autoawq==0.2.9 (Linux)"),
    "nvidia-ml-py": ("the device report, clocks and power", "pip install nvidia-ml-py"),
    "matplotlib": ("figures", "pip install matplotlib"),
}


def main(options: argparse.Namespace) -> int:
    """Print the report; always exit code 0, for it only tells."""
    print(f"Python {platform.python_version()} on {gpu.cpu_name()}")
    print("\nPackages")
    for package, (purpose, remedy) in PACKAGES.items():
        try:
            print(f"  {package:<14} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            print(f"  {package:<14} missing, needed for {purpose}: {remedy}")
    lack = gpu.why_not_suitable()
    print("\nGPU")
    print(f"  {gpu.suitable()}: measurements are made here" if lack is None else f"  none to measure with: {lack}")
    for index in range(_gpus()):
        _tell(index)
    print("\nBackends, for a 4096 x 4096 layer at batch size 1")
    capability = None if lack else gpu.capability("cuda")
    for backend in KERNELS.values():
        reason = why_not(backend, Problem(1, 4096, 4096), capability)
        print(f"  {backend.name:<22} {reason or 'runs here'}")
    print("\nExperiments")
    for experiment in EXPERIMENTS.values():
        try:
            places = ", ".join(recording.provenance["gpu"] for recording in find(experiment.name)) or "no GPU yet"
        except AwqdocError as error:
            print(f"  {experiment.name:<14} {error}")
            continue
        without = "replayed here" if places != "no GPU yet" else "cannot be shown here"
        reason = None if lack else experiment.missing()
        here = f"{without} ({reason})" if reason else without if lack else "measured here"
        print(f"  {experiment.name:<14} {here}; recorded on {places}: {experiment.question}")
    return 0


def _gpus() -> int:
    """Return how many GPUs torch sees; where it sees none, how many NVML lists; 0 without a driver."""
    try:
        import torch

        if torch.cuda.is_available():
            return torch.cuda.device_count()
    except ImportError:
        pass
    try:
        with nvml.device():
            return int(pynvml.nvmlDeviceGetCount())
    except AwqdocError:
        return 0


def _tell(index: int) -> None:
    """Print what a GPU says of itself and of this moment, each with where it comes from."""
    try:
        facts, state = gpu.facts(index), gpu.state(index)
    except AwqdocError as error:
        print(f"  GPU {index}: {error}")
        return
    now = [
        {"fact": fact, "value": state[key], "unit": unit, "source": "NVML"}
        for key, (fact, unit) in STATE.items()
        if state[key] is not None
    ]
    print(f"  GPU {index}")
    for line in lines([*facts, *now]):
        print(f"    {line}")


def lines(facts: list[dict[str, Any]]) -> list[str]:
    """Write facts, as `awqdoc.gpu.facts` returns them, for people: a line for each, with its source."""
    return [f"{row['fact']:<33} {_value(row['value'], row['unit']):<22} {row['source']}" for row in facts]


def _value(value: Any, unit: str) -> str:
    """Write a value with its unit for people: bytes in KiB to GiB, rates in tera."""
    if isinstance(value, list):
        return ", ".join(value) or "nothing"
    if unit == "B":
        power = min(3, max(1, (int(value).bit_length() - 1) // 10))
        return f"{value / 1024**power:.4g} {' KMG'[power]}iB"
    if unit in ("B/s", "FLOP/s"):
        return f"{value / 1e12:.4g} T{unit}"
    return f"{value:.4g} {unit}" if isinstance(value, float) else f"{value} {unit}".strip()
