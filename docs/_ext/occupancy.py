"""The occupancy page as a directive: a place for its JavaScript, and the data that it works on.

In MyST: ```` ```{occupancy} ```` with the option ``linked`` (its state stands in the page's address; for one calculator
of a page). Without JavaScript a reader sees a table of limits.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, ClassVar

import widgets
from docutils import nodes
from docutils.parsers.rst import Directive, directives
from sphinx.application import Sphinx


class Occupancy(Directive):
    """Put the calculator here. It starts with Marlin as published on an H200."""

    option_spec: ClassVar[Any] = {"linked": directives.flag}

    def run(self) -> list[nodes.Node]:
        data = page_data()
        return [widgets.place("occupancy", data, "linked" in self.options, table(data["limits"]))]


def page_data() -> dict[str, Any]:
    """What the page's JavaScript computes with: GPUs, limits, kernels, constants, and where it starts."""
    from awqdoc import recordings
    from awqdoc.gpu import footprints, occupancy
    from awqdoc.gpu.datasheets import DATA_SHEETS
    from awqdoc.kernels.table import KERNELS

    known = {name: (KERNELS[name].title, asked) for name, asked in footprints.LADDER.items()}
    known["marlin"] = ("Marlin as published", footprints.MARLIN)
    kernels = [
        {
            "key": key,
            "title": title,
            "blocks": asked.grid,
            "threads": asked.threads,
            "regs": asked.regs,
            "smem": asked.smem,
        }
        for key, (title, asked) in known.items()
    ]
    gpus = [
        {"key": recordings.slug(one.name), "name": one.name, "capability": dotted(one.capability), "sms": one.sms}
        for one in DATA_SHEETS
    ]
    h200 = next(gpu for gpu in gpus if gpu["name"] == "H200 SXM")
    return {
        "gpus": gpus,
        "limits": {dotted(capability): asdict(limits) for capability, limits in occupancy.LIMITS.items()},
        "kernels": kernels,
        "registers": occupancy.REGISTERS,
        "most_registers": occupancy.MOST_REGISTERS,
        "most_threads": occupancy.MOST_THREADS,
        "most_blocks": occupancy.MOST_GRID[0],
        "partitions": occupancy.PARTITIONS,
        "register_unit": occupancy.REGISTER_UNIT,
        "warp": occupancy.WARP,
        "start": {**kernels[-1], **h200, "gpu": h200["key"]},
    }


def dotted(capability: tuple[int, int]) -> str:
    return "{}.{}".format(*capability)


def table(limits: dict[str, dict[str, Any]]) -> str:
    """The limits, for readers without JavaScript."""
    rows = [
        [
            capability,
            str(one["warps"]),
            str(one["blocks"]),
            str(one["shared"] >> 10),
            str(one["shared"] - one["reserved"] >> 10),
        ]
        for capability, one in limits.items()
    ]
    columns = ("compute capability", "warps on an SM", "blocks", "KiB of shared memory", "of it for one block")
    return widgets.table(columns, rows)


def setup(app: Sphinx) -> dict[str, bool]:
    app.setup_extension("widgets")
    app.add_directive("occupancy", Occupancy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
