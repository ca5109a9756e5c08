"""A whole model's step drawn and tabulated, from made-up times, bytes and kernels whose answers are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from figure_checks import assert_house_style
from matplotlib.colors import to_hex

from awqdoc import visualization as vis
from awqdoc.errors import AwqdocError
from awqdoc.experiments import decode
from awqdoc.models.decoding import KINDS
from awqdoc.recordings import Recording
from awqdoc.visualization.decoding import FP16, KIND_HUES, LOOKS

pytestmark = pytest.mark.usefixtures("same_code")
TOP, HEAD, MARLIN = decode.MODELS[2:]
PEER = ("a_peer", "fp16")
PROVENANCE = {"commit": "01234567", "sources": "sha256:now", "date": "2026-11-25T12:00:00+00:00", "gpu": "NVIDIA H200"}
BATCHES = [1, 8, 64]
# Model -> ms of a step at the three batches; None: it got no time. The rounds drift, all alike.
MS: dict[Any, tuple[float | None, ...]] = {
    PEER: (9, 9, 11), MARLIN: (4, 5, None), HEAD: (2, 3, 10), TOP: (3, 4, 9.5), FP16: (6, 8, 10)
}  # fmt: skip
ROUNDS = (1, 1.5, 2)
RATE = 2e12  # bytes per second of the read
# Weights of a Llama-3-8B that a step reads: the layers', lm_head's; and numbers in the cache for each token.
LAYERS, LM_HEAD = 32 * (6144 * 4096 + 4096 * 4096 + 28672 * 4096 + 4096 * 14336), 128256 * 4096
CACHED = 32 * 2 * 8 * 128
INT4 = (4 + (16 + 4) / 128) / 8  # bytes of a weight: 4 bits, and in groups of 128 a scale and a zero point
LINES = (vis.plot_step_times, vis.plot_step_speedup, vis.plot_users, vis.plot_kind_floors)
BARS = (lambda made: vis.plot_kinds(made, 1), lambda made: vis.plot_decode_memory(made, 64))
KIND_MS = dict(zip(KINDS, (0.25, 0.5, 1.5, 0.25, 0.25, 0.5, 0.125, 0.625), strict=True))


def row(what: str, batch: int, model: Any, **columns: Any) -> dict[str, Any]:
    return {"batch": batch, "what": what, "backend": model[0], "lm_head": model[1], **columns}


def recording() -> Recording:
    rows: list[dict[str, Any]] = []
    for place, m in enumerate(BATCHES):
        rows.append({"batch": m, "what": "read", "bytes": 10**9, "seconds": [10**9 / RATE]})
        for model, times in MS.items():
            ms = times[place]
            if ms is None:
                rows.append(row("step", m, model, skipped="wrong: its logits differ"))
                continue
            seconds = [factor * ms / 1e3 for factor in ROUNDS]
            rows.append(row("step", m, model, seconds=seconds, error=0.0, context=1000))
            weights = 16_000_000_000 if model == FP16 else 4_000_000_000
            rows.append(row("memory", m, model, weights=weights, cache=m * 10**9, working=500_000_000))
            rows += [row("kind", m, model, kind=kind, seconds=ms / 1e3) for kind, ms in reversed(KIND_MS.items())]
            if m == 1:
                rows.append(row("prefill", m, model, tokens=250, seconds=[factor * ms / 1e3 for factor in ROUNDS]))
    return Recording("decode", {"batch": BATCHES}, PROVENANCE, rows)


def kernels() -> Recording:
    """Each product of a layer takes 25 µs in FP16 and 10 in our top step, which was not recorded at M = 64."""
    shapes, rows = ("6144x4096", "4096x4096", "28672x4096", "4096x14336"), []
    for shape in shapes:
        for backend, us, batches in (("fp16", 25, BATCHES), ("cuda_overlapped", 10, BATCHES[:2])):
            cell = {"shape": shape, "backend": backend, "zero_points": True}
            rows += [{**cell, "m": m, "seconds": [us / 1e6]} for m in batches]
    rows.append({"shape": shapes[0], "backend": "read", "zero_points": True, "m": 1, "bytes": 10**9, "seconds": [1e-3]})
    return Recording("kernels", {"shape": list(shapes), "m": BATCHES}, PROVENANCE, rows)


def test_models_stand_in_one_order_under_names_of_their_own_and_only_where_they_got_a_time() -> None:
    found = vis.step_samples(recording())
    assert list(found) == [FP16, TOP, HEAD, MARLIN, PEER]
    assert set(LOOKS) == set(decode.MODELS)
    assert list(found[MARLIN]) == [1, 8]
    names = [vis.decode_title(model) for model in found]
    assert names[:2] == ["FP16, cuBLAS", "INT4, our top step"]
    assert names[2:] == ["INT4, our top step, lm_head too", "INT4, Marlin (vLLM)", "INT4, a_peer"]


def test_the_bytes_of_a_step_over_the_rate_of_the_read_are_the_least_time() -> None:
    floors, ceilings = vis.step_floors(recording()), vis.step_ceilings(recording())
    for m in BATCHES:
        cache = 2 * CACHED * 1000 * m
        sizes = {FP16: 2 * (LAYERS + LM_HEAD), TOP: INT4 * LAYERS + 2 * LM_HEAD, HEAD: INT4 * (LAYERS + LM_HEAD)}
        for model, weights in sizes.items():
            assert floors[model][m] == pytest.approx((weights + cache) / RATE)
            assert ceilings[model][m] == pytest.approx((sizes[FP16] + cache) / (weights + cache))


def test_the_least_time_of_a_step_is_that_of_its_kinds() -> None:
    floors = vis.kind_floors(recording(), 64)
    cache = 2 * CACHED * 1000 * 64
    assert floors[FP16] == pytest.approx(
        {"linear": 2 * LAYERS / RATE, "lm_head": 2 * LM_HEAD / RATE, "attention": cache / RATE}
    )
    assert floors[TOP]["linear"] == pytest.approx(INT4 * LAYERS / RATE)
    assert floors[TOP]["lm_head"] == pytest.approx(2 * LM_HEAD / RATE)
    assert floors[HEAD]["lm_head"] == pytest.approx(INT4 * LM_HEAD / RATE)
    assert MARLIN not in floors


def test_int4_pays_up_to_the_largest_batch_at_which_it_is_faster() -> None:
    assert vis.pays_until(recording()) == {TOP: 64, HEAD: 8, MARLIN: 8, PEER: None}
    assert vis.step_speedups(recording())[TOP][8] == pytest.approx([2, 2, 2])


def test_the_table_of_steps() -> None:
    table = vis.step_table(recording())
    rows = {(line[0], line[1]): line[2:] for line in table.rows}
    assert len(rows) == len(table.rows) == 14
    least = (2 * (LAYERS + LM_HEAD) + 16 * CACHED * 1000) / RATE  # the step takes 12 ms, in the median round
    times = ["12.000", f"{1e3 * least:.3f}", f"{least / 12e-3:.0%}"]
    assert rows["8", "FP16, cuBLAS"] == [*times, "83.3", "667", "1.00", "1.00"]
    assert rows["1", "INT4, our top step"][5:] == ["2.00", f"{vis.step_ceilings(recording())[TOP][1]:.2f}"]
    assert vis.decode_left_out_table(recording()).rows == [["INT4, Marlin (vLLM)", "64", "wrong: its logits differ"]]


def test_a_model_without_any_time_is_named_with_the_reason() -> None:
    assert vis.decode_untimed(recording()) == ""  # Marlin lacks one batch only
    row = {"batch": 1, "what": "step", "backend": "fp16_stream", "lm_head": "fp16_stream", "skipped": "too old"}
    some = replace(recording(), rows=[*recording().rows, row, {**row, "batch": 8}])
    assert vis.decode_untimed(some) == "FP16, our kernel, without a time: too old\n"


def test_a_step_is_predicted_from_products_lm_head_by_its_bytes_and_the_remainder() -> None:
    found = vis.predicted_steps(recording(), kernels())
    rest = 0.25 + 0.5 + 0.25 + 0.25 + 0.125 + 0.625  # without linear and lm_head
    head = 2 * LM_HEAD / 1e12 * 1e3  # ms
    assert 1e3 * found[FP16][64] == pytest.approx(32 * 4 * 0.025 + head + rest)
    assert 1e3 * found[TOP][8] == pytest.approx(32 * 4 * 0.010 + head + rest)
    assert 1e3 * found[HEAD][8] == pytest.approx(32 * 4 * 0.010 + head * INT4 / 2 + rest)
    assert 64 not in found[TOP]
    assert found[MARLIN] == {}
    rows = {(line[0], line[1]): line[2:] for line in vis.step_prediction_table(recording(), kernels()).rows}
    base, own = 1e3 * found[FP16][8], 1e3 * found[TOP][8]
    assert rows["8", "INT4, our top step"] == [f"{own:.3f}", "6.000", f"{6 / own:.2f}", f"{base / own:.2f}", "2.00"]
    assert rows["64", "INT4, our top step"] == ["", "14.250", "", "", "1.05"]


def test_kernels_of_another_gpu_predict_nothing() -> None:
    other = replace(kernels(), provenance={**PROVENANCE, "gpu": "NVIDIA A100"})
    with pytest.raises(AwqdocError, match="NVIDIA H200; found NVIDIA A100"):
        vis.predicted_steps(recording(), other)


def test_the_bars_of_a_step_have_all_kinds_in_order_with_gaps_hatched() -> None:
    assert tuple(KIND_HUES) == KINDS
    (axes,) = vis.plot_kinds(recording(), 64).axes
    shown = [vis.decode_title(model) for model in (FP16, TOP, HEAD, PEER)]
    assert [text.get_text().replace("\n", " ") for text in axes.get_yticklabels()] == shown
    end = 0.0
    for bars, (kind, ms) in zip(axes.containers, KIND_MS.items(), strict=True):
        first = bars.patches[0]
        assert (first.get_x(), first.get_width()) == pytest.approx((end, ms))
        assert bool(first.get_hatch()) == (kind == "gaps")
        hue = first.get_edgecolor() if kind == "gaps" else first.get_facecolor()
        assert to_hex(hue) == vis.PALETTE[KIND_HUES[kind]][0]
        end += ms
    assert {text.get_text() for text in axes.texts} == {"4.00"}


def test_the_table_of_kinds_ends_with_the_linear_share_and_the_step_itself() -> None:
    table = vis.kinds_table(recording(), 1)
    assert [line[:2] for line in table.rows[len(KINDS) :]] == [
        ["together", "4.000"], ["share of linear layers", "38%"], ["without a profiler", "9.000"]
    ]  # fmt: skip
    assert len(table.columns) == 6


def test_the_table_of_calls_divides_by_their_number_and_has_a_share_where_bytes_must_be_read() -> None:
    table = vis.kind_calls_table(recording(), 1)
    rows = {line[0]: line[1:] for line in table.rows}
    assert list(rows) == [kind for kind in KINDS if kind != "gaps"]
    assert rows["norm"] == ["65", *["7.7"] * 5]  # 0.5 ms
    linear = INT4 * LAYERS / RATE / 1.5e-3  # 1.5 ms
    assert rows["linear"][0] == "128"
    assert rows["linear"][2] == f"11.7 ({linear:.0%})"
    attention = 2 * CACHED * 1000 / RATE / 0.25e-3
    assert rows["attention"][:2] == ["32", f"7.8 ({attention:.0%})"]
    assert rows["lm_head"][1] == f"500.0 ({2 * LM_HEAD / RATE / 0.5e-3:.0%})"


def test_the_table_of_gains_takes_away_what_bytes_do_not_ask_for() -> None:
    rows = {(line[0], line[1]): line[2:] for line in vis.kind_gains_table(recording(), (1, 64)).rows}
    assert len(rows) == 9  # Marlin has no time at 64
    cache = 2 * CACHED * 1000 / RATE * 1e3  # ms, of 4
    small = 4 - 1.5 - 0.25 - 0.5
    ms = [4 - 0.25 + cache, 4 - small, 4 - small - 0.25 + cache, 1e3 * vis.step_floors(recording())[TOP][1]]
    assert rows["1", "INT4, our top step"] == ["4.000", *(f"{4 / one:.2f}" for one in ms)]


def test_the_lines_of_kinds_are_shares_of_their_bytes() -> None:
    figure = vis.plot_kind_floors(recording())
    drawn = {line.get_label(): list(line.get_ydata()) for line in figure.axes[0].lines}
    assert len(drawn) == 6
    assert drawn["linear, FP16, cuBLAS"] == pytest.approx([100 * 2 * LAYERS / RATE / 1.5e-3] * 3)
    cache = 100 * 2 * CACHED * 1000 / RATE / 0.25e-3
    assert drawn["attention, INT4, our top step"] == pytest.approx([cache, 8 * cache, 64 * cache])
    assert f"attention, INT4, our top step: from {cache:.0f} at batch 1" in figure.awqdoc_alt  # type: ignore[attr-defined]


def test_memory_stands_beside_that_of_fp16() -> None:
    rows = {(line[0], line[1]): line[2:] for line in vis.decode_memory_table(recording()).rows}
    assert rows["8", "INT4, our top step"] == ["4.00", "8.00", "0.50", "12.50", "24.50", "4.00", "1.96"]
    (axes,) = vis.plot_decode_memory(recording(), 8).axes
    assert [bars.patches[1].get_width() for bars in axes.containers] == pytest.approx([4, 8, 0.5])


def test_prefill_by_model_per_1000_tokens() -> None:
    rows = {line[0]: line[1:] for line in vis.prefill_table(recording()).rows}
    assert rows["INT4, our top step, lm_head too"] == ["250", "3.00", "12.00", "3.00"]


def test_the_curves_are_medians_and_what_the_bytes_allow() -> None:
    drawn = {line.get_label(): list(line.get_ydata()) for line in vis.plot_step_times(recording()).axes[0].lines}
    assert drawn["INT4, Marlin (vLLM)"] == pytest.approx([6, 7.5])
    assert drawn["INT4, our top step"] == pytest.approx([4.5, 6, 14.25])
    figure = vis.plot_step_speedup(recording())
    lines = figure.axes[0].lines
    assert list(lines[2].get_ydata()) == pytest.approx([2, 2, 10 / 9.5])
    assert list(lines[3].get_ydata()) == pytest.approx(list(vis.step_ceilings(recording())[TOP].values()))
    assert "INT4, our top step at batch 64: 1.05, the bytes allow 1." in figure.awqdoc_alt  # type: ignore[attr-defined]
    users = {line.get_label(): line.get_xydata().tolist() for line in vis.plot_users(recording()).axes[0].lines}  # type: ignore[attr-defined]
    assert users["FP16, cuBLAS"][2] == pytest.approx([1 / 15e-3, 64 / 15e-3])


@pytest.mark.parametrize("draw", [*LINES, *BARS])
def test_house_style(draw: Any) -> None:
    assert_house_style(lambda: draw(recording()))
