"""The texts that ship with awqdoc, cut as the quantizers and the evaluation take them."""

from __future__ import annotations

from typing import Any

import torch

from awqdoc.errors import AwqdocError
from awqdoc.models import corpus
from awqdoc.quantize import windows

DOMAINS = ("code", "docs", "both")


def shipped_text(use: str, domain: str = "both") -> list[str]:
    """Return the documents of the shipped texts.

    Parameters
    ----------
    use : str
        ``"calibration"`` or ``"evaluation"``: they share no module of Python's library with each other or with the
        training text.
    domain : str
        ``"code"``, ``"docs"``, or ``"both"``, which takes a document of each in turn.
    """
    if domain not in DOMAINS:
        raise AwqdocError(f"The domain must be one of {', '.join(DOMAINS)}; found {domain!r}.")
    if domain != "both":
        return list(corpus.read(f"{use}-{domain}"))
    code, docs = (corpus.read(f"{use}-{one}") for one in ("code", "docs"))
    pairs = [document for pair in zip(code, docs, strict=False) for document in pair]
    shorter = min(len(code), len(docs))
    return [*pairs, *code[shorter:], *docs[shorter:]]


def calibration_windows(
    tokenizer: Any, domain: str = "both", length: int = 512, count: int | None = 128
) -> torch.Tensor:
    """Tokenize the shipped calibration text and cut it into windows, int64 [windows, length].

    As in AutoAWQ, windows run across the ends of documents and have no begin-of-text token of their own.

    Raises
    ------
    AwqdocError
        As `awqdoc.quantize.windows`, or if the domain is unknown.
    """
    end = tokenizer.eos_token_id
    tokens: list[int] = []
    for document in shipped_text("calibration", domain):
        tokens += tokenizer(document, add_special_tokens=False, verbose=False)["input_ids"]
        tokens += [] if end is None else [end]
    return windows(tokens, length, count)
