"""The drawing of a launch and its tables, against blocks that are counted; the page as a program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from figure_checks import assert_house_style
from matplotlib.patches import Rectangle

from awqdoc import visualization as vis
from awqdoc.gpu.footprints import Footprint
from awqdoc.gpu.occupancy import Launch, launch

SCRIPT = Path(__file__).parents[1] / "gallery" / "gpu" / "plot_20_launches.py"


def on(gpu: str, blocks: int, smem: int = 40_000) -> Launch:
    return launch((blocks,), (256,), 64, smem, gpu)


def boxes(found: Launch) -> list[Rectangle]:
    return [patch for patch in vis.plot_launch(found).axes[0].patches if isinstance(patch, Rectangle)]


def test_where_they_can_be_read_each_block_is_drawn_once_with_its_number() -> None:
    found = on("8.6x4", 29)
    assert found.blocks_per_sm == 2
    drawn = boxes(found)
    assert len([box for box in drawn if box.get_fill()]) == 29
    assert len([box for box in drawn if not box.get_fill()]) == 3  # of 4 waves of 8
    figure = vis.plot_launch(found)
    assert sorted(int(text.get_text()) for text in figure.axes[0].texts) == list(range(29))
    # Dealt out in turn: blocks 0 and 4 come to the first SM, in the first wave.
    first = [
        text.get_text() for text in figure.axes[0].texts if text.get_position()[0] < 1 and text.get_position()[1] < 1
    ]
    assert first == ["0", "4"]


def test_of_a_large_grid_the_first_and_last_waves_are_drawn_in_groups_of_sms() -> None:
    found = launch((114688,), (128,), 26, 0, "H100 SXM")
    axes = vis.plot_launch(found).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "54", "55"]
    # 54 waves of 132 x 16 leave 640: 112 SMs have 5 of them, 20 have 4.
    assert [text.get_text() for text in axes.texts] == [
        *["16 of 16\non 132 SMs"] * 2, "…", "16 of 16\non 132 SMs", "5 of 16\non 112 SMs", "4 of 16\non 20 SMs",
    ]  # fmt: skip


def test_idle_sms_are_said_to_be_idle() -> None:
    axes = vis.plot_launch(on("8.6x150", 50, 96 << 10)).axes[0]
    assert [text.get_text() for text in axes.texts] == ["1 of 1\non 50 SMs", "100 idle"]


@pytest.mark.parametrize(
    ("gpu", "blocks", "words"),
    [
        (
            "8.6x4",
            29,
            ("29 blocks on 4 SMs in 4 waves", "all but the last each SM holds 2", "1 SM holds 2, 3 SMs hold 1"),
        ),
        ("8.6x4", 3, ("3 blocks on 4 SMs in 1 wave.", "3 SMs hold 1, 1 SM holds none", "62.5% of all places")),
        ("H100 SXM", 132, ("132 SMs hold 1.",)),
    ],
)
def test_a_reader_who_cannot_see_it_is_told(gpu: str, blocks: int, words: tuple[str, ...]) -> None:
    figure = vis.plot_launch(on(gpu, blocks))
    assert figure.awqdoc_source is None  # type: ignore[attr-defined]
    for part in words:
        assert part in figure.awqdoc_alt  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "found",
    [on("8.6x4", 29), on("8.6x16", 100), on("H100 SXM", 700), on("B200", 10**6), on("7.5x1", 1)],
    ids=lambda found: f"{found.blocks}-{found.chip.sms}",
)
def test_house_style_of_launches(found: Launch) -> None:
    assert_house_style(lambda: vis.plot_launch(found))


def test_a_launch_as_a_table() -> None:
    table = vis.launch_table(launch((132,), (256,), 126, 96 << 10, "H200 SXM"))
    rows = {name: value for name, value, _ in table.rows}
    assert ["blocks on an SM", "2", "limited by registers and shared memory"] in table.rows
    assert rows["theoretical occupancy"] == "25.0%"
    assert rows["with this grid, first wave"] == "12.5%"
    assert rows["blocks by warps"] == "8"
    assert "132 blocks of 256 threads on H200 SXM (132 SMs); modelled" in table.caption


def test_kernels_beside_each_other() -> None:
    (row,) = vis.footprints_table({"a kernel": Footprint(300, 128, 40, 1000)}, "A100 80 GB SXM").rows
    # 4 warps of 1280 registers: 12 in each of 4 partitions.
    assert row == ["a kernel", "75%", "17%", "12", "registers", "128", "40", "1000", "300"]


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("--kernel-config", "128;256", "A kernel configuration is the three sizes of the grid"),
        ("--kernel-config", "1,1,1;2048,1,1", "A block (of at most 1024 threads)"),
    ],
)
def test_the_page_as_a_program_refuses_in_one_sentence(option: str, value: str, sentence: str) -> None:
    done = subprocess.run([sys.executable, SCRIPT, option, value], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.startswith(f"plot_20_launches.py: {sentence}")
    assert len(done.stderr.strip().splitlines()) == 1
