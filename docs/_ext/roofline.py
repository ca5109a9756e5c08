"""The interactive roofline as a directive: a place for its JavaScript, and the data that it works on.

In MyST: ```` ```{roofline} ```` with the options ``format`` and ``m`` (where it starts) and ``linked`` (its state
stands in the page's address; for one roofline of a page). Without JavaScript a reader sees a table.
"""

from __future__ import annotations

from typing import Any, ClassVar

import widgets
from docutils import nodes
from docutils.parsers.rst import Directive, directives
from sphinx.application import Sphinx


class Roofline(Directive):
    """Put a roofline here. It starts with the first GPU: one that was measured, if there is any."""

    option_spec: ClassVar[Any] = {
        "format": directives.unchanged,
        "m": directives.positive_int,
        "linked": directives.flag,
    }

    def run(self) -> list[nodes.Node]:
        from awqdoc import experiments, measure, recordings, visualization

        # What this build measured or replays comes first; then the other GPUs that somebody recorded. Kernels are not
        # measured for this page alone, which takes minutes: what another page of this build was given is taken.
        given = [recording for recording in experiments.ledger if recording.experiment == "kernels"]
        data = visualization.roofline_data(
            [measure("batch-sweep"), *recordings.find("batch-sweep")], [*given, *recordings.find("kernels")]
        )
        start = {
            "gpu": data["gpus"][0]["key"],
            "m": self.options.get("m", 16),
            "format": self.options.get("format", "int4-g128"),
            "n": data["layers"][0]["n"],
            "k": data["layers"][0]["k"],
        }
        if start["format"] not in [known["key"] for known in data["formats"]]:
            raise self.error(f"there is no format {start['format']!r}")
        return [widgets.place("roofline", {**data, "start": start}, "linked" in self.options, table(data["gpus"]))]


def table(gpus: list[dict[str, Any]]) -> str:
    """The roofs, for readers without JavaScript."""
    rows = [
        [
            gpu["name"],
            gpu["label"],
            f"{gpu['bandwidth'] / 1e9:.0f}",
            f"{gpu['peak'] / 1e12:.0f}",
            f"{gpu['peak'] / gpu['bandwidth']:.0f}",
        ]
        for gpu in gpus
    ]
    return widgets.table(("GPU", "roofs", "GB/s", "TFLOP/s", "FLOP per byte"), rows)


def setup(app: Sphinx) -> dict[str, bool]:
    app.setup_extension("widgets")
    app.add_directive("roofline", Roofline)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
