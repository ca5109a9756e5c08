"""What makes a gallery script a command-line program as well as a page: options, errors, saved figures."""

from __future__ import annotations

import argparse
import builtins
import os
import sys
import tempfile
from pathlib import Path
from types import TracebackType

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from awqdoc.errors import AwqdocError
from awqdoc.recordings import write_atomically
from awqdoc.visualization import Table


def parser(description: str, saves: str = "figures (PNG)") -> argparse.ArgumentParser:
    """Return a parser with the option that all scripts have, ``--output-dir``, for what it `saves`; add others."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument("--output-dir", type=Path, help=f"save {saves} in this folder")
    return options


def parse(options: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the command line; in a notebook, whose command line is Jupyter's, return the defaults.

    From here on an `AwqdocError` ends the program with its one sentence instead of a traceback.

    Raises
    ------
    AwqdocError
        If a program's figures could not be saved, which is seen before the work for them.
    """
    if _is_program():
        sys.excepthook = _one_sentence
    found = options.parse_args([] if _in_notebook() else None)
    if _is_program() and found.output_dir is not None:
        _probe(found.output_dir)
    return found


def _probe(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise AwqdocError(f"{folder} cannot be written ({error.strerror}): choose another --output-dir.") from None


def display(table: Table) -> Table:
    """Print a table when the script runs as a program; a page or a notebook displays what this returns."""
    if _is_program():
        print(table)
    return table


def show(figures: dict[str, Figure], output_dir: Path | None) -> None:
    """End a program: save its figures as ``<name>.png``, or show them in windows where there is a screen.

    In a notebook or a page of the site, where figures show themselves, nothing is to be done.
    """
    if not _is_program():
        return
    if output_dir is not None:
        for name, figure in figures.items():
            save(figure, output_dir / f"{name}.png")
    elif plt.get_backend().lower() == "agg":
        print("No screen to show figures on; --output-dir FOLDER saves them.", file=sys.stderr)
    else:
        plt.show()


def keep(filename: str, text: str, output_dir: Path | None) -> None:
    """Save a text of a program that has a folder, and say where it is; a notebook or a page of the site saves none."""
    if _is_program() and output_dir is not None:
        write_atomically(output_dir / filename, text)
        print(f"saved {output_dir / filename}")


def save(figure: Figure, path: Path) -> None:
    """Save a figure as a picture on white and say where it is."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=200, facecolor="white")
    except OSError as error:
        raise AwqdocError(f"{path} cannot be written ({error.strerror}): choose another --output-dir.") from None
    print(f"saved {path}")


def _in_notebook() -> bool:
    return hasattr(builtins, "__IPYTHON__")


def _is_program() -> bool:
    return not _in_notebook() and "sphinx_gallery" not in sys.modules


def _one_sentence(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, AwqdocError):
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
    elif issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    elif issubclass(kind, BrokenPipeError):  # the reader piped the output into `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    else:
        sys.__excepthook__(kind, error, trace)
