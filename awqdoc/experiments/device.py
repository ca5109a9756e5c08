"""What does this GPU say of itself?"""

from __future__ import annotations

from typing import Any

from awqdoc import gpu

AXES: dict[str, tuple[Any, ...]] = {}
CPU = False


def check() -> None:
    """Nothing can be asked wrongly: there is no parameter."""


def run(device: str) -> list[dict[str, Any]]:
    """Return the facts of the GPU and, as further rows, its state while it was asked."""
    state = [
        {"fact": f"now: {name}", "value": value, "unit": "", "source": "NVML"} for name, value in gpu.state().items()
    ]
    return [*gpu.facts(), *state]
