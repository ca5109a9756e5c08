"""The roofline on a sweep whose roofs, ridges and distances are known without it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from figure_checks import assert_house_style
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from awqdoc import visualization as vis
from awqdoc.errors import AwqdocError
from awqdoc.formats import Problem
from awqdoc.gpu.datasheets import DATA_SHEETS
from awqdoc.kernels import BACKENDS
from awqdoc.recordings import Recording
from awqdoc.visualization.roofline import Roofs, intensity

pytestmark = pytest.mark.usefixtures("same_code")

SHAPE = "1024x512"
PROVENANCE = {
    "commit": "0123456789", "sources": "sha256:now", "date": "2026-11-23T18:12:08+00:00", "clock": "a sundial",
    "gpu": "NVIDIA H100 80GB HBM3",
}  # fmt: skip
# Bytes or FLOP in a second, cell by cell: the roofs are 2000 B/s, by the second read, and 60000 FLOP/s.
RATES = {"read": (1000, 2000), "copy": (1900, 1800), "matmul": (50_000, 70_000)}


def sweep(rates: dict[str, tuple[int, ...]] = RATES, **times: tuple[float, float]) -> Recording:
    """Return a sweep at M = 1 and 64, in which backends take `times` as often as the roofs allow."""
    rows: list[dict[str, Any]] = []
    for i, m in enumerate((1, 64)):
        cell = {"shape": SHAPE, "group_size": 128, "m": m}
        for name, backend in BACKENDS.items():
            if name in times:
                # By hand: the bytes of 1024 x 512 weights, of X and of Y; operations.
                weight = 1024 * 512 * (2 if backend.bits == 16 else (4 + 20 / 128) / 8)
                least = max((weight + 2 * m * (1024 + 512)) / 2000, 2 * m * 1024 * 512 / 60_000)
                median = least * times[name][i]
                rows.append({**cell, "backend": name, "seconds": [median, median / 2, median * 3], "error": 1e-4})
            else:
                rows.append({**cell, "backend": name, "skipped": "it was away"})
        for name, found in rates.items():
            unit = "flops" if name == "matmul" else "bytes"
            rows.append({**cell, "backend": name, unit: 3 * found[i], "seconds": [3.0, 1.0, 300.0]})
    return Recording("batch-sweep", {"shape": [SHAPE], "group_size": [128], "m": [1, 64]}, PROVENANCE, rows)


SWEEP = sweep(fp16=(1.0, 1.5), triton_fused=(4.0, 2.0))
FIGURES: dict[str, Callable[[], Figure]] = {
    "roofline": lambda: vis.plot_roofline(SWEEP, SHAPE),
    "distance": lambda: vis.plot_distance(SWEEP, SHAPE),
}


def test_the_roofs_are_the_fastest_reading_and_the_median_product() -> None:
    assert vis.measured_roofs(SWEEP) == Roofs("NVIDIA H100 80GB HBM3", 2000, 60_000, "read")
    assert vis.measured_roofs(SWEEP).ridge == 30
    assert vis.measured_roofs(sweep({**RATES, "copy": (1, 2001)})).floor == "copy"


@pytest.mark.parametrize("name", RATES)
def test_without_floors_there_are_no_roofs(name: str) -> None:
    lacking = sweep({key: rates for key, rates in RATES.items() if key != name}, fp16=(1, 1))
    assert not vis.has_floors(lacking)
    for draw in (vis.measured_roofs, lambda it: vis.plot_roofline(it, SHAPE), vis.roofs_table):
        with pytest.raises(AwqdocError, match=r"holds no floors.*awqdoc record batch-sweep"):
            draw(lacking)
    assert {gpu["kind"] for gpu in vis.roofline_data([lacking], [])["gpus"]} == {"modelled"}


def test_the_data_sheet_is_that_of_the_very_gpu() -> None:
    assert {sheet.reported: vis.data_sheet(sheet.reported) for sheet in DATA_SHEETS} == {
        sheet.reported: sheet for sheet in DATA_SHEETS
    }
    for other in ("NVIDIA H100 PCIe", "NVIDIA A10G", "NVIDIA L40S", "AMD EPYC (2 cores)"):
        assert vis.data_sheet(other) is None


@given(
    m=st.integers(1, 512), n=st.integers(1, 4096), k=st.integers(1, 4096), group=st.sampled_from((32, 64, 128)),
    bits=st.sampled_from((4, 16)), ridge=st.integers(1, 5000),
)  # fmt: skip
def test_the_turning_batch_is_where_the_bound_changes(
    m: int, n: int, k: int, group: int, bits: int, ridge: int
) -> None:
    """In exact arithmetic: memory binds below it, compute above it."""
    found = vis.turning_batch(Problem(1, n, k, group), bits, Roofs("a GPU", 1, ridge, "read"))
    weight = n * k * (16 if bits == 16 else 4 + Fraction(20, group)) / 8
    compute_binds = Fraction(2 * m * n * k, ridge) > weight + 2 * m * (n + k)
    assert (m > found) == compute_binds or found == pytest.approx(m)


def test_intensity_counts_weight_tokens_and_results_once() -> None:
    assert intensity(Problem(4, 1024, 512), 16) == 2 * 4 * 1024 * 512 / (2 * 1024 * 512 + 2 * 4 * 1536)


def test_distances_are_those_that_the_times_were_made_with() -> None:
    assert vis.distances(SWEEP, "fp16", SHAPE) == pytest.approx({1: 1.0, 64: 1.5})
    assert vis.distances(SWEEP, "triton_fused", SHAPE) == pytest.approx({1: 4.0, 64: 2.0})
    assert vis.distances(SWEEP, "dequantize", SHAPE) == {}


def test_the_table_says_what_binds_and_sets_the_measured_speedup_beside_the_allowed_one() -> None:
    table = vis.allowed_table(SWEEP, SHAPE)
    first, last = table.rows
    # M = 1: 1024 * 512 * 2 + 3072 bytes at 2000 B/s; in INT4 272384 + 3072. M = 64: 2 * 64 * 1024 * 512 FLOP.
    assert first[:5] == ["1", f"{1e6 * 1051648 / 2000:.1f}", "memory", f"{1e6 * 275456 / 2000:.1f}", "memory"]
    assert first[5:] == ["3.82", "0.95", "fused Triton (ours)"]
    assert last[1:6] == [f"{1e6 * 67108864 / 60_000:.1f}", "compute"] * 2 + ["1.00"]
    assert last[6:] == ["0.75", "fused Triton (ours)"]


def test_the_roofs_stand_beside_the_data_sheet_with_what_measured_them() -> None:
    rows = {row[0]: row[1:] for row in vis.roofs_table(SWEEP).rows}
    assert rows["memory"][:3] == ["2 kB/s", "read floor", "3.35 TB/s"]
    assert rows["compute"][:3] == ["60 kFLOP/s", "large FP16 matmul", "990 TFLOP/s"]
    assert rows["ridge"][0] == "30 FLOP/B"
    unknown = replace(SWEEP, provenance={**PROVENANCE, "gpu": "a GPU of tomorrow"})
    assert vis.roofs_table(unknown).columns == ["roof", "measured", "by"]


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_in_house_style_and_told(name: str) -> None:
    assert_house_style(FIGURES[name])
    figure: Any = FIGURES[name]()
    told = {
        "roofline": ("2 kB/s to 60 kFLOP/s", "30 FLOP per byte", "FP16 (torch)", "M = 64"),
        "distance": ("FP16 (torch): 1.00 to 1.50", "INT4 fused Triton (ours): 2.00 to 4.00"),
    }[name]
    assert all(words in figure.awqdoc_alt for words in told)
    assert "dequantize" not in figure.awqdoc_alt
    assert figure.awqdoc_source is SWEEP


def test_the_roof_is_a_slope_to_the_ridge_and_then_flat() -> None:
    (axes,) = vis.plot_roofline(SWEEP, SHAPE).axes
    (roof,) = [line for line in axes.get_lines() if line.get_label() == "roofs, measured"]
    (x0, x1, x2), y = (list(map(float, values)) for values in (roof.get_xdata(), roof.get_ydata()))
    assert x0 < x1 == 30 < x2
    assert y == pytest.approx([2000 * x0 / 1e12, 6e-8, 6e-8])


def test_the_widget_gets_every_data_sheet_and_each_gpu_once() -> None:
    other = replace(SWEEP, provenance={**PROVENANCE, "gpu": "NVIDIA H200"})
    slower = replace(sweep({**RATES, "matmul": (1, 1)}, fp16=(1, 1)), provenance=PROVENANCE)
    data = json.loads(json.dumps(vis.roofline_data([SWEEP, other, slower], []), allow_nan=False))
    measured = [gpu for gpu in data["gpus"] if gpu["kind"] == "measured"]
    assert [(gpu["name"], gpu["peak"]) for gpu in measured] == [(PROVENANCE["gpu"], 60_000), ("NVIDIA H200", 60_000)]
    assert measured[0]["label"] == SWEEP.label
    sheets = [gpu for gpu in data["gpus"] if gpu["kind"] == "modelled"]
    assert [(g["name"], g["bandwidth"], g["peak"]) for g in sheets] == [
        (sheet.name, sheet.bandwidth, sheet.peak) for sheet in DATA_SHEETS
    ]
    assert all("data sheet" in gpu["label"] and gpu["points"] == [] for gpu in sheets)
    keys = [gpu["key"] for gpu in data["gpus"]]
    assert len(keys) == len(set(keys))


def test_the_widget_gets_the_median_of_every_measured_point() -> None:
    points = vis.roofline_data([SWEEP], [])["gpus"][0]["points"]
    found = {(point["backend"], point["m"]): point for point in points}
    assert set(found) == {(BACKENDS[name].title, m) for name in ("fp16", "triton_fused") for m in (1, 64)}
    point = found[BACKENDS["triton_fused"].title, 1]
    assert point["seconds"] == pytest.approx(4 * 275456 / 2000)
    assert (point["n"], point["k"], point["group"], point["bits"]) == (1024, 512, 128, 4)
    assert point["hue"] in vis.PALETTE


def test_the_fastest_kernels_stand_beside_the_sweep_of_the_same_gpu_alone() -> None:
    cells = [
        ("fp16", "1024x512", 1, True, 9e-3),  # the sweep has it: left to it
        ("fp16", "57344x8192", 1, True, 8e-3),
        ("cuda_overlapped", "57344x8192", 1, True, 2e-3),
        ("cuda_overlapped", "57344x8192", 1, False, 1e-3),  # symmetric: not a format of the page
        ("gptqmodel_marlin", "57344x8192", 1, True, 3e-3),
        ("llm_awq", "57344x8192", 1, True, 4e-3),  # none of the fastest
    ]
    rows: list[dict[str, Any]] = [
        {"backend": name, "shape": shape, "m": m, "zero_points": zero_points, "seconds": [seconds, 0.5 * seconds, 9]}
        for name, shape, m, zero_points, seconds in cells
    ]
    rows.append({"backend": "gptqmodel_machete_best", "shape": "64x64", "m": 1, "zero_points": True, "skipped": "away"})
    shapes = ["1024x512", "57344x8192", "64x64"]
    kernels = Recording("kernels", {"shape": shapes}, {**PROVENANCE, "date": "2026-01-02"}, rows)
    elsewhere = replace(kernels, provenance={**PROVENANCE, "gpu": "NVIDIA Other"})
    (gpu, *sheets) = vis.roofline_data([SWEEP], [kernels, elsewhere])["gpus"]
    assert {sheet["kind"] for sheet in sheets} == {"modelled"}  # kernels without a sweep have no roofs
    assert [p["m"] for p in gpu["points"]] == [1] * 5 + [64] * 2  # as they are joined
    added = {(p["backend"], p["n"], p["k"]): p["seconds"] for p in gpu["points"] if (p["n"], p["k"]) != (1024, 512)}
    assert added == {
        ("FP16 (torch)", 57344, 8192): 8e-3,
        ("INT4, our top step", 57344, 8192): 2e-3,
        ("INT4, Marlin (vLLM)", 57344, 8192): 3e-3,
    }
    assert "2026-01-02" in gpu["label"]
    hues = {p["backend"]: p["hue"] for p in gpu["points"]}
    assert len(set(hues.values())) == len(hues)


@pytest.mark.parametrize("k", [512, 4096, 14336])
def test_the_widget_s_formats_weigh_what_a_problem_says(k: int) -> None:
    for one in vis.roofline_data([], [])["formats"]:
        group = {None: 128, -1: k}.get(one["group"], one["group"])
        assert 1000 * (k * one["bits"] + one["column_bits"]) / 8 == Problem(1, 1000, k, group).weight_bytes(
            one["width"]
        )
