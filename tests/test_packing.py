"""Packing, against AutoAWQ itself, and against hashes of tensors that the real libraries' packers made."""

from __future__ import annotations

import hashlib
import importlib
from dataclasses import replace
from typing import Any

import pytest
import torch
from autoawq_oracle import autoawq
from hypothesis import given, settings
from hypothesis import strategies as st

from awqdoc.errors import AwqdocError
from awqdoc.formats import QuantizedWeight
from awqdoc.packing import LAYOUTS, Layout, convert, pack, unpack

FORMATS = list(LAYOUTS)
# A shape that every format takes, and one tile more of each axis.
SHAPES = [(256, 512), (384, 768)]


def deterministic_weight(k: int = 256, n: int = 512, group_size: int = 128) -> QuantizedWeight:
    """Codes, zero points and scales by formula; the hashes below were made with the real packers on the same ones."""
    row, column = torch.arange(k)[:, None], torch.arange(n)[None, :]
    group = torch.arange(k // group_size)[:, None]
    codes = (7 * row + 11 * column + row * column // 13) % 16
    zeros = (5 * column + 3 * group) % 16
    scales = 2.0**-7 * (1 + ((37 * column + 11 * group) % 64) / 64)
    return QuantizedWeight(codes.to(torch.uint8), scales.half(), zeros.to(torch.uint8), group_size)


def random_weight(k: int, n: int, group_size: int, seed: int, least_zero: int = 1) -> QuantizedWeight:
    random = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 16, (k, n), generator=random, dtype=torch.uint8)
    zeros = torch.randint(least_zero, 16, (k // group_size, n), generator=random, dtype=torch.uint8)
    scales = (torch.rand(k // group_size, n, generator=random) / 64 + 1e-3).half()
    return QuantizedWeight(codes, scales, zeros, group_size)


def weight_for(format: str, k: int, n: int, group_size: int, seed: int = 0) -> QuantizedWeight:
    weight = random_weight(k, n, group_size, seed)
    return replace(weight, zeros=None) if LAYOUTS[format].zeros is None else weight


def linear_of(weight: QuantizedWeight) -> torch.nn.Linear:
    k, n = weight.codes.shape
    linear = torch.nn.Linear(k, n, bias=False, dtype=torch.float16)
    linear.weight.data = weight.dequantize().t().contiguous()
    return linear


def assert_same(one: QuantizedWeight, other: QuantizedWeight) -> None:
    assert torch.equal(one.codes, other.codes)
    assert torch.equal(one.scales, other.scales)
    assert (one.zeros is None) == (other.zeros is None)
    assert one.zeros is None or other.zeros is None or torch.equal(one.zeros, other.zeros)
    assert (one.group_size, one.bits) == (other.group_size, other.bits)


# What the real libraries make

KNOWN = {
    "awq": {"qweight": "f4d8ed169eda088b", "qzeros": "5b6c8a21b8950626", "scales": "5216a6e732c9e577"},
    "awq_gemv": {"qweight": "63fbe762cb8ec9ea", "qzeros": "54bf2b82508a8724", "scales": "c5b6ad834ba076ff"},
    "awq_gemv_fast": {"qweight": "27ca4cbf0b8f1912", "qzeros": "3092bf703ce90282", "scales": "e1c09db8fa8d07d5"},
    "gptq_v2": {"qweight": "bf2aaa9536795884", "scales": "5216a6e732c9e577"},
    "marlin": {"qweight": "df8a561db2d68bcc", "scales": "c9d92fedb61424c9"},
    "awq_marlin": {"qweight": "df8a561db2d68bcc", "qzeros": "6840840652649446", "scales": "c9d92fedb61424c9"},
}


@pytest.mark.parametrize(("format", "name"), [(format, name) for format in KNOWN for name in KNOWN[format]])
def test_packed_tensors_have_the_known_hashes(format: str, name: str) -> None:
    weight = deterministic_weight()
    tensor = pack(replace(weight, zeros=None) if format == "marlin" else weight, format)[name]
    assert tensor.is_contiguous()
    assert hashlib.sha256(tensor.numpy().tobytes()).hexdigest().startswith(KNOWN[format][name])


def test_scales_of_one_group_have_marlins_other_order() -> None:
    weight = deterministic_weight()
    one = QuantizedWeight(weight.codes, weight.scales[:1], None, 256)
    scales = pack(one, "marlin")["scales"]
    assert hashlib.sha256(scales.numpy().tobytes()).hexdigest().startswith("06477554f2c7d32b")


@pytest.mark.parametrize(("k", "n", "group_size"), [(256, 128, 128), (128, 64, 32), (192, 96, 64), (256, 96, 256)])
@pytest.mark.parametrize("format", ["awq", "awq_gemv", "awq_gemv_fast"])
def test_packed_tensors_are_those_of_autoawqs_linear_layers(format: str, k: int, n: int, group_size: int) -> None:
    weight = random_weight(k, n, group_size, seed=k, least_zero=0)
    theirs = autoawq_layer(format).from_linear(linear_of(weight), 4, group_size, **arguments(weight, format))
    for name, tensor in pack(weight, format).items():
        assert tensor.dtype == getattr(theirs, name).dtype, name
        assert torch.equal(tensor, getattr(theirs, name)), name


@pytest.mark.parametrize("group_size", [128, 256])
def test_packed_tensors_are_those_of_autoawqs_marlin_layer(group_size: int) -> None:
    weight = weight_for("marlin", 256, 512, group_size)
    # Its scales are sized by the group size as given, so that one group must be given as K.
    theirs = autoawq_layer("marlin").from_linear(linear_of(weight), 4, group_size, scales=weight.scales.t())
    for name, tensor in pack(weight, "marlin").items():
        assert torch.equal(tensor, getattr(theirs, name)), name


def autoawq_layer(format: str) -> Any:
    module, name = {
        "awq": ("gemm", "WQLinear_GEMM"),
        "awq_gemv": ("gemv", "WQLinear_GEMV"),
        "awq_gemv_fast": ("gemv_fast", "WQLinear_GEMVFast"),
        "marlin": ("marlin", "WQLinear_Marlin"),
    }[format]
    autoawq()
    return getattr(importlib.import_module(f"awq.modules.linear.{module}"), name)


def arguments(weight: QuantizedWeight, format: str) -> dict[str, torch.Tensor]:
    """Scales and zero points as the layer wants them: [groups, N] for GEMM, [N, groups] for the others."""
    assert weight.zeros is not None
    if format == "awq":
        return {"scales": weight.scales, "zeros": weight.zeros}
    return {"scales": weight.scales.t(), "zeros": weight.zeros.t()}


@pytest.mark.parametrize("shape", SHAPES)
def test_v1_of_gptq_differs_from_v2_by_one_in_every_zero_point(shape: tuple[int, int]) -> None:
    weight = random_weight(*shape, 128, seed=1)
    one, two = pack(weight, "gptq"), pack(weight, "gptq_v2")
    # Eight nibbles at once: none of them carries, since none holds 15.
    assert torch.equal((one["qzeros"].long() + 0x11111111) % 2**32, two["qzeros"].long() % 2**32)
    assert torch.equal(one["qweight"], two["qweight"])


def test_symmetric_gptq_has_the_word_that_everybody_knows() -> None:
    weight = replace(random_weight(256, 512, 128, seed=0), zeros=None)
    assert {word % 2**32 for word in pack(weight, "gptq")["qzeros"].unique().tolist()} == {0x77777777}
    assert {word % 2**32 for word in pack(weight, "gptq_v2")["qzeros"].unique().tolist()} == {0x88888888}


# One value, everything from it


@pytest.mark.parametrize("format", FORMATS)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_unpack_undoes_pack(format: str, data: st.DataObject) -> None:
    layout = LAYOUTS[format]
    rows, columns = data.draw(st.sampled_from(layout.sizes))
    k, n = max(rows, 128) * data.draw(st.integers(1, 3)), columns * data.draw(st.integers(1, 3))
    group_size = data.draw(st.sampled_from(layout.group_sizes or (-1, 32, 64, 128)))
    weight = weight_for(format, k, n, k if group_size == -1 else group_size, data.draw(st.integers(0, 2**31)))
    assert_same(unpack(pack(weight, format), format, group_size=group_size, shape=(k, n)), weight)


@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("source", FORMATS)
def test_convert_is_packing_anew(source: str, target: str) -> None:
    weight = replace(random_weight(256, 512, 128, seed=3), zeros=torch.full((2, 512), 8, dtype=torch.uint8))
    found = convert(pack(weight, source), source, target, group_size=128)
    for name, tensor in pack(weight, target).items():
        assert torch.equal(found[name], tensor), name


@given(through=st.lists(st.sampled_from([f for f in FORMATS if LAYOUTS[f].zeros]), max_size=5), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_a_way_through_any_formats_ends_where_it_began(through: list[str], seed: int) -> None:
    weight = random_weight(128, 256, 128, seed)
    tensors, at = pack(weight, "awq"), "awq"
    for format in [*through, "awq"]:
        tensors, at = convert(tensors, at, format, group_size=128), format
    assert all(torch.equal(tensors[name], tensor) for name, tensor in pack(weight, "awq").items())


@pytest.mark.parametrize("format", FORMATS)
def test_where_is_a_bijection_of_a_weight(format: str) -> None:
    order = LAYOUTS[format].weight
    k, n = torch.meshgrid(torch.arange(256), torch.arange(512), indexing="ij")
    place = order.where(k=k, n=n)
    words = int(place["word"].max()) + 1
    flat = (place["row"] * words + place["word"]) * order.nibbles + place["nibble"]
    assert torch.equal(flat.flatten().sort().values, torch.arange(256 * 512))
    back = order.at(**place)
    assert torch.equal(back["k"], k)
    assert torch.equal(back["n"], n)


@pytest.mark.parametrize("format", FORMATS)
def test_where_says_where_pack_puts_a_code(format: str) -> None:
    """One code of 9 among zeros, packed: it must stand where `where` says, and nothing else anywhere."""
    layout = LAYOUTS[format]
    for k, n in [(0, 0), (3, 21), (9, 30), (127, 255), (200, 300), (255, 511)]:
        codes = torch.zeros(256, 512, dtype=torch.uint8)
        codes[k, n] = 9
        weight = QuantizedWeight(codes, torch.ones(2, 512).half(), None, 128)
        qweight = pack(weight, format)["qweight"]
        place = layout.where(k, n)
        bits = 4 * layout.weight.nibbles
        assert qweight.nonzero().tolist() == [[place["row"], place["word"]]]
        assert int(qweight.sum()) % 2**bits == 9 << 4 * int(place["nibble"])


def test_known_places() -> None:
    """By hand, from the kernels' sources."""
    assert LAYOUTS["awq"].where(3, 21) == {"row": 3, "word": 2, "nibble": 6}
    assert LAYOUTS["awq"].where(9, 30) == {"row": 9, "word": 3, "nibble": 3}
    assert LAYOUTS["gptq"].where(3, 21) == {"row": 0, "word": 21, "nibble": 3}
    marlin = LAYOUTS["marlin"].where(3, 21)
    assert {name: marlin[name] for name in ("row", "word", "nibble")} == {"row": 0, "word": 85, "nibble": 4}
    marlin = LAYOUTS["marlin"].where(9, 30)
    assert {name: marlin[name] for name in ("row", "word", "nibble")} == {"row": 0, "word": 97, "nibble": 7}


@pytest.mark.parametrize("format", ["marlin", "awq_marlin"])
def test_lanes_own_what_an_mma_fragment_needs(format: str) -> None:
    """PTX ISA, mma.m16n8k16: of a 16 x 8 operand B lane l holds rows 2 (l % 4) + {0, 1, 8, 9} of column l // 4."""
    k, n = torch.meshgrid(torch.arange(16), torch.arange(64), indexing="ij")
    place = LAYOUTS[format].where(k, n)
    assert torch.equal(place["lane"], 4 * (n % 8) + k % 8 // 2)
    assert torch.equal(place["half"], k % 2)
    assert torch.equal(place["register"] % 2, k // 8)
    # Four words, 16 bytes, of each lane are neighbours: one load.
    assert torch.equal(place["word"] // 4, place["lane"])


@pytest.mark.parametrize("layout", list(LAYOUTS.values()), ids=FORMATS)
def test_a_spec_holds_bit_names_only(layout: Layout) -> None:
    orders = [layout.weight, layout.scales, layout.zeros, layout.single_scales]
    for order in filter(None, orders):
        for text in (order.row, order.word, order.nibble, *layout.lane.values()):
            assert all(word[0] in "kng" and word[1:].rstrip("+").isdigit() for word in text.split())


# Refusals


def refusal(function: Any, *arguments: Any, **keywords: Any) -> str:
    with pytest.raises(AwqdocError) as caught:
        function(*arguments, **keywords)
    return str(caught.value)


def test_a_width_that_does_not_fill_its_last_word_is_refused_with_the_next_that_does() -> None:
    sentence = refusal(pack, random_weight(128, 60, 128, seed=0), "awq")
    assert "multiples of 1 and 8; found 128 x 60, the nearest larger is 128 x 64" in sentence


@pytest.mark.parametrize(
    ("format", "shape", "nearest"),
    [
        ("marlin", (128, 128), "128 x 256"),
        ("awq_marlin", (96, 128), "128 x 128"),
        ("awq_gemv_fast", (96, 8), "128 x 8"),
    ],
)
def test_a_shape_that_a_format_cannot_hold_is_refused(format: str, shape: tuple[int, int], nearest: str) -> None:
    assert f"the nearest larger is {nearest}" in refusal(pack, weight_for(format, *shape, shape[0]), format)


@pytest.mark.parametrize(
    ("format", "group_size", "allowed"),
    [("marlin", 64, "-1, 128"), ("awq_marlin", 16, "-1, 32, 64, 128"), ("awq_gemv", 16, "from 32 up")],
)
def test_a_group_size_that_a_format_cannot_hold_is_refused(format: str, group_size: int, allowed: str) -> None:
    sentence = refusal(pack, weight_for(format, 256, 256, group_size), format)
    assert allowed in sentence
    assert f"found {group_size}" in sentence


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("tensor", ["codes", "zeros"])
def test_a_code_or_a_zero_point_above_15_is_refused(format: str, tensor: str) -> None:
    weight = random_weight(256, 512, 128, seed=0)
    assert weight.zeros is not None
    getattr(weight, tensor)[1, 5] = 16
    assert "must be 0 to 15; found 16" in refusal(pack, weight, format)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_scales_that_are_not_finite_are_refused(format: str, value: float) -> None:
    weight = weight_for(format, 256, 512, 128)
    weight.scales[0, 7] = value
    assert "scales must be finite" in refusal(pack, weight, format)


def test_zero_points_are_refused_where_there_is_no_place_for_them() -> None:
    assert "found zero points from 1 to 15: use 'awq_marlin'" in refusal(
        pack, random_weight(256, 512, 128, 0), "marlin"
    )
    three = QuantizedWeight(torch.zeros(256, 512).byte(), torch.ones(2, 512).half(), None, 128, bits=3)
    assert "codes of 3 bits, whose middle is 4" in refusal(pack, three, "marlin")


def test_zero_points_that_all_say_8_are_none() -> None:
    weight = weight_for("marlin", 256, 512, 128)
    same = replace(weight, zeros=torch.full((2, 512), 8, dtype=torch.uint8))
    assert torch.equal(pack(same, "marlin")["qweight"], pack(weight, "marlin")["qweight"])


def test_a_zero_point_of_0_is_refused_by_gptqs_first_version() -> None:
    weight = random_weight(256, 512, 128, seed=0)
    assert weight.zeros is not None
    weight.zeros[0, :3] = 0
    assert "has none for 0; found 3 of them: use 'gptq_v2'" in refusal(pack, weight, "gptq")


@pytest.mark.parametrize("scale", [0.0, 6e4])
def test_a_zero_point_that_its_product_with_the_scale_loses_is_refused(scale: float) -> None:
    weight = random_weight(256, 512, 128, seed=0)
    weight.scales[1, 4] = scale
    assert "stores -s z in FP16" in refusal(pack, weight, "awq_gemv_fast")


@pytest.mark.parametrize("format", ["AWQ", "exllama", ""])
def test_an_unknown_format_is_refused(format: str) -> None:
    for function in (pack, lambda weight, format: unpack({}, format, group_size=128)):
        assert "must be one of awq, awq_gemv" in refusal(function, random_weight(128, 64, 128, seed=0), format)


@pytest.mark.parametrize("format", FORMATS)
def test_tensors_that_do_not_fit_together_are_refused(format: str) -> None:
    good = pack(weight_for(format, 256, 512, 128), format)
    for name, tensor in good.items():
        assert f"{name} is missing" in refusal(
            unpack, {n: t for n, t in good.items() if n != name}, format, group_size=128
        )
        wide = good | {name: tensor.double() if tensor.is_floating_point() else tensor.long()}
        assert f"{name} of '{format}' must be" in refusal(unpack, wide, format, group_size=128)
        assert name == "qweight" or f"{name} of '{format}' must be" in refusal(
            unpack, good | {name: tensor[:, :-1]}, format, group_size=128
        )
    assert "found shape=(256, 256)" in refusal(unpack, good, format, group_size=128, shape=(256, 256))
    assert "must divide K = 256" in refusal(unpack, good, format, group_size=96)


def test_a_cut_tile_is_refused() -> None:
    good = pack(weight_for("marlin", 256, 512, 128), "marlin")
    sentence = refusal(unpack, good | {"qweight": good["qweight"][:, :-3]}, "marlin", group_size=128)
    assert "whole tiles of 16 x 64" in sentence


def test_zero_points_for_a_symmetric_format_are_refused() -> None:
    tensors = pack(random_weight(256, 512, 128, seed=0), "awq_marlin")
    assert "is it 'awq_marlin'" in refusal(unpack, tensors, "marlin", group_size=128)


def test_a_zero_point_that_wrapped_around_is_refused() -> None:
    tensors = pack(random_weight(256, 512, 128, seed=0), "gptq")
    tensors["qzeros"][0, 0] = -1
    assert "8 values that stand for no zero point of 0 to 15 (a 0 that wrapped around)" in refusal(
        unpack, tensors, "gptq", group_size=128
    )


def test_an_activation_order_is_refused() -> None:
    tensors = pack(random_weight(256, 512, 128, seed=0), "gptq_v2")
    unpack(tensors | {"g_idx": torch.arange(256) // 128}, "gptq_v2", group_size=128)
    assert "activation order" in refusal(unpack, tensors | {"g_idx": torch.arange(256) % 2}, "gptq_v2", group_size=128)
