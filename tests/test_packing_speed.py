"""The experiment that times packing believes no time of tensors that are not AutoAWQ's."""

from typing import Any

import pytest
import torch

from awqdoc.errors import AwqdocError
from awqdoc.experiments import packing_speed

WORKS = ["copy", "codes", "pack", "unpack", "from weight", "autoawq"]


def places_and_works(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    assert all(min(row["seconds"]) > 0 for row in rows)
    return [(row["where"], row["work"]) for row in rows]


@pytest.mark.parametrize("format", list(packing_speed.LAYERS))
def test_every_work_has_times_on_the_cpu(format: str) -> None:
    threads = torch.get_num_threads()
    rows = packing_speed.run("cpu", "256x512", format)
    assert places_and_works(rows) == [("cpu", work) for work in WORKS]
    assert torch.get_num_threads() == threads
    (pack,) = (row for row in rows if row["work"] == "pack")
    packed = 256 * 512 // 2 + 256 * 4 * 2
    zeros = {"awq": 256 * 4 // 2, "awq_gemv": 256 * 8 // 2, "awq_gemv_fast": 256 * 8 * 2, "marlin": 0}[format]
    padded = 256 * 4 * 2 if format in ("awq_gemv", "awq_gemv_fast") else 0  # 4 groups become 8
    assert pack["bytes"] == 256 * 512 + packed + zeros + padded
    assert len(pack["seconds"]) == packing_speed.SAMPLES


@pytest.mark.gpu
@pytest.mark.parametrize("format", list(packing_speed.LAYERS))
def test_every_work_has_times_on_both(format: str) -> None:
    rows = packing_speed.run("cuda", "256x512", format)
    assert places_and_works(rows) == [(where, work) for where in ("cpu", "cuda") for work in WORKS]


def test_tensors_that_are_not_autoawqs_have_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*arguments: Any) -> dict[str, torch.Tensor]:
        tensors = true(*arguments)
        return tensors | {"qweight": tensors["qweight"] ^ 1}

    true = packing_speed.pack
    monkeypatch.setattr(packing_speed, "pack", wrong)
    with pytest.raises(AssertionError, match="qweight of awq is not AutoAWQ's"):
        packing_speed.run("cpu", "256x512", "awq")


def test_a_format_that_autoawq_does_not_pack_is_refused() -> None:
    with pytest.raises(AwqdocError, match=r"must be one of awq, awq_gemv, awq_gemv_fast, marlin.*found 'gptq'"):
        packing_speed.check("256x512", "gptq")
