"""Matrix products of float32 on tensor cores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def tf32() -> Iterator[None]:
    """Let float32 products run on tensor cores, which round their inputs to 10 bits and add in float32.

    Activations of an FP16 model have no more bits, so of them nothing is lost; of a rounding error, 10 bits are enough
    to compare losses.
    """
    was = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(was)
