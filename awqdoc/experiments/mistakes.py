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
from awqdoc.profiling.graphs import Call, captured

CPU = False
CLOCK = "CUDA events; time.perf_counter where the mistake is one of the host's clock"
SMALL = "triton_fused 4096x4096 1"
LARGE = "fp16 28672x4096 256"
SAMPLES = 50
PAIRS = 200
SUSTAINED = 2000
EVERY = 20  # products between two readings of the clock
SETTLED = 150  # samples of ten products, two seconds: NVML's power is a mean over one
PAUSE = 3.0  # seconds in which a GPU cools and forgets that it was busy

Row = dict[str, Any]


def check(mistake: str) -> None:
    """Refuse mistakes that we do not make."""
    if mistake not in MISTAKES:
        raise AwqdocError(f"The mistake must be one of {', '.join(MISTAKES)}; found {mistake!r}.")


def forget() -> None:
    """Free the memory that the last weight holds."""
    works.random_weight.cache_clear()


def run(device: str, mistake: str) -> list[Row]:
    """Make one mistake, and do it right.

    Returns
    -------
    list of dict
        ``way``, how it was done; ``seconds``, every sample; the GPU's clocks, power and clock-event reasons after all.
        For the drifting clock also ``sm_clocks`` (MHz) and ``powers`` (W), read once in every ``every`` samples.
    """
    time.sleep(PAUSE)  # what the mistake before did to clock and power is over
    return MISTAKES[mistake]()


def _rows(samples: dict[str, list[float]]) -> list[Row]:
    """Make a row of the samples of each way, with the state of the GPU right after all of them."""
    state = gpu.state()
    return [{"way": way, "seconds": works.kept(seconds), **state} for way, seconds in samples.items()]


def no_synchronization() -> list[Row]:
    """Stop a clock of the host when the call returns, and when the work is done; and count the first call of all."""
    call = works.calls(LARGE, "cuda")[0]
    return _rows(
        {
            "the first call of all": [_host_seconds(call, wait=True)],
            "clock stopped when the call returns": [_host_seconds(call, wait=False) for _ in range(SAMPLES)],
            "clock stopped when the GPU is done": [_host_seconds(call, wait=True) for _ in range(SAMPLES)],
        }
    )


def _host_seconds(call: Call, wait: bool) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if wait:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def warm_cache() -> list[Row]:
    """Read one weight again and again, and as many copies of it as do not fit into the L2 cache."""
    competitors: dict[str, list[Call]] = {}
    for work in ("fp16 4096x4096 1", "read 4096x4096", SMALL):
        calls, name = works.calls(work, "cuda"), work.split()[0]
        competitors |= {f"{name}, one weight again": [calls[0]] * len(calls), f"{name}, cold copies": calls}
    return _rows(profiling.interleave(competitors, "cuda"))


def zeros_as_data() -> list[Row]:
    """Multiply zeros, between two runs with random numbers, each long enough for the power to settle."""
    side = floors.SIDE["cuda"]
    result, *zeros = (torch.zeros(side, side, dtype=torch.float16, device="cuda") for _ in range(3))
    random, _ = floors.matmul("cuda")
    work: dict[str, Call] = {
        "random numbers": random,
        "zeros": partial(torch.matmul, *zeros, out=result),
        "random numbers again": random,
    }
    rows = []
    for way, call in work.items():
        rows += _rows(profiling.interleave({way: [call] * 10}, "cuda", SETTLED))
    return rows


def launch_gaps() -> list[Row]:
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
    replayed = profiling.interleave({"replayed as a graph": calls}, "cuda", SAMPLES)
    return _rows({"called from Python": samples} | replayed)


def one_sample() -> list[Row]:
    """Time the same function as if it were two, sample by sample."""
    call = works.calls(SMALL, "cuda")[0]
    bench = profiling.Benchmarker(PAIRS, device="cuda", graph=True)
    results = bench.compare({"a": call, "the same again": call})
    return _rows({result.name: list(result.seconds) for result in results})


def drifting_clock() -> list[Row]:
    """Keep the tensor cores busy from rest on, and time every product."""
    call, _ = floors.matmul("cuda")
    call()
    torch.cuda.synchronize()
    time.sleep(PAUSE)
    samples, states = [], []
    for number in range(SUSTAINED):
        with profiling.CUDATimer("cuda") as timer:
            call()
        samples.append(timer.elapsed_ms / 1e3)
        if number % EVERY == 0:
            states.append(gpu.state())
    trace = {
        "way": "clocks and power",
        "every": EVERY,
        "sm_clocks": [state["sm_clock_mhz"] for state in states],
        "powers": [state["power_w"] for state in states],
    }
    return [*_rows({"busy from rest on": samples}), trace]


def another_order() -> list[Row]:
    """Time two backends that read the same packed weight, behind a large copy, in both orders."""
    weight = works.random_weight(4096, 4096, works.GROUP_SIZE, "cuda")
    x = works.activations(1, 4096, "cuda")
    prepared = adapter(BACKENDS["triton_fused"]).prepare(weight)
    replays: dict[str, Call] = {"copy": floors.copy("cuda")[0]}
    for backend in ("triton_fused", "dequantize"):
        call: Call = partial(adapter(BACKENDS[backend]).matmul, x, prepared)
        for _ in range(3):
            call()
        replays[backend] = captured([call])
    samples: dict[str, list[float]] = {}
    for order in (("copy", "triton_fused", "dequantize"), ("copy", "dequantize", "triton_fused")):
        for _ in range(SAMPLES):
            for place, name in enumerate(order):
                torch.cuda._sleep(100_000)  # the host launches meanwhile
                with profiling.CUDATimer("cuda") as timer:
                    replays[name]()
                if place:
                    samples.setdefault(f"{name}, {('first', 'second')[place - 1]}", []).append(timer.elapsed_ms / 1e3)
    return _rows(samples)


MISTAKES: dict[str, Callable[[], list[Row]]] = {
    "no synchronization": no_synchronization,
    "launch gaps": launch_gaps,
    "warm cache": warm_cache,
    "zeros as data": zeros_as_data,
    "one sample": one_sample,
    "drifting clock": drifting_clock,
    "another order": another_order,
}
AXES: dict[str, tuple[Any, ...]] = {"mistake": tuple(MISTAKES)}
