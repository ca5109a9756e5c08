"""Fetch the sources that pins.toml names, each at its commit: `nox -s external`, which needs git and nothing else.

A folder appears under its name once it is complete and verified. One that is there already is looked at, never changed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent


class FetchError(Exception):
    """What the user is told, in one sentence."""


class GitError(Exception):
    """The first reason that git printed for its failure."""


def main() -> int:
    """Fetch what the command line names, or everything; return 0, or 1 after one sentence, or 130 if interrupted."""
    parser = argparse.ArgumentParser(prog="nox -s external --", description="Fetch other projects' sources.")
    parser.add_argument("names", metavar="NAME", nargs="*", help="which of external/pins.toml (default: all)")
    parser.add_argument("--mirror", type=Path, metavar="FOLDER", help="fetch from FOLDER/NAME or FOLDER/NAME.git")
    options = parser.parse_args()
    pins = tomllib.loads((HERE / "pins.toml").read_text(encoding="utf-8"))
    try:
        if shutil.which("git") is None:
            raise FetchError("git is needed and was not found; install it")
        for name in options.names:
            if name not in pins:
                raise FetchError(f"a name must be one of {', '.join(pins)}; found {name}")
        for name in options.names or pins:
            fetch(name, pins[name]["upstream"], pins[name]["commit"], options.mirror)
    except (FetchError, OSError) as error:
        print(f"external: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def fetch(name: str, upstream: str, commit: str, mirror: Path | None) -> None:
    """Make sure that external/<name> is a clean checkout of the commit, from a local mirror if one is named."""
    target = HERE / name
    if target.exists():
        verify(target, f"external/{name}", commit)
        print(f"external/{name} is already at {commit}")
        return
    source = upstream if mirror is None else str(repository(mirror.resolve(), name))
    print(f"external/{name}: fetching {commit} from {source}", flush=True)
    # Beside the target, so that an interrupted run leaves nothing under the name, and the move is one step.
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=HERE) as scratch:
        folder = Path(scratch, name)
        folder.mkdir()
        try:
            git(folder, "init", "--quiet")
            git(folder, "remote", "add", "origin", upstream)
            # Version 2 of the protocol lets a commit be asked for by its hash, whatever branch it is on.
            git(folder, "-c", "protocol.version=2", "fetch", "--quiet", "--no-tags", "--depth=1", source, commit)
            git(folder, "checkout", "--quiet", "--detach", commit)
        except GitError as error:
            raise FetchError(why_not_fetched(name, source, commit, str(error), mirror)) from None
        verify(folder, f"what was fetched for {name}", commit)
        folder.rename(target)


def repository(mirror: Path, name: str) -> Path:
    """Return the repository of that name in a folder of mirrors."""
    for folder in (mirror / name, mirror / f"{name}.git"):
        if folder.is_dir():
            return folder
    raise FetchError(f"the mirror must hold {name} or {name}.git, and {mirror} has neither")


def verify(folder: Path, called: str, commit: str) -> None:
    """Refuse a folder that is not a clean checkout of the commit."""
    try:
        head = git(folder, "rev-parse", "HEAD").strip()
        changes = git(folder, "status", "--porcelain", "--untracked-files=normal").splitlines()
    except GitError as error:
        raise FetchError(f"{called} must be a git checkout, and git says: {error}; move it away") from None
    if head != commit:
        raise FetchError(f"{called} must be at the pinned commit {commit}, and is at {head}; move it away")
    if changes:
        raise FetchError(
            f"{called} must be as its authors left it, and has changes ({len(changes)}, the first: {changes[0]}); "
            "move it away, or undo them"
        )


def why_not_fetched(name: str, source: str, commit: str, reason: str, mirror: Path | None) -> str:
    """Return the sentence for a fetch that failed, from git's reason."""
    if "not our ref" in reason:
        return f"{name} is pinned at {commit}, which {source} does not have; bring that up to date or name another"
    remedy = "check the network, or name a local mirror with --mirror" if mirror is None else "look at that mirror"
    return f"{name} could not be fetched from {source}, and git says: {reason}; {remedy}"


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder and return what it prints."""
    # The folder's own repository only: not the one that a hook of ours runs in, and not the one that external/ is in.
    ours = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY")
    environment = {key: value for key, value in os.environ.items() if key not in ours} | {
        "GIT_CEILING_DIRECTORIES": str(HERE),
        "GIT_OPTIONAL_LOCKS": "0",  # looking at a checkout must not write its index anew
        "GIT_TERMINAL_PROMPT": "0",  # an address that is gone must fail, not ask for a password
        "LC_ALL": "C",
    }
    result = subprocess.run(
        ["git", "-C", str(folder), *arguments], env=environment, capture_output=True, text=True, errors="replace"
    )
    if result.returncode:
        lines = result.stderr.splitlines()
        reasons = [line for line in lines if line.startswith(("fatal: ", "error: "))]
        raise GitError((reasons or lines or [f"exit code {result.returncode}"])[0].rstrip("."))
    return result.stdout


if __name__ == "__main__":
    sys.exit(main())
