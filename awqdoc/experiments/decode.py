"""How long does a whole model take for a token, and where does it go? A Llama-3-8B of random weights, by batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import torch

from awqdoc import gpu, profiling
from awqdoc.errors import AwqdocError
from awqdoc.experiments import SEED, works
from awqdoc.kernels import floors
from awqdoc.kernels.table import KERNELS
from awqdoc.models.decoding import Decoder, Launch, Weights, kinds, llama_3_8b, random_weights
from awqdoc.profiling import trace

AXES: dict[str, tuple[Any, ...]] = {"batch": (1, 2, 4, 8, 16, 32, 64)}
CPU = False
# The backend of the layers' products and that of lm_head. All have the same weights, rounded to 4 bits.
MODELS = (
    ("fp16", "fp16"),
    ("fp16_stream", "fp16_stream"),
    ("cuda_overlapped", "fp16"),
    ("cuda_overlapped", "cuda_overlapped"),
    ("gptqmodel_marlin", "fp16"),
)
# Tokens in the cache of each sequence before the first step that is timed, and room for those that follow.
CONTEXT, ROOM = 1024, 64
ROUNDS = 20
PROMPTS, PROMPT_ROUNDS = (256, 1024), 6
# The largest difference (relative, Frobenius norm) from the logits of FP16 with which a step still gets a time.
LARGEST_ERROR = 5e-2

Row = dict[str, Any]
Model = tuple[str, str]


def check(batch: int) -> None:
    """Refuse a batch that there cannot be."""
    if batch < 1:
        raise AwqdocError(f"The batch must be 1 or more; found {batch}.")


def forget() -> None:
    """Free the memory of the models."""
    _weights.cache_clear()


def run(device: str, batch: int) -> list[Row]:
    """Time a step of every model in turn, after its logits have been compared with those of FP16.

    Returns
    -------
    list of dict
        Told apart by ``what``; all but ``read`` have ``backend`` and ``lm_head``, a backend each.
        ``step``: ``seconds`` of each replay, ``error`` (relative, of the logits against those of FP16), ``context``
        (tokens of each sequence in the cache at the first), and the GPU's state after them; or ``skipped``, the reason.
        ``read``: ``seconds`` of each time that ``bytes`` were only read, in turn with the steps.
        ``memory``: bytes of ``weights``, of the ``cache`` and of everything else at the peak of a step, ``working``.
        ``kind``: ``kind`` of work, one of `awqdoc.models.decoding.KINDS`, and its ``seconds`` in one step under torch's
        profiler; together they are the time from its first kernel to the end of its last.
        ``prefill``, at batch 1: ``tokens`` of the prompt, ``seconds`` of each time, launched from Python.
    """
    decoders, errors, rows = _decoders(device, batch)
    samples, state = _timed(decoders, device)
    rows.append({"what": "read", "bytes": _words(device).nbytes, "seconds": samples.pop("read"), **state})
    for model in decoders:
        found = {"seconds": samples[model], "error": float(f"{errors[model]:.4g}"), "context": CONTEXT}
        rows.append(_row("step", model, **found, **state))
    for model, decoder in decoders.items():
        rows += _memory(model, decoder) + _kinds(model, decoder)
    if batch == 1:
        rows += [row for tokens in PROMPTS for row in _prefill(list(decoders), tokens, device)]
    return rows


def _decoders(device: str, batch: int) -> tuple[dict[Model, Decoder], dict[Model, float], list[Row]]:
    """Return the models whose first logits are right, how far all are from those of FP16, and rows of the others."""
    decoders: dict[Model, Decoder] = {}
    errors: dict[Model, float] = {}
    skipped: list[Row] = []
    wanted = torch.empty(0)
    for model in MODELS:
        backend = KERNELS[model[0]]
        if backend.bits == 16 and 0 < backend.most_tokens < batch:
            skipped.append(_row("step", model, skipped=f"{backend.title}: more are left to torch's product"))
            continue
        try:
            weights = _weights(*model, device)
        except AwqdocError as error:
            if model == MODELS[0]:  # the others are compared with it
                raise
            skipped.append(_row("step", model, skipped=str(error)))
            continue
        decoder = Decoder(weights, batch, CONTEXT + ROOM)
        _share_cache(decoder, decoders.get(MODELS[0], decoder))
        logits = _first_logits(decoder)
        wanted = logits if model == MODELS[0] else wanted
        errors[model] = float((logits - wanted).norm() / wanted.norm())
        if errors[model] < LARGEST_ERROR:
            decoders[model] = decoder
        else:  # nan too
            wrong = f"wrong: its logits differ from those of FP16 by {errors[model]:.2g}"
            skipped.append(_row("step", model, skipped=wrong))
    return decoders, errors, skipped


def _row(what: str, model: Model, **columns: Any) -> Row:
    return {"what": what, "backend": model[0], "lm_head": model[1], **columns}


@lru_cache(maxsize=len(MODELS))
def _weights(backend: str, lm_head: str, device: str) -> Weights:
    return random_weights(llama_3_8b(), backend, lm_head, device)


def _share_cache(decoder: Decoder, first: Decoder) -> None:
    """Let all models use the cache of the first, which holds random keys and values: a step only needs the lengths."""
    if decoder is first:
        torch.manual_seed(SEED)
        decoder.cache.normal_()
    decoder.cache = first.cache


def _first_logits(decoder: Decoder) -> torch.Tensor:
    """Return the logits, float32 [batch, vocabulary], of a step on the same tokens for every model."""
    decoder.tokens.copy_(torch.arange(decoder.batch) + 1)
    decoder.rewind(CONTEXT)
    decoder.compute()
    return decoder.logits.float()


def _words(device: str) -> torch.Tensor:
    """Return the FP16 weight of lm_head as int32 words, about a gigabyte to read."""
    return _weights(*MODELS[0], device).head.tensors["weight"].flatten().view(torch.int32)


def _timed(decoders: dict[Model, Decoder], device: str) -> tuple[dict[Any, list[float]], Row]:
    """Time one step of each, and the read floor, in turn: seconds of every sample, and the GPU's state after them."""
    for decoder in decoders.values():
        decoder.rewind(CONTEXT)
    competitors: dict[Any, list[Callable[[], object]]] = {model: [d.compute] for model, d in decoders.items()}
    competitors["read"] = [partial(floors.read, _words(device))]
    samples = profiling.interleave(competitors, device, ROUNDS)
    return {name: works.kept(seconds) for name, seconds in samples.items()}, gpu.state()


def _memory(model: Model, decoder: Decoder) -> list[Row]:
    decoder.rewind(CONTEXT)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    decoder.step()  # captures it
    torch.cuda.synchronize()
    working = torch.cuda.max_memory_allocated() - before
    return [_row("memory", model, weights=decoder.weights.nbytes, cache=decoder.cache.nbytes, working=working)]


def _kinds(model: Model, decoder: Decoder) -> list[Row]:
    found = kinds(_launches(decoder.step))
    return [_row("kind", model, kind=kind, seconds=float(f"{seconds:.6g}")) for kind, seconds in found.items()]


def _launches(step: Callable[[], None]) -> list[Launch]:
    """Return the kernels of a call, with copies and fills, as torch's profiler saw them."""
    seen = trace.events(step, "kernel", "gpu_memcpy", "gpu_memset")
    return [Launch(event["name"], event["ts"] / 1e6, (event["ts"] + event["dur"]) / 1e6) for event in seen]


def _prefill(models: list[Model], tokens: int, device: str) -> list[Row]:
    prompt = torch.randint(0, 256, (1, tokens), generator=torch.Generator().manual_seed(SEED)).to(device)
    calls = {str(model): partial(Decoder(_weights(*model, device), 1, tokens).prefill, prompt) for model in models}
    found = profiling.Benchmarker(PROMPT_ROUNDS, cold=False, device=device).compare(calls)
    return [
        _row("prefill", model, tokens=tokens, seconds=works.kept(list(measured.seconds)))
        for model, measured in zip(models, found, strict=True)
    ]
