"""Verdicts on claims, from made-up numbers whose verdicts are known."""

from __future__ import annotations

from typing import Any

import pytest
from figure_checks import assert_house_style
from transformers import LlamaConfig

from awqdoc import visualization as vis
from awqdoc.errors import AwqdocError
from awqdoc.kernels.table import LADDER
from awqdoc.recordings import Recording, Row

TOP = LADDER[-1]
SMALL, LARGE = "256x128", "512x1024"
BATCHES = [1, 4, 16, 64, 128]
PROVENANCE = {
    "commit": "0123456789", "sources": "sha256:now", "date": "2026-11-25T12:00:00+00:00", "clock": "a clock",
    "gpu": "NVIDIA H100",
}  # fmt: skip
# Backend -> times as fast as FP16 at each M on the large layer; on the small one half of that. None: no time.
GAINS: dict[str, tuple[float | None, ...]] = {
    "fp16": (1, 1, 1, 1, 1),
    TOP: (3.8, 3.9, 3.5, 2.2, 1.5),
    "gptqmodel_marlin": (2.8, 2.8, 2.4, 1.8, 0.8),
    "marlin_ist": (None, None, None, 2.5, 0.5),
    "awq_cuda": (1.5, 1.2, 0.4, 0.2, 0.1),
    LADDER[0]: (0.5, 0.5, 0.5, 0.5, 0.5),
}
# Model -> ms of a step at batch 1 and at batch 8. None: no time.
Steps = dict[tuple[str, str], tuple[float | None, float | None]]
FP16, OURS, MARLIN = ("fp16", "fp16"), ("fp16_stream", "fp16_stream"), ("gptqmodel_marlin", "fp16")
STEPS: Steps = {
    FP16: (6, 6), OURS: (5, None), (TOP, "fp16"): (2, 9), (TOP, TOP): (1.5, 9), MARLIN: (4, 1)
}  # fmt: skip


def recording(experiment: str, axes: dict[str, list[Any]], rows: list[Row]) -> Recording:
    return Recording(experiment, axes, PROVENANCE, rows)


def kernels(gains: dict[str, tuple[float | None, ...]] = GAINS) -> Recording:
    """Rounds drift, and all alike: the median of the ratios is the gain."""
    rows: list[Row] = []
    for shape, factor in ((SMALL, 0.5), (LARGE, 1)):
        for zero_points in (True, False):
            for place, m in enumerate(BATCHES):
                cell = {"shape": shape, "zero_points": zero_points, "m": m}
                for name, by_m in gains.items():
                    gain = by_m[place]
                    seconds = [
                        second / (gain * (1 if name == "fp16" else factor)) for second in (1e-6, 2e-6, 4e-6) if gain
                    ]
                    rows.append({**cell, "backend": name, **({"seconds": seconds} if gain else {"skipped": "wrong"})})
    return recording("kernels", {"shape": [SMALL, LARGE], "zero_points": [True, False], "m": BATCHES}, rows)


def accuracy(extra: float, kl: dict[str, float]) -> Recording:
    """Two windows of NLL 2 each; the same KL divergence in every cell, but for that of each method."""
    axes = {"model": ["embedded"], "bits": [4, 3], "group_size": [128, 32]}
    rows: list[Row] = []
    for bits in axes["bits"]:
        for group in axes["group_size"]:
            cell = {"model": "embedded", "bits": bits, "group_size": group}
            rows.append({**cell, "method": "fp16", "nll_windows": [1.0, 3.0]})
            for method, value in kl.items():
                found = {"kl": value, "kl_windows": [value, value * 1.01], "agreement": 0.9}
                rows.append({**cell, "method": method, "extra_nll": extra if group == 128 else extra / 4, **found})
    return recording("accuracy", axes, rows)


def calibration(kl: dict[tuple[str, str, int], float]) -> Recording:
    """KL divergence by method, kind of text and windows."""
    axes: dict[str, list[Any]] = {"model": ["embedded"], "domain": ["code", "docs"], "windows": [1, 8, 128]}
    rows: list[Row] = []
    for domain in axes["domain"]:
        for windows in axes["windows"]:
            for text in ("code", "docs"):
                for method in ("awq", "gptq"):
                    value = kl[method, "right" if domain == text else "wrong", windows]
                    found = {"kl": value, "kl_windows": [value - 0.001, value + 0.001]}
                    cell = {"model": "embedded", "domain": domain, "windows": windows, "text": text, "method": method}
                    rows.append({**cell, **found})
    return recording("calibration", axes, rows)


def test_a_claim_holds_does_not_or_holds_in_part() -> None:
    assert vis.verdict_of({"a": True, "b": True}) == "holds"
    assert vis.verdict_of({"a": False}) == "not here"
    assert vis.verdict_of({"a": True, "b": False, "c": True, "d": False}, "on") == "holds on a and c; not on b nor d"
    assert vis.verdict_of({}) == "not measured here"


def test_a_claim_about_many_cases_is_counted() -> None:
    assert vis.verdict_on([True, False, False]) == "holds on 1 of 3 layers"
    assert vis.verdict_on([True, True]) == "holds"
    assert vis.verdict_on([False, False]) == "not here"
    assert vis.verdict_on([]) == "not measured here"


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ({1: 3.9, 16: 3.6, 32: 2}, "holds"),
        ({1: 3.9, 8: 3.6, 16: 2, 32: 3.9}, "holds up to M = 8"),  # what comes after a gap does not count
        ({32: 1, 8: 3.6, 1: 3.9}, "holds up to M = 8"),
        ({1: 2.5, 16: 2.7}, "not here (at most 2.70)"),
        ({}, "not measured here"),
    ],
)
def test_up_to_which_batch_size_a_claim_holds(gains: dict[int, float], verdict: str) -> None:
    assert vis.verdict_up_to(gains, 3.5, claimed=16) == verdict


def test_memory_is_judged_by_all_of_a_models_bytes() -> None:
    """A Llama whose parts can be counted by hand, mostly embedding; then one with next to none."""
    sizes = {"hidden_size": 256, "intermediate_size": 256, "num_attention_heads": 2, "num_key_value_heads": 2}
    layer = 4 * 256 * 256 + 3 * 256 * 256
    for layers, vocabulary, verdict in ((1, 4096, "holds for the linear layers; not for the model"), (8, 16, "holds")):
        config = LlamaConfig(**sizes, num_hidden_layers=layers, vocab_size=vocabulary, tie_word_embeddings=False)
        rest = 2 * 2 * 256 * vocabulary + 2 * 256 * (2 * layers + 1)
        before, after = 2 * layers * layer + rest, layers * layer * (4 + 20 / 128) / 8 + rest
        found = vis.memory_finding(config, claimed=4)
        assert found.verdict == verdict
        assert f"{before / after:.2f} times less; its linear layers 3.85 times" in found.found
        assert found.source is None


def test_a_loss_is_judged_by_each_measure() -> None:
    """0.03 nats of 2 are 1.5 % of the bits; a quarter of that is 0.4 %, and 0.75 % of perplexity."""
    kl = {"rtn": 0.03, "gptq": 0.02, "awq": 0.01}
    found = vis.loss_finding(accuracy(0.03, kl))
    assert "perplexity (G = 128) +3.0%, bits per byte (G = 128) +1.5%, perplexity (G = 32) +0.8%" in found.found
    assert "another likeliest token at 10.0% of the places" in found.found
    assert found.verdict == (
        "holds by perplexity (G = 32) and bits per byte (G = 32); "
        "not by perplexity (G = 128) nor bits per byte (G = 128)"
    )
    assert vis.loss_finding(accuracy(0.001, kl)).verdict == "holds"


def test_marlins_peak_is_judged_on_the_largest_layer_kernel_by_kernel() -> None:
    found = vis.peak_finding(kernels())
    assert found.verdict.split("; ") == [
        "Marlin (IST-DASLab): no time at M = 1 to 16", "Marlin (vLLM): not here (at most 2.80)",
        f"{vis.brief(TOP)}: holds",
    ]  # fmt: skip
    assert found.found.startswith(f"{LARGE}: Marlin (vLLM) 2.80 at M = 1, 2.40 at M = 16; ")
    assert vis.peak_finding(kernels(), near=0.95).verdict.endswith(": holds up to M = 4")
    without = {name: gains for name, gains in GAINS.items() if name != TOP}
    assert vis.peak_finding(kernels(without)).verdict.endswith("no time at M = 1 to 16")


def test_a_gain_at_64_and_128_tokens_is_counted_by_layer() -> None:
    found = vis.decline_finding(kernels())
    assert found.verdict == "M = 64: holds on 1 of 2 layers; M = 128: not here"
    assert found.found == "Marlin (vLLM), by layer: 0.90 to 1.80 at M = 64; 0.40 to 0.80 at M = 128"


def test_always_counts_every_kernel_but_the_lower_steps_and_says_how_far_some_kernel_leads() -> None:
    """On two layers 5 times: our last step, vLLM's and AutoAWQ's, and Marlin's 2 times."""
    found = vis.always_finding(kernels())
    won = (5 + 4) + (4 + 3) + (1 + 1) + (2 + 0)  # large and small layer of each, in the order of GAINS
    assert found.verdict == f"not here: slower in {34 - won} of 34 cases"
    assert found.found.endswith("up to M = 64")
    assert vis.always_finding(kernels({"fp16": (1,) * 5, TOP: (3,) * 5})).verdict == "holds"


def test_few_tokens_of_a_kernel_are_judged_at_its_worst() -> None:
    found = vis.gemm_finding(kernels())
    assert found.verdict == "faster at all: holds on 1 of 2 layers"
    assert "0.60 to 1.50 times" in found.found
    slower = vis.gemm_finding(kernels({"fp16": (1,) * 5, "awq_cuda": (1.5, 0.9, 0.9, 0.9, 0.9)}))
    assert slower.verdict == "faster at all: not here"
    assert vis.gemm_finding(kernels({"fp16": (1,) * 5})).verdict == "faster at all: not measured here"


def test_salient_channels_are_judged_by_which_and_by_how_much() -> None:
    def salient(activation: float, weight: float) -> Recording:
        cell = {"model": "embedded", "share": 0.01}
        left = [
            ("none", 1.0),
            ("activation", 1 - activation),
            ("weight", 1 - weight),
            ("random", 0.98),
            ("random", 0.9),
        ]
        rows = [{**cell, "pick": pick, "kl_windows": [kl, kl]} for pick, kl in left]
        return recording("salient", {"model": ["embedded"], "share": [0.01]}, rows)

    assert vis.salient_finding(salient(0.2, 0.05)).verdict == "holds in which they are; not in how much they matter"
    assert vis.salient_finding(salient(0.6, 0.05)).verdict == "holds"
    assert vis.salient_finding(salient(0.6, 0.7)).verdict == "holds in how much they matter; not in which they are"
    assert vis.salient_finding(salient(0.08, 0.05)).verdict == "not here"  # a random draw removes more
    assert "at random at most 10.0%" in vis.salient_finding(salient(0.2, 0.05)).found


def test_calibration_text_is_judged_by_how_much_and_by_which() -> None:
    kl = {
        ("awq", "right", 1): 0.3, ("awq", "right", 8): 0.105, ("awq", "right", 128): 0.1, ("awq", "wrong", 128): 0.11,
        ("gptq", "right", 1): 0.5, ("gptq", "right", 8): 0.2, ("gptq", "right", 128): 0.09, ("gptq", "wrong", 128): 0.2,
    }  # fmt: skip
    kl |= {(method, "wrong", windows): 0.5 for method in ("awq", "gptq") for windows in (1, 8)}
    enough, robust = vis.text_finding(calibration(kl)), vis.robust_finding(calibration(kl))
    assert enough.verdict == "holds for coming near what AWQ can do; not for beating GPTQ with 128"
    assert robust.verdict == "holds"
    assert robust.found == "KL divergence, 128 windows: AWQ +0.010 to +0.010, GPTQ +0.110 to +0.110"
    slow = {**kl, ("awq", "right", 8): 0.15, ("gptq", "right", 128): 0.2, ("awq", "wrong", 128): 0.3}
    assert vis.text_finding(calibration(slow)).verdict.startswith(
        "holds for beating GPTQ with 128; not for coming near"
    )
    assert vis.robust_finding(calibration(slow)).verdict == "not here"


def test_methods_are_ordered_by_paired_differences() -> None:
    def verdict(awq: float) -> str:
        return vis.order_finding(accuracy(0.01, {"rtn": 0.03, "gptq": 0.02, "awq": awq})).verdict

    assert verdict(0.01) == "holds"
    assert verdict(0.025) == "holds against rounding; not against GPTQ (as trained)"
    assert verdict(0.04) == "not here"


def test_minutes_are_those_of_so_many_median_blocks() -> None:
    def speed(seconds: float, **more: str) -> Recording:
        cell = {"shape": "llama-3-8b", "round": 0, "quantizer": "autoawq"}
        rows: list[Row] = [{**cell, "block": i, "seconds": [seconds * i], **more} for i in (0, 1, 2)]
        return recording("awq-speed", {"shape": ["llama-3-8b"], "round": [0]}, rows)

    assert vis.minutes_finding(speed(26)).verdict == "holds"
    assert "14 minutes" in vis.minutes_finding(speed(26)).found  # 32 times 26 s are 832 s
    assert vis.minutes_finding(speed(30)).verdict == "not here"
    assert vis.minutes_finding(speed(26, skipped="it is missing")).verdict == "not measured here"


def decode(times: Steps) -> Recording:
    """The rounds drift, and all alike."""
    rows: list[Row] = []
    for place, m in enumerate((1, 8)):
        rows.append({"batch": m, "what": "read", "bytes": 2 * 10**9, "seconds": [1e-3]})
        for (backend, lm_head), own in times.items():
            ms, cell = own[place], {"batch": m, "what": "step", "backend": backend, "lm_head": lm_head}
            seconds = [ms * factor / 1e3 for factor in (1, 1.5, 2)] if ms else []
            rows.append({**cell, "context": 1000, "seconds": seconds} if ms else {**cell, "skipped": "wrong"})
    return recording("decode", {"batch": [1, 8]}, rows)


def test_a_whole_model_is_judged_for_one_user_by_each_int4_over_each_fp16() -> None:
    """Of 3 times nine tenths are near; at batch 8 all would be the other way round."""
    found = vis.step_finding(decode(STEPS), 3)
    assert found.verdict.split("; ") == [
        "our top step: holds over FP16 by cuBLAS, not over FP16 by our kernel", "our top step, lm_head too: holds",
        "Marlin (vLLM): not here",
    ]  # fmt: skip
    told = found.found.split("; ")
    assert told[0] == "ms a token: FP16 by cuBLAS 9.00, FP16 by our kernel 7.50"
    assert told[1].startswith("our top step 3.00, so 3.00 and 2.50 times as fast")
    assert found.source is not None
    assert vis.step_finding(decode(STEPS), 3, near=0.8).verdict.startswith("our top step: holds; ")
    assert vis.step_finding(decode(STEPS), 3.4).verdict.startswith("our top step: not here; ")
    alone: Steps = {FP16: (6, 6), (TOP, "fp16"): (2, 9), (TOP, TOP): (None, 9), MARLIN: (None, 1)}
    assert vis.step_finding(decode(alone), 3).verdict == "our top step: holds"
    assert vis.step_finding(decode({FP16: (6, 6), MARLIN: (None, 1)}), 3).verdict == "not measured here"


def test_beside_a_whole_models_speed_stands_what_bytes_allow_here_and_on_an_a100() -> None:
    """2 bytes or 4.15625 bits of each weight of a Llama-3-8B; here with 1000 tokens, there at 2039 GB/s with none."""
    layers, head = 32 * (6144 * 4096 + 4096 * 4096 + 28672 * 4096 + 4096 * 14336), 128256 * 4096
    cache, int4 = 2 * 32 * 2 * 8 * 128 * 1000, 4.15625 / 8
    wide, mixed, narrow = 2 * (layers + head), int4 * layers + 2 * head, int4 * (layers + head)
    least = [bytes_ / 2039e9 for bytes_ in (wide, mixed)]
    found = vis.step_finding(decode(STEPS), 2.8, (1.01 * least[0], 1.01 * least[1])).found.split("; ")
    assert found[1].endswith(f"(the bytes allow {(wide + cache) / (mixed + cache):.2f})")
    assert found[2].endswith(f"(the bytes allow {(wide + cache) / (narrow + cache):.2f})")
    told = f"the bytes take {1e3 * least[0]:.1f} or {1e3 * least[1]:.1f} ms or more"
    assert found[-1] == f"on an A100 80 GB SXM {told}: possible there"
    for seconds in ((0.99 * least[0], 1), (1, 0.99 * least[1])):
        assert vis.step_finding(decode(STEPS), 2.8, seconds).found.endswith("ms or more: not possible there")
    assert "A100" not in vis.step_finding(decode(STEPS), 2.8).found


def test_a_verdict_needs_a_whole_experiment() -> None:
    whole = kernels()
    assert vis.complete_recording(whole, whole.parameters) is whole
    axes = {**whole.parameters, "m": [*BATCHES, 256]}
    with pytest.raises(AwqdocError, match=r"all 24 cells of the experiment kernels; 4 are missing: let it run"):
        vis.complete_recording(whole, axes)


def test_the_table_has_a_row_for_each_claim_and_names_every_recording() -> None:
    judged = {"always": vis.always_finding(kernels()), "chat": vis.Finding("bytes", "holds", None)}
    table = vis.claims_table(judged)
    assert table.rows[0][:2] == ["INT4 is always faster", judged["always"].verdict]
    assert table.rows[0][3:] == ["often heard", "none", "H100"]
    assert (table.rows[1][1], table.rows[1][5]) == ("holds", "modelled")
    assert "recorded on NVIDIA H100, 2026-11-25" in table.caption
    assert "where it says so modelled" in table.caption
    assert table._repr_html_().count("white-space: normal") == 12
    lines = repr(table).splitlines()
    assert max(len(line) for line in lines if "recorded on" not in line) <= 88
    assert "  verdict: holds" in lines
    assert str(judged["chat"]) == "  found: bytes\n  verdict: holds"


def test_figures() -> None:
    config = LlamaConfig(num_hidden_layers=2, tie_word_embeddings=False)
    assert_house_style(lambda: vis.plot_memory_parts(config))
    assert_house_style(lambda: vis.plot_claimed_speed(kernels()))
    speed = vis.plot_claimed_speed(kernels())
    assert f"{LARGE}: Marlin (IST-DASLab) 2.50 at M = 64" in speed.awqdoc_alt  # type: ignore[attr-defined]
    top = [line.get_label() for line in speed.axes[0].get_lines()]
    assert top[0] == f"the claim: {vis.IDEAL}, to 16 …"
    (ours,) = (line for line in speed.axes[0].get_lines() if line.get_label() == vis.brief(TOP))
    assert list(ours.get_ydata()) == pytest.approx(GAINS[TOP])
    memory = vis.plot_memory_parts(config)
    assert memory.awqdoc_source is None  # type: ignore[attr-defined]
    widths = [bar.get_width() for bar in memory.axes[0].patches]
    assert sum(widths[:3]) == pytest.approx(4 * memory.axes[0].get_lines()[0].get_xdata()[0])
