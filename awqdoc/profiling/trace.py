"""What torch's profiler saw of a call on the GPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from awqdoc.errors import AwqdocError


def events(call: Callable[[], object], *kinds: str) -> list[dict[str, Any]]:
    """Return the events of these kinds (``kernel``, ``gpu_memcpy``, ``gpu_memset``) in the trace of one call.

    Raises
    ------
    AwqdocError
        If it saw none.
    """
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        call()
        torch.cuda.synchronize()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        all_events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    seen = [event for event in all_events if event.get("cat") in kinds]
    if not seen:
        raise AwqdocError("torch's profiler saw nothing on the GPU: end other profilers, then measure again.")
    return seen
