"""The figures and tables of the experiment ``kernels``, from made-up times whose answers are known."""

from __future__ import annotations

from dataclasses import replace
from math import isnan
from typing import Any

import pytest
from figure_checks import assert_house_style

from awqdoc import visualization as vis
from awqdoc.errors import AwqdocError
from awqdoc.kernels.table import KERNELS, LADDER
from awqdoc.recordings import Recording

SHAPE = "256x128"
PROVENANCE = {
    "commit": "0123456789", "sources": "sha256:now", "date": "2026-11-25T12:00:00+00:00", "clock": "a clock",
    "gpu": "NVIDIA H100",
}  # fmt: skip
# Times in units of the floor; the rounds drift, all alike.
FACTORS = {"read": 1.0, "fp16": 4.0, **{name: 9.0 - place for place, name in enumerate(LADDER)}, "triton_fused": 5.0}
ROUNDS = (1e-6, 2e-6, 4e-6)


def recording() -> Recording:
    rows: list[dict[str, Any]] = []
    batches = [1, 16, 64]
    for m in batches:
        for name in ("read", *KERNELS):
            row: dict[str, Any] = {"shape": SHAPE, "zero_points": True, "m": m, "backend": name}
            if KERNELS.get(name) is not None and 0 < KERNELS[name].most_tokens < m:
                row["skipped"] = "too many tokens"
            elif name in FACTORS:
                # At 64 tokens all but FP16 take twenty times as long.
                slower = 20 if m == 64 and name not in ("read", "fp16") else 1
                row["seconds"] = [slower * FACTORS[name] * s for s in ROUNDS]
            else:
                row["skipped"] = "not here"
            rows.append(row)
    parameters = {"shape": [SHAPE], "zero_points": [True], "m": batches}
    return Recording("kernels", parameters, PROVENANCE, rows)


def test_ratios_are_taken_round_by_round() -> None:
    assert vis.over(recording(), SHAPE, True, 1, "fp16", "read") == pytest.approx(4)
    assert vis.over(recording(), SHAPE, True, 64, "cuda_overlapped", "fp16") == pytest.approx(10)


def test_kernels_without_a_time_are_left_out() -> None:
    assert "autoawq_triton" not in vis.kernel_times(recording(), SHAPE, True, 1)
    assert "cuda_small_batch" not in vis.kernel_times(recording(), SHAPE, True, 64)


def only(*names: str) -> Recording:
    """A recording of a GPU on which only these kernels run."""
    made = recording()
    lacking = {"skipped": "it needs compute capability 9.0; this GPU has 8.0"}
    keys = ("shape", "zero_points", "m", "backend")
    rows = [row if row["backend"] in names else {key: row[key] for key in keys} | lacking for row in made.rows]
    return replace(made, rows=rows)


def test_on_a_gpu_that_lacks_the_last_steps_the_last_is_another_and_ratios_are_no_numbers() -> None:
    ampere = only("read", "fp16", *LADDER[:5])
    assert vis.last_step(recording(), SHAPE) == LADDER[-1]
    assert vis.last_step(ampere, SHAPE) == "cuda_stripes"
    assert isnan(vis.over(ampere, SHAPE, True, 1, "cuda_overlapped", "cuda_stripes"))
    assert isnan(vis.over(ampere, SHAPE, True, 1, "cuda_stripes", "cuda_overlapped"))
    labels = vis.plot_kernels(ampere, SHAPE).axes[0].get_legend_handles_labels()[1]
    assert labels == ["FP16", "Step 5: stripes", "read floor"]
    newer = only("read", "fp16", *LADDER[:5], "cuda_small_batch")  # which takes up to 32 tokens
    assert [vis.last_step(newer, SHAPE, m=m) for m in (1, 64)] == ["cuda_small_batch", "cuda_stripes"]
    with pytest.raises(AwqdocError, match="No step of the ladder has a time on 256x128: install what"):
        vis.last_step(only("read", "fp16"), SHAPE)


def test_the_ladder_as_a_table() -> None:
    rows = vis.ladder_table(recording(), SHAPE, (1, 16, 64)).rows
    assert rows[0] == ["FP16", "8.0", "8.0", "8.0", "25%"]
    assert rows[-2] == ["Step 8: overlapped launches", "4.0", "4.0", "80.0", "50%"]
    assert rows[-3] == ["Step 7: few tokens", "6.0", "6.0", "", "33%"]
    assert rows[-1] == ["read floor", "2.0", "2.0", "2.0", "100%"]


def test_where_a_kernel_leads() -> None:
    assert vis.lead(recording(), SHAPE, "cuda_overlapped") == [1, 16]
    assert vis.lead(recording(), SHAPE, "triton_fused") == []
    rows = {row[1]: row[2:] for row in vis.lead_table(recording()).rows}
    assert rows["Step 8: overlapped launches"] == ["1 to 16", "2.00 at 1"]
    assert rows["INT4 fused Triton (ours)"] == ["", "0.80 at 1"]


def test_the_distance_from_the_floor_by_shape() -> None:
    (row,) = vis.distance_table(recording(), "cuda_small_batch", (1, 16, 64)).rows
    assert row == [SHAPE, "0 MB", "3.00", "3.00", ""]


@pytest.mark.parametrize("draw", [vis.plot_ladder, vis.plot_kernels])
def test_house_style_of_the_ladder(draw: Any) -> None:
    assert_house_style(lambda: draw(recording(), SHAPE))
