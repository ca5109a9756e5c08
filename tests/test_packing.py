"""Packing, against AutoAWQ itself and against the hashes of its tensors."""

from __future__ import annotations

import hashlib

import pytest
import torch
from autoawq_oracle import autoawq
from hypothesis import given, settings
from hypothesis import strategies as st

from awqdoc.errors import AwqdocError
from awqdoc.formats import QuantizedWeight
from awqdoc.packing import pack, unpack


def deterministic_weight(k: int = 256, n: int = 512, group_size: int = 128) -> QuantizedWeight:
    """Codes, zero points and scales by formula; the hashes below were made with AutoAWQ's packer on the same ones."""
    row, column = torch.arange(k)[:, None], torch.arange(n)[None, :]
    group = torch.arange(k // group_size)[:, None]
    codes = (7 * row + 11 * column + row * column // 13) % 16
    zeros = (5 * column + 3 * group) % 16
    scales = 2.0**-7 * (1 + ((37 * column + 11 * group) % 64) / 64)
    return QuantizedWeight(codes.to(torch.uint8), scales.half(), zeros.to(torch.uint8), group_size)


def random_weight(k: int, n: int, group_size: int, seed: int) -> QuantizedWeight:
    random = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 16, (k, n), generator=random, dtype=torch.uint8)
    zeros = torch.randint(0, 16, (k // group_size, n), generator=random, dtype=torch.uint8)
    scales = (torch.rand(k // group_size, n, generator=random) / 64 + 1e-3).half()
    return QuantizedWeight(codes, scales, zeros, group_size)


@pytest.mark.parametrize(
    ("name", "sha256"),
    [("qweight", "f4d8ed169eda088b"), ("qzeros", "5b6c8a21b8950626"), ("scales", "5216a6e732c9e577")],
)
def test_packed_tensors_have_the_hashes_of_autoawqs(name: str, sha256: str) -> None:
    tensor = pack(deterministic_weight(), "awq")[name]
    assert hashlib.sha256(tensor.numpy().tobytes()).hexdigest().startswith(sha256)


@pytest.mark.parametrize(("k", "n", "group_size"), [(256, 128, 128), (128, 64, 32), (192, 96, 64)])
def test_packed_tensors_are_those_of_autoawqs_linear_layer(k: int, n: int, group_size: int) -> None:
    weight = random_weight(k, n, group_size, seed=k)
    linear = torch.nn.Linear(k, n, bias=False, dtype=torch.float16)
    linear.weight.data = weight.dequantize().t().contiguous()
    theirs = autoawq().gemm.WQLinear_GEMM.from_linear(
        linear, w_bit=4, group_size=group_size, scales=weight.scales, zeros=weight.zeros
    )
    for name, tensor in pack(weight, "awq").items():
        assert torch.equal(tensor, getattr(theirs, name)), name


@given(
    groups=st.integers(1, 3),
    group_size=st.sampled_from([32, 64, 128]),
    words=st.integers(1, 12),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=40, deadline=None)
def test_unpack_undoes_pack(groups: int, group_size: int, words: int, seed: int) -> None:
    weight = random_weight(groups * group_size, 8 * words, group_size, seed)
    again = unpack(pack(weight, "awq"), "awq", group_size=group_size)
    assert torch.equal(again.codes, weight.codes)
    assert torch.equal(again.zeros, weight.zeros)
    assert torch.equal(again.scales, weight.scales)


def test_a_width_that_does_not_fill_its_last_word_is_refused_with_the_next_that_does() -> None:
    with pytest.raises(AwqdocError, match=r"multiple of 8; found 60, the next is 64"):
        pack(random_weight(128, 60, 128, seed=0), "awq")


def test_a_code_above_15_is_refused() -> None:
    weight = random_weight(128, 64, 128, seed=0)
    weight.codes[3, 5] = 16
    with pytest.raises(AwqdocError, match="0 to 15"):
        pack(weight, "awq")


@pytest.mark.parametrize("format", ["marlin", "AWQ", ""])
def test_an_unknown_format_is_refused(format: str) -> None:
    with pytest.raises(AwqdocError, match="must be 'awq'"):
        pack(random_weight(128, 64, 128, seed=0), format)
