"""Our packed tensors in gptqmodel, through which transformers loads AWQ checkpoints today."""

from __future__ import annotations

import pytest
import torch

from awqdoc.packing import pack
from awqdoc.quantize import round_to_nearest

pytestmark = pytest.mark.interop


@pytest.mark.parametrize(("k", "n", "group_size"), [(256, 128, 128), (512, 192, 64), (128, 64, 32)])
def test_gptqmodels_awq_layer_computes_with_our_tensors_what_we_mean(k: int, n: int, group_size: int) -> None:
    from gptqmodel.nn_modules.qlinear.torch_awq import AwqTorchLinear

    weight = round_to_nearest(torch.randn(k, n, generator=torch.Generator().manual_seed(k)), group_size)
    layer = AwqTorchLinear(
        bits=4,
        group_size=group_size,
        sym=False,
        desc_act=False,
        in_features=k,
        out_features=n,
        register_buffers=True,
    )
    packed = pack(weight, "awq")
    for name, tensor in packed.items():
        buffer = getattr(layer, name)
        assert (buffer.shape, buffer.dtype) == (tensor.shape, tensor.dtype)
        buffer.copy_(tensor)
    layer.post_init()
    identity = torch.eye(k, dtype=torch.float16)
    assert torch.equal(layer(identity), weight.dequantize())
