"""The command line: what this machine can run, run it, record it, and check what was recorded."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import awqdoc
from awqdoc import doctor, recordings
from awqdoc.errors import AwqdocError
from awqdoc.experiments import EXPERIMENTS, lookup, measure, record
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
    return parser


def _run(options: argparse.Namespace) -> int:
    lookup(options.name)
    published = recordings.find(options.name) if options.compare else []
    if options.compare and not published:
        raise AwqdocError(f"There is no published recording of {options.name} to compare with.")
    result = measure(options.name)
    if options.output is not None:
        _write(result, options.output)
    print(result.label)
    if options.compare:
        for other in published:
            _print_comparison(result, other)
    else:
        for row in result.rows:
            print(_row_text(result, row))
    return 0


def _write(result: Recording, path: Path) -> None:
    texts = {".json": result.to_json, ".csv": result.to_csv}
    if path.suffix not in texts:
        raise AwqdocError(f"--output needs a file that ends in .json or .csv; found {path.name!r}.")
    recordings.write_atomically(path, texts[path.suffix]())


def _row_text(result: Recording, row: Row) -> str:
    if "fact" in row:
        return f"{row['fact']:<32} {row['value']} {row['unit']}".rstrip()
    cell = "  ".join(f"{axis}={row[axis]}" for axis in result.parameters)
    if "skipped" in row:
        return f"{cell}  {row['backend']:<16} skipped: {row['skipped']}"
    return f"{cell}  {row['backend']:<16} {1e6 * median(row['seconds']):10.1f} us  error {row['error']:.1e}"


def _print_comparison(result: Recording, other: Recording) -> None:
    """Print each timed row of `result` beside the same row of `other`, with the ratio of their medians."""
    if result.origin == "recorded":
        raise AwqdocError(
            "--compare measures here and needs a GPU; none is here, so there is only the recording itself."
        )
    keys = [*result.parameters, "backend"]
    theirs = {tuple(row[key] for key in keys): row for row in other.rows if "seconds" in row}
    print(f"beside {other.label}")
    for row in result.rows:
        twin = theirs.get(tuple(row.get(key) for key in keys))
        if twin is None or "seconds" not in row:
            continue
        here, there = 1e6 * median(row["seconds"]), 1e6 * median(twin["seconds"])
        cell = "  ".join(str(row[key]) for key in keys)
        print(f"{cell:<48} here {here:10.1f} us   there {there:10.1f} us   {here / there:5.2f} times")


def _record(options: argparse.Namespace) -> int:
    names = list(EXPERIMENTS) if options.all else options.names
    if not names:
        raise AwqdocError(f"`awqdoc record` needs the name of an experiment ({', '.join(EXPERIMENTS)}) or --all.")
    minutes = sum(lookup(name).minutes for name in names)
    print(f"recording {', '.join(names)}: about {minutes:.0f} min on an H200", file=sys.stderr)
    for name in names:
        print(record(name, options.output))
    return 0


def _check(options: argparse.Namespace) -> int:
    """Look at every recording and every experiment, then exit with 1 if anything is stale, malformed or missing."""
    faults = 0
    seen = set()
    for path in sorted(recordings.FOLDER.glob("*/*.json")):
        try:
            recording = recordings.load(path)
        except AwqdocError as error:
            print(f"malformed  {error}")
            faults += 1
            continue
        seen.add(recording.experiment)
        faults += recording.stale
        print(f"{'stale' if recording.stale else 'ok':<10} {path.parent.name}/{path.name}  {recording.label}")
    for name in EXPERIMENTS:
        if name not in seen:
            print(f"missing    {name}: nobody has recorded it")
            faults += 1
    if faults:
        print(f"{faults} of the recordings need a GPU: `awqdoc record NAME` makes them anew.", file=sys.stderr)
    return 1 if faults else 0
