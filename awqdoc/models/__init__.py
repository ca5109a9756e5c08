"""Whole models: load, quantize, save, evaluate."""

from awqdoc.models.blocks import BlockResult, Settings, quantize_block
from awqdoc.models.checkpoint import save
from awqdoc.models.evaluation import (
    Comparison,
    bits_per_byte,
    compare,
    evaluation_windows,
    mean_and_error,
    perplexity,
    stored_bytes,
)
from awqdoc.models.families import FAMILIES
from awqdoc.models.linear import QuantizedLinear
from awqdoc.models.loading import EMBEDDED, load
from awqdoc.models.outliers import add_outliers
from awqdoc.models.quantizing import Report, quantize, quantize_to
from awqdoc.models.texts import calibration_windows, shipped_text

__all__ = [
    "EMBEDDED",
    "FAMILIES",
    "BlockResult",
    "Comparison",
    "QuantizedLinear",
    "Report",
    "Settings",
    "add_outliers",
    "bits_per_byte",
    "calibration_windows",
    "compare",
    "evaluation_windows",
    "load",
    "mean_and_error",
    "perplexity",
    "quantize",
    "quantize_block",
    "quantize_to",
    "save",
    "shipped_text",
    "stored_bytes",
]
