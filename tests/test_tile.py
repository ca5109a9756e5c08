"""The walk through a record, against products that know nothing of lanes, and the figures that it is drawn with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from figure_checks import assert_house_style
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.patches import Rectangle

from awqdoc import visualization as vis
from awqdoc.formats import QuantizedWeight
from awqdoc.kernels.ladder import records, walk


def weight(k: int, n: int, group_size: int, zero_points: bool = True, seed: int = 0) -> QuantizedWeight:
    random = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 16, (k, n), generator=random, dtype=torch.uint8)
    zeros = torch.randint(0, 16, (k // group_size, n), generator=random, dtype=torch.uint8)
    scales = (torch.rand(k // group_size, n, generator=random) / 64).half()
    return QuantizedWeight(codes, scales, zeros if zero_points else None, group_size)


def activations(tokens: int, k: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((tokens, k)).astype(np.float16)


def parts_of(packed: QuantizedWeight, row: int = 0, column: int = 0) -> walk.Parts:
    return walk.parts(records.prepare(packed)["records"][row, column].numpy())


# The walk.


@settings(max_examples=12, deadline=None)
@given(
    group_size=st.sampled_from([32, 64, 128]),
    zero_points=st.booleans(),
    token_tiles=st.integers(1, 2),
    seed=st.integers(0, 1000),
)
def test_a_block_walked_through_is_the_product(group_size: int, zero_points: bool, token_tiles: int, seed: int) -> None:
    packed, x = weight(256, 256, group_size, zero_points, seed), activations(8 * token_tiles, 256, seed)
    shared = [walk.shared_x(x[:, :128]), walk.shared_x(x[:, 128:])]
    columns = []
    for tile in range(8):
        teams = [walk.multiply(parts_of(packed, 1, team), shared[team], tile) for team in range(2)]
        columns.append(walk.store(teams[0] + teams[1]))
    zeros = 8 if packed.zeros is None else packed.zeros.double().repeat_interleave(group_size, 0)
    exact = (packed.codes.double() - zeros) * packed.scales.double().repeat_interleave(group_size, 0)
    wanted = np.einsum("mk,kn->mn", x.astype(np.float64), exact.numpy()[:, 128:])
    # Nothing but the last rounding to FP16, of which float32 sums may cross a boundary.
    np.testing.assert_allclose(np.concatenate(columns, axis=1), wanted, rtol=2**-10.9, atol=1e-6)


def test_every_step_multiplies_its_own_16_k_exactly() -> None:
    packed, x = weight(128, 128, 128), activations(16, 128)
    record, shared = parts_of(packed), walk.shared_x(x)
    differences = (packed.codes.double() - packed.zeros.double()).numpy()  # type: ignore[union-attr]
    for tile, tokens, step in ((0, 0, 0), (7, 1, 3), (2, 0, 7)):
        left, right = walk.left_fragment(record, tile, step), walk.right_fragment(shared, tokens, step)
        sums = walk.mma(np.ones((32, 4), np.float32), left, right)
        k = slice(16 * step, 16 * step + 16)
        part = differences[k, 16 * tile : 16 * tile + 16].T @ x[8 * tokens : 8 * tokens + 8, k].T.astype(np.float64)
        np.testing.assert_array_equal(sums, (1 + part).astype(np.float32)[walk.SUMS])


def test_a_word_becomes_eight_exact_differences_for_all_codes_and_zero_points() -> None:
    codes, z = np.meshgrid(np.arange(16), np.arange(16), indexing="ij")
    words = sum(((codes + i) % 16).astype(np.uint32) << np.uint32(4 * i) for i in range(8))
    halves, constants, differences = walk.unpack_word(words, (z | (15 - z) << 4).astype(np.uint8))
    for register in range(4):
        offset, zero = ((1024, z), (64, 15 - z))[register % 2]
        for half in range(2):
            q = (codes + register + 4 * half) % 16
            np.testing.assert_array_equal(halves[..., register, half], offset + q)
            np.testing.assert_array_equal(constants[..., register, half], offset + zero)
            np.testing.assert_array_equal(differences[..., register, half], q - zero)


@pytest.mark.parametrize("fragment", ["left", "right", "sums"])
def test_fragments_are_those_of_the_ptx_manual(fragment: str) -> None:
    name = {"left": "A", "right": "B", "sums": "C"}[fragment]
    for lane in range(32):
        mine = {place: owner[1] for place, owner in vis.owners(fragment).items() if owner[0] == lane}
        assert mine == vis.lane_elements(lane)[name]


def test_ldmatrix_reads_eight_tokens_from_different_banks() -> None:
    for chunk in range(16):
        banks = {int(place) % 128 // 16 for place in walk.x_place(np.arange(8), chunk, tokens=8)}
        assert len(banks) == 8


def test_x_lies_in_shared_memory_without_a_gap() -> None:
    x = np.arange(16 * 128, dtype=np.uint16).reshape(16, 128).view(np.float16)
    found = walk.shared_x(x).view(np.uint16)
    assert sorted(found.tolist()) == list(range(16 * 128))
    assert found[:8].tolist() == x.view(np.uint16)[0, :8].tolist()
    # Token 3's chunk 1 is at 1 ^ 3 = 2 of its row; its chunk 9 in the second panel.
    assert found[3 * 64 + 16] == x.view(np.uint16)[3, 8]
    assert found[16 * 64 + 3 * 64 + 16] == x.view(np.uint16)[3, 72]


def test_movmatrix_transposes() -> None:
    pairs = np.arange(64, dtype=np.float32).reshape(32, 2)  # row 8 * token: lane 4 r + c has row r, tokens 2 c, 2 c + 1
    found = walk.transposed_halves(pairs)
    assert found[13].tolist() == [8 * 2 + 3, 8 * 3 + 3]  # token 3, rows 2 and 3


# The figures.


def texts(figure: object) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]  # type: ignore[attr-defined]


def filled(figure: object, alpha: float) -> list[tuple[float, float, float]]:
    patches = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]  # type: ignore[attr-defined]
    return [(patch.get_x(), patch.get_y(), patch.get_width()) for patch in patches if patch.get_alpha() == alpha]


def test_the_figure_of_a_record_shows_the_words_of_the_lane() -> None:
    record = parts_of(weight(128, 128, 128))
    figure = vis.plot_record(record, 13, "A record")
    words = records.CODES.to_words(weight(128, 128, 128).codes)[0, 4 * 13 : 4 * 13 + 4]
    assert [text for text in texts(figure) if text.startswith("0x")] == [
        f"0x{w & 0xFFFFFFFF:08x}" for w in words.tolist()
    ]
    assert "8512 bytes" in figure.awqdoc_alt  # type: ignore[attr-defined]
    assert "bytes 208 to 223" in figure.awqdoc_alt  # type: ignore[attr-defined]
    symmetric = vis.plot_record(parts_of(weight(128, 128, 64, zero_points=False)), 0, "A record")
    assert "scales 512, zero points 0" in symmetric.awqdoc_alt  # type: ignore[attr-defined]


def test_the_figure_of_fragments_fills_what_the_lane_holds() -> None:
    figure = vis.plot_owners(13, "Fragments")
    boxes = filled(figure, 0.6)[:-4]  # without the legend's
    assert len(boxes) == 4 + 2 + 4
    assert [width for *_, width in boxes] == pytest.approx([1.7] * 4 + [1.45] * 6)
    assert texts(figure).count("13") == 10
    assert "X, k by token: (2, 3) in 0" in figure.awqdoc_alt  # type: ignore[attr-defined]


def test_the_figure_of_stores_agrees_with_store(monkeypatch: pytest.MonkeyPatch) -> None:
    # Let each lane store its own number.
    lanes = np.repeat(np.arange(32, dtype=np.float16), 2).reshape(32, 2)
    monkeypatch.setattr(walk, "transposed_halves", lambda pairs: lanes)
    y = walk.store(np.zeros((1, 32, 4), np.float32))
    figure = vis.plot_stores(13, "Stores")
    shown = texts(figure)
    assert shown[:8] == [f"warp {w}" for w in (0, 4, 1, 5, 2, 6, 3, 7)]
    numbers = [text for text in shown if text.isdigit()]  # of each token 8 lanes and its own number
    assert numbers == [f"{v:g}" for token in range(8) for v in (*y[token, ::2], token)]
    assert len(filled(figure, 0.6)) == 2
    assert "lane 13: token 3, columns 2, 3, 10 and 11" in figure.awqdoc_alt  # type: ignore[attr-defined]
    assert [tuple(place) for place in np.argwhere(y == 13).tolist()] == [(3, 2), (3, 3), (3, 10), (3, 11)]


def test_the_figure_of_the_pipeline_tells_who_waits() -> None:
    runs = {1: ([0, 1.5], [1, 2.5]), 2: ([0.0, 0.0], [1.0, 1.5])}
    figure = vis.plot_pipeline(runs, 0.5, "Pipeline")
    assert [text for text in texts(figure) if "waits" in text] == ["waits 1 in all", "waits 0 in all"]
    assert "S = 1: done at 3, 1 of it waiting" in figure.awqdoc_alt  # type: ignore[attr-defined]
    assert "S = 2: done at 2, 0 of it waiting" in figure.awqdoc_alt  # type: ignore[attr-defined]
    assert figure.awqdoc_source is None, "it is modelled"  # type: ignore[attr-defined]


def test_house_style() -> None:
    record = parts_of(weight(128, 128, 128))
    assert_house_style(lambda: vis.plot_record(record, 13, "A record"))
    assert_house_style(lambda: vis.plot_owners(13, "Fragments"))
    assert_house_style(lambda: vis.plot_stores(13, "Stores"))
    assert_house_style(lambda: vis.plot_pipeline({2: ([0, 0], [1, 1.5])}, 0.5, "Pipeline"))
