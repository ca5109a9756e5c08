"""Sizes by hand, and weights that do not fit together."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from awqdoc.errors import AwqdocError
from awqdoc.formats import Problem, QuantizedWeight

sizes = st.integers(1, 1 << 20)


def test_layer_in_bytes() -> None:
    layer = Problem(m=1, n=4096, k=4096)
    assert layer.weight_bytes(16) == 33_554_432
    # 4 bits, and for 128 of them a scale of 16 and a zero point of 4: 4.15625 bits.
    assert layer.weight_bytes(4) == 4096 * 4096 * 4.15625 / 8 == 8_716_288
    assert layer.flops == 33_554_432
    assert layer.bytes(16) == 33_554_432 + 2 * 4096 + 2 * 4096
    assert layer.bytes(4) == 8_716_288 + 16_384


def test_batch_adds_x_and_y_and_multiplies_the_work() -> None:
    layer = Problem(m=16, n=28672, k=4096)
    assert layer.flops == 16 * Problem(m=1, n=28672, k=4096).flops
    assert layer.bytes(4) - layer.weight_bytes(4) == 16 * 2 * (28672 + 4096)


@pytest.mark.parametrize(("group_size", "bits"), [(32, 4.625), (64, 4.3125), (128, 4.15625)])
def test_smaller_groups_cost_more_bits(group_size: int, bits: float) -> None:
    layer = Problem(m=1, n=1024, k=1024, group_size=group_size)
    assert 8 * layer.weight_bytes(4) / (1024 * 1024) == bits
    assert layer.weight_bytes(16) == 2 * 1024 * 1024


@given(m=sizes, n=sizes, k=sizes, group_size=sizes)
def test_shape_is_read_as_it_is_written(m: int, n: int, k: int, group_size: int) -> None:
    assert Problem.parse(f"{n}x{k}", m, group_size) == Problem(m, n, k, group_size)


@pytest.mark.parametrize(
    "shape", ["", "4096", "4096x", "x4096", "4096X4096", "4096 x 4096", "-1x8", "8x8x8", "8.0x8", "8x8\n"]
)
def test_shape_of_another_form_is_refused(shape: str) -> None:
    with pytest.raises(AwqdocError, match=r"written NxK .* as 28672x4096; found"):
        Problem.parse(shape, 1)


@pytest.mark.parametrize(
    ("shape", "m", "group_size"), [("0x8", 1, 128), ("8x0", 1, 128), ("8x8", 0, 128), ("8x8", 1, 0)]
)
def test_sizes_below_one_are_refused(shape: str, m: int, group_size: int) -> None:
    with pytest.raises(AwqdocError, match=f"1 or more; found shape {shape}, M = {m}, group size {group_size}"):
        Problem.parse(shape, m, group_size)


def parts(k: int = 8, n: int = 3, groups: int = 2) -> dict[str, torch.Tensor]:
    return {
        "codes": torch.arange(k * n, dtype=torch.uint8).reshape(k, n) % 16,
        "scales": torch.full((groups, n), 0.5, dtype=torch.float16),
        "zeros": torch.full((groups, n), 8, dtype=torch.uint8),
    }


def test_weight_is_code_minus_zero_times_scale() -> None:
    tensors = parts()
    tensors["scales"][1] = 2.0
    tensors["zeros"][1, 2] = 15
    weight = QuantizedWeight(**tensors, group_size=4).dequantize()
    assert weight.dtype == torch.float16
    assert weight[0].tolist() == [(0 - 8) * 0.5, (1 - 8) * 0.5, (2 - 8) * 0.5]
    assert weight[3].tolist() == [(9 - 8) * 0.5, (10 - 8) * 0.5, (11 - 8) * 0.5]
    assert weight[4].tolist() == [(12 - 8) * 2.0, (13 - 8) * 2.0, (14 - 15) * 2.0]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"codes": torch.zeros(8, 3, dtype=torch.int32)}, r"codes must be uint8 \[8, 3\]; found int32 \[8, 3\]"),
        ({"codes": torch.zeros(6, 3, dtype=torch.uint8)}, r"multiple of the group size 4; found shape \(6, 3\)"),
        ({"codes": torch.zeros(0, 3, dtype=torch.uint8)}, r"found shape \(0, 3\)"),
        ({"codes": torch.zeros(8, dtype=torch.uint8)}, r"codes must be \[K, N\]"),
        ({"codes": torch.zeros(2, 4, 3, dtype=torch.uint8)}, r"codes must be \[K, N\]"),
        ({"codes": torch.zeros(8, 5, dtype=torch.uint8)}, r"scales must be float16 \[2, 5\]; found float16 \[2, 3\]"),
        ({"codes": torch.zeros(16, 3, dtype=torch.uint8)}, r"scales must be float16 \[4, 3\]"),
        ({"scales": torch.ones(2, 3)}, r"scales must be float16 \[2, 3\]; found float32 \[2, 3\]"),
        ({"scales": torch.ones(3, 2).half()}, r"found float16 \[3, 2\]"),
        ({"zeros": torch.zeros(2, 3)}, r"zeros must be uint8 \[2, 3\]; found float32 \[2, 3\]"),
        ({"zeros": torch.zeros(1, 3, dtype=torch.uint8)}, r"zeros must be uint8 \[2, 3\]; found uint8 \[1, 3\]"),
        ({"group_size": 3}, "multiple of the group size 3"),
        ({"group_size": 0}, "group size"),
        ({"group_size": -4}, "group size"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(changed: dict[str, object], words: str) -> None:
    with pytest.raises(AwqdocError, match=words):
        QuantizedWeight(**{**parts(), "group_size": 4, **changed})  # type: ignore[arg-type]
