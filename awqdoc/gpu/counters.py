"""Hardware counters, read by Nsight Compute (``ncu``) from a process of its own, and its CSV read in.

Names are those of ``ncu --query-metrics`` for Hopper (GH100), with the suffixes that its documentation gives for their
kinds, and its ``launch__`` metrics. What the installed version does not know is dropped and named.
"""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field

OCCUPANCY = (
    "sm__warps_active.avg.pct_of_peak_sustained_active",
    "sm__maximum_warps_per_active_cycle_pct",
    "sm__ctas_launched.sum",
    "launch__registers_per_thread",
    "launch__shared_mem_per_block_static",
    "launch__shared_mem_per_block_dynamic",
    "launch__occupancy_limit_blocks",
    "launch__occupancy_limit_registers",
    "launch__occupancy_limit_shared_mem",
    "launch__occupancy_limit_warps",
    "launch__waves_per_multiprocessor",
)
TIME = (
    "gpu__time_duration.sum",
    "sm__cycles_elapsed.max",
    "sm__cycles_active.min",
    "sm__cycles_active.avg",
    "sm__cycles_active.max",
)
MEMORY = (
    "dram__bytes_read.sum",
    "dram__bytes_write.sum",
    "dram__bytes_read.sum.per_second",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "lts__throughput.avg.pct_of_peak_sustained_elapsed",
    "lts__t_sector_hit_rate.pct",
    "lts__t_sector_op_read_hit_rate.pct",
    "lts__t_sectors_op_read.sum",
    "lts__t_sectors_op_read_lookup_hit.sum",
    "lts__t_sectors_op_read_lookup_miss.sum",
    "lts__t_sectors_op_write.sum",
    "lts__t_requests_op_read.sum",
    "l1tex__throughput.avg.pct_of_peak_sustained_elapsed",
    "l1tex__t_sector_hit_rate.pct",
    "l1tex__m_xbar2l1tex_read_bytes.sum",
    "l1tex__m_xbar2l1tex_read_bytes_mem_global_op_tma_ld.sum",
    "l1tex__data_pipe_lsu_wavefronts_mem_shared.sum",
    "l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum",
)
COALESCING = (
    "l1tex__t_requests_pipe_lsu_mem_global_op_ld.sum",
    "l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum",
    "l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_ld.ratio",
    "l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_ldgsts_cache_access.ratio",
    "l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_st.ratio",
)
PIPES = (
    "sm__throughput.avg.pct_of_peak_sustained_elapsed",
    "smsp__issue_active.avg.pct_of_peak_sustained_active",
    "sm__inst_executed.sum",
    "sm__inst_executed_pipe_alu.sum",
    "sm__inst_executed_pipe_fma.sum",
    "sm__inst_executed_pipe_tensor_op_hmma.sum",
    "sm__inst_executed_pipe_tensor_op_gmma.sum",
    *(
        f"sm__pipe_tensor_op_hmma_cycles_active.{over}{of}"
        for over in ("min", "avg", "max")
        for of in ("", ".pct_of_peak_sustained_elapsed")
    ),
    "sm__pipe_alu_cycles_active.avg.pct_of_peak_sustained_active",
    "sm__pipe_fma_cycles_active.avg.pct_of_peak_sustained_active",
)
STALL = "smsp__average_warps_issue_stalled_{}_per_issue_active.ratio"
# Why a warp issued no instruction; `selected`: it did.
REASONS = (
    "barrier", "branch_resolving", "dispatch_stall", "drain", "gmma", "imc_miss", "lg_throttle", "long_scoreboard",
    "math_pipe_throttle", "membar", "mio_throttle", "misc", "no_instruction", "not_selected", "selected",
    "short_scoreboard", "sleeping", "tex_throttle", "wait",
)  # fmt: skip
STALLS = tuple(STALL.format(reason) for reason in REASONS)
METRICS = (*OCCUPANCY, *TIME, *MEMORY, *COALESCING, *PIPES, *STALLS)
# Caches are emptied before each of the passes that many metrics take; the clocks are left alone.
OPTIONS = ("--profile-from-start", "off", "--cache-control", "all", "--clock-control", "none")
FORMAT = ("--csv", "--page", "raw", "--print-units", "base")
TRIES = 6


@dataclass(frozen=True)
class Kernel:
    """A launch as Nsight Compute saw it: kernel, grid, block, and metric -> (value, unit)."""

    name: str
    grid: str
    block: str
    values: dict[str, tuple[float, str]]


@dataclass(frozen=True)
class Counted:
    """What Nsight Compute gave: launches, and metrics that it did not know or give; or why there is nothing."""

    kernels: list[Kernel] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    skipped: str | None = None


def count(program: Sequence[str], metrics: Sequence[str] = METRICS, timeout: float = 60) -> Counted:
    """Run a program under Nsight Compute, and read the counters of what it launches between profiler start and stop.

    Never fails: where there is nothing to read, `Counted.skipped` says why in one line.

    Parameters
    ----------
    program : list of str
        The command; it calls ``torch.cuda.profiler.start()`` and ``stop()``.
    timeout : float
        Seconds for each try. Every unknown metric costs one.
    """
    if shutil.which("ncu") is None:
        return Counted(skipped="Nsight Compute (ncu) is not on the PATH")
    wanted = list(metrics)
    said = ""
    for _ in range(TRIES):
        try:
            code, out, said = _run(["ncu", *OPTIONS, *FORMAT, "--metrics", ",".join(wanted), *program], timeout)
        except subprocess.TimeoutExpired:
            return Counted(skipped=f"Nsight Compute did not end within {timeout:.0f} seconds")
        unknown = unknown_metrics(out + said, wanted)
        if not unknown:
            break
        wanted = [metric for metric in wanted if metric not in unknown]
    kernels = parse(out) if code == 0 else []
    if not kernels:
        return Counted(skipped=refusal(out + said))
    given = {metric for kernel in kernels for metric in kernel.values}
    return Counted(kernels, [metric for metric in metrics if metric not in given])


def _run(command: list[str], timeout: float) -> tuple[int, str, str]:
    # A session of its own: at a timeout the program must end too, not only ncu.
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            out, said = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, out, said


def unknown_metrics(said: str, metrics: Sequence[str]) -> list[str]:
    """Return those of the metrics that Nsight Compute says it does not find, by full name or without suffix."""
    lines = [line for line in said.splitlines() if line.startswith("==") and "metric" in line.lower()]
    words = {word.strip(".,:;'\"`^$()") for line in lines for word in line.replace(",", " ").split()}
    return [metric for metric in metrics if metric in words or metric.split(".")[0] in words]


def refusal(said: str) -> str:
    """Put into one line why Nsight Compute read nothing."""
    if "ERR_NVGPUCTRPERM" in said:
        return "the driver lets only an administrator read the GPU's counters (ERR_NVGPUCTRPERM)"
    errors = [line.removeprefix("==ERROR==").strip() for line in said.splitlines() if line.startswith("==ERROR==")]
    if errors:
        return f"Nsight Compute refused: {errors[0]}"
    lines = [line for line in said.splitlines() if line.strip() and not line.startswith("==PROF==")]
    return f"Nsight Compute read no kernel{f': {lines[-1].strip()}' if lines else ''}"


def parse(text: str) -> list[Kernel]:
    """Read what ``ncu --csv --page raw`` prints: a header, a row of units, a row for each launch.

    What is no number, as ``n/a``, is left out.
    """
    table = list(csv.reader(line for line in text.splitlines() if line.startswith('"')))
    if len(table) < 3:
        return []
    header, units, *launches = table
    kernels = []
    for launch in launches:
        cells = dict(zip(header, launch, strict=True))
        values = {}
        for name, unit, cell in zip(header, units, launch, strict=True):
            number = _number(cell) if "__" in name else None
            if number is not None:
                values[name] = (number, unit)
        kernels.append(Kernel(cells["Kernel Name"], cells["Grid Size"], cells["Block Size"], values))
    return kernels


def _number(cell: str) -> float | None:
    try:
        return float(cell.replace(",", ""))
    except ValueError:
        return None
