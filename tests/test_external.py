"""`nox -s external`, with real git and repositories made here in the place of those of other projects."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXTERNAL = ROOT / "external"
WHO = {f"GIT_{role}_{part}": "someone@example.org" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


class Project:
    """A project with a copy of fetch.py and two pins: the second of three commits of alpha.git, and beta."""

    def __init__(self, folder: Path) -> None:
        self.external = folder / "project" / "external"
        self.kernels = folder / "kernels"
        self.environment = os.environ | WHO | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        self.external.mkdir(parents=True)
        shutil.copy(EXTERNAL / "fetch.py", self.external)
        # As in a clone: a git repository around external/, which git must never take for that of a checkout.
        self.commit(folder / "project", {"README.md": "ours"})
        self.commit(self.kernels / "alpha.git", {"kernel.cu": "before"})
        files = {"kernel.cu": "first", ".gitignore": "build/\n"}
        self.pins = {name: self.commit(self.kernels / name, files) for name in ("alpha.git", "beta")}
        self.newer = self.commit(self.kernels / "alpha.git", {"kernel.cu": "second"})
        self.pin(self.pins["alpha.git"])

    def git(self, folder: Path, *arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True).stdout.strip()

    def commit(self, folder: Path, files: dict[str, str]) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        self.git(folder, "init", "--quiet")
        for name, text in files.items():
            (folder / name).write_text(text)
            self.git(folder, "add", name)
        self.git(folder, "commit", "--quiet", "--message", "A change")
        return self.git(folder, "rev-parse", "HEAD")

    def pin(self, alpha: str, upstream: str | None = None) -> None:
        upstream = upstream or str(self.kernels / "alpha.git")
        beta = self.kernels / "beta"
        (self.external / "pins.toml").write_text(
            f'[alpha]\nupstream = "{upstream}"\ncommit = "{alpha}"\n'
            f'[beta]\nupstream = "{beta}"\ncommit = "{self.pins["beta"]}"\n'
        )

    def fetch(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "external/fetch.py", *arguments]
        folder = self.external.parent
        return subprocess.run(
            command, cwd=folder, env=self.environment | environment, capture_output=True, text=True, timeout=60
        )

    def refusal(self, *arguments: str, **environment: str) -> str:
        """What it says when it refuses, which must be one line."""
        result = self.fetch(*arguments, **environment)
        assert result.returncode == 1
        assert result.stderr.startswith("external: ")
        assert result.stderr.count("\n") == 1
        return result.stderr

    def fetched(self) -> set[str]:
        return {path.name for path in self.external.iterdir()} - {"fetch.py", "pins.toml"}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def state(folder: Path) -> dict[Path, tuple[int, bytes]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.mark.parametrize("mirror", [(), ("--mirror", "../kernels")])
def test_everything_is_fetched_at_its_pin_and_nothing_else_of_its_history(
    project: Project, mirror: tuple[str, ...]
) -> None:
    if mirror:
        project.pin(project.pins["alpha.git"], "https://127.0.0.1:1/alpha")
    assert project.fetch(*mirror).returncode == 0
    assert project.fetched() == {"alpha", "beta"}
    alpha = project.external / "alpha"
    assert project.git(alpha, "rev-parse", "HEAD") == project.pins["alpha.git"] != project.newer
    assert (alpha / "kernel.cu").read_text() == "first"
    assert project.git(alpha, "rev-list", "--all", "--count") == "1"
    assert project.git(alpha, "status", "--porcelain") == ""
    upstream = "https://127.0.0.1:1/alpha" if mirror else str(project.kernels / "alpha.git")
    assert project.git(alpha, "remote", "get-url", "origin") == upstream


def test_one_name_fetches_one(project: Project) -> None:
    assert project.fetch("beta").returncode == 0
    assert project.fetched() == {"beta"}


def test_a_hook_of_ours_keeps_its_repository_and_its_index(project: Project) -> None:
    ours = project.external.parent / ".git"
    before = state(ours)
    assert project.fetch("alpha", GIT_DIR=str(ours), GIT_INDEX_FILE=str(ours / "index")).returncode == 0
    assert (project.external / "alpha" / "kernel.cu").read_text() == "first"
    assert state(ours) == before


def test_a_second_run_does_nothing_even_after_a_build(project: Project) -> None:
    project.fetch("alpha")
    alpha = project.external / "alpha"
    (alpha / "build").mkdir()
    (alpha / "build" / "kernel.o").write_text("ignored by its own .gitignore")
    shutil.rmtree(project.kernels)
    before = state(alpha)
    result = project.fetch("alpha")
    assert result.returncode == 0
    assert result.stdout == f"external/alpha is already at {project.pins['alpha.git']}\n"
    assert state(alpha) == before


def test_a_checkout_at_another_commit_is_refused_and_kept(project: Project) -> None:
    project.fetch("alpha")
    project.pin(project.newer)
    before = state(project.external / "alpha")
    sentence = project.refusal("alpha")
    assert f"external/alpha must be at the pinned commit {project.newer}" in sentence
    assert f"is at {project.pins['alpha.git']}" in sentence
    assert state(project.external / "alpha") == before


@pytest.mark.parametrize("file", ["kernel.cu", "notes.txt"])
def test_local_changes_are_refused_and_kept(project: Project, file: str) -> None:
    project.fetch("alpha")
    (project.external / "alpha" / file).write_text("mine")
    assert re.search(rf"external/alpha .* has changes \(1, the first: .* ?{file}\)", project.refusal("alpha"))
    assert (project.external / "alpha" / file).read_text() == "mine"


@pytest.mark.parametrize("inside", ["kernel.cu", ".git/HEAD"])
def test_a_folder_that_is_no_repository_is_refused_and_kept(project: Project, inside: str) -> None:
    file = project.external / "alpha" / inside
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    assert "external/alpha must be a git checkout, and git says: fatal: not a git repo" in project.refusal("alpha")
    assert file.read_text() == "mine"


def test_an_unknown_name_is_refused_before_anything_is_fetched(project: Project) -> None:
    assert "a name must be one of alpha, beta; found gamma" in project.refusal("alpha", "gamma")
    assert project.fetched() == set()


def test_a_missing_git_is_said(project: Project, tmp_path: Path) -> None:
    assert "git is needed and was not found" in project.refusal("alpha", PATH=str(tmp_path))


def test_without_a_network_a_mirror_is_suggested(project: Project) -> None:
    project.pin(project.pins["alpha.git"], "https://127.0.0.1:1/alpha")
    sentence = project.refusal("alpha", no_proxy="127.0.0.1")
    assert "alpha could not be fetched from https://127.0.0.1:1/alpha, and git says: fatal: unable to acc" in sentence
    assert "--mirror" in sentence
    assert project.fetched() == set()


def test_a_mirror_that_lacks_the_commit_is_named(project: Project) -> None:
    wanted = "0123456789" * 4
    project.pin(wanted)
    mirror = project.kernels
    assert f"pinned at {wanted}, which {mirror / 'alpha.git'} does not have" in project.refusal("--mirror", str(mirror))
    assert project.fetched() == set()


def test_a_mirror_without_the_repository_is_named(project: Project, tmp_path: Path) -> None:
    assert f"{tmp_path} has neither" in project.refusal("alpha", "--mirror", str(tmp_path))
    (tmp_path / "alpha").mkdir()
    assert "does not appear to be a git repository" in project.refusal("alpha", "--mirror", str(tmp_path))
    assert project.fetched() == set()


@pytest.mark.parametrize("name", ["marlin", "AutoAWQ", "AutoAWQ_kernels", "llm-awq"])
def test_a_pin_names_one_commit_and_the_readme_says_the_same(name: str) -> None:
    pin = tomllib.loads((EXTERNAL / "pins.toml").read_text(encoding="utf-8"))[name]
    assert set(pin) == {"upstream", "commit", "licence", "use", "install"}
    assert re.fullmatch("[0-9a-f]{40}", pin["commit"])
    assert re.fullmatch(rf"https://github\.com/[\w-]+/{name}", pin["upstream"])
    assert pin["install"].startswith(f"{pin['upstream']}/blob/{pin['commit']}/README.md#")
    readme = (EXTERNAL / "README.md").read_text(encoding="utf-8")
    assert f"| [{name}] | {pin['licence']} |" in readme
    assert f"[{name}]: {pin['upstream']}\n" in readme
    assert f": {pin['install']}\n" in readme


def test_the_session_hands_its_arguments_on_and_fails_with_it() -> None:
    command = [sys.executable, "-m", "nox", "-s", "external", "--", "nonsense"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    said = result.stdout + result.stderr
    assert "external: a name must be one of marlin, AutoAWQ, AutoAWQ_kernels, llm-awq; found nonsense\n" in said
    assert "Traceback" not in said


def test_wheel_and_sdist_hold_nothing_that_was_fetched(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    checkout = tmp_path / "external" / "AutoAWQ"
    for folder in (tmp_path / "awqdoc", checkout / "awq", checkout / "tests"):
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text('__version__ = "0"\n')
    (checkout / "LICENSE").write_text("theirs")
    (checkout / "tests" / "test_awq.py").write_text("")
    build = "from setuptools import build_meta as b; b.build_wheel('.'); b.build_sdist('.')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, capture_output=True, check=True, timeout=60)
    for archive in (next(tmp_path.glob("*.whl")), next(tmp_path.glob("*.tar.gz"))):
        with zipfile.ZipFile(archive) if archive.suffix == ".whl" else tarfile.open(archive) as packed:
            names = packed.namelist() if isinstance(packed, zipfile.ZipFile) else packed.getnames()
        files = {part for name in names for part in Path(name).parts}
        assert "awqdoc" in files
        assert not files & {"external", "AutoAWQ", "awq", "test_awq.py"}
