"""What a model lost, against transformers' own loss, float64 and formulas from books."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tiny_models import MAKERS, VOCABULARY, logits, random_windows, tiny_llama

from awqdoc.errors import AwqdocError
from awqdoc.models import (
    Settings,
    bits_per_byte,
    calibration_windows,
    compare,
    evaluation_windows,
    load,
    mean_and_error,
    perplexity,
    quantize,
    shipped_text,
    stored_bytes,
)

pytestmark = pytest.mark.usefixtures("one_thread")

WINDOWS = random_windows(count=5, length=32)


@pytest.fixture(params=MAKERS.values(), ids=MAKERS.keys())
def pair(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """A model with three bits, and its original."""
    model = request.param(layers=1)
    quantize(model, None, Settings("rtn", 3, 64), progress=False)
    return model, request.param(layers=1)


def test_every_number_is_that_of_float64(pair: tuple[Any, Any]) -> None:
    found = compare(*pair, WINDOWS, batch=2)
    p, q = (logits(model, WINDOWS)[:, :-1].double().softmax(dim=2) for model in reversed(pair))
    targets = WINDOWS[:, 1:]
    assert found.predicted == 31
    for w in range(5):
        for nll, probabilities in ((found.nll, q), (found.nll_original, p)):
            expected = -sum(math.log(probabilities[w, t, targets[w, t]]) for t in range(31))
            assert float(nll[w]) == pytest.approx(expected, rel=1e-5)
        same = [int(p[w, t].argmax()) == int(q[w, t].argmax()) for t in range(31)]
        assert float(found.agreement[w]) == pytest.approx(sum(same) / 31)
    kl = (p * (p / q).log()).sum(dim=2)
    torch.testing.assert_close(found.kl.double(), kl, rtol=1e-3, atol=1e-6)
    assert (found.kl >= -1e-6).all()
    assert found.kl.mean() > 1e-4
    assert 0 < found.agreement.mean() < 1


def test_a_model_is_at_no_distance_from_itself(pair: tuple[Any, Any]) -> None:
    found = compare(pair[1], pair[1], WINDOWS)
    assert (found.kl == 0).all()
    assert (found.agreement == 1).all()
    assert torch.equal(found.nll, found.nll_original)


def test_portions_change_nothing(pair: tuple[Any, Any]) -> None:
    whole, parts = (compare(*pair, WINDOWS, batch=batch) for batch in (5, 3))
    torch.testing.assert_close(whole.nll, parts.nll)
    torch.testing.assert_close(whole.kl, parts.kl, rtol=1e-3, atol=1e-6)
    assert whole.kl.shape == parts.kl.shape == (5, 31)


def test_perplexity_is_that_of_transformers_own_loss(pair: tuple[Any, Any]) -> None:
    model, original = pair
    found = compare(model, original, WINDOWS[:1])
    with torch.no_grad():
        loss = model(input_ids=WINDOWS[:1], labels=WINDOWS[:1], use_cache=False).loss
    value, error = perplexity(found.nll, found.predicted)
    assert value == pytest.approx(math.exp(float(loss)), rel=1e-5)
    assert math.isnan(error), "one window tells nothing about the spread"


def test_a_model_that_knows_nothing_has_the_vocabulary_as_its_perplexity() -> None:
    model = tiny_llama(layers=1)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    found = compare(model, tiny_llama(layers=1), WINDOWS)
    assert perplexity(found.nll, found.predicted) == (pytest.approx(VOCABULARY, rel=1e-5), pytest.approx(0, abs=1e-3))


# Standard errors: s / sqrt(n), and the first order of what is computed from a mean.


def test_mean_and_standard_error_by_hand() -> None:
    mean, error = mean_and_error(torch.tensor([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]))
    # Deviations 9, 1, 1, 1, 0, 0, 4, 16: a sum of 32, over 7, over 8.
    assert mean == 5
    assert error == pytest.approx(math.sqrt(32 / 7 / 8))


def test_perplexity_and_its_error_by_hand() -> None:
    value, error = perplexity(torch.tensor([20.0, 40.0]), 10)
    # 2 and 4 nats for a token: 3 on average, with a standard error of 1.
    assert value == pytest.approx(math.exp(3))
    assert error == pytest.approx(math.exp(3) * 1)


def test_bits_per_byte_and_their_error_by_hand() -> None:
    # Windows of 20 and 40 nats in 100 bytes of text.
    value, error = bits_per_byte(torch.tensor([20.0, 40.0]), 100)
    assert value == pytest.approx(60 / math.log(2) / 100)
    assert error == pytest.approx(10 * 2 / math.log(2) / 100)


def test_the_error_covers_what_repetition_gives() -> None:
    """Of means of 50 windows each, the spread is what one of them says it is."""
    samples = torch.randn(400, 50, generator=torch.Generator().manual_seed(0)) * 3 + 7
    means, errors = zip(*(mean_and_error(row) for row in samples), strict=True)
    assert torch.tensor(means).std() == pytest.approx(sum(errors) / 400, rel=0.1)


# Windows.


@pytest.mark.parametrize("length", [1, 0, -3])
def test_windows_without_a_token_to_predict_are_refused(length: int, tokenizer: Any) -> None:
    with pytest.raises(AwqdocError, match=rf"^A window needs 2 tokens or more, .*; found {length}\.$"):
        evaluation_windows(tokenizer, ["import os"], length)


def test_every_token_is_predicted_once(tokenizer: Any) -> None:
    documents = ["import os\n", "def main():\n    return 0\n", "x = [1, 2, 3]\n" * 20]
    stream = [t for text in documents for t in (*tokenizer(text, add_special_tokens=False)["input_ids"], 0)]
    windows, text_bytes = evaluation_windows(tokenizer, documents, 17)
    assert windows[:, 0].tolist() == [tokenizer.bos_token_id] * len(windows)
    predicted = windows[:, 1:].flatten().tolist()
    assert predicted == stream[: len(stream) // 16 * 16]
    assert text_bytes == len(tokenizer.decode([t for t in predicted if t != 0]).encode())


def test_bytes_are_those_of_the_text_and_not_its_characters(tokenizer: Any) -> None:
    text = "été naïve 日本\n" * 9
    stream = (*tokenizer(text, add_special_tokens=False)["input_ids"], 0)
    _, text_bytes = evaluation_windows(tokenizer, [text], len(stream) + 1)
    assert text_bytes == len(text.encode()) > len(text)


def test_too_little_text_is_refused(tokenizer: Any) -> None:
    with pytest.raises(AwqdocError, match=r"^The text has \d+ tokens, fewer than a window of 511: give more text\.$"):
        evaluation_windows(tokenizer, ["import os\n"], 512)


def test_a_tokenizer_without_an_end_of_text_is_refused(tokenizer: Any) -> None:
    class Endless:
        eos_token_id = bos_token_id = None

    with pytest.raises(AwqdocError, match=r"^The tokenizer has no end-of-text token, .*\.$"):
        evaluation_windows(Endless(), ["import os\n"], 8)


def test_the_shipped_texts_are_cut_into_windows_of_both_kinds(tokenizer: Any) -> None:
    both, code, docs = (calibration_windows(tokenizer, domain, count=4) for domain in ("both", "code", "docs"))
    assert both.shape == code.shape == docs.shape == (4, 512)
    assert torch.equal(both[0, :100], code[0, :100]) or torch.equal(both[0, :100], docs[0, :100])
    assert not torch.equal(code[0], docs[0])
    assert sorted(shipped_text("evaluation")) == sorted(
        [*shipped_text("evaluation", "code"), *shipped_text("evaluation", "docs")]
    )
    assert not set(shipped_text("evaluation")) & set(shipped_text("calibration"))
    with pytest.raises(AwqdocError, match=r"^The domain must be one of code, docs, both; found 'prose'\.$"):
        shipped_text("calibration", "prose")


# Bytes.


def test_stored_bytes_count_what_is_shared_once() -> None:
    def expected(model: Any) -> int:
        return sum(parameter.numel() * 4 for parameter in model.parameters()) + 2 * 4 * 16  # inv_freq, and as it was

    tied, untied = tiny_llama(tied=True), tiny_llama()
    assert stored_bytes(untied) - stored_bytes(tied) == VOCABULARY * 128 * 4
    assert stored_bytes(tied) == expected(tied)
    untied.lm_head.weight = torch.nn.Parameter(untied.model.embed_tokens.weight.detach())  # another name, one memory
    assert stored_bytes(untied) == stored_bytes(tied)


def test_stored_bytes_of_a_quantized_layer_by_hand() -> None:
    model, original = tiny_llama(layers=1), tiny_llama(layers=1)
    quantize(model, None, Settings("rtn", group_size=64), progress=False)
    weights = 4 * 128 * 128 + 3 * 128 * 384
    # 4 bits of code for a weight, and for 64 of them 4 bits of zero point and 16 of scale; from 32 bits.
    assert stored_bytes(original) - stored_bytes(model) == weights * 4 - weights * (4 + 20 / 64) / 8


def test_perplexity_of_the_shipped_model_rises_with_fewer_bits() -> None:
    """End to end: the shipped model, text that it has not seen, plain rounding."""
    original, tokenizer = load()
    windows, _ = evaluation_windows(tokenizer, shipped_text("evaluation")[:4], 128)
    values = []
    for bits in (4, 3):
        model, _ = load()
        quantize(model, None, Settings("rtn", bits, 128), progress=False)
        found = compare(model, original, windows[:6])
        values.append(perplexity(found.nll, found.predicted)[0])
        reference, _ = perplexity(found.nll_original, found.predicted)
    assert reference < values[0] < values[1] < 5 * reference
