"""How large is each mistake of measuring? The same work timed as it should not be, and as it should."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from awqdoc import gpu, profiling
from awqdoc.errors import AwqdocError
from awqdoc.experiments import works
from awqdoc.kernels import BACKENDS, adapter, floors
from awqdoc.profiling.graphs import captured

CPU = False
CLOCK = "CUDA events; time.perf_counter where the mistake is one of the host's clock"
SMALL = "triton_fused 4096x4096 1"
LARGE = "fp16 28672x4096 256"
SAMPLES = 50
PAIRS = 200
SUSTAINED = 2000
PAUSE = 3.0  # seconds in which a GPU cools and forgets that it was busy

Samples = dict[str, list[float]]


def check(mistake: str) -> None:
    """Refuse mistakes that we do not make."""
    if mistake not in MISTAKES:
        raise AwqdocError(f"The mistake must be one of {', '.join(MISTAKES)}; found {mistake!r}.")


def forget() -> None:
    """Free the memory that the last weight holds."""
    works.random_weight.cache_clear()


def run(device: str, mistake: str) -> list[dict[str, Any]]:
    """Make one mistake, and do it right.

    Returns
    -------
    list of dict
        ``way``, how it was done; ``seconds``, every sample; the GPU's clocks, power and clock-event reasons after all.
        For the drifting clock also ``sm_clocks`` (MHz) and ``powers`` (W), read once in every ``every`` samples.
    """
    time.sleep(PAUSE)  # what the mistake before did to clock and power is over
    found = MISTAKES[mistake]()
    state = gpu.state()
    return [{"way": way, "seconds": works.kept(seconds), **state} for way, seconds in found.items()] + _traces()


def no_synchronization() -> Samples:
    """Stop a clock of the host when the call returns, and when the work is done; and count the first call of all."""
    call = works.calls(LARGE, "cuda")[0]
    return {
        "the first call of all": [_host_seconds(call, wait=True)],
        "clock stopped when the call returns": [_host_seconds(call, wait=False) for _ in range(SAMPLES)],
        "clock stopped when the GPU is done": [_host_seconds(call, wait=True) for _ in range(SAMPLES)],
    }


def _host_seconds(call: works.Call, wait: bool) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if wait:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def warm_cache() -> Samples:
    """Read one weight again and again, and as many copies of it as do not fit into the L2 cache."""
    competitors: dict[str, list[works.Call]] = {}
    for work in ("fp16 4096x4096 1", "read 4096x4096", SMALL):
        calls, name = works.calls(work, "cuda"), work.split()[0]
        competitors |= {f"{name}, one weight again": [calls[0]] * len(calls), f"{name}, cold copies": calls}
    return profiling.interleave(competitors, "cuda")


def zeros_as_data() -> Samples:
    """Multiply zeros, between two runs with random numbers, each long enough for the power to settle."""
    random, _ = floors.matmul("cuda")
    zeros = torch.zeros(floors.SIDE["cuda"], floors.SIDE["cuda"], dtype=torch.float16, device="cuda")
    work: dict[str, works.Call] = {
        "random numbers": random,
        "zeros": partial(torch.matmul, zeros, zeros),
        "random numbers again": random,
    }
    return {way: profiling.interleave({way: [call] * 10}, "cuda", SAMPLES)[way] for way, call in work.items()}


def launch_gaps() -> Samples:
    """Call a short kernel from Python, and replay the same calls as a graph."""
    calls = works.calls(SMALL, "cuda")
    for call in calls:
        call()
    samples = []
    for _ in range(SAMPLES):
        with profiling.CUDATimer("cuda") as timer:
            for call in calls:
                call()
        samples.append(timer.elapsed_ms / 1e3 / len(calls))
    return {"called from Python": samples} | profiling.interleave({"replayed as a graph": calls}, "cuda", SAMPLES)


def one_sample() -> Samples:
    """Time the same function as if it were two, sample by sample."""
    call = works.calls(SMALL, "cuda")[0]
    bench = profiling.Benchmarker(PAIRS, device="cuda", graph=True)
    return {result.name: list(result.seconds) for result in bench.compare({"a": call, "the same again": call})}


def drifting_clock() -> Samples:
    """Keep the tensor cores busy from rest on, and time every product."""
    call, _ = floors.matmul("cuda")
    call()
    torch.cuda.synchronize()
    time.sleep(PAUSE)
    samples = []
    for number in range(SUSTAINED):
        with profiling.CUDATimer("cuda") as timer:
            call()
        samples.append(timer.elapsed_ms / 1e3)
        if number % EVERY == 0:
            _trace.append(gpu.state())
    return {"busy from rest on": samples}


def another_order() -> Samples:
    """Time two backends that read the same packed weight, behind a large copy, in both orders."""
    weight = works.random_weight(4096, 4096, works.GROUP_SIZE, "cuda")
    x = works.activations(1, 4096, "cuda")
    prepared = adapter(BACKENDS["triton_fused"]).prepare(weight)
    replays: dict[str, works.Call] = {"copy": floors.copy("cuda")[0]}
    for backend in ("triton_fused", "dequantize"):
        call: works.Call = partial(adapter(BACKENDS[backend]).matmul, x, prepared)
        for _ in range(3):
            call()
        replays[backend] = captured([call])
    samples: Samples = {}
    for order in (("copy", "triton_fused", "dequantize"), ("copy", "dequantize", "triton_fused")):
        for _ in range(SAMPLES):
            for place, name in enumerate(order):
                torch.cuda._sleep(100_000)  # the host launches meanwhile
                with profiling.CUDATimer("cuda") as timer:
                    replays[name]()
                if place:
                    samples.setdefault(f"{name}, {('first', 'second')[place - 1]}", []).append(timer.elapsed_ms / 1e3)
    return samples


EVERY = 20
_trace: list[dict[str, Any]] = []


def _traces() -> list[dict[str, Any]]:
    """Return what was read during the drifting clock, as a row, and forget it."""
    if not _trace:
        return []
    row = {
        "way": "clocks and power",
        "every": EVERY,
        "sm_clocks": [state["sm_clock_mhz"] for state in _trace],
        "powers": [state["power_w"] for state in _trace],
    }
    _trace.clear()
    return [row]


MISTAKES: dict[str, Callable[[], Samples]] = {
    "no synchronization": no_synchronization,
    "launch gaps": launch_gaps,
    "warm cache": warm_cache,
    "zeros as data": zeros_as_data,
    "one sample": one_sample,
    "drifting clock": drifting_clock,
    "another order": another_order,
}
AXES: dict[str, tuple[Any, ...]] = {"mistake": tuple(MISTAKES)}
