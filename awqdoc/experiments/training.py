"""How was the model that ships with awqdoc trained, and how good is it?

A run replaces nothing that ships: it writes the model into the folder that ``AWQDOC_TRAINED`` names.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from awqdoc.errors import AwqdocError
from awqdoc.models import corpus, training

AXES: dict[str, tuple[Any, ...]] = {"seed": (0,)}
CPU = False
# The environment variables that name the tarball of the text, and the folder for the model.
SOURCE, TRAINED = "AWQDOC_PYTHON_SOURCE", "AWQDOC_TRAINED"


def check(seed: int) -> None:
    """Refuse a seed that NumPy does not take."""
    if seed < 0:
        raise AwqdocError(f"The seed must be 0 or more; found {seed}.")


def forget() -> None:
    """Nothing is kept."""


def missing() -> str | None:
    """Say what is missing here beside a GPU, or None if nothing is."""
    if not os.environ.get(SOURCE):
        return f"the training text is not here: {SOURCE} must name Python-3.11.2.tgz ({corpus.URL})"
    return None


def run(device: str, seed: int) -> list[dict[str, Any]]:
    """Train, save and judge a model: the rows of `awqdoc.models.training.build`."""
    tarball = Path(os.environ[SOURCE])
    folder = Path(os.environ.get(TRAINED) or "trained-model")
    # sphinx-gallery would put what sys.stderr is given on its page.
    return training.build(tarball, folder, device, seed, lambda row: print(row, file=sys.__stderr__, flush=True))
