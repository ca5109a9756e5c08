"""How much a model lost: perplexity, bits per byte, and its distance from the original on the same text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from awqdoc.errors import AwqdocError

BATCH = 8


@dataclass(frozen=True)
class Comparison:
    """A model beside its original on the same windows.

    Attributes
    ----------
    nll, nll_original : torch.Tensor
        Summed negative log-likelihood of each window in nats, float64 [windows].
    predicted : int
        Tokens of a window that are predicted.
    kl : torch.Tensor
        KL(original || model) at every predicted token in nats over the whole vocabulary, float32 [windows, predicted].
    agreement : torch.Tensor
        Share of each window's tokens where both find the same token most likely, float64 [windows].
    """

    nll: torch.Tensor
    nll_original: torch.Tensor
    predicted: int
    kl: torch.Tensor
    agreement: torch.Tensor


def evaluation_windows(tokenizer: Any, documents: list[str], length: int) -> tuple[torch.Tensor, int]:
    """Cut documents into windows in which every token but the first is predicted.

    Each document is tokenized and ended with the end-of-text token; the stream is cut into pieces of ``length - 1``
    tokens, and before each piece stands the begin-of-text token, so that no token goes unpredicted and none is
    counted twice. What does not fill a window is dropped.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        With a ``bos_token_id`` or an ``eos_token_id``.
    length : int
        Tokens of a window with the first.

    Returns
    -------
    tuple
        int64 [windows, length], and the number of UTF-8 bytes that the windows hold.

    Raises
    ------
    AwqdocError
        If the text does not fill one window, or a window has no token to predict.
    """
    if length < 2:
        raise AwqdocError(f"A window needs 2 tokens or more, since the first is not predicted; found {length}.")
    end = tokenizer.eos_token_id
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else end
    if end is None or start is None:
        raise AwqdocError(
            "The tokenizer has no end-of-text token, so documents can't be told apart: use another model."
        )
    tokens = [
        token
        for document in documents
        for token in (*tokenizer(document, add_special_tokens=False, verbose=False)["input_ids"], end)
    ]
    count = len(tokens) // (length - 1)
    if count == 0:
        raise AwqdocError(f"The text has {len(tokens)} tokens, fewer than a window of {length - 1}: give more text.")
    kept = tokens[: count * (length - 1)]
    pieces = torch.tensor(kept).view(count, length - 1)
    text = tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return torch.cat([torch.full((count, 1), start), pieces], dim=1), len(text.encode())


@torch.no_grad()
def compare(model: Any, original: Any, windows: torch.Tensor, batch: int = BATCH) -> Comparison:
    """Run both models on every window [windows, length] and compare what they predict.

    Log-probabilities are taken in float32. KL divergence follows llama.cpp's perplexity tool: the original's
    distribution is the reference.
    """
    device = next(model.parameters()).device
    nll, nll_original, kl, agreement = [], [], [], []
    for rows in windows.split(batch):
        tokens = rows.to(device)
        targets = tokens[:, 1:].unsqueeze(2)
        ours, theirs = (
            m(input_ids=tokens, use_cache=False).logits[:, :-1].float().log_softmax(dim=2) for m in (model, original)
        )
        nll.append(-ours.gather(2, targets).squeeze(2).double().sum(dim=1))
        nll_original.append(-theirs.gather(2, targets).squeeze(2).double().sum(dim=1))
        kl.append((theirs.exp() * (theirs - ours)).sum(dim=2))
        agreement.append((ours.argmax(2) == theirs.argmax(2)).double().mean(dim=1))
    joined = (torch.cat(part).cpu() for part in (nll, nll_original, kl, agreement))
    losses, losses_original, divergence, same = joined
    return Comparison(losses, losses_original, windows.shape[1] - 1, divergence, same)


def mean_and_error(samples: torch.Tensor) -> tuple[float, float]:
    """Return the mean of one value for each window, and its standard error over the windows."""
    values = samples.double()
    error = float(values.std(correction=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(values.mean()), error


def perplexity(nll: torch.Tensor, predicted: int) -> tuple[float, float]:
    """Return perplexity and its standard error, from the windows' summed NLL [windows] in nats."""
    mean, error = mean_and_error(nll / predicted)
    return math.exp(mean), math.exp(mean) * error


def bits_per_byte(nll: torch.Tensor, text_bytes: int) -> tuple[float, float]:
    """Return bits per byte of text, which no tokenizer can flatter, and its standard error over the windows."""
    mean, error = mean_and_error(nll * len(nll) / (math.log(2) * text_bytes))
    return mean, error


def stored_bytes(model: Any) -> int:
    """Return the bytes of all parameters and buffers, each shared one once: what the model holds in memory."""
    tensors = {t.data_ptr(): t.nbytes for t in (*model.parameters(), *model.buffers())}
    return sum(tensors.values())
