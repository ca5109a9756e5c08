"""What is asked of a GPU, with a driver that answers what we tell it to."""

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from awqdoc import doctor, gpu, nvml
from awqdoc.errors import AwqdocError
from awqdoc.gpu import report

CLOCKS = {pynvml.NVML_CLOCK_SM: 1410, pynvml.NVML_CLOCK_MEM: 1215}
ANSWERS: dict[str, Callable[..., Any]] = {
    "nvmlInit": lambda: None,
    "nvmlShutdown": lambda: None,
    "nvmlDeviceGetCount": lambda: 1,
    "nvmlDeviceGetHandleByIndex": lambda index: f"handle of {index}",
    "nvmlDeviceGetHandleByUUID": lambda uuid: f"handle of {uuid}",
    "nvmlSystemGetDriverVersion": lambda: b"580.65",
    "nvmlSystemGetCudaDriverVersion": lambda: 12080,
    "nvmlDeviceGetName": lambda _: b"NVIDIA A100-SXM4-40GB",
    "nvmlDeviceGetCudaComputeCapability": lambda _: (8, 0),
    "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(total=40 << 30),
    "nvmlDeviceGetMemoryBusWidth": lambda _: 5120,
    "nvmlDeviceGetMaxClockInfo": lambda _, clock: CLOCKS[clock],
    "nvmlDeviceGetClockInfo": lambda _, clock: CLOCKS[clock] - 5,
    "nvmlDeviceGetEnforcedPowerLimit": lambda _: 400_000,
    "nvmlDeviceGetPowerUsage": lambda _: 61_500,
    "nvmlDeviceGetTemperature": lambda *_: 33,
    "nvmlDeviceGetCurrentClocksEventReasons": lambda _: 0,
    "nvmlDeviceGetEccMode": lambda _: (1, 0),
    "nvmlDeviceGetMigMode": lambda _: (0, 1),
    "nvmlDeviceGetMaxPcieLinkGeneration": lambda _: 4,
    "nvmlDeviceGetMaxPcieLinkWidth": lambda _: 16,
}
# What a driver need not answer, and the facts that are then left out.
OPTIONAL = {
    "nvmlSystemGetDriverVersion": {"driver"},
    "nvmlSystemGetCudaDriverVersion": {"newest CUDA of the driver"},
    "nvmlDeviceGetName": {"name"},
    "nvmlDeviceGetCudaComputeCapability": {
        "compute capability", "FP16 tensor-core peak", "ridge point", "L1 cache and shared memory per SM",
    },
    "nvmlDeviceGetMemoryInfo": {"memory"},
    "nvmlDeviceGetMemoryBusWidth": {"memory bus width", "memory bandwidth", "ridge point"},
    "nvmlDeviceGetMaxClockInfo": {
        "highest SM clock", "highest memory clock", "memory bandwidth", "FP16 tensor-core peak", "ridge point",
    },
    "nvmlDeviceGetEnforcedPowerLimit": {"power limit"},
    "nvmlDeviceGetEccMode": {"ECC"},
    "nvmlDeviceGetMigMode": {"MIG"},
    "nvmlDeviceGetMaxPcieLinkGeneration": {"PCIe generation"},
    "nvmlDeviceGetMaxPcieLinkWidth": {"PCIe lanes"},
}  # fmt: skip
FROM_TORCH = {
    "SMs", "threads per SM", "registers per SM", "shared memory per SM", "shared memory per block", "L2 cache",
    "FP16 tensor-core peak", "ridge point",
}  # fmt: skip


def not_supported(*_: Any) -> Any:
    raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install a driver that answers ANSWERS; return a function that changes answers."""

    def answers(**changed: Callable[..., Any]) -> None:
        for name, function in changed.items():
            monkeypatch.setattr(pynvml, name, function)

    answers(**ANSWERS)
    return answers


def fake_torch(monkeypatch: pytest.MonkeyPatch, **changed: Any) -> None:
    properties = SimpleNamespace(
        uuid="0c-1d", multi_processor_count=108, max_threads_per_multi_processor=2048,
        regs_per_multiprocessor=65536, shared_memory_per_multiprocessor=167936, shared_memory_per_block_optin=166912,
        L2_cache_size=40 << 20,
    )  # fmt: skip
    cuda = {
        "is_available": lambda: True,
        "get_device_properties": lambda _: properties,
        "get_device_capability": lambda _: (8, 0),
        "get_device_name": lambda _: "NVIDIA A100-SXM4-40GB",
        **changed,
    }
    torch = SimpleNamespace(__version__="2.11", version=SimpleNamespace(cuda="13.0"), cuda=SimpleNamespace(**cuda))
    monkeypatch.setitem(sys.modules, "torch", torch)


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch that sees an A100."""
    fake_torch(monkeypatch)


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)


def values(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {row["fact"]: row["value"] for row in rows}


def no_driver() -> Any:
    raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)


@pytest.mark.parametrize("question", [gpu.facts, gpu.state])
def test_without_a_driver_one_sentence_says_what_to_do(
    question: Callable[[], Any], driver: Callable[..., None]
) -> None:
    driver(nvmlInit=no_driver)
    with pytest.raises(AwqdocError) as caught:
        question()
    sentence = str(caught.value)
    assert "An NVIDIA driver is needed" in sentence
    assert "install the driver, or set AWQDOC_MODE=recorded" in sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")


def test_without_a_driver_its_versions_are_unknown(driver: Callable[..., None]) -> None:
    driver(nvmlInit=no_driver)
    assert gpu.driver_versions() == {"driver": None, "cuda": None}


@pytest.mark.usefixtures("no_torch")
def test_a_gpu_that_is_not_there_is_a_sentence_that_counts_them(driver: Callable[..., None]) -> None:
    def none(_: int) -> Any:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)

    driver(nvmlDeviceGetHandleByIndex=none)
    with pytest.raises(AwqdocError, match=r"^GPU 3 was asked for; NVML lists 1 .*\.$"):
        gpu.state(3)


@pytest.mark.usefixtures("torch")
def test_nvml_is_closed_whatever_happens(driver: Callable[..., None]) -> None:
    calls: list[str] = []
    driver(nvmlInit=lambda: calls.append("init"), nvmlShutdown=lambda: calls.append("shutdown"))
    gpu.facts()
    driver(nvmlDeviceGetHandleByUUID=not_supported)
    with pytest.raises(AwqdocError):
        gpu.state()
    assert calls.count("init") == calls.count("shutdown") > 2


@pytest.mark.usefixtures("driver", "torch")
def test_facts_are_what_torch_and_nvml_answer() -> None:
    rows = gpu.facts()
    assert values(rows)["name"] == "NVIDIA A100-SXM4-40GB"
    assert values(rows)["compute capability"] == "8.0"
    assert values(rows)["power limit"] == 400.0
    assert (values(rows)["ECC"], values(rows)["MIG"]) == ("on", "off")
    assert values(rows)["newest CUDA of the driver"] == "12.8"
    assert values(rows)["SMs"] == 108
    assert values(rows)["L2 cache"] == 40 << 20
    assert {row["source"] for row in rows} >= {"NVML", "torch", "FP16 tensor-core peak / memory bandwidth"}
    assert len({row["fact"] for row in rows}) == len(rows)
    assert all(set(row) == {"fact", "value", "unit", "source"} for row in rows)


@pytest.mark.usefixtures("torch")
@pytest.mark.parametrize("function", OPTIONAL)
def test_what_is_not_answered_is_left_out(function: str, driver: Callable[..., None]) -> None:
    everything = set(values(gpu.facts()))
    driver(**{function: not_supported})
    assert everything - set(values(gpu.facts())) == OPTIONAL[function]


@pytest.mark.usefixtures("driver", "no_torch")
def test_facts_without_torch_are_those_of_the_driver() -> None:
    found = values(gpu.facts())
    assert found["name"] == "NVIDIA A100-SXM4-40GB"
    assert found["memory bandwidth"] == pytest.approx(1555.2e9)
    assert not FROM_TORCH & set(found)


@pytest.mark.usefixtures("driver")
def test_facts_with_a_torch_that_sees_no_gpu_are_those_of_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_torch(monkeypatch, is_available=lambda: False)
    assert not FROM_TORCH & set(values(gpu.facts()))


def test_torch_and_nvml_speak_of_the_same_gpu(driver: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA_VISIBLE_DEVICES renumbers the one and not the other."""
    fake_torch(monkeypatch)
    asked: list[str] = []
    driver(nvmlDeviceGetHandleByUUID=lambda uuid: asked.append(uuid) or "handle")
    gpu.state()
    assert asked == ["GPU-0c-1d"]


@pytest.mark.usefixtures("driver", "no_torch")
def test_state_is_in_mhz_watts_and_degrees() -> None:
    assert gpu.state() == {
        "sm_clock_mhz": 1405, "memory_clock_mhz": 1210, "power_w": 61.5, "temperature_c": 33, "throttle_reasons": [],
    }  # fmt: skip


@pytest.mark.usefixtures("no_torch")
def test_state_that_is_not_answered_is_none(driver: Callable[..., None]) -> None:
    names = ("PowerUsage", "ClockInfo", "Temperature", "CurrentClocksEventReasons")
    driver(**{f"nvmlDeviceGet{name}": not_supported for name in names})
    assert set(map(str, gpu.state().values())) == {"None", "[]"}


@pytest.mark.usefixtures("no_torch")
@pytest.mark.parametrize(
    ("bits", "reasons"),
    [
        (0x000, []),
        (0x001, ["idle"]),
        (0x004, ["software power cap"]),
        (0x064, ["software power cap", "software thermal slowdown", "hardware thermal slowdown"]),
        (0x088, ["hardware slowdown", "hardware power brake"]),
        (0x8000, []),
    ],
)
def test_clock_event_reasons_are_named(bits: int, reasons: list[str], driver: Callable[..., None]) -> None:
    driver(nvmlDeviceGetCurrentClocksEventReasons=lambda _: bits)
    assert gpu.state()["throttle_reasons"] == reasons


def test_clock_event_reasons_are_nvmls() -> None:
    names = {"GpuIdle": "idle", "SwPowerCap": "software power cap", "HwSlowdown": "hardware slowdown"}
    names |= {"SwThermalSlowdown": "software thermal slowdown", "HwThermalSlowdown": "hardware thermal slowdown"}
    names |= {"HwPowerBrakeSlowdown": "hardware power brake"}
    for theirs, ours in names.items():
        bit = getattr(pynvml, f"nvmlClocksEventReason{theirs}", None) or getattr(
            pynvml, f"nvmlClocksThrottleReason{theirs}"
        )
        assert nvml.CLOCK_EVENT_REASONS[bit] == ours


# Compute capability, SMs, SM clock at boost, memory clock and bus width -> TFLOP/s and GB/s of the data sheet.
DATA_SHEETS = {
    "T4": ("7.5", 40, 1590, 5001, 256, 65, 320),
    "A10": ("8.6", 72, 1695, 6251, 384, 125, 600),
    "L4": ("8.9", 58, 2040, 6251, 192, 121, 300),
    "RTX 4090, FP16 accumulation": ("8.9", 128, 2520, 10501, 384, 330.3, 1008),
    "A100 40 GB": ("8.0", 108, 1410, 1215, 5120, 312, 1555),
    "A100 80 GB SXM": ("8.0", 108, 1410, 1593, 5120, 312, 2039),
    "H100 SXM": ("9.0", 132, 1830, 2619, 5120, 989.5, 3350),
}


@pytest.mark.parametrize("sheet", DATA_SHEETS.values(), ids=DATA_SHEETS.keys())
def test_formulas_reproduce_the_data_sheets(sheet: tuple[Any, ...]) -> None:
    capability, sms, sm_clock, memory_clock, bus, tflops, gigabytes = sheet
    found = values(
        report._computed({
            "compute capability": capability, "SMs": sms, "highest SM clock": sm_clock,
            "highest memory clock": memory_clock, "memory bus width": bus,
        })
    )  # fmt: skip
    assert found["FP16 tensor-core peak"] / 1e12 == pytest.approx(tflops, rel=0.005)
    assert found["memory bandwidth"] / 1e9 == pytest.approx(gigabytes, rel=0.001)
    assert found["ridge point"] == pytest.approx(tflops / gigabytes * 1000, rel=0.006)


@pytest.mark.parametrize(
    ("capability", "kib"), [("7.5", 96), ("8.0", 192), ("8.6", 128), ("8.9", 128), ("9.0", 256), ("10.0", 256)]
)
def test_size_of_l1_and_shared_memory(capability: str, kib: int) -> None:
    found = values(report._computed({"compute capability": capability}))
    assert found == {"L1 cache and shared memory per SM": kib << 10}


def test_of_an_unknown_gpu_nothing_is_guessed() -> None:
    known = {"compute capability": "13.7", "SMs": 200, "highest SM clock": 2000}
    assert report._computed(known) == []
    assert report._computed({}) == []


@pytest.mark.usefixtures("torch")
def test_an_a100_is_suitable() -> None:
    assert gpu.why_not_suitable() is None
    assert gpu.suitable() == "NVIDIA A100-SXM4-40GB"


def test_why_a_machine_cannot_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_torch(monkeypatch, get_device_capability=lambda _: (7, 5), get_device_name=lambda _: "Tesla T4")
    assert gpu.why_not_suitable() == "Tesla T4 has compute capability 7.5; the kernels need 8.0 or higher"
    fake_torch(monkeypatch, is_available=lambda: False)
    assert "sees no NVIDIA GPU" in str(gpu.why_not_suitable())
    assert gpu.suitable() is None
    monkeypatch.setattr(sys.modules["torch"].version, "cuda", None)
    assert gpu.why_not_suitable() == "torch 2.11 is a build without CUDA"
    monkeypatch.setitem(sys.modules, "torch", None)
    assert gpu.why_not_suitable() == "torch is not installed"


@pytest.mark.usefixtures("torch")
def test_capability_and_cache_are_those_of_the_device() -> None:
    assert gpu.capability("cpu") is None
    assert gpu.capability("cuda") == (8, 0)
    assert gpu.l2_bytes("cuda") == 40 << 20


def test_cpu_is_named_with_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 5}, raising=False)
    assert gpu.cpu_name().endswith(" (3 cores)")
    assert len(gpu.cpu_name()) > len(" (3 cores)")


# What awqdoc doctor tells of them


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Return fact -> value and source, as printed, of a single GPU."""
    doctor._tell(0)
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "  GPU 0"
    return {line[4:37].strip(): " ".join(line[37:].split()) for line in lines}


@pytest.mark.usefixtures("torch")
def test_the_doctor_tells_what_a_gpu_is_and_by_which_formula(
    driver: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    driver(nvmlDeviceGetCurrentClocksEventReasons=lambda _: 0x24)
    found = told(capsys)
    assert found["memory"] == "40 GiB NVML"
    assert found["L2 cache"] == "40 MiB torch"
    assert found["memory bandwidth"] == "1.555 TB/s 2 transfers per clock x memory clock x bus width / 8"
    assert found["FP16 tensor-core peak"] == "311.9 TFLOP/s 2048 FLOP per clock and SM x SMs x SM clock"
    assert (found["driver"], found["newest CUDA of the driver"]) == ("580.65 NVML", "12.8 NVML")
    assert (found["MIG"], found["ECC"], found["power limit"]) == ("off NVML", "on NVML", "400 W NVML")
    assert found["clocks held down when asked by"] == "software power cap, software thermal slowdown NVML"


@pytest.mark.usefixtures("no_torch", "driver")
def test_without_torch_the_doctor_tells_what_the_driver_does(capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys)
    assert found["memory bandwidth"].startswith("1.555 TB/s")
    assert found["power when asked"] == "61.5 W NVML"
    assert found["clocks held down when asked by"] == "nothing NVML"
    assert not FROM_TORCH & set(found)


def test_every_gpu_is_told_of(driver: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that torch sees, for CUDA_VISIBLE_DEVICES may hide some; without torch all that NVML lists."""
    driver(nvmlDeviceGetCount=lambda: 8)
    fake_torch(monkeypatch, device_count=lambda: 2)
    assert doctor._gpus() == 2
    fake_torch(monkeypatch, is_available=lambda: False)
    assert doctor._gpus() == 8
    monkeypatch.setitem(sys.modules, "torch", None)
    assert doctor._gpus() == 8
    driver(nvmlInit=no_driver)
    assert doctor._gpus() == 0


@pytest.mark.usefixtures("no_torch")
def test_a_gpu_that_does_not_answer_is_a_sentence_of_the_doctor(
    driver: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    driver(nvmlDeviceGetHandleByIndex=not_supported)
    doctor._tell(1)
    assert capsys.readouterr().out.startswith("  GPU 1: GPU 1 was asked for; NVML lists 1")
