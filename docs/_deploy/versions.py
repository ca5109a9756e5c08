"""Put a built site beside the other versions: a folder for each, a menu, a redirect to the newest release.

    python docs/_deploy/versions.py ALL BUILD NAME URL

ALL is the folder that holds every version, BUILD a site that was just built, NAME `main` or a release such as
`v1.2.0`, and URL the address under which ALL is published. Only the standard library is imported: the job
that publishes installs nothing.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

MAIN = "main"
RELEASE = re.compile(r"v(\d+)\.(\d+)\.(\d+)(?:(a|b|rc)(\d+))?")

REDIRECT = """\
<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <title>awqdoc</title>
    <meta http-equiv="refresh" content="0; url={name}/">
    <link rel="canonical" href="{name}/">
  </head>
  <body><p>The documentation is in <a href="{name}/">{name}/</a>.</p></body>
</html>
"""


def age(name: str) -> tuple[int, int, int, bool, str, int]:
    """Order releases as people count them: v1.10.0 after v1.9.0, and v1.0.0 after its pre-releases."""
    match = RELEASE.fullmatch(name)
    assert match is not None, f"{name} is no release"
    major, minor, patch, stage, number = match.groups()
    return int(major), int(minor), int(patch), stage is None, stage or "", int(number or 0)


def releases(everything: Path) -> list[str]:
    """Names of the releases that have a folder, newest first."""
    names = [path.name for path in everything.iterdir() if path.is_dir() and RELEASE.fullmatch(path.name)]
    return sorted(names, key=age, reverse=True)


def newest(names: list[str]) -> str:
    """Name the version for a reader who names none: the newest release that is no pre-release, else main."""
    finished = [name for name in names if age(name)[3]]
    return finished[0] if finished else MAIN


def menu(everything: Path, url: str) -> list[dict[str, object]]:
    """Entries of switcher.json in the order in which they are shown: main, then the newest release first."""
    names = releases(everything)
    first = newest(names)
    if (everything / MAIN).is_dir():
        names.insert(0, MAIN)
    return [
        {
            "name": f"{name} (newest release)" if name == first != MAIN else name,
            "version": name,
            "url": f"{url.rstrip('/')}/{name}/",
            "preferred": name == first,
        }
        for name in names
    ]


def add(everything: Path, build: Path, name: str, url: str) -> None:
    """Replace the folder of one version by a new build, and write what refers to all of them."""
    if name != MAIN and not RELEASE.fullmatch(name):
        raise ValueError(f"A version is called main or vX.Y.Z (vX.Y.Zrc1 before it), but this one {name!r}.")
    if not (build / "index.html").is_file():
        raise ValueError(f"A built site is needed, but {build} has no index.html; build it with `nox -s docs`.")
    everything.mkdir(parents=True, exist_ok=True)
    if (everything / name).exists():
        shutil.rmtree(everything / name)
    # What starts with a dot are Sphinx's notes about the build (.doctrees, .buildinfo), larger than the site.
    shutil.copytree(build, everything / name, ignore=shutil.ignore_patterns(".*"))
    (everything / "switcher.json").write_text(json.dumps(menu(everything, url), indent=2) + "\n")
    (everything / "index.html").write_text(REDIRECT.format(name=newest(releases(everything))))
    # Without this file Jekyll leaves out _static and every other folder that starts with an underscore.
    (everything / ".nojekyll").touch()


def main(arguments: list[str]) -> int:
    """Run from the command line; a mistake is told in one sentence."""
    if len(arguments) != 4:
        print("versions.py needs four arguments: ALL BUILD NAME URL.", file=sys.stderr)
        return 2
    everything, build, name, url = arguments
    try:
        add(Path(everything), Path(build), name, url)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    first = newest(releases(Path(everything)))
    print(f"{name} is in {Path(everything) / name}; a reader who names no version goes to {first}.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
