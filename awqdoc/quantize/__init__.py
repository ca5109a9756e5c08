"""From floating-point weights to INT4 codes: rounding, the AWQ searches, GPTQ, and what they calibrate on."""

from awqdoc.quantize.calibration import InputStatistics, windows
from awqdoc.quantize.clip import clamp_groups, search_clip
from awqdoc.quantize.compensation import gptq
from awqdoc.quantize.rounding import fake_quantize, round_to_nearest
from awqdoc.quantize.scale import ScaleSearch, candidates, gram_loss, mean_relative_weight, search_scale

__all__ = [
    "InputStatistics",
    "ScaleSearch",
    "candidates",
    "clamp_groups",
    "fake_quantize",
    "gptq",
    "gram_loss",
    "mean_relative_weight",
    "round_to_nearest",
    "search_clip",
    "search_scale",
    "windows",
]
