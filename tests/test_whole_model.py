"""The demo of the whole model as a program: on a model of a reader's own, resumed, refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from awqdoc.models import QuantizedLinear, Settings, load, quantize, save

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "gallery" / "quantization" / "plot_80_whole_model.py"
FIGURES = {"awq_quantization_weights.png", "awq_quantization_errors.png"}
COMMAND = [sys.executable, "-W", "error", str(DEMO)]
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("AWQDOC_")},
    "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1",
}  # fmt: skip


def run(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], env=ENVIRONMENT, capture_output=True, text=True, check=False, cwd=cwd
    )


@pytest.fixture(scope="module")
def opt(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    """A folder with an OPT of two blocks, as a reader would have one."""
    from transformers import OPTConfig, OPTForCausalLM

    torch.manual_seed(0)
    config = OPTConfig(
        hidden_size=64, word_embed_proj_dim=64, ffn_dim=128, num_hidden_layers=2, num_attention_heads=2,
        vocab_size=len(tokenizer), max_position_embeddings=64,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "opt"
    OPTForCausalLM(config).half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_a_model_of_ones_own_is_quantized_examined_and_kept(opt: Path, tmp_path: Path) -> None:
    saved, pictures = tmp_path / "opt-awq", tmp_path / "new" / "pictures"
    done = run("--model", opt, "--quick-test", "--group-size", "32", "--save", saved, "--output-dir", pictures)
    assert done.returncode == 0, done.stderr
    assert {file.name for file in pictures.iterdir()} == FIGURES
    for words in (
        "calibration: 2 windows of 32 tokens",
        "Errors on 128 tokens; measured here: computed by this page on ",
        "Memory; measured here: computed by this page on ",
        "MB of safetensors on disk",
        "The capital of France is",
        f'AutoAWQForCausalLM.from_quantized("{saved}")',
        f'AutoModelForCausalLM.from_pretrained("{saved}"), beside gptqmodel',
        f"saved {pictures / 'awq_quantization_weights.png'}",
    ):
        assert words in done.stdout
    model, _ = load(str(saved))
    layers = [module for module in model.modules() if isinstance(module, QuantizedLinear)]
    assert len(layers) == 12
    assert {layer.group_size for layer in layers} == {32}
    assert not saved.with_name("opt-awq.partial").exists()
    again = run("--model", opt, "--quick-test", "--group-size", "32", "--save", saved)
    assert again.returncode == 1
    assert again.stderr == f"{DEMO.name}: {saved} exists and is not empty: choose another folder, or delete it first.\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--group-size", "48"], "the group size 48 does not divide; use 64, 32, -1."),
        (["--model", "/no/such/folder"], "There is no folder /no/such/folder: "),
    ],
)
def test_what_cannot_be_quantized_is_one_sentence(arguments: list[str], words: str, opt: Path) -> None:
    done = run("--model", opt, "--quick-test", *arguments)
    assert done.returncode == 1
    assert words in done.stderr
    assert done.stderr.startswith(f"{DEMO.name}: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("context", "quantized"), [(32, False), (64, True)])
def test_a_model_that_the_page_cannot_take_is_one_sentence(
    context: int, quantized: bool, tokenizer: Any, tmp_path: Path
) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, vocab_size=len(tokenizer),
        max_position_embeddings=context,
    )  # fmt: skip
    model, folder = LlamaForCausalLM(config), tmp_path / "model"
    if quantized:
        quantize(model, None, Settings("rtn", group_size=32), progress=False)
        save(model, tokenizer, folder)
        sentence = "The model is quantized already: give its original."
    else:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        sentence = "The model needs a context of 64 tokens; found 32."
    done = run("--model", folder, "--quick-test", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, f"{DEMO.name}: {sentence}\n")


@pytest.mark.slow
def test_the_shipped_model_as_on_the_page(tmp_path: Path) -> None:
    """With the page's own assertions; without a folder named, the figures are saved where the program runs."""
    done = run(cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {file.name for file in tmp_path.iterdir()} == FIGURES
    assert "def read(self, size=-1):" in done.stdout


@pytest.mark.slow
@pytest.mark.usefixtures("ctrl_c")
def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    saved = tmp_path / "awq"
    program = subprocess.Popen([*COMMAND, "--save", str(saved)], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    kept = tmp_path / "awq.partial"
    deadline = time.monotonic() + 120
    while not list(kept.glob("block-*.safetensors")):
        assert program.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    program.send_signal(signal.SIGINT)
    _, stderr = program.communicate()
    assert program.returncode != 0
    assert f"blocks are kept in {kept}; the same command goes on from there." in stderr
    assert "Traceback" not in stderr
    first = next(kept.iterdir()).stat().st_mtime_ns
    assert not saved.exists()
    done = run("--save", saved, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert saved.stat().st_mtime_ns > first
    assert not kept.exists()
