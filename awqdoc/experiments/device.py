"""What does this GPU say of itself?"""

from __future__ import annotations

from typing import Any

from awqdoc import gpu

AXES: dict[str, tuple[Any, ...]] = {}
CPU = False
# Key of `gpu.state` -> what a reader calls it, and its unit.
STATE = {
    "sm_clock_mhz": ("SM clock when asked", "MHz"),
    "memory_clock_mhz": ("memory clock when asked", "MHz"),
    "power_w": ("power when asked", "W"),
    "temperature_c": ("temperature when asked", "°C"),
    "throttle_reasons": ("clocks held down when asked by", ""),
}


def check() -> None:
    """Nothing can be asked wrongly: there is no parameter."""


def forget() -> None:
    """Nothing is kept."""


def run(device: str) -> list[dict[str, Any]]:
    """Return the facts of the GPU and, as further rows, its state while it was asked."""
    state = gpu.state()
    now = [
        {"fact": fact, "value": state[key], "unit": unit, "source": "NVML"}
        for key, (fact, unit) in STATE.items()
        if state[key] is not None
    ]
    return [*gpu.facts(), *now]
