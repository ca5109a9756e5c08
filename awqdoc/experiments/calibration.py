"""How much calibration text, and of which kind? AWQ and GPTQ calibrated on one domain, judged on both.

Beside them plain rounding, which sees no text, judged on the same windows.
"""

from __future__ import annotations

from typing import Any

import torch

from awqdoc import models
from awqdoc.errors import AwqdocError
from awqdoc.experiments import SEED, subject
from awqdoc.models import Settings
from awqdoc.models.texts import DOMAINS

RANDOM = "random"
"""Not a text but tokens drawn at random, the worst calibration there is."""

AXES: dict[str, tuple[Any, ...]] = {
    "model": (models.EMBEDDED,),
    "domain": ("code", "docs", RANDOM),
    "windows": (1, 8, 128),
}
CPU = True
BITS, GROUP_SIZE = 3, 128
EVALUATED = 48


def check(model: str, domain: str, windows: int) -> None:
    """Refuse a domain that there is not, and too many windows."""
    if domain not in (*DOMAINS, RANDOM):
        raise AwqdocError(f"The domain must be one of {', '.join((*DOMAINS, RANDOM))}; found {domain!r}.")
    if not 1 <= windows <= 128:
        raise AwqdocError(f"The shipped calibration texts fill 1 to 128 windows of 512 tokens; found {windows}.")


def run(device: str, model: str, domain: str, windows: int) -> list[dict[str, Any]]:
    """Quantize with each method and compare the result with the original on code and on documentation.

    Returns
    -------
    list of dict
        ``method`` (plain rounding, ``rtn``, is the same in every cell), ``text`` (what it is judged on), and the
        columns of `subject.distance`.
    """
    original, tokenizer = subject.subject(model, device)
    if domain == RANDOM:
        generator = torch.Generator().manual_seed(SEED)
        tokens = torch.randint(original.config.vocab_size, (windows, 512), generator=generator)
    else:
        tokens = models.calibration_windows(tokenizer, domain, count=windows)
    rows = []
    for method in ("rtn", "awq", "gptq"):
        result = subject.quantized(model, device, Settings(method, BITS, GROUP_SIZE), tokens)
        for text in ("code", "docs"):
            comparison = subject.against_original(model, device, result, text, EVALUATED)
            rows.append({"method": method, "text": text, **subject.distance(comparison)})
    return rows


def forget() -> None:
    """Free the model."""
    subject.forget()
