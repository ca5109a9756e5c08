"""What does 100 % utilization mean? What a GPU tells of itself while it idles, nearly idles, and works."""

from __future__ import annotations

import time
from functools import partial
from itertools import cycle, islice, pairwise
from typing import Any

import torch

from awqdoc import gpu
from awqdoc.errors import AwqdocError
from awqdoc.experiments import works
from awqdoc.experiments.kernels import WORKSPACES
from awqdoc.formats import Problem
from awqdoc.gpu.monitor import Monitor
from awqdoc.kernels import adapter
from awqdoc.kernels.table import KERNELS, why_not
from awqdoc.profiling.graphs import Call, captured

TOP = "cuda_overlapped"
SHAPE = "28672x4096"
INT4 = f"{TOP} {SHAPE} 1"
AXES: dict[str, tuple[Any, ...]] = {"work": ("idle", "one thread", INT4, "matmul")}
CPU = False
CLOCK = "NVML beside CUDA events around graph replays"
PAUSE = 3.0  # seconds: utilization and power are means over up to one, and should know nothing of the work before
SECONDS = 4.0
INTERVAL = 0.2
# A graph of some ten milliseconds, so that the GPU waits for the host at no end of it.
CYCLES = 20_000_000
PRODUCTS = 8
INT4_CALLS = 500

Row = dict[str, Any]


def check(work: str) -> None:
    """Refuse a work that there is not."""
    if work not in AXES["work"]:
        raise AwqdocError(f"The work must be one of {', '.join(AXES['work'])}; found {work!r}.")


def forget() -> None:
    """Free the memory that the weight holds."""
    works.random_weight.cache_clear()


def run(device: str, work: str) -> list[Row]:
    """Keep a GPU at one work for three times `SECONDS`, and watch it in the middle one.

    Returns
    -------
    list of dict
        A row for each sample, as `awqdoc.gpu.monitor.Probe.sample` returns it, with ``at_s`` for the time since the
        watching began. A row for each metric that the GPU does not tell: ``lacking`` and the ``reason``. Unless it
        idles, rows with ``way`` (``before``, ``watched``, ``after``) and ``seconds``, those of each replay of a graph
        of ``calls`` calls: what the watching cost. ``skipped`` with the reason, if this GPU cannot do the work.
    """
    problem = Problem.parse(SHAPE, 1, works.GROUP_SIZE)
    reason = why_not(KERNELS[TOP], problem, gpu.capability(device), True) if work == INT4 else None
    if reason is not None:
        return [{"skipped": reason}]
    if work == "idle":
        time.sleep(PAUSE)
        with Monitor(interval=INTERVAL) as monitor:
            time.sleep(SECONDS)
        return _samples(monitor)
    calls = _calls(work, device)
    for call in calls:
        call()
    replay = captured(calls)
    time.sleep(PAUSE)
    seconds = {"before": _keep_busy(replay, SECONDS)}
    with Monitor(interval=INTERVAL) as monitor:
        seconds["watched"] = _keep_busy(replay, SECONDS)
    seconds["after"] = _keep_busy(replay, SECONDS)
    ways = [{"way": way, "calls": len(calls), "seconds": works.kept(found)} for way, found in seconds.items()]
    return [*_samples(monitor), *ways]


def _samples(monitor: Monitor) -> list[Row]:
    rows = []
    for sample in monitor.samples:
        row = {key: value for key, value in sample.items() if key not in ("time", "seconds", "gpu")}
        rows.append({"at_s": sample["seconds"], **row})
    return [*rows, *({"lacking": key, "reason": reason} for key, reason in monitor.probe.lacking.items())]


def _calls(work: str, device: str) -> list[Call]:
    if work == "one thread":
        return [partial(torch.cuda._sleep, CYCLES)]
    if work == "matmul":
        return works.calls("matmul", device) * PRODUCTS
    problem = Problem.parse(SHAPE, 1, works.GROUP_SIZE)
    weight = works.random_weight(problem.n, problem.k, works.GROUP_SIZE, device)
    kernel, x = adapter(KERNELS[TOP]), works.activations(1, problem.k, device)
    prepared = kernel.prepare(weight)
    weights = {key: tensor for key, tensor in prepared.items() if key not in WORKSPACES}
    cold = [{**prepared, **copy} for copy in works.copies(weights, device)]
    return list(islice(cycle(partial(kernel.matmul, x, copy) for copy in cold), INT4_CALLS))


def _keep_busy(replay: Call, seconds: float) -> list[float]:
    """Replay for so long, with one replay always waiting behind the one that runs; return what each took."""
    marks = [_mark()]
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        replay()
        marks.append(_mark())
        marks[-2].synchronize()
    marks[-1].synchronize()
    return [first.elapsed_time(second) / 1000 for first, second in pairwise(marks)]


def _mark() -> torch.cuda.Event:
    mark = torch.cuda.Event(enable_timing=True, blocking=True)  # a host that waits should not spin
    mark.record()
    return mark
