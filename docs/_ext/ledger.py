"""What really ran: one small JSON file for each gallery script that was executed to its end.

The provenance box and the verification read it. An entry lives as long as the page is current (freshness.py),
so that a site may be built section by section and then as a whole without running anything twice.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import gallery_scripts

_started = 0.0

computed_here: list[str] = []
"""Labels of the figures that the running script computed itself, without a recording; `figures` adds to it."""


def path(docs: Path, script: Path) -> Path:
    return docs / "_build" / "ledger" / script.parent.name / f"{script.stem}.json"


def read(docs: Path, script: Path) -> dict[str, Any] | None:
    """The entry of a script, or None if its page is not the output of a complete run."""
    try:
        return json.loads(path(docs, script).read_text("utf-8"))
    except (FileNotFoundError, ValueError):  # never written, or not to its end
        return None


def around_script(gallery_conf: dict[str, Any], filename: str, when: str) -> None:
    """sphinx-gallery calls this before and after each script that it executes; not after one that failed."""
    global _started
    from awqdoc import experiments

    if when == "before":
        experiments.ledger.clear()
        computed_here.clear()
        _started = time.perf_counter()
        return
    docs = Path(gallery_conf["src_dir"])
    script = gallery_scripts.find(docs.parent / "gallery", filename)
    write(docs, script, time.perf_counter() - _started, experiments.ledger)


def write(docs: Path, script: Path, seconds: float, recordings: list[Any]) -> None:
    import freshness

    entry = {
        "key": freshness.script_key(script),
        "executed": True,
        "seconds": seconds,
        "recordings": [summary(recording) for recording in recordings],
        "computed_here": list(dict.fromkeys(computed_here)),
    }
    file = path(docs, script)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(entry, indent=1), "utf-8")


def summary(recording: Any) -> dict[str, Any]:
    """What the provenance box says about a recording; the rows stay where they are."""
    return {
        "experiment": recording.experiment,
        "label": recording.label,
        "origin": recording.origin,
        "stale": recording.stale,
        "provenance": recording.provenance,
    }
