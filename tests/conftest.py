"""What several test files share. Nothing is imported here that one of the sessions might lack."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def no_figures_left() -> Iterator[None]:
    """Figures that a test drew and left open would add up to matplotlib's warning."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU to measure on, and no settings of the one who runs the tests."""
    from awqdoc import gpu

    for variable in ("AWQDOC_MODE", "AWQDOC_RESULTS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(gpu, "why_not_suitable", lambda: "this machine has no GPU")
    monkeypatch.setattr(gpu, "suitable", lambda: None)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Programs that a test starts hear Ctrl-C, also where a shell started the tests in the background, deaf to it."""
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, ours)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For thousands of tiny operations: threads would wait for each other where something else runs too."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def same_code(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Recordings made by "sha256:now" are not stale; figures are closed behind each test."""
    from matplotlib import pyplot as plt

    from awqdoc import recordings

    monkeypatch.setattr(recordings, "source_hash", lambda _: "sha256:now")
    yield
    plt.close("all")


@pytest.fixture
def interruption(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An `Interruption` of the quantization, which does nothing until its `at` is set."""
    from interruption import Interruption

    return Interruption(monkeypatch)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """The tokenizer that ships with awqdoc."""
    from transformers import AutoTokenizer

    from awqdoc.models.loading import SHIPPED

    return AutoTokenizer.from_pretrained(SHIPPED, local_files_only=True)
