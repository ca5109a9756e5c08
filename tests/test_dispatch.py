"""Which kernel is chosen: from made-up times, and from the recording that ships."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from awqdoc.errors import AwqdocError
from awqdoc.formats import Problem
from awqdoc.kernels import dispatch
from awqdoc.kernels.table import KERNELS, why_not
from awqdoc.quantize import round_to_nearest
from awqdoc.recordings import Recording

HOPPER, AMPERE = (9, 0), (8, 0)
# Seconds of a kernel for 1 and 64 tokens on two layers; what is missing got no time.
TIMES = {
    ("cuda_stripes", "256x256"): (3.0, 3.0),
    ("cuda_overlapped", "256x256"): (2.0, 5.0),
    ("cuda_stripes", "4096x4096"): (3.0, 9.0),
    ("cuda_overlapped", "4096x4096"): (2.0, 5.0),
    ("cuda_pipeline", "4096x4096"): (1.0, None),
    ("fp16", "4096x4096"): (0.1, 0.1),
}


@pytest.fixture(autouse=True)
def _cuda_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("awqdoc.kernels.table._has_cuda_core", lambda: True)


def recording() -> Recording:
    rows: list[dict[str, Any]] = []
    for (name, shape), times in TIMES.items():
        for m, seconds in zip((1, 64), times, strict=True):
            row = {"shape": shape, "zero_points": True, "m": m, "backend": name}
            rows.append({**row, "seconds": [seconds] * 3} if seconds else {**row, "skipped": "made up"})
    return Recording("kernels", {"shape": ["256x256", "4096x4096"], "zero_points": [True], "m": [1, 64]}, {}, rows)


@pytest.mark.parametrize(
    ("n", "k", "ms", "chosen"),
    [
        (256, 256, (1,), "cuda_overlapped"),
        (256, 256, (64,), "cuda_stripes"),
        (256, 256, (1, 64), "cuda_stripes"),  # 6 against 7
        (512, 256, (1, 1, 1, 64), "cuda_overlapped"),  # 11 against 12, of the nearest layer
        (4096, 4096, (1,), "cuda_pipeline"),  # FP16 is no INT4 kernel
        (2048, 8192, (1, 48), "cuda_overlapped"),  # pipeline got no time at 64
    ],
)
def test_the_least_time_together_is_chosen(n: int, k: int, ms: tuple[int, ...], chosen: str) -> None:
    assert dispatch.choose(n, k, 128, ms, True, HOPPER, recording()) == chosen


def test_what_the_gpu_lacks_is_not_chosen() -> None:
    assert dispatch.choose(256, 256, 128, (1,), True, AMPERE, recording()) == "cuda_stripes"


@given(
    n=st.integers(1, 40).map(lambda tiles: 128 * tiles),
    k=st.integers(1, 40).map(lambda tiles: 128 * tiles),
    group_size=st.sampled_from([32, 64, 128]),
    ms=st.lists(st.integers(1, 2000), min_size=1, max_size=3).map(tuple),
    zero_points=st.booleans(),
    capability=st.sampled_from([AMPERE, HOPPER]),
)
def test_what_is_chosen_takes_the_problem(
    n: int, k: int, group_size: int, ms: tuple[int, ...], zero_points: bool, capability: tuple[int, int]
) -> None:
    name = dispatch.choose(n, k, group_size, ms, zero_points, capability, recording())
    assert KERNELS[name].bits == 4
    assert all(why_not(KERNELS[name], Problem(m, n, k, group_size), capability, zero_points) is None for m in ms)


def test_from_the_shipped_recording_decoding_on_hopper_gets_the_top_of_the_ladder() -> None:
    assert dispatch.choose(28672, 4096, 128, (1,), True, HOPPER, dispatch.find("kernels")[0]) == "cuda_overlapped"


def test_a_weight_that_no_kernel_takes_is_refused_with_every_reason() -> None:
    with pytest.raises(AwqdocError, match=r"No INT4 kernel takes a 100 x 30 weight in groups of 16 here \(.*Step 1"):
        dispatch.choose(30, 100, 16, (1,), True, HOPPER, recording())


def test_on_a_cpu_the_product_is_that_of_the_dequantized_weight() -> None:
    torch.manual_seed(0)
    weight = round_to_nearest(torch.randn(256, 64) * 0.02, 128)
    x = torch.randn(3, 256).half()
    prepared = dispatch.prepare(weight, (1, 64))
    assert prepared.backend == "dequantize"
    wanted = x.float() @ weight.dequantize().float()
    torch.testing.assert_close(dispatch.matmul(x, prepared).float(), wanted, rtol=2e-3, atol=2e-3)
