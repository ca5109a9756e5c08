"""The device report: what torch and NVML tell of a GPU, and what follows from it by a formula."""

from __future__ import annotations

from typing import Any

import pynvml

from awqdoc.nvml import ask, device, driver_versions

# Dense FP16 tensor-core FLOP per clock and SM (a multiply-add is two) with FP32 accumulation, of which a
# GeForce does half. They reproduce the data sheets: 2048 x 108 SMs x 1.41 GHz = 312 TFLOP/s for the A100.
TENSOR_FLOP_PER_CLOCK_AND_SM = {
    (7, 5): 1024,
    (8, 0): 2048,
    (8, 6): 1024,
    (8, 9): 1024,
    (9, 0): 4096,
    (10, 0): 8192,
    (12, 0): 1024,
}
# L1 cache and shared memory share one array; torch tells only the part that shared memory may take.
L1_AND_SHARED_BYTES = {
    (7, 5): 96 << 10,
    (8, 0): 192 << 10,
    (8, 6): 128 << 10,
    (8, 9): 128 << 10,
    (9, 0): 256 << 10,
    (10, 0): 256 << 10,
    (12, 0): 128 << 10,
}

Row = dict[str, Any]


def _row(fact: str, value: Any, unit: str, source: str) -> Row:
    return {"fact": fact, "value": value, "unit": unit, "source": source}


def facts(index: int = 0) -> list[Row]:
    """Ask a GPU what it is.

    Returns
    -------
    list of dict
        Rows with ``fact``, ``value``, ``unit`` and ``source``: ``torch``, ``NVML``, or the formula by which
        the value follows from other rows. What the GPU does not answer is left out.

    Raises
    ------
    AwqdocError
        If there is no driver or no such GPU.
    """
    rows = [*_from_nvml(index), *_from_torch(index)]
    return [row for row in [*rows, *_computed({row["fact"]: row["value"] for row in rows})] if row["value"] is not None]


def _from_nvml(index: int) -> list[Row]:
    versions = driver_versions()
    with device(index) as gpu:
        memory = ask(pynvml.nvmlDeviceGetMemoryInfo, gpu)
        capability = ask(pynvml.nvmlDeviceGetCudaComputeCapability, gpu)
        limit = ask(pynvml.nvmlDeviceGetEnforcedPowerLimit, gpu)
        ecc = ask(pynvml.nvmlDeviceGetEccMode, gpu)
        mig = ask(pynvml.nvmlDeviceGetMigMode, gpu)
        answers = [
            ("name", ask(pynvml.nvmlDeviceGetName, gpu), ""),
            ("compute capability", None if capability is None else "{}.{}".format(*capability), ""),
            ("memory", None if memory is None else memory.total, "B"),
            ("memory bus width", ask(pynvml.nvmlDeviceGetMemoryBusWidth, gpu), "bit"),
            ("highest SM clock", ask(pynvml.nvmlDeviceGetMaxClockInfo, gpu, pynvml.NVML_CLOCK_SM), "MHz"),
            (
                "highest memory clock",
                ask(pynvml.nvmlDeviceGetMaxClockInfo, gpu, pynvml.NVML_CLOCK_MEM),
                "MHz",
            ),
            ("power limit", None if limit is None else limit / 1000, "W"),
            ("ECC", None if ecc is None else ("on" if ecc[0] else "off"), ""),
            ("MIG", None if mig is None else ("on" if mig[0] else "off"), ""),
            ("PCIe generation", ask(pynvml.nvmlDeviceGetMaxPcieLinkGeneration, gpu), ""),
            ("PCIe lanes", ask(pynvml.nvmlDeviceGetMaxPcieLinkWidth, gpu), ""),
            ("driver", versions["driver"], ""),
            ("newest CUDA of the driver", versions["cuda"], ""),
        ]
    return [_row(fact, value, unit, "NVML") for fact, value, unit in answers]


def _from_torch(index: int) -> list[Row]:
    try:
        import torch
    except ImportError:
        return []
    if not torch.cuda.is_available():
        return []
    properties: Any = torch.cuda.get_device_properties(index)
    answers = [
        ("SMs", "multi_processor_count", ""),
        ("threads per SM", "max_threads_per_multi_processor", ""),
        ("registers per SM", "regs_per_multiprocessor", "x 4 B"),
        ("shared memory per SM", "shared_memory_per_multiprocessor", "B"),
        ("shared memory per block", "shared_memory_per_block_optin", "B"),
        ("L2 cache", "L2_cache_size", "B"),
    ]
    return [_row(fact, getattr(properties, name, None), unit, "torch") for fact, name, unit in answers]


def _computed(known: dict[str, Any]) -> list[Row]:
    """Bandwidth, peak rate and the ridge between them; each row's source is its formula."""
    rows = []
    major, minor = str(known.get("compute capability") or "0.0").split(".")
    capability = (int(major), int(minor))
    clock, bus = known.get("highest memory clock"), known.get("memory bus width")
    if clock and bus:
        bandwidth = 2 * clock * 1e6 * bus / 8
        rows.append(_row("memory bandwidth", bandwidth, "B/s", "2 transfers per clock x memory clock x bus width / 8"))
    flop, sms, sm_clock = (
        TENSOR_FLOP_PER_CLOCK_AND_SM.get(capability),
        known.get("SMs"),
        known.get("highest SM clock"),
    )
    if flop and "GeForce" in str(known.get("name")):
        flop //= 2
    if flop and sms and sm_clock:
        rate = flop * sms * sm_clock * 1e6
        rows.append(_row("FP16 tensor-core peak", rate, "FLOP/s", f"{flop} FLOP per clock and SM x SMs x SM clock"))
    if len(rows) == 2:
        ridge = rows[1]["value"] / rows[0]["value"]
        rows.append(_row("ridge point", ridge, "FLOP/B", "FP16 tensor-core peak / memory bandwidth"))
    if capability in L1_AND_SHARED_BYTES:
        size = L1_AND_SHARED_BYTES[capability]
        source = "table by compute capability"
        rows.append(_row("L1 cache and shared memory per SM", size, "B", source))
    return rows
