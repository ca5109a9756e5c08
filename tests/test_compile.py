"""CUDA C++ sources compiled by NVRTC without a GPU, and what is said when they do not compile."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from awqdoc import compile
from awqdoc.errors import AwqdocError
from awqdoc.gpu import probes

ROOT = Path(__file__).parents[1]
WITHOUT = 'extern "C" __global__ void twice(float* x) { x[threadIdx.x] *= FACTOR; }'
needs_nvrtc = pytest.mark.skipif(sys.platform == "darwin", reason="there is no cuda-core for macOS")


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(compile, "SOURCES", tmp_path)
    compile.cubin.cache_clear()
    yield tmp_path
    compile.cubin.cache_clear()


@needs_nvrtc
def test_a_source_compiles_without_a_gpu_for_the_sizes_that_it_is_given(sources: Path) -> None:
    (sources / "twice.cu").write_text(WITHOUT)
    code = compile.cubin("twice.cu", "sm_80", FACTOR=2).code
    assert code[:4] == b"\x7fELF"
    assert code != compile.cubin("twice.cu", "sm_80", FACTOR=3).code


@needs_nvrtc
def test_what_does_not_compile_is_named_with_the_compilers_log(sources: Path) -> None:
    (sources / "twice.cu").write_text(WITHOUT)
    with pytest.raises(
        AwqdocError, match=r"(?s)twice.cu does not compile for sm_80.*identifier \"FACTOR\" is undefined"
    ):
        compile.cubin("twice.cu", "sm_80")


def test_a_missing_cuda_core_is_one_sentence(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(AwqdocError, match=r"install it with `pip install awqdoc\[cuda\]`"):
        compile.cubin("twice.cu", "sm_80")


def test_the_wheel_brings_the_sources(tmp_path: Path) -> None:
    for name in ("LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    large = shutil.ignore_patterns("__pycache__", "recordings", "shipped")
    shutil.copytree(ROOT / "awqdoc", tmp_path / "awqdoc", ignore=large)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--wheel-dir", tmp_path]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, tmp_path], check=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        shipped = set(wheel.namelist())
    for sources in (compile.SOURCES, probes.SOURCES):
        assert {path.relative_to(ROOT).as_posix() for path in sources.iterdir()} <= shipped
