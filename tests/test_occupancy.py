"""How many blocks fit on an SM: against NVIDIA's cuda_occupancy.h, the CUDA driver, and a simulation of the waves."""

from __future__ import annotations

import importlib.util
import random
import re
import shutil
import subprocess
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from awqdoc import compile
from awqdoc.errors import AwqdocError
from awqdoc.formats import Problem, QuantizedWeight
from awqdoc.gpu import footprints
from awqdoc.gpu.datasheets import DATA_SHEETS, DataSheet
from awqdoc.gpu.footprints import Footprint
from awqdoc.gpu.occupancy import LIMITS, chip, kernel_config, launch
from awqdoc.kernels.ladder import records
from awqdoc.kernels.table import KERNELS

# Threads and KiB of shared memory of an SM: NVIDIA's cccl, libcudacxx/include/cuda/__device/arch_traits.h.
SIZES = {
    (7, 5): (1024, 64),
    (8, 0): (2048, 164),
    (8, 6): (1536, 100),
    (8, 7): (1536, 164),
    (8, 9): (1536, 100),
    (9, 0): (2048, 228),
    (10, 0): (2048, 228),
    (10, 1): (1536, 228),
    (10, 3): (2048, 228),
    (11, 0): (1536, 228),
    (12, 0): (1536, 100),
}
# Reads lines of numbers; answers each with what NVIDIA's header says of it.
PROGRAM = """
#include <cstdio>
#include <cuda_occupancy.h>

int main() {
    int major, minor, threads, regs, block, barriers;
    size_t shared, reserved, fixed, dynamic;
    while (scanf("%d %d %d %zu %zu %d %d %zu %zu %d", &major, &minor, &threads, &shared, &reserved, &block, &regs,
                 &fixed, &dynamic, &barriers) == 10) {
        cudaOccDeviceProp device;
        device.computeMajor = major, device.computeMinor = minor;
        device.maxThreadsPerBlock = 1024, device.maxThreadsPerMultiprocessor = threads, device.warpSize = 32;
        device.regsPerBlock = device.regsPerMultiprocessor = 65536, device.numSms = 1;
        device.sharedMemPerBlock = 48 << 10, device.sharedMemPerMultiprocessor = shared;
        device.sharedMemPerBlockOptin = shared - reserved, device.reservedSharedMemPerBlock = reserved;
        cudaOccFuncAttributes kernel;
        kernel.maxThreadsPerBlock = 1024, kernel.numRegs = regs, kernel.sharedSizeBytes = fixed;
        kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN, kernel.maxDynamicSharedSizeBytes = dynamic;
        kernel.numBlockBarriers = barriers;
        cudaOccDeviceState state;
        cudaOccResult found;
        int error = cudaOccMaxActiveBlocksPerMultiprocessor(&found, &device, &kernel, &state, block, dynamic);
        printf("%d %d %u %d %d %d %d %d %d %zu\\n", error, found.activeBlocksPerMultiprocessor, found.limitingFactors,
               found.blockLimitWarps, found.blockLimitRegs, found.blockLimitSharedMem, found.blockLimitBlocks,
               found.blockLimitBarriers, found.allocatedRegistersPerBlock, found.allocatedSharedMemPerBlock);
    }
}
"""
RESOURCES = ("warps", "registers", "shared memory", "block slots", "barriers")
UNLIMITED = 2**31 - 1


def header() -> Path | None:
    """The folder of NVIDIA's header: of the wheel nvidia-cuda-runtime, or of triton, which brings it too."""
    spec = importlib.util.find_spec("triton")
    packages = Path(torch.__file__).parents[1]
    folders = [*packages.glob("nvidia/cu*/include"), packages / "nvidia/cuda_runtime/include"]
    if spec and spec.origin:
        folders.append(Path(spec.origin).parent / "backends/nvidia/include")
    return next((folder for folder in folders if (folder / "cuda_occupancy.h").exists()), None)


@pytest.fixture(scope="module")
def nvidia(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, compiled."""
    include, compiler = header(), shutil.which("c++")
    if include is None:
        pytest.skip("no package here brings cuda_occupancy.h: nvidia-cuda-runtime does, and triton")
    if compiler is None:
        pytest.skip("there is no C++ compiler (c++)")
    folder = tmp_path_factory.mktemp("occupancy")
    (folder / "ask.cpp").write_text(PROGRAM)
    subprocess.run([compiler, "-w", f"-I{include}", "ask.cpp", "-o", "ask"], cwd=folder, check=True)
    return folder / "ask"


def configurations(capability: tuple[int, int], count: int) -> list[tuple[int, int, int, int, int]]:
    """Random threads, registers, static and dynamic bytes and barriers: legal alone, not always together."""
    draw = random.Random(str(capability))
    most = SIZES[capability][1] * 1024 - (1024 if capability >= (8, 0) else 0)
    found = []
    for _ in range(count):
        threads = draw.choice([draw.randint(1, 1024), 32 * draw.randint(1, 32), draw.randint(1, 128)])
        regs = draw.choice([draw.randint(0, 255), draw.randint(0, 64), 8 * draw.randint(0, 31)])
        smem = draw.choice([0, draw.randint(0, most), draw.randint(0, 8192), 128 * draw.randint(0, most // 128), most])
        fixed = draw.randint(0, min(smem, 48 << 10))
        found.append((threads, regs, fixed, smem - fixed, draw.choice([0, 1, 1, 1, draw.randint(1, 16)])))
    return found


def test_no_random_configuration_disagrees_with_nvidias_header(nvidia: Path) -> None:
    assert set(SIZES) == set(LIMITS)
    cases = [(capability, case) for capability in SIZES for case in configurations(capability, 1000)]
    lines = [
        f"{major} {minor} {SIZES[major, minor][0]} {SIZES[major, minor][1] * 1024} {1024 if major >= 8 else 0} "
        + " ".join(map(str, case))
        for (major, minor), case in cases
    ]
    answers = subprocess.run([nvidia], input="\n".join(lines), capture_output=True, text=True, check=True).stdout
    cannot = 0
    for (capability, case), answer in zip(cases, answers.splitlines(), strict=True):
        error, blocks, factors, *limits, registers, shared = map(int, answer.split())
        threads, regs, fixed, dynamic, barriers = case
        ask = ((1,), (threads,), regs, fixed + dynamic, "{}.{}x1".format(*capability), barriers)
        assert error == 0, case
        if blocks == 0:
            cannot += 1
            with pytest.raises(AwqdocError, match=f"registers in a block of {threads} threads"):
                launch(*ask)
            continue
        found = launch(*ask)
        wanted = {name: limit for name, limit in zip(RESOURCES, limits, strict=True) if limit != UNLIMITED}
        assert found.fits == wanted, (capability, case)
        assert (found.blocks_per_sm, found.registers, found.shared) == (blocks, registers, shared), (capability, case)
        # The header's bits: warps, registers, shared memory, blocks, barriers. It leaves those of before Hopper's
        # barriers set where barriers allow less.
        bits = {name for bit, name in enumerate(RESOURCES) if factors >> bit & 1}
        assert {name for name in bits if wanted[name] == blocks} == set(found.limiters), (capability, case)
    assert 500 < cannot < len(cases) / 2
    assert len(cases) - cannot >= 1000


def test_the_largest_number_of_registers_that_a_refusal_names_is_one_that_the_header_takes(nvidia: Path) -> None:
    for threads in (257, 288, 385, 513, 700, 1024):
        with pytest.raises(AwqdocError) as refused:
            launch((1,), (threads,), 255, 0, "9.0x1")
        most = int(re.findall(r"at most (\d+) registers", str(refused.value))[0])
        lines = "\n".join(f"9 0 2048 233472 1024 {threads} {regs} 0 0 1" for regs in (most, most + 1))
        answers = subprocess.run([nvidia], input=lines, capture_output=True, text=True, check=True).stdout
        assert [int(line.split()[1]) > 0 for line in answers.splitlines()] == [True, False], threads


# What it means.


def test_marlin_holds_few_warps_by_design() -> None:
    on = {
        gpu: launch((chip(gpu).sms,), (256,), 126, 96 << 10, gpu) for gpu in ("A100 80 GB SXM", "A10", "L4", "H200 SXM")
    }
    assert {gpu: found.blocks_per_sm for gpu, found in on.items()} == {
        "A100 80 GB SXM": 1, "A10": 1, "L4": 1, "H200 SXM": 2,
    }  # fmt: skip
    assert on["A100 80 GB SXM"].occupancy == 8 / 64
    assert on["A10"].occupancy == on["L4"].occupancy == 8 / 48
    # Two would fit on an SM of Hopper, but the grid has one block for each.
    assert (on["H200 SXM"].occupancy, on["H200 SXM"].grid_occupancy) == (16 / 64, 8 / 64)
    with pytest.raises(AwqdocError, match=r"0 to 65536 bytes of shared memory .* found 98304\."):
        launch((40,), (256,), 126, 96 << 10, "T4")


@given(blocks=st.integers(1, 3000), sms=st.integers(1, 150), threads=st.integers(1, 1024), smem=st.integers(0, 101376))
def test_waves_and_tail_are_those_of_a_gpu_that_is_filled_block_by_block(
    blocks: int, sms: int, threads: int, smem: int
) -> None:
    found = launch((blocks,), (threads,), 32, smem, f"8.6x{sms}")
    waves, left = [], blocks
    while left:
        waves.append(min(left, sms * found.blocks_per_sm))
        left -= waves[-1]
    assert (found.waves, found.last_wave) == (len(waves), waves[-1])
    empty = sum(sms * found.blocks_per_sm - wave for wave in waves)
    assert found.lost == pytest.approx(empty / (len(waves) * sms * found.blocks_per_sm))
    assert found.grid_occupancy == pytest.approx(waves[0] * -(-threads // 32) / (sms * 48))
    assert found.grid_occupancy <= found.occupancy + 1e-12


# From NVIDIA's white papers and data sheets, typed again.
GPUS = {
    "T4": "7.5x40", "A10": "8.6x72", "L4": "8.9x58", "RTX 4090": "8.9x128", "A100 80 GB SXM": "8.0x108",
    "H100 SXM": "9.0x132", "H200 SXM": "9.0x132", "B200": "10.0x148",
}  # fmt: skip


@pytest.mark.parametrize("sheet", DATA_SHEETS, ids=lambda sheet: sheet.name)
def test_a_gpu_is_found_by_both_its_names_and_by_its_size(sheet: DataSheet) -> None:
    assert chip(sheet.name) == chip(sheet.reported) == chip(sheet.name.lower())
    assert chip(GPUS[sheet.name])[1:] == chip(sheet.name)[1:]


LEGAL: dict[str, Any] = {"grid": (1,), "block": (32,), "regs": 32, "smem": 0, "gpu": "H100 SXM"}


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"block": (1025,)}, r"A block \(of at most 1024 threads\) .* 1024, 1024 and 64 threads; found 1025\."),
        ({"block": (32, 33)}, "of at most 1024 threads.*found 32x33"),
        ({"block": (1, 1, 65)}, "found 1x1x65"),
        ({"block": (-32,)}, "from 1 to at most.*found -32"),
        ({"block": ()}, "1 to 3 sizes.*found none"),
        ({"grid": (0,)}, r"A grid has 1 to 3 sizes.* 2147483647, 65535 and 65535 blocks; found 0\."),
        ({"grid": (1, 65536)}, "found 1x65536"),
        ({"grid": (1, 1, 1, 1)}, "found 1x1x1x1"),
        ({"regs": 256}, r"A thread has 0 to 255 registers; found 256\."),
        ({"regs": -1}, "found -1"),
        ({"regs": 129, "block": (512,)}, r"at most 128 registers in a block of 512 threads; found 129\."),
        ({"smem": 232449}, r"0 to 232448 bytes of shared memory on compute capability 9\.0; found 232449\."),
        ({"smem": -4}, "found -4"),
        ({"barriers": 17}, r"A block has 0 to 16 barriers; found 17\."),
        ({"gpu": "H300"}, r"one of T4, A10, .*\(7\.5, .* 12\.0\).*such as 8\.6x28; found 'H300'\."),
        ({"gpu": "13.7x100"}, "found '13.7x100'"),
        ({"gpu": "9.0x0"}, "found '9.0x0'"),
    ],
)
def test_what_no_gpu_could_launch_is_refused_in_one_sentence(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(AwqdocError, match=sentence) as refused:
        launch(**{**LEGAL, **wrong})
    assert "\n" not in str(refused.value)


def test_a_kernel_configuration_is_read() -> None:
    assert kernel_config("128,4,1;256,1,1") == ((128, 4, 1), (256, 1, 1))
    assert kernel_config(" 1, 2, 3 ; 4, 5, 6 ") == ((1, 2, 3), (4, 5, 6))


@pytest.mark.parametrize("text", ["", "128;256", "128,4,1", "1,1,1;1,1", "1,1,1;1,1,x", "-1,1,1;1,1,1", "1,1,1;1,1,1;"])
def test_a_malformed_kernel_configuration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(AwqdocError, match=f'such as "128,4,1;256,1,1"; found {re.escape(repr(text))}'):
        kernel_config(text)


# What our kernels ask for.

TOOLS = Path(torch.__file__).parents[1] / "triton/backends/nvidia/bin"


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What an adapter compiles and launches last, where no GPU is but an H100 is made up."""
    found: dict[str, Any] = {}

    def kernel(file: str, shared: int = 0, **defines: int) -> None:
        found.update(file=file, defines=defines)

    def start(_: None, grid: tuple[int, ...], block: int, shared: int, *arguments: Any, overlap: bool = False) -> None:
        found.update(grid=grid, block=block, shared=shared)

    monkeypatch.setattr(compile, "kernel", kernel)
    monkeypatch.setattr(compile, "launch", start)
    monkeypatch.setattr(compile, "tensor_map", lambda *_: None)
    monkeypatch.setattr(records, "shared_memory", lambda _: 227 << 10)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(multi_processor_count=132))
    return found


@pytest.mark.skipif(not (TOOLS / "cuobjdump").exists(), reason="cuobjdump comes with triton, for Linux")
@pytest.mark.parametrize("name", footprints.LADDER)
def test_the_footprints_are_what_the_compiler_says_of_our_kernels(
    name: str, launched: dict[str, Any], tmp_path: Path
) -> None:
    size = Problem.parse(footprints.SHAPE, 1)
    groups = (size.k // 128, size.n)
    codes = torch.zeros(size.k, size.n, dtype=torch.uint8)
    weight = QuantizedWeight(codes, torch.ones(groups).half(), torch.zeros(groups, dtype=torch.uint8), 128)
    step = import_module(KERNELS[name].module)
    step.matmul(torch.zeros(1, size.k).half(), step.prepare(weight))
    code = tmp_path / "kernel.cubin"
    code.write_bytes(compile.cubin(launched["file"], "sm_90a", **launched["defines"]).code)
    said = subprocess.run([TOOLS / "cuobjdump", "-res-usage", code], capture_output=True, text=True, check=True).stdout
    usage = {field: int(number) for field, number in re.findall(r"(\w+):(\d+)", said)}
    # On Hopper cuobjdump counts the 1 KiB that the system takes, where the kernel has any static shared memory itself.
    fixed = max(0, usage["SHARED"] - 1024)
    grid = 1
    for length in launched["grid"]:
        grid *= length
    found = Footprint(grid, launched["block"], usage["REG"], fixed + launched["shared"])
    assert found == footprints.LADDER[name]


# On a GPU.

# A kernel that keeps about as many registers busy as it is told to, and has static and dynamic shared memory.
KERNEL = """
extern "C" __global__ void kernel(float* y, int n) {
    extern __shared__ float memory[];
    __shared__ float fixed[STATIC];
    float values[BUSY];
#pragma unroll
    for (int i = 0; i < BUSY; ++i) values[i] = y[i * n + threadIdx.x];
    fixed[threadIdx.x % STATIC] = memory[threadIdx.x % n] = values[0];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < BUSY; ++i) y[i * n] = values[i] * values[BUSY - 1 - i] + fixed[i % STATIC] + memory[i % n];
}
"""


@pytest.mark.gpu
@pytest.mark.parametrize(("busy", "static"), [(1, 1), (16, 64), (40, 1024), (80, 4096), (110, 8000)])
def test_the_cuda_driver_says_the_same_of_this_gpu(
    busy: int, static: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cuda.bindings import driver

    (tmp_path / "kernel.cu").write_text(KERNEL)
    monkeypatch.setattr(compile, "SOURCES", tmp_path)
    torch.zeros(1, device="cuda")  # a context
    code = compile.cubin("kernel.cu", compile.architecture(), BUSY=busy, STATIC=static).get_kernel("kernel")
    attributes = driver.CUfunction_attribute
    handle = ask(driver.cuKernelGetFunction(code.handle))
    regs = ask(driver.cuFuncGetAttribute(attributes.CU_FUNC_ATTRIBUTE_NUM_REGS, handle))
    fixed = ask(driver.cuFuncGetAttribute(attributes.CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, handle))
    assert fixed >= 4 * static
    device = torch.cuda.get_device_properties(0)
    gpu = f"{device.major}.{device.minor}x{device.multi_processor_count}"
    room = LIMITS[device.major, device.minor].block_shared - fixed
    ask(driver.cuFuncSetAttribute(handle, attributes.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, room))
    draw = random.Random(busy)
    for _ in range(400):
        threads, dynamic = draw.randint(1, 1024), draw.choice([0, draw.randint(0, 16384), draw.randint(0, room)])
        blocks = ask(driver.cuOccupancyMaxActiveBlocksPerMultiprocessor(handle, threads, dynamic))
        try:
            found = launch((1,), (threads,), regs, fixed + dynamic, gpu).blocks_per_sm
        except AwqdocError:
            found = 0
        assert found == blocks, (threads, regs, fixed, dynamic)


def ask(answer: tuple[Any, ...]) -> Any:
    """What the driver answers, if it says no error with it."""
    status, *value = answer
    assert status.name == "CUDA_SUCCESS", status
    return value[0] if value else None
