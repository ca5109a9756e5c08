"""Which alpha does AWQ choose, and what does it gain? The loss over the whole grid, for every scaled input."""

from __future__ import annotations

import copy
from typing import Any

from awqdoc import models
from awqdoc.experiments import subject
from awqdoc.models import Settings

AXES: dict[str, tuple[Any, ...]] = {
    "model": (models.EMBEDDED, subject.OUTLIERS),
    "bits": (4, 3),
    "duo_scaling": (False, True),
}
CPU = True
GROUP_SIZE = 128
WINDOWS = 64


def check(model: str, bits: int, duo_scaling: bool) -> None:
    """Refuse what cannot be quantized."""
    Settings(bits=bits, duo_scaling=duo_scaling)


def run(device: str, model: str, bits: int, duo_scaling: bool) -> list[dict[str, Any]]:
    """Search all scales of the model.

    Returns
    -------
    list of dict
        A row for each searched input: ``block``, ``layer`` (the first that reads it), the chosen ``alpha``, and
        ``losses``, the mean squared output error at each alpha of the grid.
    """
    original, tokenizer = subject.subject(model, device)
    windows = models.calibration_windows(tokenizer, count=WINDOWS)
    settings = Settings("awq", bits, GROUP_SIZE, duo_scaling=duo_scaling, clip=False)
    report = models.quantize(copy.deepcopy(original), windows, settings, progress=False)
    return [
        {
            "block": block,
            "layer": layer,
            "alpha": search.alpha,
            "losses": [subject.rounded(loss) for loss in search.losses],
        }
        for block, searches in report.searches.items()
        for layer, search in searches.items()
    ]


def forget() -> None:
    """Free the model."""
    subject.forget()
