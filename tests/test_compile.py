"""CUDA C++ sources compiled by NVRTC without a GPU, and what is said when they do not compile."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from awqdoc import compile
from awqdoc.errors import AwqdocError

WITHOUT = 'extern "C" __global__ void twice(float* x) { x[threadIdx.x] *= FACTOR; }'


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(compile, "SOURCES", tmp_path)
    compile.cubin.cache_clear()
    return tmp_path


def test_a_source_compiles_without_a_gpu_for_the_sizes_that_it_is_given(sources: Path) -> None:
    (sources / "twice.cu").write_text(WITHOUT)
    code = compile.cubin("twice.cu", "sm_80", FACTOR=2).code
    assert code[:4] == b"\x7fELF"
    assert code != compile.cubin("twice.cu", "sm_80", FACTOR=3).code


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
