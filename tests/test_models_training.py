"""The shipped model: its tokenizer, how it is trained and judged, and its weights."""

from __future__ import annotations

import functools
import itertools
import math
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from test_models_corpus import files_of, refusal, tarball
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from awqdoc.experiments import EXPERIMENTS
from awqdoc.models import corpus, manifest, training
from awqdoc.models.corpus import END, SHIPPED
from awqdoc.recordings import find, sources

VOCABULARY = 320


@pytest.fixture(scope="module")
def small_tokenizer() -> Any:
    return training.build_tokenizer(corpus.read("calibration-code")[:3], VOCABULARY)


def tiny(window: int = 32, vocabulary: int = VOCABULARY) -> LlamaConfig:
    """A shape that takes milliseconds."""
    settings = training.config(vocabulary)
    settings.hidden_size, settings.intermediate_size, settings.num_hidden_layers = 32, 64, 2
    settings.num_attention_heads = settings.num_key_value_heads = 2
    settings.head_dim, settings.max_position_embeddings = 16, window
    return settings


# The tokenizer


@given(st.text())
@example(" \r\n\t\u2028\x00 x  y\n\n\n    z\ufeff 1234567 <|en d|> é e\u0301 \U0001f40d")
def test_shipped_tokenizer_gives_back_every_text(tokenizer: Any, text: str) -> None:
    if END not in text:
        tokens = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        assert tokenizer.decode(tokens) == text


@given(st.text())
def test_small_tokenizer_gives_back_every_text(small_tokenizer: Any, text: str) -> None:
    if END not in text:
        (tokens,) = training.encode(small_tokenizer, [text])
        assert tokens[0] == small_tokenizer.eos_token_id
        assert small_tokenizer.decode(tokens[1:]) == text


@pytest.mark.parametrize("name", corpus.TEXTS)
def test_shipped_tokenizer_gives_back_the_shipped_texts(name: str, tokenizer: Any) -> None:
    documents = corpus.read(name)
    encoded = training.encode(tokenizer, documents)
    assert tuple(tokenizer.decode(tokens[1:]) for tokens in encoded) == documents
    assert all(tokens[0] == 0 and (tokens[1:] > 0).all() for tokens in encoded)
    assert training.size(documents) > 2.5 * sum(map(len, encoded))  # a token is worth some bytes


def test_shipped_tokenizer_is_the_one_of_the_model(tokenizer: Any) -> None:
    assert len(tokenizer) == training.VOCABULARY == training.config().vocab_size
    assert tokenizer.bos_token == tokenizer.eos_token == tokenizer.pad_token == END
    assert tokenizer.eos_token_id == training.config().eos_token_id == training.config().bos_token_id
    assert tokenizer.model_max_length == training.WINDOW


def test_tokenizer_is_learned_from_the_text_alone() -> None:
    texts = ["spam spam spam\n", "eggs and spam\n"] * 9
    one, two = (training.build_tokenizer(texts, 270) for _ in range(2))
    assert one.get_vocab() == two.get_vocab()
    assert "spam" in one.get_vocab()
    assert set(range(257)) < set(one.get_vocab().values())


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("if x:\n        y", ["if", " x", ":", "\n        ", "y"]),
        ("a = 12345", ["a", " =", " ", "123", "45"]),
        ("\n\n    def f_g(", ["\n\n    ", "def", " f", "_g", "("]),
    ],
)
def test_tokens_do_not_reach_across_pieces(text: str, pieces: list[str], tokenizer: Any, small_tokenizer: Any) -> None:
    for either in (tokenizer, small_tokenizer):
        split = either.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)
        assert [text[slice(*span)] for _, span in split] == pieces


# Windows and batches


@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.integers(1, 9))
def test_windows_predict_each_token_exactly_once(lengths: list[int], window: int) -> None:
    stream = np.arange(1, sum(lengths) + 1, dtype=np.int32)
    cut = training.windows(np.split(stream, np.cumsum(lengths)[:-1]), window, end=0)
    assert cut.shape == (math.ceil(len(stream) / window), window + 1)
    assert (cut[:, 0] == 0).all()
    predicted = cut[:, 1:].flatten()
    assert predicted[: len(stream)].tolist() == stream.tolist()
    assert (predicted[len(stream) :] == -100).all()


@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.integers(1, 6), st.integers(1, 3), st.integers(0, 9))
def test_batches_hold_each_window_once_an_epoch(lengths: list[int], window: int, batch: int, seed: int) -> None:
    lengths = [*lengths, window * batch + 1]  # so that there is enough for a batch
    documents = np.split(np.arange(sum(lengths), dtype=np.int32), np.cumsum(lengths)[:-1])
    count = (sum(lengths) - 1) // window
    batches = training._batches(documents, window, batch, "cpu", seed)
    for _ in range(2):
        epoch = torch.cat([next(batches) for _ in range(count // batch)])
        assert epoch.shape == (count // batch * batch, window + 1)
        # Every token is another number; of those that are predicted none comes twice, and few do not come.
        predicted = epoch[:, 1:].flatten().tolist()
        assert len(set(predicted)) == len(predicted)
        assert count * window - len(predicted) < batch * window
        # Behind a token comes what follows it in its document.
        ends = {document[-1] for document in documents}
        assert all(b == a + 1 for row in epoch.tolist() for a, b in itertools.pairwise(row) if a not in ends)


def test_order_of_the_text_is_that_of_the_seed_and_changes_each_epoch() -> None:
    documents = [np.arange(257, dtype=np.int32)]
    first, same, other = (training._batches(documents, 4, 64, "cpu", seed) for seed in (0, 0, 1))
    epochs = [next(first).tolist() for _ in range(2)]
    assert [next(same).tolist() for _ in range(2)] == epochs
    assert epochs[0] != epochs[1]
    assert sorted(epochs[0]) == sorted(epochs[1])
    assert next(other).tolist() != epochs[0]


def test_too_little_text_for_a_batch_is_told() -> None:
    batches = training._batches([np.arange(12, dtype=np.int32)], 4, 3, "cpu", 0)
    assert "found 12 tokens" in refusal(next, batches)


# Bits per byte


@torch.no_grad()
def bits_per_byte_directly(model: Any, streams: Sequence[int], window: int, end: int, text_bytes: int) -> float:
    """In float64, one token at a time: from the end token and what stands before it in its window."""
    bits = 0.0
    for start in range(0, len(streams), window):
        piece = streams[start : start + window]
        for i, token in enumerate(piece):
            logits = model(input_ids=torch.tensor([[end, *piece[:i]]])).logits[0, -1].double()
            bits -= float(logits.log_softmax(0)[token]) / math.log(2)
    return bits / text_bytes


@pytest.mark.usefixtures("one_thread")
def test_bits_per_byte_are_those_of_a_direct_computation(small_tokenizer: Any) -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(tiny(window=12)).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # so that a token is far from as likely as another
    documents = ["import os\nimport sys\n", "naïve → 🐍\n" * 4, "def f(x):\n    return x\n" * 2]
    streams = [token for tokens in training.encode(small_tokenizer, documents) for token in tokens.tolist()]
    assert streams.count(small_tokenizer.eos_token_id) == 3
    assert len(streams) > 16 * 3  # more than one batch of windows,
    assert len(streams) % 3  # the last of which is not full
    text_bytes = len("".join(documents).encode())
    wanted = bits_per_byte_directly(model, streams, 3, small_tokenizer.eos_token_id, text_bytes)
    assert wanted > 5
    assert training.bits_per_byte(model, small_tokenizer, documents, window=3) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.usefixtures("one_thread")
def test_bits_per_byte_of_a_model_that_knows_nothing(small_tokenizer: Any) -> None:
    model = LlamaForCausalLM(tiny()).eval()
    torch.nn.init.zeros_(model.lm_head.weight)
    documents = ["import os\n" * 30]
    tokens = len(training.encode(small_tokenizer, documents)[0])
    found = training.bits_per_byte(model, small_tokenizer, documents)
    assert found == pytest.approx(tokens * math.log2(VOCABULARY) / 300)


def test_size_counts_bytes_not_characters() -> None:
    assert training.size(["é", "🐍", "a"]) == 2 + 4 + 1


def test_xz_bits_per_byte() -> None:
    random = np.random.default_rng(0)
    noise = "".join(map(chr, random.integers(32, 128, 20_000)))
    assert 6.5 < training.xz_bits_per_byte([noise[:9_000], noise[9_000:]]) < 7.2  # log2(96) = 6.6
    assert training.xz_bits_per_byte([noise, noise]) < 3.7


# The training


def short_run(documents: Sequence[np.ndarray], seed: int = 0, **options: Any) -> tuple[Any, list[dict[str, Any]]]:
    settings = {"settings": tiny(), "steps": 40, "batch": 16, "warmup": 5, "log_every": 10} | options
    model, rows = training.train(documents, "cpu", seed, **settings)
    return model, [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def tokens(small_tokenizer: Any) -> list[np.ndarray]:
    return training.encode(small_tokenizer, corpus.read("calibration-code")[:3])


@pytest.mark.usefixtures("one_thread")
def test_training_lowers_the_loss(tokens: list[np.ndarray]) -> None:
    model, rows = short_run(tokens)
    losses = [row["loss"] for row in rows]
    assert [row["step"] for row in rows] == [10, 20, 30, 40]
    assert rows[-1]["tokens"] == 40 * 16 * 32
    assert losses == sorted(losses, reverse=True)
    assert losses[0] < math.log(VOCABULARY) + 0.2
    assert losses[-1] < 0.85 * losses[0]
    assert not model.training
    assert model.dtype == torch.float32


@pytest.mark.usefixtures("one_thread")
def test_training_is_repeatable_with_the_seed(tokens: list[np.ndarray]) -> None:
    (one, rows), (two, again), (_, others) = (short_run(tokens, seed, steps=10, log_every=2) for seed in (1, 1, 2))
    assert rows == again
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert rows != others


@pytest.mark.usefixtures("one_thread")
def test_held_out_loss_is_watched_and_leaves_the_training_as_it_is(
    tokens: list[np.ndarray], small_tokenizer: Any
) -> None:
    watched = ["import os\n" * 30]
    cut = training.windows(training.encode(small_tokenizer, watched), 32, small_tokenizer.eos_token_id)
    options: dict[str, Any] = {"steps": 10, "log_every": 2, "watched": cut, "watched_bytes": 300, "evaluate_every": 4}
    reported: list[dict[str, Any]] = []
    model, rows = short_run(tokens, report=reported.append, **options)
    held_out = {row["step"]: row.pop("held_out") for row in rows if "held_out" in row}
    assert list(held_out) == [4, 8, 10]
    # In training it is watched in bfloat16.
    assert held_out[10] == pytest.approx(training.bits_per_byte(model, small_tokenizer, watched, window=32), rel=2e-2)
    assert [row["step"] for row in reported] == [2, 4, 6, 8, 10]
    assert rows == short_run(tokens, steps=10, log_every=2)[1]


def test_learning_rate_rises_and_falls() -> None:
    factors = [training._schedule(step, 1000, 100) for step in range(1, 1001)]
    assert factors[:100] == pytest.approx(np.arange(1, 101) / 100)
    assert factors[99:] == sorted(factors[99:], reverse=True)
    assert factors[99] == 1
    assert factors[-1] == pytest.approx(0.01)


def test_only_matrices_decay() -> None:
    model = LlamaForCausalLM(tiny())
    decaying, rest = training._optimizer(model, 1e-3, 0.1, fused=False).param_groups
    assert (decaying["weight_decay"], rest["weight_decay"]) == (0.1, 0)
    assert len(rest["params"]) == 2 * 2 + 1  # the norms
    assert len(decaying["params"]) + len(rest["params"]) == len(list(model.parameters()))
    assert all(parameter.dim() == 2 for parameter in decaying["params"])


# The shape, and what is saved


def test_every_linear_layer_fits_every_kernel() -> None:
    with torch.device("meta"):
        model = LlamaForCausalLM(training.config())
    layers = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    assert len(layers) == 7 * training.LAYERS + 1
    assert all(layer.in_features % 256 == 0 == layer.out_features % 256 for layer in layers)
    assert 2 * model.num_parameters() < training.LARGEST_FILE == 15 * 2**20


def test_saved_model_is_loaded_by_anyone_in_half_precision(tmp_path: Path, small_tokenizer: Any) -> None:
    model = LlamaForCausalLM(tiny())
    weight = model.model.layers[1].mlp.up_proj.weight.detach().clone()
    training.save(model, small_tokenizer, tmp_path)
    assert stat.S_IMODE((tmp_path / "model.safetensors").stat().st_mode) == 0o644
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto")
    assert loaded.dtype == torch.float16
    assert torch.equal(loaded.model.layers[1].mlp.up_proj.weight, weight.half())
    assert AutoTokenizer.from_pretrained(tmp_path).get_vocab() == small_tokenizer.get_vocab()


def test_model_that_is_too_large_is_refused(
    tmp_path: Path, small_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "LARGEST_FILE", 10_000)
    sentence = refusal(training.save, LlamaForCausalLM(tiny()), small_tokenizer, tmp_path)
    assert sentence.startswith("The model must fit into 10000 bytes, but is ")


def test_watched_are_the_first_documents_of_both_calibration_texts() -> None:
    code, docs = ([name * 1000] * 20 for name in ("abcdefghij", "klmnopqrst"))
    texts = {"calibration-code": code, "calibration-docs": docs, "evaluation-code": ["never"]}
    assert training.watched_documents(texts) == code[:10] + docs[:10]


# The experiment


def test_experiment_needs_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWQDOC_PYTHON_SOURCE", raising=False)
    experiment = EXPERIMENTS["training"]
    assert experiment.missing() == (
        f"the training text is not here: AWQDOC_PYTHON_SOURCE must name Python-3.11.2.tgz ({corpus.URL})"
    )
    monkeypatch.setenv("AWQDOC_PYTHON_SOURCE", "Python-3.11.2.tgz")
    assert experiment.missing() is None


def test_seed_must_not_be_negative() -> None:
    assert "found -1" in refusal(EXPERIMENTS["training"].cells, {"seed": [0, -1]})


@pytest.mark.usefixtures("one_thread")
def test_experiment_trains_saves_and_judges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    files = {side: files_of(side, 3, 40) for side in ("evaluation", "calibration", "training")}
    path = tarball(tmp_path, {d.path: d.text.encode() for side in files.values() for d in side})
    monkeypatch.setattr(corpus, "SHA256", manifest.sha256(path))
    shorter = functools.partial(training.train, settings=tiny(1024, 1024), steps=3, batch=2, warmup=1, log_every=1)
    monkeypatch.setattr(training, "train", shorter)
    monkeypatch.setenv("AWQDOC_PYTHON_SOURCE", str(path))
    monkeypatch.chdir(tmp_path)
    for folder, variable in (("trained-model", None), ("elsewhere", "AWQDOC_TRAINED")):
        if variable:
            monkeypatch.setenv(variable, str(tmp_path / folder))
        *rows, last = EXPERIMENTS["training"].module.run("cpu", seed=0)
        assert [row["step"] for row in rows] == [1, 2, 3]
        assert rows[-1]["held_out"] > 0
        weights = tmp_path / folder / "model.safetensors"
        assert last["sha256"] == manifest.sha256(weights)
        assert last["file_bytes"] == weights.stat().st_size
        assert last["parameters"] == LlamaForCausalLM(tiny(1024, 1024)).num_parameters()
        assert 0 < last["xz_bits_per_byte_both"] < last["bits_per_byte_both"]  # three steps are not enough
        assert last["corpus_bytes"] == training.size([document.text.rstrip() + "\n" for document in files["training"]])
    assert "'step': 3" in capfd.readouterr().err


def test_recording_depends_on_the_training_and_on_nothing_else() -> None:
    found = set(sources.definitions("awqdoc.experiments.training", "run"))
    names = ("training.build", "training.train", "training.STEPS", "corpus.select", "corpus.ALIASES", "manifest.sha256")
    assert found >= {f"awqdoc.models.{name}" for name in names}
    modules = {name.rpartition(".")[0] for name in found}
    assert modules == {
        "awqdoc.experiments.training", "awqdoc.models.training", "awqdoc.models.corpus", "awqdoc.models.manifest",
    }  # fmt: skip


# The weights that ship


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    """The last row of the recorded training."""
    return find("training")[0].rows[-1]


def test_shipped_folder_is_whole() -> None:
    manifest.verify(SHIPPED)


def test_shipped_weights_are_those_of_the_recorded_training(result: dict[str, Any]) -> None:
    weights = SHIPPED / "model.safetensors"
    assert manifest.sha256(weights) == result["sha256"]
    assert weights.stat().st_size == result["file_bytes"] <= training.LARGEST_FILE
    assert stat.S_IMODE(weights.stat().st_mode) & 0o444 == 0o444


@pytest.mark.usefixtures("one_thread")
def test_shipped_model_needs_a_fifth_less_than_xz(result: dict[str, Any], tokenizer: Any) -> None:
    for name in ("code", "docs", "both"):
        assert result[f"bits_per_byte_{name}"] <= 0.8 * result[f"xz_bits_per_byte_{name}"]
    model = AutoModelForCausalLM.from_pretrained(SHIPPED, dtype=torch.float32).eval()
    documents = sorted(corpus.read("evaluation-docs"), key=len)[:8]
    found = training.bits_per_byte(model, tokenizer, documents)
    assert found <= 0.8 * result["xz_bits_per_byte_docs"]


@pytest.mark.usefixtures("one_thread")
def test_shipped_model_completes_python(tokenizer: Any) -> None:
    model = AutoModelForCausalLM.from_pretrained(SHIPPED, dtype=torch.float32).eval()
    completions = {
        "if __name__ ==": (" '__main__':", ' "__main__":'),
        "class Point:\n    def __init__(": ("self",),
        "try:\n    import ssl\nexcept": (" ImportError:",),
        "with open(path) as f:\n    for line in": (" f:",),
        "    def __enter__(self):\n        return": (" self\n",),
        "def f(x):\n    if not isinstance(x, int):\n        raise": (" TypeError(",),
        "def f(*args, **": ("kwargs)",),
    }
    for prompt, wanted in completions.items():
        tokens = tokenizer(END + prompt, add_special_tokens=False, return_tensors="pt")
        out = model.generate(**tokens, max_new_tokens=3, do_sample=False, pad_token_id=0)
        completion = tokenizer.decode(out[0, tokens["input_ids"].shape[1] :])
        assert completion.startswith(wanted), prompt
