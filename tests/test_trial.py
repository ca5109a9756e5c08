"""Trying a backend in a process of its own: made-up adapters that crash, hang, compute wrongly or never the same."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from awqdoc.kernels import trial as trials
from awqdoc.kernels.table import KERNELS, Kernel

FINE = """
import atexit, os, torch
with open(os.environ["STARTS"], "a") as file:
    file.write(".")
calls = []

def prepare(weight):
    return {"weight": weight.dequantize().float()}

def matmul(x, prepared):
    calls.append(x)
    return (x.float() @ prepared["weight"]).half()
"""


@pytest.fixture(autouse=True)
def starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with a dot for each process that imported an adapter."""
    monkeypatch.setenv("STARTS", str(tmp_path / "starts"))
    return tmp_path / "starts"


@pytest.fixture
def adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Write an adapter, with a change, and return its name, under which it is a backend and a module too."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), str(tmp_path)])
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # with it a verdict that is not flushed would come too
    monkeypatch.syspath_prepend(tmp_path)

    def write(name: str, old: str = "", new: str = "") -> str:
        assert old in FINE
        (tmp_path / f"{name}.py").write_text(FINE.replace(old, new))
        monkeypatch.setitem(KERNELS, name, Kernel(name, name, name, bits=4))
        return name

    return write


def tried(name: str, *ms: int, zero_points: bool = True) -> dict[int, str | None]:
    return trials.trial(name, 64, 256, 128, zero_points, ms)


def test_a_right_backend_is_fine_in_one_process(adapter: Callable[..., str], starts: Path) -> None:
    name = adapter("right", "    return {", "    assert weight.symmetric\n    return {")
    assert tried(name, 3, 1, 8, zero_points=False) == {3: None, 1: None, 8: None}
    assert len(starts.read_text()) == 1


AT_3 = "    if len(x) == 3: "


@pytest.mark.parametrize(
    ("crash", "reason"),
    [
        ("os.abort()", "its process crashed with SIGABRT"),
        ("os._exit(0)", "its process ended without a verdict"),
        ("os.write(2, b'what(): CUDA error: lost\\nbye\\n'); os._exit(9)",
         "its process crashed with status 9 (CUDA error: lost)"),
        ("raise RuntimeError('CUDA' + ' error: lost\\nbye')", "its process crashed with status 1 (CUDA error: lost)"),
    ],
    ids=["abort", "silent", "with a word", "as the GPU is lost"],
)  # fmt: skip
def test_after_a_crash_another_process_goes_on(
    adapter: Callable[..., str], starts: Path, crash: str, reason: str
) -> None:
    name = adapter("crashing", "    calls", f"{AT_3}{crash}\n    calls")
    assert tried(name, 2, 3, 4) == {2: None, 3: reason, 4: None}
    assert len(starts.read_text()) == 2


def test_a_backend_that_crashes_everywhere_is_given_up(adapter: Callable[..., str], starts: Path) -> None:
    found = tried(adapter("crashing", "    calls", "    os.abort()\n    calls"), 1, 2, 4, 8)
    crashed, not_tried = "its process crashed with SIGABRT", "not tried, for its process crashed or hung at M = 1, 2"
    assert found == {1: crashed, 2: crashed, 4: not_tried, 8: not_tried}
    assert len(starts.read_text()) == 2


def test_a_process_that_crashes_at_its_end_condemns_what_went_well(adapter: Callable[..., str]) -> None:
    found = tried(adapter("ending", "calls = []", "atexit.register(os._exit, 5)\ncalls = []"), 1, 2)
    assert found == dict.fromkeys((1, 2), "its process crashed with status 5")


def test_a_backend_that_hangs_is_ended_and_what_it_did_before_is_kept(
    adapter: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait(command: list[str], timeout: float, **_: object) -> None:
        raise subprocess.TimeoutExpired(command, timeout, output=b"noise\nverdict 2: fine\nverd")

    monkeypatch.setattr(subprocess, "run", wait)
    late, not_tried = "it did not end within 120 s", "not tried, for its process crashed or hung at M = 3, 4"
    assert tried(adapter("right"), 2, 3, 4, 5) == {2: None, 3: late, 4: late, 5: not_tried}


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (".half()", ".half() * 1.02", "wrong: its relative error against float32 is 0.02"),
        (".half()", "", "wrong: it returns float32 [3, 64]"),
        ("(x.float() @", "(float('nan') * x.float() @", "wrong: its relative error against float32 is nan"),
        (".half()", ".half() + 0.001 * (len(calls) % 8 == 5)", "its results change from call to call, by up to 0.00"),
        ("    calls", "    raise OSError('\\nno /home/me/built.so\\nmore')\n    calls", "it failed (no built.so)"),
        ("    calls", "    raise RuntimeError\n    calls", "it failed (RuntimeError)"),
        ("import atexit", "import a_library_that_nobody_has, atexit",
         "it cannot be imported (No module named 'a_library_that_nobody_has')"),
    ],
)  # fmt: skip
def test_what_a_backend_does_wrong_is_said(
    adapter: Callable[..., str], capsys: pytest.CaptureFixture[str], old: str, new: str, reason: str
) -> None:
    name = f"bad_{abs(hash(new))}"
    trials.main([adapter(name, old, new), "64", "256", "128", "1", "3"])
    assert capsys.readouterr().out.startswith(f"\nverdict 3: {reason}")


@pytest.mark.gpu
def test_an_output_that_is_not_written_is_seen(adapter: Callable[..., str]) -> None:
    name = adapter("empty", FINE.split("return ")[-1], "torch.empty(len(x), 64, dtype=torch.float16, device='cuda')")
    assert tried(name, 300) == {300: "wrong: its relative error against float32 is nan"}


@pytest.mark.parametrize("computes", [True, False])
def test_a_graph_that_does_not_hold_the_kernel_is_seen(monkeypatch: pytest.MonkeyPatch, computes: bool) -> None:
    static = torch.zeros(2)

    class Adapter:
        @staticmethod
        def matmul(x: torch.Tensor, prepared: dict[str, torch.Tensor]) -> torch.Tensor:
            return static.copy_(x)

    def captured(calls: list[Callable[[], object]]) -> Callable[[], object]:
        calls[0]()
        return calls[0] if computes else lambda: None

    monkeypatch.setattr(trials, "captured", captured)
    reason = trials._not_in_a_graph(Adapter, torch.ones(2), {}, torch.ones(2))
    assert (reason is None) == computes
