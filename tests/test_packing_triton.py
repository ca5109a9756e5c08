"""The one pass that packs on a GPU, against the permutation of axes that packs on a CPU."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from awqdoc.packing import LAYOUTS

ROOT = Path(__file__).parents[1]

INTERPRETED = """
import torch
from awqdoc.packing import LAYOUTS
from awqdoc.packing.triton_pack import to_words

torch.manual_seed(0)
for shape in ((256, 512), (384, 768)):
    codes = torch.randint(0, 16, shape, dtype=torch.uint8)
    for layout in LAYOUTS.values():
        for stored in (codes, codes.t().contiguous().t()):
            assert torch.equal(to_words(layout.weight, stored), layout.weight.to_words(codes)), layout.name
        if layout.zeros is not None and layout.zeros.nibble:
            zeros = codes[:64]
            assert torch.equal(to_words(layout.zeros, zeros), layout.zeros.to_words(zeros)), layout.name
print("agrees")
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is a package for Linux")
def test_the_kernel_packs_every_format_in_tritons_interpreter() -> None:
    # A process of its own: TRITON_INTERPRET counts when a kernel is defined.
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", INTERPRETED], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "agrees", done.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(256, 512), (384, 768), (28672, 4096)])
@pytest.mark.parametrize("format", list(LAYOUTS))
def test_codes_are_packed_on_a_gpu_as_on_a_cpu(format: str, shape: tuple[int, int]) -> None:
    order = LAYOUTS[format].weight
    codes = torch.randint(0, 16, shape, dtype=torch.uint8)
    wanted = order.to_words(codes)
    assert torch.equal(order.to_words(codes.cuda()).cpu(), wanted)
    assert torch.equal(order.to_words(codes.cuda().t().contiguous().t()).cpu(), wanted)
    assert torch.equal(order.from_words(wanted.cuda(), shape).cpu(), codes)
