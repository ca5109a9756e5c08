"""What the searches look at: windows of a text, and statistics of what a layer gets to see of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from awqdoc.errors import AwqdocError
from awqdoc.quantize.precision import tf32


def windows(tokens: Sequence[int] | torch.Tensor, length: int = 512, count: int | None = 128) -> torch.Tensor:
    """Cut a text's tokens into windows that do not overlap; what is left over is dropped.

    Parameters
    ----------
    tokens : sequence of int
        The tokens of the whole text.
    length : int
        Tokens of a window.
    count : int or None
        Windows to take, from the start; None: all.

    Returns
    -------
    torch.Tensor
        int64 [windows, length].

    Raises
    ------
    AwqdocError
        If the text is empty or shorter than a window, or length or count is below 1.
    """
    if length < 1 or (count is not None and count < 1):
        raise AwqdocError(f"Windows need a length and a count of 1 or more; found length {length}, count {count}.")
    flat = torch.as_tensor(tokens, dtype=torch.long).flatten()
    if len(flat) == 0:
        raise AwqdocError("The calibration text is empty: give one of a few hundred kilobytes.")
    if len(flat) < length:
        raise AwqdocError(
            f"The text has {len(flat)} tokens, fewer than one window of {length}: give more text or shorter windows."
        )
    cut = flat[: len(flat) // length * length].view(-1, length)
    return cut if count is None else cut[:count]


class InputStatistics:
    """What is kept of a layer's inputs: their number, their mean magnitude and their Gram matrix.

    Parameters
    ----------
    name : str
        The layer, for errors.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.tokens = 0
        self.abs_sum: torch.Tensor | None = None
        self.gram_sum: torch.Tensor | None = None

    def add(self, x: torch.Tensor) -> None:
        """Count inputs [..., K] of any floating-point dtype.

        Raises
        ------
        AwqdocError
            If one is not finite.
        """
        rows = x.detach().flatten(0, -2).float()
        abs_sum = rows.abs().sum(dim=0)
        with tf32():
            gram = rows.t() @ rows
        if not torch.isfinite(abs_sum).all():
            advice = "look at the checkpoint that it comes from" if x.dtype == torch.float32 else "try float32"
            raise AwqdocError(
                f"The input of {self.name} holds inf or nan on the calibration text: the model overflows in this "
                f"dtype, or its weights are damaged; {advice}."
            )
        self.abs_sum = abs_sum if self.abs_sum is None else self.abs_sum + abs_sum
        self.gram_sum = gram if self.gram_sum is None else self.gram_sum.add_(gram)
        self.tokens += rows.shape[0]

    def divide(self, scale: torch.Tensor) -> None:
        """Turn into the statistics of the same inputs divided by `scale` [K]."""
        self.abs_sum = self.mean_abs * self.tokens / scale
        self.gram_sum = self.gram / torch.outer(scale, scale)

    @property
    def mean_abs(self) -> torch.Tensor:
        """Mean magnitude of each channel, float32 [K]."""
        assert self.abs_sum is not None, "no input was added"
        return self.abs_sum / self.tokens

    @property
    def gram(self) -> torch.Tensor:
        """X^T X, float32 [K, K]."""
        assert self.gram_sum is not None, "no input was added"
        return self.gram_sum
