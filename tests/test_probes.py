"""The probes of the hierarchy: plateaus of made-up staircases, sources without a GPU, and what is asked of one."""

from __future__ import annotations

import ctypes
import math
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from awqdoc import compile, gpu
from awqdoc.errors import AwqdocError
from awqdoc.experiments import hierarchy
from awqdoc.gpu import probes
from awqdoc.gpu.plateaus import plateaus
from awqdoc.gpu.probes import bandwidth, latency, tensor
from awqdoc.recordings import sources

# Plateaus.

SIZES = [round(2 ** (power / 4)) for power in range(48, 117)]  # four in an octave, 4 KiB to 512 MiB


def staircase(steps: list[tuple[int, float]], rise: int) -> tuple[list[float], list[tuple[int, int]]]:
    """Latencies of steps of (points, level), whose first `rise` points climb from the step before to the next."""
    found: list[float] = []
    flat = []
    for number, (points, level) in enumerate(steps):
        before = steps[number - 1][1] if number else level
        climb = [before * (level / before) ** ((i + 1) / (rise + 1)) for i in range(rise if number else 0)]
        flat.append((len(found) + len(climb), len(found) + points - 1))
        found += climb + [level] * (points - len(climb))
    return found, flat


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(14, 23), st.floats(1.6, 4)), min_size=1, max_size=3),
    rise=st.integers(0, 4),
    seed=st.integers(0, 10**6),
)
def test_the_steps_of_a_staircase_with_noise_are_found(steps: list[tuple[int, float]], rise: int, seed: int) -> None:
    levels = list(np.cumprod([30, *(ratio for _, ratio in steps[1:])]))
    exact, flat = staircase([(points, level) for (points, _), level in zip(steps, levels, strict=True)], rise)
    noisy = np.array(exact) * np.random.default_rng(seed).uniform(0.98, 1.02, len(exact))
    found = plateaus(SIZES[: len(exact)], list(noisy))
    assert len(found) == len(levels)
    for plateau, level, (first, last) in zip(found, levels, flat, strict=True):
        assert plateau.cycles == pytest.approx(level, rel=0.03)
        # Its ends are those that were made, but for points of the rise that are within the noise.
        assert abs(SIZES.index(plateau.first) - first) <= 2
        assert abs(SIZES.index(plateau.last) - last) <= 2


@given(slope=st.floats(1.08, 2), count=st.integers(1, 60))
def test_a_steady_climb_has_no_plateau(slope: float, count: int) -> None:
    assume(slope**6 > 1.1)  # four points in an octave, an octave and a half: six steps
    assert plateaus(SIZES[:count], [30 * slope**i for i in range(count)]) == []


def test_a_short_stretch_is_no_plateau() -> None:
    assert plateaus(SIZES[:6], [100.0] * 6) == []
    (found,) = plateaus(SIZES[:7], [100.0] * 7)
    assert (found.first, found.last, found.cycles) == (SIZES[0], SIZES[6], 100)


@pytest.mark.parametrize(("footprints", "cycles"), [([1, 2], [1.0]), ([2, 1], [1.0, 1.0]), ([1, 1], [1.0, 1.0])])
def test_footprints_that_do_not_rise_are_refused(footprints: list[int], cycles: list[float]) -> None:
    with pytest.raises(AwqdocError, match="footprints that rise"):
        plateaus(footprints, cycles)


# The sources.

TOOLS = Path(torch.__file__).parents[1] / "triton/backends/nvidia/bin"
triton_tools = pytest.mark.skipif(not (TOOLS / "nvdisasm").exists(), reason="nvdisasm comes with triton, for Linux")
MEMORY = r"LD[GSL]?|ST[GSL]?|LDSM|STSM|ATOM\w*|RED|UBLKCP|LDGSTS"
HOPPER = ("bulk.cu", "wgmma_rate.cu")

# File, macros -> what the timed part holds, and nothing else that touches memory: instruction and how often.
BUILDS: list[tuple[str, dict[str, int], dict[str, int]]] = [
    ("chase.cu", {"LOADS": 64}, {"LDG.E.64": 64}),
    ("chase_shared.cu", {"CHAINS": 1, "LOADS": 63}, {"LDS": 63}),
    ("chase_shared.cu", {"CHAINS": 4, "LOADS": 63}, {"LDS": 252}),
    ("read.cu", {"CACHED": 1, "LOADS": 4}, {"LDG.E.128": 4}),
    *(("read.cu", {"CACHED": 0, "LOADS": n}, {"LDG.E.128.STRONG.GPU": n}) for n in (1, 2, 4, 8)),
    ("read_shared.cu", {}, {"LDS.128": 2}),
    *(("mma_rate.cu", {"CHAINS": n}, {"HMMA.16816.F32": n}) for n in (1, 2, 4, 8)),
    *(
        (
            "wgmma_rate.cu",
            {"COLUMNS": columns, "LEFT": left, "TOGETHER": together, "PENDING": pending, "ADDERS": adders},
            {f"HGMMA.64x{columns}x16.F32": 4 * together},
        )
        for columns, left, (together, pending, adders) in [
            (32, 0, (1, 1, 1)), (64, 2, (1, 2, 1)), (128, 2, (2, 2, 2)), (192, 1, (1, 4, 1)), (256, 2, (4, 2, 1)),
        ]
    ),
]  # fmt: skip


def tool(*arguments: str | Path) -> str:
    program, *rest = arguments
    return subprocess.run([TOOLS / program, *rest], capture_output=True, text=True, check=True).stdout


def compiled(file: str, arch: str, defines: dict[str, int], folder: Path) -> tuple[dict[str, int], list[str]]:
    """Usage of registers, stack and shared memory; instructions and labels (``.L_x_3:``) in order."""
    code = folder / "kernel.cubin"
    code.write_bytes(probes.cubin(file, arch, **defines).code)
    usage = re.findall(r"(\w+):(\d+)", tool("cuobjdump", "-res-usage", code))
    lines = tool("nvdisasm", "-c", code).splitlines()
    found = [re.match(r"(?:\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+ )?)?([A-Z].*?(?= ?;)|\.L_x_\d+:)", line) for line in lines]
    return {field: int(size) for field, size in usage}, [match[1] for match in found if match]


def builds() -> Iterator[Any]:
    for file, defines, wanted in BUILDS:
        for arch in ("sm_90a",) if file in HOPPER else ("sm_80", "sm_90a"):
            yield pytest.param(file, defines, wanted, arch, id="-".join(map(str, (file, *defines.values(), arch))))


def loops(code: list[str]) -> list[range]:
    """Where instructions lie that are done again: from a label to the branch back to it."""
    labels = {line[:-1]: i for i, line in enumerate(code) if line.endswith(":")}
    branches = [(i, re.match(r"BRA.*?(\.L_x_\d+)", line)) for i, line in enumerate(code)]
    return [range(labels[match[1]], i) for i, match in branches if match and labels[match[1]] < i]


@triton_tools
@pytest.mark.parametrize(("file", "defines", "wanted", "arch"), list(builds()))
def test_between_its_clocks_a_probe_does_what_is_timed_and_touches_no_other_memory(
    file: str, defines: dict[str, int], wanted: dict[str, int], arch: str, tmp_path: Path
) -> None:
    usage, code = compiled(file, arch, defines, tmp_path)
    assert usage["STACK"] == 0, "registers are spilled to local memory"
    start, end = (i for i, line in enumerate(code) if "SR_CLOCK" in line)
    kinds = {i: code[i].split()[0] for i in range(start, end)}
    timed = {i: name for i, name in kinds.items() if re.fullmatch(rf"({MEMORY}|HMMA|HGMMA)(\..*)?", name)}
    assert Counter(timed.values()) == wanted
    assert all(any(i in loop for loop in loops(code)) for i in timed), "something is done but once"


@triton_tools
def test_a_chain_has_nothing_between_its_loads_and_its_end_is_waited_for(tmp_path: Path) -> None:
    for arch in ("sm_80", "sm_90a"):
        _, code = compiled("chase.cu", arch, {"LOADS": 64}, tmp_path)
        loads = [i for i, line in enumerate(code) if line.startswith("LDG")][-64:]
        assert loads == list(range(loads[0], loads[0] + 64))
        last = re.match(r"LDG\.E\.64 (R\d+),", code[loads[-1]])
        assert last is not None
        end = next(i for i in range(loads[-1], len(code)) if "SR_CLOCK" in code[i])
        assert any(re.match(rf"ISETP.* {last[1]},", line) for line in code[loads[-1] : end])


@triton_tools
def test_fragments_are_written_anew_for_each_wgmma_and_its_halves_have_different_ones(tmp_path: Path) -> None:
    defines = {"COLUMNS": 64, "LEFT": 2, "TOGETHER": 2, "PENDING": 2, "ADDERS": 2}
    _, code = compiled("wgmma_rate.cu", "sm_90a", defines, tmp_path)
    start, end = (i for i, line in enumerate(code) if "SR_CLOCK" in line)
    written = [line for line in code[start:end] if line.startswith("LOP3")]
    left = [re.split(r", ", line)[1] for line in code[start:end] if line.startswith("HGMMA")]
    assert len(written) == 4 * 8
    assert [left[i] != left[i + 1] for i in range(0, 8, 2)] == [True] * 4


@triton_tools
def test_the_bulk_copies_and_the_copy_compile(tmp_path: Path) -> None:
    usage, code = compiled("bulk.cu", "sm_90a", {}, tmp_path)
    assert usage["STACK"] == 0
    assert any(line.startswith("UBLKCP") for line in code)
    for arch in ("sm_80", "sm_90a"):
        usage, code = compiled("copy.cu", arch, {}, tmp_path)
        loops = [line.split()[0] for line in code if re.match(r"(LDG|STG)\.", line)]
        assert usage["STACK"] == 0
        assert [name[:9] for name in loops] == ["LDG.E.128"] * 4 + ["STG.E.128"] * 4


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package that the source hash looks at."""
    copied = tmp_path / "awqdoc"
    ignored = shutil.ignore_patterns("__pycache__", "recordings", "shipped")
    shutil.copytree(sources.PACKAGE, copied, ignore=ignored)
    monkeypatch.setattr(sources, "PACKAGE", copied)
    for cached in (sources.source_hash, sources._module):
        cached.cache_clear()
    yield copied
    for cached in (sources.source_hash, sources._module):
        cached.cache_clear()


def test_the_hash_covers_the_probes_and_what_they_include_and_no_other_kernel(package: Path) -> None:
    def hashes() -> tuple[str, str]:
        sources.source_hash.cache_clear()
        return sources.source_hash("hierarchy"), sources.source_hash("kernels")

    def add(file: str) -> None:
        path = package / file
        path.write_text(path.read_text() + "\nconstexpr int MORE = 1;\n")

    before = hashes()
    add("gpu/cuda/chase.cu")
    probe = hashes()
    assert [a == b for a, b in zip(before, probe, strict=True)] == [False, True]
    add("kernels/cuda/hopper.cuh")
    header = hashes()
    assert [a == b for a, b in zip(probe, header, strict=True)] == [False, False]
    add("kernels/cuda/warpgroups.cu")
    assert [a == b for a, b in zip(header, hashes(), strict=True)] == [True, False]


# What is asked of a GPU, of one that we made up: it has two SMs, and each kernel is a few lines of Python.


class OnTheCPU:
    """torch, but what shall be on "cuda" is on the CPU."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(torch, name)
        if name == "cuda":
            return SimpleNamespace(_sleep=lambda _: None, get_device_capability=lambda: (9, 0))
        if name == "Generator":
            return lambda _: torch.Generator()
        if name in ("zeros", "randperm", "randint"):
            return lambda *args, device=None, **more: found(*args, **more)
        return found


def words(tensor: torch.Tensor) -> Any:
    return tensor.numpy().view(np.uint32)


def chase(defines: dict[str, int], first: Any, warm: int, samples: int, cycles: Any, last: Any) -> None:
    at = int(first)
    for _ in range(warm + samples * defines["LOADS"]):
        at = ctypes.c_uint64.from_address(at).value
    cycles.fill_(defines["LOADS"] * 7)
    last.fill_(at)


def chase_shared(defines: dict[str, int], stride: int, samples: int, cycles: Any, last: Any) -> None:
    place = [0, 1024]
    turns = samples * defines["LOADS"]
    for chain in range(defines["CHAINS"]):
        for lane in range(32):
            last[chain, lane] = chain * 2048 + place[turns % 2] + lane * stride
    cycles.fill_(defines["LOADS"] * defines["CHAINS"] * 7)


def read(defines: dict[str, int], source: Any, quads: int, rounds: int, sums: Any, cycles: Any) -> None:
    blocks = cycles.numel()
    parts = words(source)[: blocks * quads * 4].reshape(blocks, quads // defines["LOADS"], -1)
    for _ in range(rounds):
        words(sums)[:blocks] += parts.sum(axis=(1, 2), dtype=np.uint32)


def read_shared(_: dict[str, int], source: Any, rounds: int, sums: Any, cycles: Any) -> None:
    for block in range(cycles.numel()):
        words(sums)[block] = rounds * int(words(source)[:8192].sum(dtype=np.uint64)) % 2**32


def copy(_: dict[str, int], source: Any, target: Any, quads: int) -> None:
    target[: 2 * quads * 4] = source[: 2 * quads * 4]


def bulk(_: dict[str, int], source: Any, chunk: int, slots: int, chunks: int, sums: Any, cycles: Any) -> None:
    for block in range(cycles.numel()):
        mine = words(source)[block * chunk * chunks // 4 :][: chunk * chunks // 4].reshape(chunks, -1)
        there: dict[int, Any] = {turn % slots: mine[turn] for turn in range(chunks)}
        words(sums)[32 * block] = np.concatenate(list(there.values())).sum(dtype=np.uint32)


def mma_rate(_: dict[str, int], a: Any, b: Any, turns: int, sums: Any, cycles: Any) -> None:
    sums.copy_((turns * (a.double() @ b.double().T)).float().expand_as(sums))
    cycles.fill_(turns)


def wgmma_rate(defines: dict[str, int], a: Any, b: Any, turns: int, nothing: int, sums: Any, cycles: Any) -> None:
    assert nothing == 0
    once = torch.zeros(sums.shape[2:])
    for number in range(4 * defines["TOGETHER"]):
        k = 16 * (number // defines["ADDERS"] % 4)
        once[number % defines["ADDERS"]] += a[:, k : k + 16].float() @ b[:, k : k + 16].float().T
    sums.copy_((turns * once).expand_as(sums))
    cycles.fill_(turns)


KERNELS: dict[str, Callable[..., None]] = {
    f"{function.__name__}.cu": function
    for function in (chase, chase_shared, read, read_shared, copy, bulk, mma_rate, wgmma_rate)
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, int]]]:
    """A made-up GPU, small sizes; which kernels were asked for."""
    found: list[tuple[str, dict[str, int]]] = []

    def kernel(file: str, shared: int = 0, **defines: int) -> tuple[str, dict[str, int]]:
        found.append((file, defines))
        return file, defines

    def launch(kernel: tuple[str, dict[str, int]], grid: Any, block: int, shared: int, *arguments: Any) -> None:
        file, defines = kernel
        if file in ("read.cu", "read_shared.cu", "bulk.cu"):
            arguments[-2].zero_()
        KERNELS[file](defines, *arguments)

    for module in (latency, bandwidth, tensor, hierarchy, probes):
        monkeypatch.setattr(module, "torch", OnTheCPU())
    for module in (latency, bandwidth, tensor):
        monkeypatch.setattr(module, "kernel", kernel)
    for module in (bandwidth, tensor, hierarchy):
        monkeypatch.setattr(module, "sms", lambda: 2)
    monkeypatch.setattr(probes, "CUDATimer", lambda _: __import__("awqdoc").profiling.CUDATimer("cpu"))
    monkeypatch.setattr(probes, "SAMPLES", 2)
    monkeypatch.setattr(probes, "WARM_UPS", 0)
    monkeypatch.setattr(compile, "launch", launch)
    monkeypatch.setattr(gpu, "state", lambda: {"sm_clock_mhz": 1000})
    monkeypatch.setattr(gpu, "facts", lambda: [{"fact": "L2 cache", "value": 50 << 20}])
    monkeypatch.setattr(hierarchy, "FOOTPRINTS", (4096, 4864, 6000 * 128))
    monkeypatch.setattr(hierarchy, "SLICES", (32 << 10, 128 << 10))
    monkeypatch.setattr(hierarchy, "LARGEST_SLICE", 128 << 10)
    monkeypatch.setattr(hierarchy, "READ_IN_ALL", 256 << 10)
    hierarchy.forget()
    yield found
    hierarchy.forget()


ROWS = {"latency": 4, "shared memory": 64, "bandwidth": 6, "in flight": 36, "mma.sync": 16, "wgmma": 180}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", hierarchy.KINDS)
def test_a_gpu_that_does_what_is_asked_is_found_right(kind: str, asked: list[tuple[str, dict[str, int]]]) -> None:
    rows = hierarchy.run("cuda", kind)
    assert [row for row in rows if "skipped" in row] == []
    assert len(rows) == ROWS[kind]
    assert all(row["sm_clock_mhz"] == 1000 for row in rows)
    assert all("cycles" in row or "seconds" in row for row in rows if row["what"] != "chip")
    compiled = {(file, tuple(defines)) for file, defines, _ in BUILDS} | {("bulk.cu", ()), ("copy.cu", ())}
    assert {(file, tuple(defines)) for file, defines in asked} <= compiled


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", hierarchy.KINDS)
def test_a_probe_whose_result_is_wrong_has_no_samples(
    kind: str, asked: list[tuple[str, dict[str, int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = compile.launch

    def wrong(kernel: Any, grid: Any, block: int, shared: int, *arguments: Any) -> None:
        launch(kernel, grid, block, shared, *arguments)
        result = arguments[{"copy.cu": 1, "chase.cu": -1, "chase_shared.cu": -1}.get(kernel[0], -2)]
        result.view(-1)[0] += 1

    monkeypatch.setattr(compile, "launch", wrong)
    rows = [row for row in hierarchy.run("cuda", kind) if row["what"] != "chip"]
    assert all(row["skipped"] == hierarchy.WRONG for row in rows)
    assert not any("cycles" in row or "seconds" in row for row in rows)


def test_cycles_are_those_of_what_is_counted(asked: list[tuple[str, dict[str, int]]]) -> None:
    _, *rows = hierarchy.run("cuda", "latency")
    assert {cycles for row in rows for cycles in row["cycles"]} == {7}
    assert {cycles for row in hierarchy.run("cuda", "shared memory") for cycles in row["cycles"]} == {7}
    (row,) = [r for r in hierarchy.run("cuda", "mma.sync") if (r["warps"], r["chains"]) == (4, 2)]
    assert row["cycles"] == [1 / 8] * 2
    assert row["flop"] == 2 * 4096 * 8 * 4096  # SMs, turns, products in a turn, FLOP of m16n8k16


def test_before_hopper_what_needs_it_is_skipped_with_the_reason(
    asked: list[tuple[str, dict[str, int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    older = OnTheCPU()
    older.cuda = SimpleNamespace(_sleep=lambda _: None, get_device_capability=lambda: (8, 0))  # type: ignore[attr-defined]
    monkeypatch.setattr(hierarchy, "torch", older)
    assert ["compute capability 9" in row["skipped"] for row in hierarchy.run("cuda", "wgmma")] == [True]
    assert ["skipped" in row for row in hierarchy.run("cuda", "in flight")] == [False] * 24 + [True]


def test_sizes_divide_as_the_kernels_need() -> None:
    assert all(size % (512 * 4 * 16) == 0 for size in hierarchy.SLICES)
    biggest = max(hierarchy.THREADS) * max(hierarchy.LOADS) * 16
    assert hierarchy.LARGEST_SLICE % biggest == 0
    assert hierarchy.LARGEST_SLICE // 2 % (1024 * bandwidth.COPIES_AT_ONCE) == 0
    assert all(size % (16 * bandwidth.slots(size)) == 0 for size in hierarchy.IN_FLIGHT)
    assert max(hierarchy.IN_FLIGHT) <= bandwidth.MOST_IN_FLIGHT
    assert all(footprint % latency.LINE == 0 for footprint in hierarchy.FOOTPRINTS)
    # Sums of small integers stay exact in float32.
    longest = hierarchy.WGMMA_TURNS * tensor.DEPTH * 4 * 4
    assert max(longest, hierarchy.TURNS * 16 * 4 * 4) < 1 << 24
    assert math.log2(hierarchy.FOOTPRINTS[-1]) == 29


def test_a_kind_that_there_is_not_is_refused() -> None:
    with pytest.raises(AwqdocError, match=r"one of latency, shared memory, .*; found 'speed'"):
        hierarchy.check("speed")


# On a GPU.


@pytest.mark.gpu
def test_probes_are_right_on_this_gpu() -> None:
    memory = torch.randint(-(2**31), 2**31, (probes.sms() * (1 << 18),), dtype=torch.int32, device="cuda")
    for footprint in (4096, 1 << 20):
        assert latency.chase(footprint, torch.zeros(footprint // 8, dtype=torch.int64, device="cuda")).right
    for chains in (1, 4):
        assert latency.chase_shared(3, chains).right
    for cached in (True, False):
        assert bandwidth.read(memory, 1 << 20, cached, 512, 4, 3).right
    assert bandwidth.read(memory, 1 << 20, False, 1024, 8, 1).right
    assert bandwidth.copy(memory, 1 << 20).right
    assert bandwidth.read_shared(memory, 9).right
    assert tensor.mma(8, 4, 100).right


@pytest.mark.gpu
@pytest.mark.parametrize("left", tensor.LEFT)
@pytest.mark.parametrize("way", [(1, 1, 1), (2, 2, 2)])
def test_wgmma_is_right_on_this_gpu(left: str, way: tuple[int, int, int]) -> None:
    if torch.cuda.get_device_capability()[0] != 9:
        pytest.skip("wgmma is an instruction of compute capability 9.x")
    assert tensor.wgmma(64, left, *way, warpgroups=2, turns=100).right


@pytest.mark.gpu
def test_bulk_copies_are_right_on_this_gpu() -> None:
    if torch.cuda.get_device_capability()[0] < 9:
        pytest.skip("bulk copies need compute capability 9.0 or higher")
    memory = torch.randint(-(2**31), 2**31, (probes.sms() * (1 << 18),), dtype=torch.int32, device="cuda")
    for in_flight in (1 << 10, 12 << 10, 96 << 10):
        assert bandwidth.bulk(memory, 1 << 20, in_flight).right
