"""Our packed tensors and checkpoints in gptqmodel, through which transformers loads AWQ checkpoints today."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import logits, random_windows, tiny_gqa, tiny_opt

from awqdoc.models import EMBEDDED, QuantizedLinear, Settings, load, quantize, save
from awqdoc.packing import pack
from awqdoc.quantize import round_to_nearest

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("one_thread")]


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


@pytest.mark.parametrize(("k", "n", "group_size"), [(256, 128, 128), (512, 192, 64), (128, 64, 32), (192, 64, -1)])
def test_gptqs_tensors_are_those_that_gptqmodel_packs(k: int, n: int, group_size: int) -> None:
    from gptqmodel import QuantizeConfig
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.utils.model import convert_gptq_v2_to_v1_format_module

    weight = round_to_nearest(torch.randn(k, n, generator=torch.Generator().manual_seed(n)), group_size)
    assert weight.zeros is not None
    weight.zeros.clamp_(min=1)  # version 1 has none for 0
    linear = torch.nn.Linear(k, n, bias=False)
    linear.weight.data = weight.dequantize().float().t().contiguous()
    layer = TorchLinear(
        bits=4, group_size=group_size, sym=False, desc_act=False, in_features=k, out_features=n, register_buffers=True
    )
    order = torch.arange(k, dtype=torch.int32) // weight.group_size
    layer.pack_original(linear, weight.scales.float().t(), weight.zeros.float().t(), order)

    def assert_equal(format: str) -> None:
        for name, tensor in pack(weight, format).items():
            theirs = getattr(layer, name)
            assert theirs.dtype == tensor.dtype
            assert torch.equal(theirs, tensor), name

    assert_equal("gptq_v2")
    convert_gptq_v2_to_v1_format_module(layer, QuantizeConfig(bits=4, group_size=group_size, offload_to_disk=False))
    assert_equal("gptq")


def shipped() -> Any:
    return load(EMBEDDED)[0]


# Model, method, group size, and gptqmodel's layer: the fastest that it finds for a CPU multiplies in another precision,
# and takes no group size -1.
MODELS: dict[str, tuple[Callable[[], Any], str, int, str | None]] = {
    "shipped": (shipped, "awq", 128, None),
    "gqa": (tiny_gqa, "awq", 64, None),
    "gqa, one group in a column": (tiny_gqa, "rtn", -1, "torch_awq"),
    "opt": (tiny_opt, "gptq", 32, None),
    "opt, plain layers": (tiny_opt, "awq", 128, "torch_awq"),
}


@pytest.mark.parametrize(("make", "method", "group_size", "backend"), MODELS.values(), ids=MODELS.keys())
def test_our_checkpoint_loaded_by_transformers_writes_the_same_tokens(
    make: Callable[[], Any], method: str, group_size: int, backend: str | None, tokenizer: Any, tmp_path: Path
) -> None:
    model, windows = make(), random_windows(count=1, length=32)
    quantize(model, windows, Settings(method, group_size=group_size), progress=False)
    save(model, tokenizer, tmp_path / "new")
    ours, _ = load(str(tmp_path / "new"), dtype=torch.float16)
    theirs = through_transformers(tmp_path / "new", backend)
    kinds = {type(m).__module__ for m in theirs.modules() if hasattr(m, "qweight")}
    assert kinds
    assert all(kind.startswith("gptqmodel.") for kind in kinds)
    count = sum(isinstance(module, QuantizedLinear) for module in ours.modules())
    assert sum(hasattr(module, "qweight") for module in theirs.modules()) == count > 0

    mine, yours = logits(ours, windows).float(), logits(theirs, windows).float()
    apart = (yours - mine).std() / mine.std()
    assert apart < (0.02 if backend is None else 0.003)
    first, second = mine.topk(2).values.unbind(dim=2)
    clear = first - second > 0.1 * mine.std()
    assert clear.any()
    assert torch.equal(mine.argmax(2)[clear], yours.argmax(2)[clear])
    if make is shipped:
        prompt = tokenizer("def main(argv=None):\n    if argv is", return_tensors="pt")
        options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
        assert ours.generate(**prompt, **options).tolist() == theirs.generate(**prompt, **options).tolist()


def through_transformers(folder: Path, backend: str | None) -> Any:
    """Load as anybody would."""
    from transformers import AutoModelForCausalLM, AwqConfig

    # Not quantization_config=None: transformers would then make up the weights.
    options = {} if backend is None else {"quantization_config": AwqConfig(backend=backend)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return AutoModelForCausalLM.from_pretrained(
            folder, device_map={"": "cpu"}, dtype=torch.float16, **options
        ).eval()
