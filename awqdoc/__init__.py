"""awqdoc: AWQ quantization and the Marlin FP16 x INT4 kernel, explained by running them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from awqdoc.experiments import measure as measure

__version__ = "0.1.0.dev0"

__all__ = ["__version__", "measure"]


def __getattr__(name: str) -> Any:
    # Lazy, so that `import awqdoc` costs neither torch nor matplotlib.
    if name == "measure":
        from awqdoc.experiments import measure

        return measure
    raise AttributeError(f"module 'awqdoc' has no attribute {name!r}")
