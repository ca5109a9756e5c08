"""`awqdoc doctor`: what this machine can run, what it cannot and why, and what to install."""

from __future__ import annotations

import argparse
import importlib.metadata
import platform

from awqdoc import gpu
from awqdoc.errors import AwqdocError
from awqdoc.experiments import EXPERIMENTS
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
        here = without if lack or experiment.missing() else "measured here"
        print(f"  {experiment.name:<14} {here}; recorded on {places}: {experiment.question}")
    return 0
