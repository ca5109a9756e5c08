"""A whole model decoded: its tokens are those of transformers and AutoAWQ, its Triton kernels those of transformers."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from typing import Any

import autoawq_oracle
import pytest
import torch
from tiny_models import VOCABULARY, half, logits, random_windows, tiny_gqa, tiny_llama, tiny_opt

from awqdoc import gpu, models
from awqdoc.errors import AwqdocError
from awqdoc.experiments import decode, prefill
from awqdoc.kernels import dequantize
from awqdoc.kernels.table import KERNELS
from awqdoc.models.decoding import Decoder, Launch, budget, kinds, llama_3_8b, weights_of
from awqdoc.models.decoding.weights import Product, random_weights
from awqdoc.quantize import round_to_nearest
from awqdoc.recordings import Recording, find

pytestmark = pytest.mark.usefixtures("one_thread")
RTN = models.Settings("rtn", group_size=64)


def quantized(model: Any) -> Any:
    other = copy.deepcopy(model)
    models.quantize(other, None, RTN, progress=False)
    return other


def generated(model: Any, prompts: torch.Tensor, count: int) -> torch.Tensor:
    """What transformers makes of prompts, greedily."""
    found = model.generate(prompts, max_new_tokens=count, do_sample=False, eos_token_id=None, pad_token_id=0)
    return found[:, prompts.shape[1] :]


@pytest.mark.parametrize("make", [lambda model: model, quantized], ids=["as it ships", "quantized"])
def test_the_shipped_model_says_what_transformers_lets_it_say(make: Any) -> None:
    model, tokenizer = models.load()
    model = make(model)
    prompts = torch.stack([tokenizer(text, return_tensors="pt").input_ids[0, :6] for text in (
        "def read(self, size=-1):\n    return", "The capital of France is not known to this model",
    )])  # fmt: skip
    decoder = Decoder(weights_of(model), 2, 48)
    for _ in range(2):  # the second time with a cache that holds something
        assert torch.equal(decoder.generate(prompts, 40), generated(model, prompts, 40))


@pytest.mark.parametrize("tied", [True, False])
def test_float16_with_an_int4_backend_stays_close_to_the_quantized_model(tied: bool) -> None:
    model = half(quantized(tiny_gqa(tied=tied)))
    decoder = Decoder(weights_of(model, "dequantize"), 3, 32)
    prompts = random_windows(3, 20)
    found = torch.cat([prompts, decoder.generate(prompts, 8)], dim=1)
    wanted = logits(copy.deepcopy(model).float(), found[:, :-1])[:, -1]
    assert (decoder.logits.float() - wanted).norm() < 5e-3 * wanted.norm()


def test_a_kernel_for_one_token_leaves_more_to_torch() -> None:
    x, weight = torch.randn(3, 1024), torch.randn(8, 1024)
    assert torch.equal(Product("fp16_stream", {"weight": weight})(x), x @ weight.t())


def test_an_int4_lm_head_is_the_rounded_one() -> None:
    model = half(quantized(tiny_gqa()))
    weights = weights_of(model, "dequantize", "dequantize")
    decoder, prompts = Decoder(weights, 2, 16), random_windows(2, 16)
    decoder.prefill(prompts)
    other = copy.deepcopy(model).float()
    other.lm_head.weight.data = round_to_nearest(model.lm_head.weight.float().t(), 128).dequantize().t().float()
    wanted = logits(other, prompts)[:, -1]
    assert (decoder.logits.float() - wanted).norm() < 5e-3 * wanted.norm()


def test_a_checkpoint_of_autoawq_says_what_autoawq_lets_it_say(tokenizer: Any, tmp_path: Path) -> None:
    autoawq_oracle.autoawq()
    oracle = autoawq_oracle.quantize(half(tiny_gqa()), random_windows(count=1), group_size=64)
    oracle.save(tmp_path / "theirs")
    tokenizer.save_pretrained(tmp_path / "theirs")
    model, _ = models.load(str(tmp_path / "theirs"))
    decoder, prompts = Decoder(weights_of(model), 2, 32), random_windows(2, 16)
    found = torch.cat([prompts, decoder.generate(prompts, 16)], dim=1)
    other = autoawq_oracle.load(tmp_path / "theirs")
    with autoawq_oracle.on_a_cpu():
        theirs = logits(other.model.half(), found[:, :-1]).float()[:, 15:]
    best = theirs.topk(2).values
    clear = best[..., 0] - best[..., 1] > 0.02  # they multiply in float16
    assert clear.float().mean() > 0.5
    assert torch.equal(theirs.argmax(2)[clear], found[:, 16:][clear])


def test_every_moment_of_a_step_is_charged_once() -> None:
    layer = ["norm_kernel", "gemm", "reduce", "attend_kernel", "combine_kernel", "gemm"]
    names = ["gather", *layer, "norm_kernel", "gemm", "choose_kernel", "follow_kernel"]
    # The third begins before the second has ended; a gap of 1 s is before the fourth.
    begins, ends = [0, 1, 1.5, 5, *range(6, 13)], [1, 2, 4, *range(6, 14)]
    found = kinds([Launch(*launch) for launch in zip(names, begins, ends, strict=True)])
    assert found == {
        "embedding": 1, "norm": 2, "linear": 4, "attention": 2, "activation": 0, "lm_head": 1, "sampling": 2, "gaps": 1,
    }  # fmt: skip
    assert sum(found.values()) == ends[-1]
    assert sum(kinds([]).values()) == 0


def test_the_bytes_are_those_of_llama_3_8b_and_of_what_is_stored() -> None:
    config = llama_3_8b()
    assert budget.model_bytes(config, 16) == 2 * 8_030_261_248  # the parameters that Meta's checkpoint has
    assert 3.1 < budget.step_bytes(config, 1, 1024, 16) / budget.step_bytes(config, 1, 1024, 4) < 3.2
    for tied in (True, False):
        small = tiny_llama(tied=tied, hidden=256, intermediate=384).config
        for bits, backend in ((16, "fp16"), (4, "dequantize")):
            for head_bits, head in ((16, "fp16"), (4, "dequantize")):
                if tied and head_bits == 16:
                    continue  # random weights are not tied
                weights = random_weights(small, backend, head, "cpu")
                assert weights.nbytes == budget.model_bytes(small, bits, head_bits)
    decoder = Decoder(weights, 3, 7)
    assert decoder.cache.nbytes == budget.cache_bytes(small, 3, 7)


def test_a_step_is_predicted_from_recorded_products() -> None:
    config = llama_3_8b(layers=2)
    shapes = ("6144x4096", "4096x4096", "28672x4096", "4096x14336")
    cell = {"zero_points": True, "m": 4}
    rows = [{**cell, "backend": "ours", "shape": s, "seconds": [9e9, 10.0**i, 0]} for i, s in enumerate(shapes)]
    rows += [
        {**cell, "backend": "read", "shape": shapes[0], "bytes": size, "seconds": [s]}
        for size, s in ((8e9, 1), (4e9, 9))
    ]
    recording = Recording("kernels", {}, {}, rows)
    head = 128256 * 4096 * 2 / 8e9
    assert budget.predicted_seconds(recording, config, "ours", 4, 0.5) == pytest.approx(2 * 1111 + head + 0.5, rel=1e-9)
    smaller = budget.predicted_seconds(recording, config, "ours", 4, 0.5, head_bits=4)
    assert smaller == pytest.approx(2 * 1111 + head * (4 + 20 / 128) / 16 + 0.5, rel=1e-9)
    with pytest.raises(AwqdocError, match="no time of theirs on 6144x4096 at M = 4"):
        budget.linear_seconds(recording, config, "theirs", 4)
    published = find("kernels")[0]
    for backend, _ in decode.MODELS:  # nothing that the experiment times is without a prediction
        batches = [m for m in decode.AXES["batch"] if m <= (KERNELS[backend].most_tokens or m)]
        assert all(budget.linear_seconds(published, config, backend, m) > 0 for m in batches)


def refusal(call: Any, *arguments: Any) -> str:
    with pytest.raises(AwqdocError) as caught:
        call(*arguments)
    return str(caught.value)


def test_what_cannot_be_decoded_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    model, four = tiny_gqa(), half(quantized(tiny_gqa()))
    assert "There is no backend 'nonsense'; there are fp16, " in refusal(weights_of, model, "nonsense")
    assert "Only models of the type 'llama'" in refusal(weights_of, tiny_opt())
    assert "computes in float16; the model is torch.float32" in refusal(weights_of, quantized(model), "dequantize")
    assert "layer 0's q, k and v are not: quantize the model first" in refusal(weights_of, half(model), "dequantize")
    assert "it needs an NVIDIA GPU; use another backend." in refusal(weights_of, four, "cuda_overlapped")
    monkeypatch.setattr(gpu, "capability", lambda device: (9, 0))
    monkeypatch.setattr(importlib.util, "find_spec", lambda *name: object())  # as if every package were installed
    odd = quantized_in_groups_of(16)
    assert "cannot take layer 0's q, k and v, a 128 x 256 weight: the group size must be" in refusal(
        weights_of, odd, "cuda_overlapped"
    )


def quantized_in_groups_of(size: int) -> Any:
    model = tiny_gqa()
    models.quantize(model, None, models.Settings("rtn", group_size=size), progress=False)
    return half(model)


def test_what_does_not_fit_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = weights_of(tiny_gqa())
    decoder = Decoder(weights, 2, 8)
    assert "The batch must be 1 or more and the length at most 512" in refusal(Decoder, weights, 0, 8)
    assert "they are 1 and 513." in refusal(Decoder, weights, 1, 513)
    assert "they are 2 x 9." in refusal(decoder.prefill, random_windows(2, 9))
    assert f"from 0 to {VOCABULARY - 1}" in refusal(decoder.prefill, torch.full((2, 3), VOCABULARY))
    assert "5 tokens after 5 do not fit into a cache of 8" in refusal(decoder.generate, random_windows(2, 5), 5)
    decoder.generate(random_windows(2, 5), 4)
    assert "The cache is full after 8 tokens" in refusal(decoder.step)
    monkeypatch.setattr(budget, "free_bytes", lambda device: 10_000_000_000)
    assert "take 16.1 GB, and 10.0 GB of the GPU's memory are free" in refusal(random_weights, llama_3_8b())
    monkeypatch.setattr(budget, "free_bytes", lambda device: 20_000)
    assert "choose a batch of 2 or less" in refusal(Decoder, weights, 8, 8)


def test_after_ctrl_c_one_line_says_how_far_it_was(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    decoder, prompts = Decoder(weights_of(tiny_gqa()), 1, 16), random_windows(1, 4)
    wanted = decoder.generate(prompts, 6)
    step = decoder.step

    def interrupted() -> None:
        if decoder.used == 6:
            raise KeyboardInterrupt
        step()

    monkeypatch.setattr(decoder, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        decoder.generate(prompts, 6)
    assert capsys.readouterr().err == "\nInterrupted after 3 of 6 tokens; the model can be used again.\n"
    monkeypatch.undo()
    assert torch.equal(decoder.generate(prompts, 6), wanted)


def test_the_experiment_compares_before_it_times(monkeypatch: pytest.MonkeyPatch) -> None:
    tested = (("fp16", "fp16"), ("dequantize", "dequantize"), ("cuda_overlapped", "fp16"))
    tested += (("fp16_stream", "fp16_stream"),)
    values = {"MODELS": tested, "CONTEXT": 20, "PROMPTS": (8,), "ROUNDS": 2, "llama_3_8b": lambda: tiny_gqa().config}
    values |= {"_memory": lambda *_: [], "_kinds": lambda *_: []}  # a GPU's
    for name, value in values.items():
        monkeypatch.setattr(decode, name, value)
    monkeypatch.setattr(gpu, "state", dict)
    rows = decode.run("cpu", 1)
    steps = {(row["backend"], row["lm_head"]): row for row in rows if row["what"] == "step"}
    assert steps["fp16", "fp16"]["error"] == 0
    assert steps["dequantize", "dequantize"]["error"] < 5e-3
    assert len(steps["dequantize", "dequantize"]["seconds"]) == 2
    assert steps["cuda_overlapped", "fp16"]["skipped"].endswith("it needs an NVIDIA GPU; use another backend.")
    assert [row["tokens"] for row in rows if row["what"] == "prefill"] == [8, 8]
    monkeypatch.setattr(dequantize, "matmul", lambda x, prepared, right=dequantize.matmul: -right(x, prepared))
    skipped = {row["backend"]: row["skipped"] for row in decode.run("cpu", 2) if "skipped" in row}
    assert "its logits differ" in skipped["dequantize"]
    assert skipped["fp16_stream"].endswith("more are left to torch's product")
    decode.forget()
    assert "found 0" in refusal(decode.check, 0)


def test_a_prompt_gets_a_time_only_where_its_logits_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"BACKENDS": ("fp16", "dequantize", "cuda_overlapped"), "ROUNDS": 2}
    values |= {"llama_3_8b": lambda: tiny_gqa().config, "_seen": lambda call: {"busy": 1e-3, "launches": 9}}  # a GPU's
    for name, value in values.items():
        monkeypatch.setattr(prefill, name, value)
    monkeypatch.setattr(gpu, "state", dict)
    rows = {row["backend"]: row for row in prefill.run("cpu", 8)}
    assert rows["fp16"]["error"] == 0
    assert rows["dequantize"]["error"] < 5e-3
    assert len(rows["dequantize"]["seconds"]) == 2
    assert rows["dequantize"]["launches"] == 9
    assert rows["cuda_overlapped"]["skipped"].endswith("it needs an NVIDIA GPU; use another backend.")
    monkeypatch.setattr(dequantize, "matmul", lambda x, prepared, right=dequantize.matmul: 9 * right(x, prepared))
    rows = {row["backend"]: row for row in prefill.run("cpu", 8)}
    assert "its logits differ" in rows["dequantize"]["skipped"]
    assert "seconds" in rows["fp16"]
    prefill.forget()
    assert "found 0" in refusal(prefill.check, 0)


def test_what_overlaps_is_busy_once() -> None:
    assert prefill.busy([(5, 6), (0, 2), (1, 3), (1, 2), (3, 4)]) == 5
    assert prefill.busy([]) == 0
