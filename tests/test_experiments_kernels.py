"""The experiment ``kernels``, with made-up kernels on the CPU: who is timed, who is not, and why."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch

from awqdoc import gpu
from awqdoc.experiments import kernels
from awqdoc.formats import QuantizedWeight
from awqdoc.kernels.table import Kernel

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPE = "64x256"
# Seconds that one call takes, where the test says it.
SECONDS = {"fp16": 1e-3, "slow": 4e-3, "slowest": 60e-3}


def prepare(weight: QuantizedWeight) -> dict[str, torch.Tensor]:
    return {"weight": weight.dequantize(), "workspace": torch.zeros(1000), "metadata": torch.tensor([1])}


def right(x: torch.Tensor, prepared: dict[str, torch.Tensor]) -> torch.Tensor:
    return (x.float() @ prepared["weight"].float()).half()


def refuses(x: torch.Tensor, prepared: dict[str, torch.Tensor]) -> torch.Tensor:
    raise RuntimeError("no kernel in /opt/lib/its.so\nat all")


def lost(x: torch.Tensor, prepared: dict[str, torch.Tensor]) -> torch.Tensor:
    raise RuntimeError("CUDA error: an illegal instruction was encountered")


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Kernels by name, of which a test may add some: FP16 and one of ours; the rest are peers."""
    table: dict[str, Kernel] = {}

    class Adding(dict[str, Any]):
        def __setitem__(self, name: str, matmul: Any) -> None:
            module = ModuleType(f"made_up_{name}")
            module.prepare, module.matmul = prepare, matmul  # type: ignore[attr-defined]
            monkeypatch.setitem(sys.modules, module.__name__, module)
            table[name] = Kernel(name, name, module.__name__, bits=4, cpu=True, tried=name.startswith("tried"))
            super().__setitem__(name, matmul)
            monkeypatch.setattr(kernels, "PEERS", tuple(key for key in table if key not in ("fp16", "ours")))

    monkeypatch.setattr(kernels, "KERNELS", table)
    monkeypatch.setattr(kernels, "COLD_BYTES", 8 * 64 * 256 * 2)
    monkeypatch.setattr(kernels, "_seconds", lambda call: SECONDS.get(call.func.__name__, 1e-6))
    monkeypatch.setattr(gpu, "state", dict)
    found = Adding()
    found["fp16"] = named("fp16")
    found["ours"] = right
    yield found
    for cached in (kernels._why_not_imported, kernels._verdicts):
        cached.cache_clear()
    kernels.forget()


def named(name: str) -> Any:
    def matmul(x: torch.Tensor, prepared: dict[str, torch.Tensor]) -> torch.Tensor:
        return right(x, prepared)

    matmul.__name__ = name
    return matmul


def run(zero_points: bool = True, m: int = 2) -> dict[str, dict[str, Any]]:
    return {row["backend"]: row for row in kernels.run("cpu", SHAPE, zero_points, m)}


def test_a_slow_kernel_is_called_less_often_and_a_very_slow_one_is_not_timed(made_up: dict[str, Any]) -> None:
    made_up["slow"], made_up["slowest"] = named("slow"), named("slowest")
    rows = run()
    # A weight and 8 copies and a bit of it; of the slow ones as many calls as take 10 ms.
    assert {name: row.get("calls") for name, row in rows.items()} == {
        "fp16": 9, "ours": 9, "slow": 3, "slowest": None, "read": rows["read"]["calls"],
    }  # fmt: skip
    assert rows["slowest"]["skipped"] == "it takes 60.0 ms for one call, 60 times FP16: not timed further"
    assert all(len(rows[name]["seconds"]) == kernels.ROUNDS for name in ("fp16", "ours", "slow", "read"))


def test_neither_workspaces_count_as_bytes_of_the_layout_nor_are_they_copied(made_up: dict[str, Any]) -> None:
    assert run()["ours"]["prepared"] == 64 * 256 * 2 + 8
    first, *others = kernels._copies("ours", SHAPE, True, "cpu")
    assert all(copy["workspace"] is first["workspace"] for copy in others)
    assert len({copy["weight"].data_ptr() for copy in (first, *others)}) == 1 + len(others)


def test_a_peer_that_refuses_says_why_and_is_not_timed(made_up: dict[str, Any]) -> None:
    made_up["peer"] = refuses
    assert run()["peer"] == {"backend": "peer", "skipped": "it failed (no kernel in its.so)"}


@pytest.mark.parametrize(("name", "matmul"), [("ours", refuses), ("peer", lost)])
def test_a_failure_of_ours_or_a_lost_gpu_ends_the_experiment(made_up: dict[str, Any], name: str, matmul: Any) -> None:
    made_up[name] = matmul
    with pytest.raises(RuntimeError):
        run()


def test_a_kernel_is_tried_once_for_all_batch_sizes(made_up: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def trial(*call: Any) -> dict[int, str | None]:
        asked.append(call)
        return {m: "its process crashed with SIGABRT" if m == 2 else None for m in call[-1]}

    monkeypatch.setattr(kernels, "trial", trial)
    made_up["tried"] = right
    assert run(m=2)["tried"]["skipped"] == "its process crashed with SIGABRT"
    assert "seconds" in run(m=4)["tried"]
    assert asked == [("tried", 64, 256, 128, True, sorted(kernels.AXES["m"], reverse=True))]
    run(m=3)  # not published: tried alone
    assert asked[1:] == [("tried", 64, 256, 128, True, [3])]
