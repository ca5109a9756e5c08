"""The ladder of CUDA kernels: its format against the PTX manual's fragments, its sources, its schedule, its results."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from awqdoc import compile
from awqdoc.formats import Problem, QuantizedWeight
from awqdoc.kernels.ladder import records, warpgroups
from awqdoc.kernels.ladder.schedule import helpers, stripe, stripes
from awqdoc.kernels.table import KERNELS, LADDER, why_not
from awqdoc.quantize import round_to_nearest


def weight(k: int, n: int, group_size: int, zero_points: bool = True, device: str = "cpu") -> QuantizedWeight:
    found = round_to_nearest(torch.randn(k, n, device=device) * 0.02, group_size)
    return found if zero_points else QuantizedWeight(found.codes, found.scales, None, group_size)


# The format.


def fragment(record: np.ndarray, tile: int, step: int, group_size: int, zero_points: bool) -> np.ndarray:
    """The left fragment of a 16 x 16 tile, codes less zero points: float16 [lane, register, half], by the bit trick."""
    words = record[: records.CODE_BYTES].view(np.uint32).reshape(8, 2, 32, 4)[tile, step // 4, :, step % 4]
    groups = 128 // group_size
    zeros = record[records.CODE_BYTES + 256 * groups :].reshape(groups, 8, 8) if zero_points else None
    pair = zeros[step * 16 // group_size, tile].repeat(4) if zeros is not None else np.full(32, 0x88, np.uint8)
    low, high = (pair & 15).astype(np.float16) + np.float16(1024), (pair >> 4).astype(np.float16) + np.float16(64)
    registers = []
    for shift in (0, 8):
        word = words >> np.uint32(shift)
        for mask, magic, constant in ((0x000F000F, 0x64006400, low), (0x00F000F0, 0x54005400, high)):
            halves = ((word & np.uint32(mask)) | np.uint32(magic)).view(np.float16).reshape(32, 2)
            registers.append(halves - constant[:, None])
    return np.stack(registers, axis=1)


def spread(found: np.ndarray) -> np.ndarray:
    """Put the left fragment of mma.m16n8k16 together as the PTX manual draws it: [row, k]."""
    whole = np.full((16, 16), np.nan, np.float32)
    for lane in range(32):
        for register in range(4):
            for half in range(2):
                row = lane // 4 + 8 * (register % 2)
                k = lane % 4 * 2 + half + 8 * (register // 2)
                whole[row, k] = found[lane, register, half]
    return whole


@settings(max_examples=15, deadline=None)
@given(
    tiles=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    group_size=st.sampled_from([32, 64, 128]),
    zero_points=st.booleans(),
    place=st.tuples(st.integers(0, 7), st.integers(0, 7)),
    seed=st.integers(0, 1000),
)
def test_a_record_holds_the_fragments_of_the_ptx_manual(
    tiles: tuple[int, int], group_size: int, zero_points: bool, place: tuple[int, int], seed: int
) -> None:
    torch.manual_seed(seed)
    n, k = tiles[0] * 128, tiles[1] * 128
    packed = weight(k, n, group_size, zero_points)
    found = records.prepare(packed)["records"].numpy()
    tile, step = place
    zeros = 8 if packed.zeros is None else packed.zeros.repeat_interleave(group_size, 0).short()
    wanted = (packed.codes.short() - zeros).numpy()
    for row in range(tiles[0]):
        for column in range(tiles[1]):
            part = wanted[column * 128 + step * 16 :, row * 128 + tile * 16 :][:16, :16].T
            got = spread(fragment(found[row, column], tile, step, group_size, zero_points))
            np.testing.assert_array_equal(got, part)


def test_scales_lie_as_pairs_of_row_and_row_8_further() -> None:
    packed = weight(256, 128, 64)
    stored = records.prepare(packed)["records"][0, 1].numpy()  # k 128 to 255: groups 2 and 3
    scales = stored[records.CODE_BYTES :][: 2 * 256].view(np.float16).reshape(2, 8, 8, 2)
    for group, tile, row, half in ((0, 0, 0, 0), (1, 3, 5, 1), (0, 7, 7, 1)):
        assert scales[group, tile, row, half] == packed.scales[2 + group, tile * 16 + row + 8 * half]


def test_one_group_for_all_of_k_is_stored_with_each_record() -> None:
    single = weight(384, 128, 384)
    repeated = QuantizedWeight(single.codes, single.scales.expand(3, -1), single.zeros.expand(3, -1), 128)  # type: ignore[union-attr]
    assert torch.equal(records.prepare(single)["records"], records.prepare(repeated)["records"])


@pytest.mark.parametrize("group_size", [32, 64, 128])
@pytest.mark.parametrize("zero_points", [True, False])
def test_sizes_are_read_off_the_records(group_size: int, zero_points: bool) -> None:
    found = records.sizes(records.prepare(weight(256, 384, group_size, zero_points)))
    assert found == (384, 256, group_size, zero_points)


def test_records_take_no_more_than_awqs_format() -> None:
    packed = weight(1024, 512, 128)
    size = records.prepare(packed)["records"].nbytes
    assert size == Problem(1, 512, 1024).weight_bytes(4)


# The sources.

# Tokens, group size, zero points. The last two steps use the sources of others.
CASES = [(8, 128, True), (8, 32, True), (16, 64, False), (32, 128, True), (64, 128, True)]
SIZES = {
    "cuda_dequantize": CASES[:1],
    "cuda_fused": [(1, 128, True), (4, 32, True)],
    "cuda_tensor_cores": CASES,
    "cuda_pipeline": CASES,
    "cuda_stripes": CASES,
    "cuda_warpgroups": [(32, 32, True), (64, 64, False), *((tokens, 128, True) for tokens in range(32, 129, 16))],
    "cuda_small_batch": [(8, 128, True), (8, 32, True), (16, 64, False), (24, 128, True)],
}
WANTED = {"cuda_dequantize": "STG", "cuda_fused": "FFMA", "cuda_warpgroups": "HGMMA"}  # the others: HMMA
# Shared memory that a block may have (CUDA programming guide, technical specifications per compute capability); on
# Hopper, where cuobjdump counts it, with the 1 KB that the system takes.
MOST_SHARED = {"sm_80": 163 << 10, "sm_90a": 228 << 10}
TOOLS = Path(torch.__file__).parents[1] / "triton/backends/nvidia/bin"
triton_tools = pytest.mark.skipif(not (TOOLS / "nvdisasm").exists(), reason="nvdisasm comes with triton, for Linux")


def builds() -> Iterator[Any]:
    for name, cases in SIZES.items():
        for arch in ("sm_80", "sm_90a") if KERNELS[name].capability == (8, 0) else ("sm_90a",):
            for case in cases:
                yield pytest.param(name, arch, case, id="-".join(map(str, (name, arch, *case))))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, dict[str, int]]]:
    """What adapters ask for where no GPU is: source, bytes of dynamic shared memory and macros of each kernel."""
    found: list[tuple[str, int, dict[str, int]]] = []
    monkeypatch.setattr(compile, "kernel", lambda file, shared=0, **defines: found.append((file, shared, defines)))
    monkeypatch.setattr(compile, "launch", lambda *_, **__: None)
    monkeypatch.setattr(compile, "tensor_map", lambda *_: None)
    monkeypatch.setattr(warpgroups, "schedule", lambda m, *_: warpgroups.Schedule(m, 1, 1))
    monkeypatch.setattr(records, "shared_memory", lambda _: 227 << 10)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(multi_processor_count=132))
    return found


def tool(*arguments: str | Path) -> str:
    program, *rest = arguments
    return subprocess.run([TOOLS / program, *rest], capture_output=True, text=True, check=True).stdout


def instructions(sass: str) -> Counter[str]:
    found = re.findall(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\d+ )?([A-Z0-9]+)", sass, re.MULTILINE)
    return Counter(found)


def unwritten_descriptors(sass: str) -> set[str]:
    """Uniform registers that an instruction takes a cache policy from, in pairs, and that none writes."""
    used = {int(first) + more for first in re.findall(r"desc\[UR(\d+)\]", sass) for more in (0, 1)}
    written = set()
    for operation, first in re.findall(r"\b([A-Z][A-Z0-9.]*) (?:U?P\w+, )*UR(\d+),", sass):
        wide = {"64", "U64", "WIDE"} & set(operation.split("."))
        written |= {int(first), int(first) + 1} if wide else {int(first)}
    return {f"UR{register}" for register in used - written}


@triton_tools
@pytest.mark.parametrize(("name", "arch", "case"), list(builds()))
def test_what_a_step_asks_for_compiles_and_fits(
    name: str,
    arch: str,
    case: tuple[int, int, bool],
    asked: list[tuple[str, int, dict[str, int]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    m, group_size, zero_points = case
    step = import_module(KERNELS[name].module)
    if arch == "sm_80":
        monkeypatch.setattr(records, "shared_memory", lambda _: 163 << 10)
    step.matmul(torch.zeros(m, 256).half(), step.prepare(weight(256, 256, group_size, zero_points)))
    file, shared, defines = asked[0]
    assert asked == asked[:1] * len(asked)  # where less shared memory is, more launches
    code = tmp_path / "kernel.cubin"
    code.write_bytes(compile.cubin(file, arch, **defines).code)
    usage = {field: int(size) for field, size in re.findall(r"(\w+):(\d+)", tool("cuobjdump", "-res-usage", code))}
    assert shared + usage["SHARED"] <= MOST_SHARED[arch]
    assert usage["STACK"] == 0, "registers are spilled to local memory"
    sass = tool("nvdisasm", "-c", code)
    assert instructions(sass)[WANTED.get(name, "HMMA")] > 0
    assert not unwritten_descriptors(sass)


@triton_tools
@pytest.mark.parametrize("tokens", range(32, 129, 16))
@pytest.mark.parametrize("pairs", [0, 1])
def test_a_wgmma_need_not_wait_for_the_one_before(tokens: int, pairs: int, tmp_path: Path) -> None:
    stages = min(8, warpgroups.SHARED // (tokens * 256 + 2 * 8576))
    code = compile.cubin("warpgroups.cu", "sm_90a", TOKENS=tokens, STAGES=stages, GROUP=128, ZEROS=1, PAIRS=pairs).code
    (tmp_path / "kernel.cubin").write_bytes(code)
    waits = tool("nvdisasm", "-c", tmp_path / "kernel.cubin").count("WARPGROUP.DEPBAR")
    # One for each of 8 steps and one at the end, as in the source. ptxas may add one behind each wgmma: then as little
    # as two thirds of the speed is left. Where it does, no schedule is chosen.
    cut = warpgroups.microseconds(tokens, 4096, 4096, 132)
    chosen = any(schedule.tokens == tokens and (schedule.split == 2) == pairs for schedule in cut)
    assert waits == 9 or not chosen
    assert chosen or pairs


@triton_tools
def test_the_cache_hint_that_steps_4_and_5_leave_out_on_hopper_is_compiled_wrongly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(compile.SOURCES, tmp_path / "cuda")
    ring = folder / "ring.cuh"
    text = ring.read_text()
    assert "__CUDA_ARCH__ >= 900" in text
    ring.write_text(text.replace("__CUDA_ARCH__ >= 900", "0"))
    monkeypatch.setattr(compile, "SOURCES", folder)
    compile.cubin.cache_clear()
    code = compile.cubin("pipeline.cu", "sm_90a", TOKENS=8, STAGES=8, GROUP=128, ZEROS=1).code
    compile.cubin.cache_clear()
    (tmp_path / "kernel.cubin").write_bytes(code)
    assert unwritten_descriptors(tool("nvdisasm", "-c", tmp_path / "kernel.cubin"))


# The schedule.


@given(per_tile=st.integers(1, 40), tiles=st.integers(1, 40), blocks=st.integers(1, 200))
def test_stripes_cover_every_record_once_and_each_tile_is_stored_by_one(per_tile: int, tiles: int, blocks: int) -> None:
    records_in_all = per_tile * tiles
    blocks = min(blocks, records_in_all)
    parts = stripes(records_in_all, per_tile, blocks)
    assert [part.begin for part in parts] == [0, *(part.end for part in parts[:-1])]
    assert parts[-1].end == records_in_all
    assert {part.block for part in parts} == set(range(blocks))
    sizes = [stripe(records_in_all, b + 1, blocks) - stripe(records_in_all, b, blocks) for b in range(blocks)]
    assert max(sizes) - min(sizes) <= 1
    for tile in range(tiles):
        mine = [part for part in parts if part.tile == tile]
        assert [part.role for part in mine] in (["whole"], ["adds", *["leaves"] * (len(mine) - 1)])
        if mine[0].role == "adds":
            # They follow the block that waits for them, and it knows how many they are.
            assert [part.block for part in mine] == [mine[0].block + i for i in range(len(mine))]
            assert helpers(records_in_all, per_tile, blocks, mine[0].block) == len(mine) - 1
            # Each leaves before it can wait for anybody: its part of this tile is its first.
            assert all(part == next(p for p in parts if p.block == part.block) for part in mine[1:])


def test_the_kernels_formula_counts_the_helpers_that_a_loop_finds() -> None:
    for per_tile, tiles, blocks in ((32, 112, 132), (32, 24, 132), (64, 224, 132), (3, 5, 7), (5, 3, 15)):
        total = per_tile * tiles
        for block in range(blocks):
            last = stripe(total, block + 1, blocks)
            tile_end = -(-last // per_tile) * per_tile
            if stripe(total, block, blocks) + per_tile <= tile_end:  # as in reduction.cuh
                formula = -(-tile_end * blocks // total) - 1 - block
                assert formula == helpers(total, per_tile, blocks, block)


@given(m=st.integers(1, 2000), n=st.integers(1, 64), k=st.integers(1, 64), sms=st.sampled_from([78, 114, 132, 144]))
def test_a_chosen_schedule_is_one_that_the_kernel_can_take(m: int, n: int, k: int, sms: int) -> None:
    tokens, blocks, split = warpgroups.schedule(m, 256 * n, 128 * k, sms)
    tiles = n * -(-m // tokens)
    assert tokens in range(32, 129, 16)
    assert blocks <= min(sms, tiles * k)
    assert split == 0 or (blocks == tiles * split and split <= min(8, k))


# The table.


@pytest.mark.parametrize(
    ("name", "problem", "capability", "reason"),
    [
        ("cuda_small_batch", Problem(33, 4096, 4096), (9, 0), "it takes up to 32 tokens; M is 33"),
        ("cuda_warpgroups", Problem(64, 4096, 4096), (10, 0), "compute capability 9.x only; this GPU has 10.0"),
        ("cuda_warpgroups", Problem(64, 128, 4096), (9, 0), "multiples of 128 and 256; they are 4096 and 128"),
        ("cuda_stripes", Problem(1, 4096, 4096, 16), (9, 0), "the group size must be 32, 64, 128; it is 16"),
        ("cuda_stripes", Problem(1, 4096, 4096), (7, 5), "it needs compute capability 8.0; this GPU has 7.5"),
        ("cuda_stripes", Problem(1, 4096, 4096), None, "it needs an NVIDIA GPU"),
    ],
)
def test_a_step_says_why_it_cannot_take_a_problem(
    name: str, problem: Problem, capability: tuple[int, int] | None, reason: str
) -> None:
    assert reason in str(why_not(KERNELS[name], problem, capability))


def test_steps_without_cuda_core_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    reason = why_not(KERNELS["cuda_stripes"], Problem(1, 4096, 4096), (9, 0))
    assert reason == "cuda-core is not installed (pip install awqdoc[cuda])"


# On a GPU.


@pytest.mark.gpu
@pytest.mark.parametrize("name", LADDER)
@pytest.mark.parametrize("zero_points", [True, False])
@pytest.mark.parametrize(
    ("n", "k", "group_size"), [(512, 1024, 128), (1280, 640, 64), (256, 3584, 32), (4096, 4096, 128), (35840, 384, 128)]
)
def test_a_step_agrees_with_float32_and_with_itself(
    name: str, zero_points: bool, n: int, k: int, group_size: int
) -> None:
    reasons = {
        m: why_not(KERNELS[name], Problem(m, n, k, group_size), torch.cuda.get_device_capability())
        for m in (1, 2, 7, 16, 17, 32, 33, 48, 64, 80, 100, 112, 128, 129, 300)
    }
    if reasons[1]:
        pytest.skip(reasons[1])
    packed = weight(k, n, group_size, zero_points, "cuda")
    step = import_module(KERNELS[name].module)
    prepared = step.prepare(packed)
    for m in (m for m, reason in reasons.items() if reason is None):
        x = torch.randn(m, k, device="cuda").half()
        poison = torch.full((m, n), float("nan"), dtype=torch.float16, device="cuda")
        del poison  # the allocator gives the same bytes to the result
        found = step.matmul(x, prepared)
        wanted = x.float() @ packed.dequantize().float()
        assert float((found.float() - wanted).norm() / wanted.norm()) < 1e-3, m
        assert all(torch.equal(found, step.matmul(x, prepared)) for _ in range(40)), m


@pytest.mark.gpu
@pytest.mark.parametrize("name", LADDER)
def test_a_step_can_be_captured_and_replayed_on_new_data(name: str) -> None:
    packed = weight(1024, 1280, 128, device="cuda")
    step = import_module(KERNELS[name].module)
    reason = why_not(KERNELS[name], Problem(16, 1280, 1024), torch.cuda.get_device_capability())
    if reason:
        pytest.skip(reason)
    prepared, x = step.prepare(packed), torch.randn(16, 1024, device="cuda").half()
    step.matmul(x, prepared)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = [step.matmul(x, prepared) for _ in range(3)]
    for _ in range(5):
        x.copy_(torch.randn(16, 1024, device="cuda"))
        graph.replay()
        wanted = x.float() @ packed.dequantize().float()
        assert all(float((y.float() - wanted).norm() / wanted.norm()) < 1e-3 for y in results)
