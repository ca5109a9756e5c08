"""Two rows judged on the same windows of text, compared window by window, so that how hard a window is cancels."""

from __future__ import annotations

from typing import Any

import torch

from awqdoc.models import mean_and_error

Row = dict[str, Any]


def paired_difference(row: Row, other: Row, column: str = "kl") -> tuple[float, float]:
    """Return how much larger a column of one row is, and the standard error of that over the windows.

    Parameters
    ----------
    row, other : dict
        Rows of one recording, or of two, with the columns of `awqdoc.experiments.subject.distance`.
    column : str
        ``"kl"`` or ``"nll"``, in nats per token.
    """
    return mean_and_error(_windows(row, column) - _windows(other, column))


def paired_ratio(row: Row, other: Row, column: str = "kl") -> tuple[float, float]:
    """Return the mean of one row over that of the other, and the standard error of this ratio over the windows.

    The error is that of the windows' distances from the ratio (the delta method).
    """
    values, base = _windows(row, column), _windows(other, column)
    ratio = float(values.mean() / base.mean())
    return ratio, mean_and_error(values - ratio * base)[1] / float(base.mean())


def _windows(row: Row, column: str) -> torch.Tensor:
    return torch.tensor(row[f"{column}_windows"], dtype=torch.float64)
