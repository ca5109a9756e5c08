"""Matrix products of float32 on tensor cores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def tf32() -> Iterator[None]:
    """Let float32 products run on tensor cores, which round their inputs to 10 bits and add in float32.

    Activations of an FP16 model have no more bits, so of them nothing is lost; a loss computed so is right to some
    1e-4, and the products are several times faster. On a CPU this changes nothing.
    """
    was = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(was)
