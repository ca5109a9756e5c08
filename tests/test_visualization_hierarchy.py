"""The measured hierarchy and the tensor cores' rates: drawn and tabulated from a GPU that we made up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import gcd
from typing import Any

import pytest
from figure_checks import assert_house_style
from matplotlib.figure import Figure

from awqdoc.experiments import hierarchy
from awqdoc.gpu.probes import tensor
from awqdoc.recordings import Recording
from awqdoc.visualization import measured_hierarchy as memory
from awqdoc.visualization import tensor_rate

pytestmark = pytest.mark.usefixtures("same_code")

# The made-up GPU: 100 SMs at 1 GHz; 30, 40, 200 and 800 cycles; 10, 8, 4 and 2 TB/s.
SMS, L1, L2 = 100, 256 << 10, 50 << 20
PROVENANCE = {
    "gpu": "NVIDIA A100-SXM4-80GB", "compute_capability": "8.0", "date": "2026-11-26T00:00:00+00:00",
    "commit": "0123456789", "sources": "sha256:now", "clock": "two clocks",
}  # fmt: skip
SPEEDS = {"through L1": 8e12, "past L1": 4e12, "memory": 2e12}


def latency_of(footprint: int) -> float:
    return 40 if footprint <= L1 * 0.8 else 200 if footprint <= L2 * 0.8 else 800


def bandwidth_of(what: str, size: int) -> float:
    if size * SMS > L2:
        return SPEEDS["memory"]
    return SPEEDS["through L1"] if what == "read" and size <= L1 else SPEEDS["past L1"]


def wgmma_of(columns: int, left: str, warpgroups: int) -> float:
    fixed = {"shared memory": 1, "registers": 4, "registers, written anew": 25}[left]
    fixed += 0 if 32 <= columns <= 128 else 30  # off the line, which is not asked beyond
    return fixed + columns / 2 if warpgroups == 2 else fixed + columns


def rows() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"kind": "latency", "what": "chip", "sms": SMS, "l1_bytes": L1, "l2_bytes": L2, "sm_clock_mhz": 1000}
    ]
    found += [{"what": "chase", "footprint": f, "cycles": [latency_of(f), 9999, 1]} for f in hierarchy.FOOTPRINTS]
    for chains in (1, 4):
        for stride in hierarchy.STRIDES:
            cycles = 30 / chains + (gcd(stride, 32) - 1) * (2 if chains == 1 else 1)
            found.append({"what": "load", "stride": stride, "chains": chains, "cycles": [cycles]})
    for what in ("read", "read past L1"):
        for size in hierarchy.SLICES:
            moved = SMS * size * 10
            seconds = moved / bandwidth_of(what, size)
            found.append({"what": what, "slice": size, "bytes": moved, "seconds": [seconds], "cycles": [seconds * 1e9]})
    found.append({"what": "read shared memory", "slice": 1, "bytes": 10**10, "seconds": [1e-3], "cycles": [1e6]})
    for size in (1024, 4096, 16384, 65536):
        for what in ("loads", "bulk copies"):
            found.append({"what": what, "in_flight": size, "bytes": 10**9, "seconds": [1e9 / min(2e12, size * 1e8)]})
    for warps, chains in ((1, 1), (8, 4)):
        found.append({
            "what": "mma.sync", "warps": warps, "chains": chains, "cycles": [33 / warps / chains],
            "flop": 10**12 * warps, "seconds": [1e-2],
        })  # fmt: skip
    for shape in hierarchy.wgmma_shapes():
        for warpgroups in (1, 2):
            cycles = wgmma_of(shape["columns"], shape["left"], warpgroups)
            flop = tensor.wgmma_flop(shape["columns"]) * SMS
            found.append({
                "what": "wgmma", **shape, "warpgroups": warpgroups, "cycles": [cycles], "flop": flop,
                "seconds": [cycles / 1e9],
            })  # fmt: skip
    return found


def recording(**provenance: str) -> Recording:
    return Recording("hierarchy", {"kind": list(hierarchy.KINDS)}, {**PROVENANCE, **provenance}, rows())


def without(*whats: str) -> Recording:
    left = [{"what": r["what"], "skipped": "no"} if r["what"] in whats else r for r in recording().rows]
    return replace(recording(), rows=left)


def test_plateaus_are_named_by_the_cache_that_they_fit_into() -> None:
    assert [(name, p.cycles) for name, p in memory.named_plateaus(recording())] == [
        ("L1 cache", 40), ("L2 cache", 200), ("memory", 800),
    ]  # fmt: skip


def test_levels_have_the_latencies_and_bandwidths_that_were_made_up() -> None:
    found = {x.name: (x.cycles, x.bandwidth, x.per_cycle) for x in memory.measured_levels(recording())}
    assert found == {
        "shared memory": (30, 10e12, pytest.approx(100)),
        "L1 cache": (40, pytest.approx(8e12), pytest.approx(80)),
        "L2 cache": (200, pytest.approx(4e12), pytest.approx(40)),
        "memory": (800, pytest.approx(2e12), pytest.approx(20)),
    }


def test_the_table_sets_them_beside_the_data_sheet_and_what_was_published() -> None:
    rows = {row[0]: row[2:] for row in memory.levels_table(recording()).rows}
    assert rows["memory"] == ["800", "466.0", "800", "2.00 TB/s", "20", "2.04 TB/s"]
    assert rows["L1 cache"] == ["40", "", "40", "8 TB/s", "80", "128 B/cycle/SM"]
    assert rows["L2 cache"][-1] == ""
    other = memory.levels_table(recording(gpu="NVIDIA H20", compute_capability="13.0"))
    assert [row[3] for row in other.rows] == ["", "", "", ""]
    assert other.rows[3][7] == ""


def test_of_two_plateaus_in_one_cache_the_nearer_is_its_latency() -> None:
    made = recording()
    far = [{**r, "cycles": [350]} if r["what"] == "chase" and r["footprint"] > 2 << 20 else r for r in made.rows]
    found = {level.name: level for level in memory.measured_levels(replace(made, rows=far))}
    assert (found["L2 cache"].cycles, found["L2 cache"].reach) == (200, "215 KiB to 2 MiB")


def device(gpu: str = PROVENANCE["gpu"]) -> Recording:
    facts = {"shared memory per SM": 164 << 10, "L1 cache and shared memory per SM": 192 << 10, "memory": 80 << 30}
    rows = [{"fact": fact, "value": value, "unit": "B", "source": "NVML"} for fact, value in facts.items()]
    return Recording("device", {}, {**PROVENANCE, "gpu": gpu}, rows)


def test_sizes_are_those_of_the_gpu_that_was_probed_and_of_no_other() -> None:
    assert memory.level_sizes(recording(), device()) == {
        "shared memory": "164 KiB per SM", "L1 cache": "192 KiB per SM\nwith shared memory", "memory": "80 GiB",
    }  # fmt: skip
    assert memory.level_sizes(recording(), device("NVIDIA H200")) == {}


def test_a_further_lane_on_a_bank_costs_what_was_made_up() -> None:
    assert memory.conflict_cost(recording()) == pytest.approx((2, 1))


def test_littles_law() -> None:
    # 2 TB/s times 800 ns, over 100 SMs.
    assert memory.in_flight_needed(recording()) == pytest.approx(2e12 * 800e-9 / 100)


def test_what_a_wgmma_costs_beside_its_columns_is_found() -> None:
    for left, fixed in (("shared memory", 1), ("registers", 4), ("registers, written anew", 25)):
        assert tensor_rate.fixed_cost(recording(), left, (1, 4, 1), 2) == pytest.approx((fixed, 0.5))
        assert tensor_rate.fixed_cost(recording(), left, (2, 2, 2), 1) == pytest.approx((fixed, 1))
    assert tensor_rate.fixed_cost(without("wgmma"), "registers", (1, 4, 1), 2) is None
    table = tensor_rate.wgmma_table(recording()).rows
    assert ["2", "four in flight", "registers, written anew", "+25.0", "0.50", "41", "57", "89"] in table
    assert tensor_rate.wgmma_table(without("wgmma")).rows == []


def test_what_shared_memory_must_give_a_wgmma() -> None:
    # 64 rows and N columns of 16 k in FP16, 32 bytes each, at 128 bytes in a cycle.
    assert [tensor_rate.operand_cycles(n, "shared memory") for n in (8, 64)] == [18, 32]
    assert [tensor_rate.operand_cycles(n, "registers") for n in (8, 64)] == [2, 16]


def test_the_clock_at_work_is_cycles_over_seconds_without_what_every_launch_costs() -> None:
    def launch(row: dict[str, Any]) -> dict[str, Any]:
        cycles = row["cycles"][0] * row["flop"] / SMS / tensor.wgmma_flop(row["columns"])
        return {**row, "seconds": [7e-6 + cycles / 1.7e9]}

    made = recording()
    slower = [launch(r) if r["what"] == "wgmma" else r for r in made.rows]
    assert tensor_rate.clock_at_work(replace(made, rows=slower)) == pytest.approx(1.7e9)
    assert tensor_rate.clock_at_work(without("wgmma")) is None


def test_peaks_are_the_fastest_of_each_instruction() -> None:
    first, second = tensor_rate.peak_table(recording()).rows
    assert first == ["mma.sync", "8 warps, 4 sums each", "800 TFLOP/s", "256%"]
    assert second[1] == "N = 128, A in shared memory, 2 warpgroups"
    assert [row[0] for row in tensor_rate.peak_table(without("wgmma")).rows] == ["mma.sync"]
    assert tensor_rate.mma_latency(recording()) == 33


def test_figures_say_what_they_show() -> None:
    def alt(figure: Any) -> str:
        return str(figure.awqdoc_alt)

    assert "L2 cache, 215 KiB to 38.1 MiB: 200 cycles; memory, 45.3 MiB" in alt(memory.plot_chased(recording()))
    assert "L2 cache 200 cycles, 4.00 TB/s, 40 bytes per cycle and SM; memory 80 GiB 800" in alt(
        memory.plot_distances(recording(), device())
    )
    assert "30 cycles at stride 1, 92 at 32" in alt(memory.plot_conflicts(recording()))
    assert "through L1 8.0 TB/s at most, 2.0 from memory" in alt(memory.plot_read_bandwidth(recording()))
    assert "asks for 16 KiB; loads reach 2.00 TB/s; bulk" in alt(memory.plot_in_flight(recording()))
    assert "bulk" not in alt(memory.plot_in_flight(without("bulk copies")))
    assert "A in registers, written anew: 41 at 32" in alt(tensor_rate.plot_wgmma(recording(), (2, 2, 2), 2))


@pytest.mark.parametrize(
    "draw",
    [
        memory.plot_chased, lambda found: memory.plot_distances(found, device()), memory.plot_conflicts,
        memory.plot_read_bandwidth, memory.plot_in_flight, lambda found: tensor_rate.plot_wgmma(found, (1, 4, 1), 2),
    ],
)  # fmt: skip
def test_house_style(draw: Callable[[Recording], Figure]) -> None:
    assert_house_style(lambda: draw(recording()))
