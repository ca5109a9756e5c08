"""Ctrl-C between two blocks."""

from __future__ import annotations

from typing import Any

import pytest

from awqdoc.models import quantizing


class Interruption:
    """Counts the blocks that are quantized, and interrupts before one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at: int | None = None
        self.places: list[str] = []
        self.quantize_block = quantizing.quantize_block
        monkeypatch.setattr(quantizing, "quantize_block", self)

    def __call__(self, block: Any, place: str, *rest: Any) -> Any:
        if self.at == len(self.places):
            self.at = None
            raise KeyboardInterrupt
        self.places.append(place.rpartition(".")[2])
        return self.quantize_block(block, place, *rest)
