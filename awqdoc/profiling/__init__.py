"""Timing that can be believed: competitors in turn, cold or warm by choice, every sample kept, doubts said."""

from awqdoc.profiling.benchmarker import Benchmarker, Measurement
from awqdoc.profiling.interleaving import clock_name, interleave
from awqdoc.profiling.statistics import Summary, doubted, doubts, ratios, summarize
from awqdoc.profiling.timers import CUDATimer, profile_scope

__all__ = [
    "Benchmarker",
    "CUDATimer",
    "Measurement",
    "Summary",
    "clock_name",
    "doubted",
    "doubts",
    "interleave",
    "profile_scope",
    "ratios",
    "summarize",
]
