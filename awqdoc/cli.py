"""The command line: what this machine can run, run it, record it, check what was recorded, and watch a GPU."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import awqdoc
from awqdoc import doctor, monitor, recordings
from awqdoc.errors import AwqdocError
from awqdoc.experiments import EXPERIMENTS, lookup, measure, record, require_measurable, restless
from awqdoc.recordings import Recording, Row


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 a failure that is told in one sentence, 130 interrupted."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except AwqdocError as error:
        print(f"awqdoc: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `awqdoc check | head`
        sys.stderr.close()
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="awqdoc", description=awqdoc.__doc__)
    parser.add_argument("--version", action="version", version=awqdoc.__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: object, help: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help, description=help)
        added.set_defaults(command=function)
        return added

    command("doctor", doctor.main, "say what this machine can run, what it cannot and why, and what to install")
    one = command("run", _run, "measure one experiment here, or replay its recording, and print its rows")
    one.add_argument("name", metavar="NAME", help=", ".join(EXPERIMENTS))
    one.add_argument("--compare", action="store_true", help="show the ratio to the published recordings instead")
    one.add_argument("--output", type=Path, metavar="FILE", help="write the rows to a .json or .csv file")
    many = command("record", _record, "measure experiments on this GPU and store the recordings")
    many.add_argument("names", metavar="NAME", nargs="*", help=", ".join(EXPERIMENTS))
    many.add_argument("--all", action="store_true", help="all experiments")
    many.add_argument("--output", type=Path, metavar="FOLDER", default=recordings.FOLDER, help="where to store them")
    command("check", _check, "check that every recording is whole and made by the code as it is now")
    watch = command(
        "monitor", monitor.main, "show what GPUs are doing, and of what nvidia-smi's utilization says nothing"
    )
    watch.add_argument("seconds", metavar="SECONDS", nargs="?", type=float, help="how long (default: until Ctrl-C)")
    watch.add_argument("--interval", metavar="SECONDS", type=float, default=1.0, help="between samples (default: 1)")
    watch.add_argument(
        "--device", metavar="INDEX", type=int, action="append", help="GPU to watch (default: 0); may be given again"
    )
    forms = watch.add_mutually_exclusive_group()
    for form in ("csv", "json"):
        forms.add_argument(
            f"--{form}",
            dest="form",
            action="store_const",
            const=form,
            help=f"print one line of {form.upper()} a sample",
        )
    return parser


def _run(options: argparse.Namespace) -> int:
    lookup(options.name)
    texts = {".json": Recording.to_json, ".csv": Recording.to_csv}
    if options.output is not None and options.output.suffix not in texts:
        raise AwqdocError(f"--output needs a file that ends in .json or .csv; found {options.output.name!r}.")
    published = recordings.find(options.name) if options.compare else []
    if options.compare and not published:
        raise AwqdocError(f"There is no published recording of {options.name} to compare with.")
    result = measure(options.name)
    if options.compare and result.origin == "recorded":
        raise AwqdocError(
            "--compare needs a measurement made here, but this run replayed the recording itself: "
            "run it on a machine with a GPU, with AWQDOC_MODE unset."
        )
    if options.output is not None:
        recordings.write_atomically(options.output, texts[options.output.suffix](result))
    print(result.label)
    if options.compare:
        for other in published:
            _print_comparison(result, other)
    else:
        for row in result.rows:
            print(_row_text(result, row))
    return 0


def _row_text(result: Recording, row: Row) -> str:
    if "fact" in row:
        return f"{row['fact']:<32} {row['value']} {row['unit']}".rstrip()
    cell = "  ".join(f"{axis}={row[axis]}" for axis in result.parameters)
    if {"backend", "skipped"} <= row.keys():
        return f"{cell}  {row['backend']:<16} skipped: {row['skipped']}"
    if {"backend", "seconds", "error"} <= row.keys():
        return f"{cell}  {row['backend']:<16} {1e6 * median(row['seconds']):10.1f} us  error {row['error']:.1e}"
    return "  ".join(f"{key}={value}" for key, value in row.items())


def _print_comparison(result: Recording, other: Recording) -> None:
    """Print each row of `result` beside the same row of `other`: facts, medians and their ratio, or all it holds."""
    print(f"beside {other.label}")
    if not any("fact" in row or "backend" in row for row in result.rows):
        # Such rows have no name in common with others; those of one experiment come in one order.
        for row, twin in zip(result.rows, other.select(**result.parameters).rows, strict=False):
            print(f"here   {_row_text(result, row)}\nthere  {_row_text(other, twin)}")
        return
    keys = [*result.parameters, "backend"] if any("backend" in row for row in result.rows) else ["fact"]
    theirs = {tuple(row.get(key) for key in keys): row for row in other.rows}
    for row in result.rows:
        name = "  ".join(str(row.get(key)) for key in keys)
        twin = theirs.get(tuple(row.get(key) for key in keys), {})
        if "fact" in row:
            there = str(twin.get("value", "not told"))
            print(f"{name:<34} here {row['value']!s:>20}   there {there:>20} {row['unit']}".rstrip())
        elif "seconds" in row and "seconds" in twin:
            times = 1e6 * median(row["seconds"]), 1e6 * median(twin["seconds"])
            print(f"{name:<44} here {times[0]:8.1f} us   there {times[1]:8.1f} us   {times[0] / times[1]:5.2f} times")


def _record(options: argparse.Namespace) -> int:
    names = list(EXPERIMENTS) if options.all else options.names
    if not names:
        raise AwqdocError(f"`awqdoc record` needs the name of an experiment ({', '.join(EXPERIMENTS)}) or --all.")
    left_out = {name: lack for name in names if options.all and (lack := lookup(name).missing())}
    names = [name for name in names if name not in left_out]
    require_measurable(*names)
    for name, lack in left_out.items():
        print(f"{name} is left out: {lack}.", file=sys.stderr)
    minutes = sum(lookup(name).minutes for name in names)
    print(f"recording {', '.join(names)}: about {minutes:.0f} min on an H200", file=sys.stderr)
    for name in names:
        path = record(name, options.output)
        doubt = restless(recordings.load(path))
        if doubt:
            print(f"{name}: {doubt}", file=sys.stderr)
        print(path)
    return 0


def _check(options: argparse.Namespace) -> int:
    """Look at every recording and every experiment, then exit with 1 if one is not as it should be."""
    faults = 0
    seen = set()
    for path in sorted(recordings.FOLDER.glob("*/*.json")):
        seen.add(path.stem)
        try:
            recording = recordings.load(path)
        except AwqdocError as error:
            state, text = "malformed", str(error)
        else:
            state, text = _state(recording), f"{path.parent.name}/{path.name}  {recording.label}"
        faults += state != "ok"
        print(f"{state:<10} {text}")
    for name in EXPERIMENTS:
        if name not in seen:
            print(f"{'missing':<10} {name}: nobody has recorded it")
            faults += 1
    if faults:
        print(
            f"{faults} not as it should be: measure again on a GPU with `awqdoc record NAME`, "
            "or restore a malformed file with git.",
            file=sys.stderr,
        )
    return 1 if faults else 0


def _state(recording: Recording) -> str:
    experiment = EXPERIMENTS.get(recording.experiment)
    if experiment is not None and not recording.covers(experiment.axes):
        return "lacking"
    return "stale" if recording.stale else "ok"
