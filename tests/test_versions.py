"""The folder that holds every published version of the site, and the branch that it is kept in."""

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "_deploy"
SPEC = importlib.util.spec_from_file_location("versions", FOLDER / "versions.py")
assert SPEC is not None
assert SPEC.loader is not None
versions = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(versions)

URL = "https://example.org/awqdoc"


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """A built site with the files that Sphinx leaves for itself."""
    folder = tmp_path / "html"
    for name in ("index.html", "_static/awqdoc.css", ".buildinfo", ".doctrees/index.doctree"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def entries(everything: Path) -> dict[str, dict[str, object]]:
    return {entry["version"]: entry for entry in json.loads((everything / "switcher.json").read_text())}


def test_first_version_is_main(tmp_path: Path, build: Path) -> None:
    everything = tmp_path / "all"
    versions.add(everything, build, "main", URL)
    assert (everything / "main" / "_static" / "awqdoc.css").exists()
    assert not list(everything.rglob(".doctrees"))
    assert (everything / ".nojekyll").exists()
    assert "url=main/" in (everything / "index.html").read_text()
    assert entries(everything) == {
        "main": {"name": "main", "version": "main", "url": f"{URL}/main/", "preferred": True}
    }


def test_releases_are_ordered_by_number_and_lead_the_redirect(tmp_path: Path, build: Path) -> None:
    everything = tmp_path / "all"
    for name in ("main", "v0.9.0", "v0.10.0", "v0.11.0rc1", "v0.2.0"):
        versions.add(everything, build, name, URL + "/")
    assert list(entries(everything)) == ["main", "v0.11.0rc1", "v0.10.0", "v0.9.0", "v0.2.0"]
    assert [name for name, entry in entries(everything).items() if entry["preferred"]] == ["v0.10.0"]
    assert entries(everything)["v0.10.0"]["name"] == "v0.10.0 (newest release)"
    assert entries(everything)["v0.9.0"]["url"] == f"{URL}/v0.9.0/"
    assert "url=v0.10.0/" in (everything / "index.html").read_text()


def test_release_follows_its_candidates() -> None:
    names = ["v1.0.0", "v1.0.0rc2", "v1.0.0rc10", "v1.0.0b1", "v1.0.1"]
    assert sorted(names, key=versions.age) == ["v1.0.0b1", "v1.0.0rc2", "v1.0.0rc10", "v1.0.0", "v1.0.1"]


def test_new_build_replaces_only_its_own_version(tmp_path: Path, build: Path) -> None:
    everything = tmp_path / "all"
    versions.add(everything, build, "v0.1.0", URL)
    (everything / "CNAME").write_text("awq.example.org")
    versions.add(everything, build, "main", URL)
    (build / "_static" / "awqdoc.css").unlink()
    versions.add(everything, build, "main", URL)
    assert not (everything / "main" / "_static" / "awqdoc.css").exists()
    assert (everything / "v0.1.0" / "_static" / "awqdoc.css").exists()
    assert (everything / "CNAME").exists()
    assert list(entries(everything)) == ["main", "v0.1.0"]


@pytest.mark.parametrize("name", ["1.0.0", "v1.0", "feature", "v1.0.0/..", ""])
def test_other_names_are_refused(tmp_path: Path, build: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert versions.main([str(tmp_path / "all"), str(build), name, URL]) == 1
    assert (
        capsys.readouterr().err == f"A version is called main or vX.Y.Z (vX.Y.Zrc1 before it), but this one {name!r}.\n"
    )
    assert not (tmp_path / "all").exists()


def test_folder_without_a_site_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert versions.main([str(tmp_path / "all"), str(tmp_path), "main", URL]) == 1
    assert "has no index.html; build it with `nox -s docs`" in capsys.readouterr().err


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone, with one commit, of an empty repository."""
    git(tmp_path, "init", "--quiet", "--bare", "origin.git")
    git(tmp_path, "clone", "--quiet", "origin.git", "clone")
    git(tmp_path / "clone", "commit", "--quiet", "--allow-empty", "-m", "start")
    for setting in (("user.name", "test"), ("user.email", "test@example.org")):
        git(tmp_path / "clone", "config", *setting)
    return tmp_path / "clone"


def publish(clone: Path, build: Path, name: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(FOLDER / "publish.sh"), str(build), name, URL]
    return subprocess.run(command, cwd=clone, capture_output=True, text=True)


def test_branch_keeps_every_version_in_one_commit(clone: Path, build: Path) -> None:
    for name in ("main", "v0.1.0", "main"):
        done = publish(clone, build, name)
        assert done.returncode == 0, done.stderr
    origin = clone.parent / "origin.git"
    files = git(origin, "ls-tree", "-r", "--name-only", "gh-pages").splitlines()
    assert {
        ".nojekyll",
        "index.html",
        "switcher.json",
        "main/index.html",
        "v0.1.0/_static/awqdoc.css",
    } <= set(files)
    assert git(origin, "rev-list", "--count", "gh-pages") == "1"
    assert "url=v0.1.0/" in git(origin, "show", "gh-pages:index.html")
    assert git(clone, "status", "--porcelain") == ""


def test_branch_survives_a_run_that_pushed_in_between(clone: Path, build: Path) -> None:
    """A hook is the other run: when the first push has begun, it puts a release into the branch."""
    assert publish(clone, build, "main").returncode == 0
    origin = clone.parent / "origin.git"
    other = clone.parent / "other"
    git(clone.parent, "clone", "--quiet", "origin.git", "other")
    git(other, "checkout", "--quiet", "gh-pages")
    shutil.copytree(other / "main", other / "v0.1.0")
    git(other, "add", "--all")
    git(other, "commit", "--quiet", "-m", "the other run")
    commit = git(other, "rev-parse", "HEAD")
    git(other, "push", "--quiet", "origin", "HEAD:refs/heads/other")
    hook = clone / ".git" / "hooks" / "pre-push"
    hook.write_text(f'#!/bin/sh\nrm "$0"\ngit -C "{origin}" update-ref refs/heads/gh-pages {commit}\n')
    hook.chmod(0o755)
    (build / "index.html").write_text("a newer build")

    done = publish(clone, build, "main")
    assert done.returncode == 0, done.stderr
    assert "Attempt 1: another run published in between." in done.stdout
    assert {"main", "v0.1.0"} <= set(git(origin, "ls-tree", "--name-only", "gh-pages").splitlines())
