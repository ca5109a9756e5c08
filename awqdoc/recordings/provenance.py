"""Where a measurement came from: machine, software, commit. No host name, no user, no serial number."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from awqdoc import __version__, gpu
from awqdoc.recordings.sources import source_hash

CHECKOUT = Path(__file__).parents[2]


def collect(experiment: str, device: str, seed: int, clock: str | None = None) -> dict[str, Any]:
    """Gather what a reader needs to judge or repeat a measurement made now on `device` (``"cuda"`` or ``"cpu"``)."""
    commit, dirty = commit_and_dirty()
    return {
        "commit": commit,
        "dirty": dirty,
        "sources": source_hash(experiment),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "device": device,
        "clock": clock,
        **(_cpu() if device == "cpu" else _cuda()),
        "torch": _version("torch"),
        "triton": _version("triton"),
        "autoawq": _version("autoawq"),
        "gptqmodel": _version("gptqmodel"),
        "transformers": _version("transformers"),
        "python": platform.python_version(),
        "awqdoc": __version__,
    }


def commit_and_dirty() -> tuple[str | None, bool | None]:
    """Return the commit of this checkout and whether tracked files were changed since.

    Where there is no ``.git``, as in a copy on another machine, ``AWQDOC_COMMIT`` hands it in: a hash, with
    ``-dirty`` behind it if files were changed.
    """
    given = os.environ.get("AWQDOC_COMMIT")
    if given:
        return given.removesuffix("-dirty"), given.endswith("-dirty")
    commit = _git("rev-parse", "HEAD")
    # Recordings are what is being made: they do not count as a change of the code that makes them.
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!awqdoc/recordings/*/*.json")
    return (commit, bool(changed)) if commit else (None, None)


def _git(*arguments: str) -> str | None:
    if not (CHECKOUT / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> dict[str, Any]:
    return {"gpu": gpu.cpu_name(), "driver": None, "cuda": None}


def _cuda() -> dict[str, Any]:
    import torch

    facts = {row["fact"]: row["value"] for row in gpu.facts()}
    # The clocks, power and throttle reasons of the moment stand in each row; these are the card's limits.
    return {
        "gpu": facts.get("name") or gpu.suitable(),
        "compute_capability": facts.get("compute capability"),
        "sm_count": facts.get("SMs"),
        "highest_sm_clock_mhz": facts.get("highest SM clock"),
        "highest_memory_clock_mhz": facts.get("highest memory clock"),
        "power_limit_w": facts.get("power limit"),
        "driver": facts.get("driver"),
        "cuda": torch.version.cuda,
    }
