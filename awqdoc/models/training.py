"""How the shipped model was trained: ``python -m awqdoc.models.training Python-3.11.2.tgz --output FOLDER``.

A small Llama and its tokenizer learn from the training side of `awqdoc.models.corpus`, in some minutes on one H200.
The seed fixes the initial weights and the order of the text; a GPU still adds in another order each time, so two
runs agree in their figures, not in their bits.
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from awqdoc.errors import AwqdocError
from awqdoc.models import corpus, manifest
from awqdoc.models.corpus import END
from awqdoc.recordings import write_atomically

# The shape: every linear layer is a multiple of 256 both ways, which all kernels on this site take, and the
# vocabulary is what is left of 15 MiB in FP16.
VOCABULARY, HIDDEN, INTERMEDIATE, LAYERS, HEADS = 3840, 256, 768, 8, 4
WINDOW = 1024
LARGEST_FILE = 15 * 2**20

# The run. About 10 million tokens of text, each seen fifteen times: with 6000 steps the loss on held-out text rises
# again before the end (measured: 1.31 bits per byte after 6000 steps, 0.99 after 2200).
STEPS = 2200
BATCH = 64  # windows: 65,536 tokens a step
LEARNING_RATE = 4e-3  # high, as small models take it
WARMUP = 200
WEIGHT_DECAY = 1.0  # high too: the model sees its text fifteen times
BETAS = (0.9, 0.95)
CLIP = 1.0  # the largest norm of a gradient
LOG_EVERY, EVALUATE_EVERY = 50, 500
# Bytes of each calibration text whose loss is watched during the run; evaluation text is not looked at before the end.
WATCHED = 100_000

# Where a token may not reach across: a line end with the blank lines before it and the indentation behind it; a word
# with one sign or space before it; up to three digits; signs; other white space, the last of which goes to a word.
PRETOKEN = r"\s*\n[ \t]*|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s"

Row = dict[str, Any]


def build_tokenizer(documents: Sequence[str], vocabulary: int = VOCABULARY) -> Any:
    """Learn a byte-level BPE tokenizer that gives back every text as it was.

    Parameters
    ----------
    documents : sequence of str
        Training text only.
    vocabulary : int
        Tokens: the 256 bytes, `END` (which begins, ends and pads), and merges.

    Returns
    -------
    transformers.PreTrainedTokenizerFast
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PRETOKEN), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=END,
        clean_up_tokenization_spaces=False,
        model_max_length=WINDOW,
    )


def encode(tokenizer: Any, documents: Sequence[str]) -> list[np.ndarray]:
    """Return for each document its tokens, int32, with the end token before them."""
    encodings = tokenizer.backend_tokenizer.encode_batch(list(documents), add_special_tokens=False)
    return [np.array([tokenizer.eos_token_id, *encoding.ids], dtype=np.int32) for encoding in encodings]


def config(vocabulary: int = VOCABULARY) -> Any:
    """Return the `transformers.LlamaConfig` of the shipped model."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=HIDDEN,
        intermediate_size=INTERMEDIATE,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=WINDOW,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=None,  # an index here would keep the embedding of the end token from learning
        use_cache=True,
        attn_implementation="sdpa",
    )


def train(
    documents: Sequence[np.ndarray],
    device: str,
    seed: int,
    *,
    settings: Any = None,
    watched: torch.Tensor | None = None,
    watched_bytes: int = 0,
    steps: int = STEPS,
    batch: int = BATCH,
    learning_rate: float = LEARNING_RATE,
    warmup: int = WARMUP,
    weight_decay: float = WEIGHT_DECAY,
    log_every: int = LOG_EVERY,
    evaluate_every: int = EVALUATE_EVERY,
    report: Callable[[Row], None] = lambda row: None,
) -> tuple[Any, list[Row]]:
    """Train a model on tokens, in bfloat16 over float32 weights.

    Parameters
    ----------
    documents : sequence of numpy.ndarray
        What `encode` returns.
    device : str
        ``"cuda"``, where the step is compiled, or ``"cpu"``.
    seed : int
        Of the initial weights and of the order of the text.
    settings : transformers.LlamaConfig, optional
        Another shape than `config`'s.
    watched : torch.Tensor, optional
        Held-out text as `windows` cuts it, int64 [windows, window + 1], of `watched_bytes` bytes, whose loss is logged
        every `evaluate_every` steps.
    steps, batch, learning_rate, warmup, weight_decay : optional
        As the constants of this module.
    report : callable, optional
        Is given each row as soon as it is there.

    Returns
    -------
    model : transformers.LlamaForCausalLM
        In float32.
    rows : list of dict
        Every `log_every` steps: ``step``, ``tokens`` seen, ``loss`` (mean since the last row, nats per token),
        ``learning_rate``, ``seconds`` since the start, and where it was evaluated ``held_out`` (bits per byte).
    """
    from transformers import LlamaForCausalLM

    torch.manual_seed(seed)
    settings = settings or config()
    model = LlamaForCausalLM(settings).to(device).train()
    optimizer = _optimizer(model, learning_rate, weight_decay, fused=device != "cpu")
    step_loss = torch.compile(_loss) if device != "cpu" else _loss
    batches = _batches(documents, settings.max_position_embeddings, batch, device, seed)
    total = torch.zeros((), device=device)
    rows: list[Row] = []
    start = time.perf_counter()
    for step in range(1, steps + 1):
        rate = learning_rate * _schedule(step, steps, warmup)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            loss = step_loss(model, next(batches))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        total += loss.detach()
        if step % log_every == 0 or step == steps:
            mean = total.item() / (step - (rows[-1]["step"] if rows else 0))
            row = {"step": step, "tokens": step * batch * settings.max_position_embeddings, "loss": round(mean, 4)}
            row |= {"learning_rate": float(f"{rate:.4g}"), "seconds": round(time.perf_counter() - start, 2)}
            if watched is not None and (step % evaluate_every == 0 or step == steps):
                row["held_out"] = round(_nats(model, watched, torch.bfloat16) / math.log(2) / watched_bytes, 4)
            total.zero_()
            rows.append(row)
            report(row)
    return model.eval(), rows


def _optimizer(model: Any, learning_rate: float, weight_decay: float, fused: bool) -> torch.optim.AdamW:
    """Matrices decay; the scales of the norms do not."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=BETAS, fused=fused)


def _schedule(step: int, steps: int, warmup: int) -> float:
    """Rise linearly, then fall along a cosine to a hundredth: the factor on the learning rate."""
    if step <= warmup:
        return step / warmup
    return 0.01 + 0.99 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) / 2


def _loss(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Mean nats per token of ``tokens[:, 1:]``, each predicted from those before it in its row."""
    hidden = model.model(input_ids=tokens[:, :-1], use_cache=False).last_hidden_state
    return cross_entropy(model.lm_head(hidden).flatten(0, 1).float(), tokens[:, 1:].flatten())


def _batches(
    documents: Sequence[np.ndarray], window: int, batch: int, device: str, seed: int
) -> Iterator[torch.Tensor]:
    """Yield int64 [batch, window + 1] without end: each epoch the documents in another order, cut anew."""
    random = np.random.default_rng(seed)
    offsets = torch.arange(window + 1, device=device)
    while True:
        stream = np.concatenate([documents[i] for i in random.permutation(len(documents))])
        tokens = torch.from_numpy(stream).to(device)
        starts = torch.from_numpy(random.permutation((len(stream) - 1) // window) * window).to(device)
        if len(starts) < batch:
            raise AwqdocError(f"A batch of {batch} windows of {window} needs more text: found {len(stream)} tokens.")
        for some in starts[: len(starts) // batch * batch].split(batch):
            yield tokens[some[:, None] + offsets].long()


def windows(documents: Sequence[np.ndarray], window: int, end: int) -> torch.Tensor:
    """Cut tokens into windows so that each token is predicted exactly once, as `bits_per_byte` counts them.

    Each row is the end token, which only gives context, and `window` tokens to be predicted, of which the model sees
    all but the last. So it knows nothing of what stood before a window, and no window overlaps another.

    Returns
    -------
    torch.Tensor
        int64 [windows, window + 1]; behind the end of the text -100, which is not predicted.
    """
    stream = torch.from_numpy(np.concatenate(list(documents))).long()
    rows = -(-len(stream) // window)
    padded = torch.full((rows * window,), -100)
    padded[: len(stream)] = stream
    return torch.cat([torch.full((rows, 1), end), padded.view(rows, window)], dim=1)


def bits_per_byte(model: Any, tokenizer: Any, documents: Sequence[str], window: int = WINDOW) -> float:
    """Return how many bits a model needs for a byte of text: its negative log likelihood over UTF-8 bytes.

    All tokens count, also the end token before each document, which is no byte of the text; see `windows` for what
    each is predicted from. The model runs in its own dtype, the log likelihood is float32.
    """
    cut = windows(encode(tokenizer, documents), window, tokenizer.eos_token_id)
    return _nats(model, cut) / math.log(2) / size(documents)


def _nats(model: Any, cut: torch.Tensor, autocast: torch.dtype | None = None, batch: int = 16) -> float:
    """Negative log likelihood of all windows together, in nats."""
    device, training = model.device, model.training
    total = 0.0
    model.eval()
    with torch.no_grad(), torch.autocast(device.type, autocast or torch.bfloat16, enabled=autocast is not None):
        for some in cut.split(batch):
            tokens = some.to(device)
            logits = model(input_ids=tokens[:, :-1].clamp(min=0), use_cache=False).logits.float()
            total += cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum").item()
    model.train(training)
    return total


def size(documents: Sequence[str]) -> int:
    """UTF-8 bytes of all documents."""
    return sum(len(document.encode()) for document in documents)


def xz_bits_per_byte(documents: Sequence[str]) -> float:
    """Return what ``xz -9e`` reaches on the documents, one behind the other."""
    content = "".join(documents).encode()
    return 8 * len(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)) / len(content)


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write model (FP16) and tokenizer as transformers loads them; `model` itself is made FP16.

    Raises
    ------
    AwqdocError
        If the weights are more than `LARGEST_FILE` bytes.
    """
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    weights = folder / "model.safetensors"
    weights.chmod(0o644)  # safetensors makes it readable for its owner only, which a package must not be
    found = weights.stat().st_size
    if found > LARGEST_FILE:
        raise AwqdocError(f"The model must fit into {LARGEST_FILE} bytes, but is {found}: make its shape smaller.")


def build(tarball: Path, folder: Path, device: str, seed: int, report: Callable[[Row], None]) -> list[Row]:
    """Read the corpus, learn tokenizer and model, save them, and judge what was saved.

    Returns
    -------
    list of dict
        The rows of `train` and a last one with the facts of the result, see `judge`.
    """
    found = corpus.documents(tarball)
    texts = [document.text for document in found if document.side == "training"]
    tokenizer = build_tokenizer(texts)
    documents = encode(tokenizer, texts)
    held_out = watched_documents({name: corpus.select(found, name) for name in corpus.TEXTS})
    cut = windows(encode(tokenizer, held_out), WINDOW, tokenizer.eos_token_id)
    model, rows = train(documents, device, seed, watched=cut, watched_bytes=size(held_out), report=report)
    save(model, tokenizer, folder)
    last = {"corpus_bytes": size(texts), "corpus_tokens": sum(map(len, documents))}
    last |= judge(folder, device, {name: corpus.select(found, name) for name in corpus.TEXTS})
    report(last)
    return [*rows, last]


def watched_documents(texts: dict[str, list[str]]) -> list[str]:
    """Return the first `WATCHED` bytes or so, in whole documents, of each calibration text."""
    kept = []
    for name in ("calibration-code", "calibration-docs"):
        left = WATCHED
        for document in texts[name]:
            if left > 0:
                kept.append(document)
                left -= size([document])
    return kept


def judge(folder: Path, device: str, texts: dict[str, list[str]]) -> Row:
    """Load a saved model and return size, hash, and bits per byte beside those of xz on the evaluation texts."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float16).to(device).eval()
    weights = folder / "model.safetensors"
    row: Row = {"parameters": model.num_parameters(), "file_bytes": weights.stat().st_size}
    row["sha256"] = manifest.sha256(weights)
    code, docs = texts["evaluation-code"], texts["evaluation-docs"]
    for name, documents in (("code", code), ("docs", docs), ("both", [*code, *docs])):
        row[f"bits_per_byte_{name}"] = round(bits_per_byte(model, tokenizer, documents), 4)
        row[f"xz_bits_per_byte_{name}"] = round(xz_bits_per_byte(documents), 4)
    return row


def main() -> None:
    """Train from the command line."""
    parser = argparse.ArgumentParser(description="Train the model that ships with awqdoc.")
    parser.add_argument("tarball", type=Path, help=corpus.URL)
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = build(options.tarball, options.output, device, options.seed, lambda row: print(json.dumps(row), flush=True))
    write_atomically(options.output / "training.json", json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
