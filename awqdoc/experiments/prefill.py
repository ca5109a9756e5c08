"""Does the GPU wait for Python while a prompt is read? The whole time beside that in which anything ran."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import torch

from awqdoc import gpu, profiling
from awqdoc.errors import AwqdocError
from awqdoc.experiments import SEED, works
from awqdoc.experiments.decode import LARGEST_ERROR
from awqdoc.models.decoding import Decoder, Weights, llama_3_8b, random_weights
from awqdoc.profiling import trace

AXES: dict[str, tuple[Any, ...]] = {"tokens": (256, 1024, 4096)}
CPU = False
CLOCK = "CUDA events around a prompt launched from Python; torch's profiler for busy"
# Backends of the layers' products; lm_head is FP16. Of a prompt it multiplies the last token only.
BACKENDS = ("fp16", "cuda_overlapped", "gptqmodel_marlin")
ROUNDS = 12

Row = dict[str, Any]


def check(tokens: int) -> None:
    """Refuse a prompt that there cannot be."""
    if tokens < 1:
        raise AwqdocError(f"A prompt must have 1 token or more; found {tokens}.")


def forget() -> None:
    """Free the memory of the models."""
    _weights.cache_clear()


def run(device: str, tokens: int) -> list[Row]:
    """Let each model read a prompt, launched from Python kernel by kernel, in turn.

    Returns
    -------
    list of dict
        ``backend``; ``error`` (relative, of the logits against those of FP16), ``seconds`` of each time, and the GPU's
        state after all; of one more time, under torch's profiler, ``busy``, the seconds in which at least one kernel,
        copy or fill ran, and ``launches``, how many there were. Or ``skipped``, the reason.
    """
    prompt = torch.randint(0, 256, (1, tokens), generator=torch.Generator().manual_seed(SEED)).to(device)
    rows, calls, wanted = list[Row](), dict[str, Callable[[], None]](), torch.empty(0)
    for backend in BACKENDS:
        try:
            decoder = Decoder(_weights(backend, device), 1, tokens)
        except AwqdocError as error:
            if backend == BACKENDS[0]:  # the others are compared with it
                raise
            rows.append({"backend": backend, "skipped": str(error)})
            continue
        decoder.prefill(prompt)
        logits = decoder.logits.float()
        wanted = logits if backend == BACKENDS[0] else wanted
        differ = float(f"{float((logits - wanted).norm() / wanted.norm()):.4g}")
        if differ < LARGEST_ERROR:
            calls[backend] = partial(decoder.prefill, prompt)
            rows.append({"backend": backend, "error": differ})
        else:  # nan too
            rows.append({"backend": backend, "skipped": f"wrong: its logits differ from those of FP16 by {differ:.2g}"})
    timed = [row for row in rows if "skipped" not in row]
    found = profiling.Benchmarker(ROUNDS, cold=False, device=device).compare(calls)
    state = gpu.state()
    for row, measured in zip(timed, found, strict=True):
        row |= {"seconds": works.kept(list(measured.seconds)), **_seen(calls[row["backend"]]), **state}
    return rows


def _seen(call: Callable[[], None]) -> Row:
    """Return what torch's profiler sees of one more call: how long anything ran, and how many launches that were."""
    events = trace.events(call, "kernel", "gpu_memcpy", "gpu_memset")
    spans = [(event["ts"] / 1e6, (event["ts"] + event["dur"]) / 1e6) for event in events]
    return {"busy": float(f"{busy(spans):.6g}"), "launches": len(spans)}


def busy(spans: Sequence[tuple[float, float]]) -> float:
    """Return how long at least one of some spans, (begin, end) in seconds, lasts: what overlaps counts once."""
    whole, done = 0.0, float("-inf")
    for begin, end in sorted(spans):
        whole += max(0.0, end - max(begin, done))
        done = max(done, end)
    return whole


@lru_cache(maxsize=len(BACKENDS))
def _weights(backend: str, device: str) -> Weights:
    return random_weights(llama_3_8b(), backend, "fp16", device)
