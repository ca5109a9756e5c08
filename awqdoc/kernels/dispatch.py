"""Which kernel for which layer and batch sizes: of those that run here the fastest, by what was measured."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass, replace
from functools import cache
from statistics import median

import torch

from awqdoc import gpu
from awqdoc.errors import AwqdocError
from awqdoc.formats import Problem, QuantizedWeight
from awqdoc.kernels.table import KERNELS, why_not
from awqdoc.recordings import Recording, find


@dataclass(frozen=True)
class Prepared:
    """A weight in the layout of the kernel that was chosen for it.

    Attributes
    ----------
    backend : str
        A name of `awqdoc.kernels.table.KERNELS`.
    tensors : dict
        What the backend's ``prepare`` returned.
    """

    backend: str
    tensors: dict[str, torch.Tensor]


def prepare(weight: QuantizedWeight, ms: tuple[int, ...] = (1,)) -> Prepared:
    """Lay a weight out for the kernel that should take the least time for batches of `ms` tokens, each as often.

    A weight is kept once, in one layout, so one kernel has to serve all batch sizes that will come.

    Raises
    ------
    AwqdocError
        If no kernel takes the weight on its device.
    """
    k, n = weight.codes.shape
    capability = gpu.capability(str(weight.codes.device))
    name = choose(n, k, weight.group_size, ms, not weight.symmetric, capability)
    return Prepared(name, importlib.import_module(KERNELS[name].module).prepare(weight))


def matmul(x: torch.Tensor, prepared: Prepared) -> torch.Tensor:
    """Compute X @ W, float16 [M, N]; X float16 [M, K]."""
    y: torch.Tensor = importlib.import_module(KERNELS[prepared.backend].module).matmul(x, prepared.tensors)
    return y


def choose(
    n: int,
    k: int,
    group_size: int,
    ms: tuple[int, ...],
    zero_points: bool,
    capability: tuple[int, int] | None,
    recording: Recording | None = None,
) -> str:
    """Choose the INT4 kernel with the least time for batches of `ms` tokens together, by the nearest measured layer.

    Parameters
    ----------
    n, k, group_size : int
        The weight, [K, N].
    ms : tuple of int
        Batch sizes; each counts with the measured one that is nearest on a logarithmic scale.
    zero_points : bool
        Whether the weight has zero points.
    capability : tuple or None
        Compute capability of the GPU; None for a CPU.
    recording : Recording, optional
        Of the experiment ``kernels``; by default the one of this GPU, or the newest.

    Returns
    -------
    str
        A name of `awqdoc.kernels.table.KERNELS`. On a CPU, for which nothing is recorded: the first that runs there.
    """
    reasons = {name: _why_not(name, Problem(1, n, k, group_size), ms, zero_points, capability) for name in _INT4}
    able = [name for name in _INT4 if reasons[name] is None]
    if not able:
        told = "; ".join(f"{KERNELS[name].title}: {reason}" for name, reason in reasons.items())
        raise AwqdocError(f"No INT4 kernel takes a {k} x {n} weight in groups of {group_size} here ({told}).")
    if capability is None:
        return able[0]
    recording = recording or _recording()
    times = {name: _seconds(recording, name, n, k, ms, zero_points) for name in able}
    return min(able, key=lambda name: times[name])


_INT4 = [name for name, kernel in KERNELS.items() if kernel.bits == 4]


def _why_not(
    name: str, problem: Problem, ms: tuple[int, ...], zero_points: bool, capability: tuple[int, int] | None
) -> str | None:
    for m in ms:
        reason = why_not(KERNELS[name], replace(problem, m=m), capability, zero_points)
        if reason is not None:
            return reason
    try:
        importlib.import_module(KERNELS[name].module)
    except ImportError as error:
        return f"it cannot be imported ({error})"
    return None


@cache  # a model has hundreds of layers, and the file two megabytes
def _recording() -> Recording:
    found = find("kernels")
    return next((one for one in found if one.provenance["gpu"] == torch.cuda.get_device_name()), found[0])


def _seconds(recording: Recording, name: str, n: int, k: int, ms: tuple[int, ...], zero_points: bool) -> float:
    """Add up a kernel's times at the nearest measured sizes; infinite if it got none at one of them."""
    size = {shape: tuple(map(int, shape.split("x"))) for shape in recording.parameters["shape"]}
    shape = min(size, key=lambda shape: math.dist(map(math.log, size[shape]), map(math.log, (n, k))))
    total = 0.0
    for m in ms:
        near = min(recording.parameters["m"], key=lambda known: abs(math.log(known / m)))
        cell = {"shape": shape, "zero_points": zero_points, "m": near, "backend": name}
        row = next((row for row in recording.rows if all(row[axis] == value for axis, value in cell.items())), {})
        total += median(row["seconds"]) if "seconds" in row else math.inf
    return total
