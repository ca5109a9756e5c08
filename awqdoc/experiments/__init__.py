"""The measured questions, and `measure`: answer one here if a GPU is present, else replay its recording.

An experiment is a module with ``AXES`` (axis -> the values that are published), ``CPU`` (whether it also runs
without a GPU), ``check(**cell)``, which refuses impossible values, ``forget()``, which frees what it kept,
and ``run(device, **cell) -> list of rows`` for one value of each axis. It may have ``missing() -> str or None``, which
says what else than a GPU is missing to measure it here, and ``CLOCK``, the name of a clock of its own. It is named
in `EXPERIMENTS`.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

from awqdoc import gpu, profiling
from awqdoc.errors import AwqdocError
from awqdoc.experiments.journal import Journal
from awqdoc.recordings import FOLDER, Parameters, Recording, find, load, save, slug
from awqdoc.recordings.provenance import collect

SEED = 0
MODES = ("auto", "live", "recorded")


@dataclass(frozen=True)
class Experiment:
    """One measured question.

    Attributes
    ----------
    name, question : str
    minutes : float
        About how long its published parameters take on an H200.
    timed : bool
        Whether it times anything.
    gigabytes : float
        GPU memory that its published parameters need, in 10^9 bytes; 0: as much as any GPU has that can measure.
    """

    name: str
    question: str
    minutes: float
    timed: bool = True
    gigabytes: float = 0

    @property
    def module(self) -> ModuleType:
        """The module that measures it, imported on first use."""
        return importlib.import_module("awqdoc.experiments." + self.name.replace("-", "_"))

    @property
    def axes(self) -> Parameters:
        """Axis -> the published values."""
        return {axis: list(values) for axis, values in self.module.AXES.items()}

    def clock(self, device: str) -> str | None:
        """Name the clock that its times are taken with, or None if it times nothing."""
        return getattr(self.module, "CLOCK", profiling.clock_name(device)) if self.timed else None

    def missing(self, published: bool = True) -> str | None:
        """Say what else than a GPU this machine lacks to measure it, or None if nothing.

        How much memory it needs is known of its published parameters only; others are tried.
        """
        ask = getattr(self.module, "missing", None)
        lack: str | None = ask() if ask else None
        if lack is not None or not published or not self.gigabytes or gpu.why_not_suitable() is not None:
            return lack
        found = gpu.memory_bytes() / 1e9
        if found < self.gigabytes:
            return f"it needs {self.gigabytes:g} GB of GPU memory; this GPU has {found:.0f}"
        return None

    def cells(self, parameters: Parameters) -> list[dict[str, Any]]:
        """Every combination of one value of each axis: what is measured, and kept, at a time.

        All of them are checked here, so that a wrong last one does not cost the time of the others.
        """
        cells = [dict(zip(parameters, values, strict=True)) for values in product(*parameters.values())]
        for cell in cells:
            self.module.check(**cell)
        return cells


# Pages hold `kernels` and `decode` side by side, so they need the same: both are measured, or neither.
_TABLE = (
    Experiment("device", "What does this GPU say of itself?", minutes=0.1, timed=False),
    Experiment("batch-sweep", "From which batch size on is INT4 slower than FP16?", 1, gigabytes=10),
    Experiment(
        "training", "How was the model that ships with awqdoc trained, and how good is it?", minutes=5, timed=False
    ),
    Experiment("rounding", "What do bits, group size and symmetry cost when weights are just rounded?", 1, timed=False),
    Experiment("salient", "Which weights matter: those of large activations, large weights, or any?", 1, timed=False),
    Experiment("scaling", "What does multiplying the salient channels before rounding do?", 1, timed=False),
    Experiment("alpha", "Which scale does AWQ choose, and what does it gain?", 1, timed=False),
    Experiment("clipping", "Where does AWQ clip, and what does it gain?", 1, timed=False),
    Experiment("calibration", "How much calibration text does AWQ need, and of which kind?", 1, timed=False),
    Experiment("accuracy", "What do INT4 and INT3 cost in accuracy?", 4, timed=False),
    Experiment("side-by-side", "Do we, AutoAWQ and GPTQModel get the same from the same model, and how fast?", 3),
    Experiment("packing-speed", "How fast is packing, ours and AutoAWQ's, on a CPU and on a GPU?", 3),
    Experiment("awq-speed", "How long does AWQ take for a large model, by us and by AutoAWQ?", 3),
    Experiment("mistakes", "How large is each mistake of measuring?", minutes=1),
    Experiment("kernels", "How fast is every kernel, and how far from the floor?", 7, gigabytes=76),
    Experiment("hierarchy", "How far away is the memory, and how fast are the tensor cores?", 0.5, gigabytes=10),
    Experiment("monitoring", "What does 100 % utilization mean?", minutes=1),
    Experiment("xray", "What happens inside a kernel, block by block and phase by phase?", 1.5, gigabytes=10),
    Experiment("decode", "How long does a whole model take for a token, and where does it go?", 1.5, gigabytes=76),
    Experiment("prefill", "Does the GPU wait for Python while a prompt is read?", 0.5, gigabytes=45),
    Experiment("agreement", "Do our times agree with Nsight Compute's and with Triton's do_bench?", 2, gigabytes=18),
)
EXPERIMENTS = {experiment.name: experiment for experiment in _TABLE}

# Every recording that this process was given, in order; the site's build reads it to label its pages.
ledger: list[Recording] = []


def measure(name: str, beside: Recording | None = None, **parameters: Any) -> Recording:
    """Measure an experiment on this machine's GPU, or replay its recording where there is none.

    The environment variable ``AWQDOC_MODE`` decides: ``auto`` (the default) measures if a suitable GPU is
    present, ``live`` insists on measuring, ``recorded`` always replays. With ``AWQDOC_RESULTS=folder`` what
    is measured is kept there and used again as long as the code that made it is the same.

    Parameters
    ----------
    name : str
        One of `EXPERIMENTS`.
    beside : Recording, optional
        What the result will stand beside. If that is a replay of another GPU than the one here, this one is replayed
        of the same GPU too, where it was recorded there: a page shall not compare two GPUs unawares.
    **parameters
        Axis = value or list of values; an axis that is not given keeps its published values. Values that
        nobody recorded are measured on the CPU where that is possible, and labelled so.

    Returns
    -------
    Recording

    Raises
    ------
    AwqdocError
        If there is no such experiment or axis, or it can be neither measured nor replayed here.
    """
    experiment = lookup(name)
    wanted = _complete(experiment, parameters)
    result = _replay_beside(beside, name, wanted) or _measure_or_replay(experiment, wanted, mode(), bool(parameters))
    ledger.append(result)
    return result


def _replay_beside(beside: Recording | None, name: str, wanted: Parameters) -> Recording | None:
    """Return the recording of the GPU that `beside` replays, or None if that is the one here, or has none."""
    if beside is None or beside.origin != "recorded" or beside.provenance["gpu"] == gpu.suitable():
        return None
    found = [one for one in find(name) if one.provenance["gpu"] == beside.provenance["gpu"] and one.covers(wanted)]
    return found[0].select(**wanted) if found else None


def mode() -> str:
    """Return what ``AWQDOC_MODE`` asks for, or say what it may be."""
    asked = os.environ.get("AWQDOC_MODE") or "auto"
    if asked not in MODES:
        raise AwqdocError(f"AWQDOC_MODE must be one of {', '.join(MODES)}; found {asked!r}.")
    return asked


def lookup(name: str) -> Experiment:
    """Return an experiment by name, or say which there are."""
    if name not in EXPERIMENTS:
        raise AwqdocError(f"There is no experiment {name!r}; there are {', '.join(EXPERIMENTS)}.")
    return EXPERIMENTS[name]


def _complete(experiment: Experiment, parameters: dict[str, Any]) -> Parameters:
    axes = experiment.axes
    unknown = [axis for axis in parameters if axis not in axes]
    if unknown:
        known = ", ".join(axes) or "none"
        raise AwqdocError(f"The experiment {experiment.name} has no parameter {unknown[0]!r}; it has {known}.")
    given = {axis: v if isinstance(v, list | tuple) else [v] for axis, v in parameters.items()}
    lists = {axis: [v for i, v in enumerate(vs) if v not in vs[:i]] for axis, vs in given.items()}  # each once
    for axis, values in lists.items():
        kind = type(axes[axis][0])
        wrong = [value for value in values if type(value) is not kind]
        if wrong or not values:
            found = repr(wrong[0]) if wrong else "none"
            raise AwqdocError(f"{experiment.name} needs one or more {axis} of type {kind.__name__}; found {found}.")
    complete = {**axes, **lists}
    experiment.cells(complete)
    return complete


def _measure_or_replay(experiment: Experiment, wanted: Parameters, mode: str, explicit: bool) -> Recording:
    published = not explicit or bool(os.environ.get("AWQDOC_RESULTS"))
    no_gpu, no_material = gpu.why_not_suitable(), experiment.missing(published)
    lack = no_gpu or no_material
    if mode != "recorded" and lack is None:
        return _live(experiment, wanted)
    recorded = find(experiment.name)
    fitting = [recording for recording in recorded if recording.covers(wanted)]
    # A GPU is what AWQDOC_MODE=live insists on; it does not insist on material that few have.
    if fitting and (mode != "live" or no_gpu is None):
        return fitting[0].select(**wanted)
    # The published sizes are a GPU's: a CPU would take hours, so it runs only what was asked for by name.
    if mode != "recorded" and experiment.module.CPU and explicit and no_material is None:
        print(f"{experiment.name} is measured on the CPU: nobody recorded these values, and {lack}.", file=sys.stderr)
        return run(experiment, wanted, "cpu", folder=None)
    if mode == "live":
        raise AwqdocError(f"AWQDOC_MODE=live needs to measure {experiment.name} on a GPU, but {lack}.")
    raise AwqdocError(_nothing_recorded(experiment, wanted, recorded, lack or "AWQDOC_MODE=recorded"))


def _nothing_recorded(experiment: Experiment, wanted: Parameters, recorded: list[Recording], lack: str) -> str:
    if not recorded:
        return f"Nobody has recorded {experiment.name} yet: measure it on a GPU with `awqdoc record {experiment.name}`."
    has = recorded[0].parameters
    missing = {axis: [v for v in values if v not in has.get(axis, [])] for axis, values in wanted.items()}
    lacks = "; ".join(f"{axis} {_list(values)}" for axis, values in missing.items() if values)
    holds = "; ".join(f"{axis} {_list(values)}" for axis, values in has.items())
    return (
        f"The recording of {experiment.name} does not hold {lacks}, and it is not measured here ({lack}); "
        f"it holds {holds}."
    )


def _list(values: Iterable[Any]) -> str:
    return ", ".join(map(str, values))


def _live(experiment: Experiment, wanted: Parameters) -> Recording:
    """Measure on the GPU; with AWQDOC_RESULTS, measure the published parameters once and keep them."""
    folder = os.environ.get("AWQDOC_RESULTS")
    published = experiment.axes
    if not folder or any(set(wanted[axis]) - set(published[axis]) for axis in wanted):
        return run(experiment, wanted, "cuda", folder=None)
    kept = Path(folder) / slug(gpu.suitable() or "") / f"{experiment.name}.json"
    recording = _kept(kept)
    if recording is not None and not recording.stale and recording.covers(published):
        now = collect(experiment.name, "cuda", SEED, experiment.clock("cuda"))
        if all(recording.provenance.get(key) == now.get(key) for key in ("driver", "torch", "triton", "autoawq")):
            return recording.select(**wanted)
    return run(experiment, published, "cuda", folder=Path(folder)).select(**wanted)


def _kept(path: Path) -> Recording | None:
    """Return a result kept by an earlier build, or None if there is none that can be read: it is only a cache."""
    try:
        return replace(load(path), origin="measured") if path.exists() else None
    except AwqdocError as error:
        print(f"{error} It is measured again.", file=sys.stderr)
        return None


def run(experiment: Experiment, parameters: Parameters, device: str, folder: Path | None) -> Recording:
    """Measure every cell on `device`, and keep the result in `folder` if one is given.

    Cells that are done are kept in a journal beside the result, so that an interrupted run goes on where it
    was. Without a folder an interruption ends the measuring, and the result holds the cells that are done.
    """
    provenance = collect(experiment.name, device, SEED, experiment.clock(device))
    cells = experiment.cells(parameters)
    with Journal(experiment.name, cells, provenance, folder) as journal:
        try:
            for cell in journal.remaining():
                journal.add(cell, [{**cell, **row} for row in _rows(experiment, device, cell)])
        except KeyboardInterrupt:
            if folder is not None or not journal.done:
                raise
            parameters = _finished(parameters, [cell for cell, _ in journal.done])
            print(f"\nInterrupted: what follows holds {len(journal.done)} of {len(cells)} cells.", file=sys.stderr)
        experiment.module.forget()
        result = Recording(experiment.name, parameters, journal.provenance, journal.rows, origin="measured")
        if folder is not None:
            journal.replace_by(save(result, folder))
    return result


def _finished(parameters: Parameters, done: list[dict[str, Any]]) -> Parameters:
    return {axis: [v for v in values if any(cell[axis] == v for cell in done)] for axis, values in parameters.items()}


def _rows(experiment: Experiment, device: str, cell: dict[str, Any]) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = experiment.module.run(device, **cell)
    except RuntimeError as error:  # torch has a class of its own for a full GPU, and none for a full host
        text = ", ".join(f"{axis} {value}" for axis, value in cell.items())
        if "out of memory" in str(error) or "allocate memory" in str(error):
            raise AwqdocError(f"{text} does not fit into the memory of this machine: choose smaller sizes.") from None
        if "CUDA" in str(error):
            said = str(error).splitlines()[0].rstrip(".")
            raise AwqdocError(
                f"The GPU failed at {text} ({said}): see with nvidia-smi whether it still answers, then run the same "
                "command again."
            ) from None
        raise
    return rows


def restless(recording: Recording) -> str | None:
    """Say how many of its rows should be doubted, and why the first of them; None if none."""
    doubted = profiling.doubted(recording.rows)
    if not doubted:
        return None
    row, why = doubted[0]
    cell = ", ".join(f"{key} {row[key]}" for key in (*recording.parameters, "backend", "way") if key in row)
    return f"{len(doubted)} of {len(recording.rows)} rows are doubtful; the first, {cell}: {why}"


def require_measurable(*names: str) -> None:
    """Refuse where one of these experiments cannot be recorded, so that it does not cost the time of the others."""
    experiments = [lookup(name) for name in names]
    lack = gpu.why_not_suitable()
    if lack is not None:
        raise AwqdocError(f"A recording is made on a GPU, but {lack}.")
    for experiment in experiments:
        lack = experiment.missing()
        if lack is not None:
            raise AwqdocError(f"The experiment {experiment.name} cannot be recorded here: {lack}.")


def record(name: str, folder: Path = FOLDER) -> Path:
    """Measure the published parameters of an experiment on the GPU and store the recording below `folder`.

    Raises
    ------
    AwqdocError
        If no suitable GPU is present, the experiment lacks something else, or the folder cannot be written to.
    """
    require_measurable(name)
    experiment = lookup(name)
    recording = run(experiment, experiment.axes, "cuda", folder)
    return folder / slug(recording.provenance["gpu"]) / f"{name}.json"
