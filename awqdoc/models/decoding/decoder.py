"""Greedy decoding with a static cache: what a step reads and writes stays where it is, so it is captured once.

On a GPU a step is one CUDA graph, from the last tokens to the next; on a CPU the same functions run in torch.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType

import torch

from awqdoc.errors import AwqdocError
from awqdoc.kernels.table import KERNELS
from awqdoc.models.decoding import plain
from awqdoc.models.decoding.budget import head_size, refuse_large_cache
from awqdoc.models.decoding.weights import Weights

Attend = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Decoder:
    """A model and room for `batch` sequences of up to `length` tokens.

    Parameters
    ----------
    weights : Weights
    batch, length : int

    Attributes
    ----------
    cache : torch.Tensor
        [layers, 2, batch, kv heads, length, head size]: keys and values.
    lengths : torch.Tensor
        int32 [batch]: tokens of each sequence in the cache. `used` is their number on the host.
    tokens : torch.Tensor
        int64 [batch]: the tokens that the next step takes.
    logits : torch.Tensor
        [batch, vocabulary]: what the last step, or the prompt, led to.

    Raises
    ------
    AwqdocError
        If the backend does not take so many tokens, the model so long a text, or the GPU's memory the cache.
    """

    logits: torch.Tensor

    def __init__(self, weights: Weights, batch: int, length: int) -> None:
        config, embedding = weights.config, weights.embedding
        if batch < 1 or not 1 <= length <= config.max_position_embeddings:
            raise AwqdocError(
                f"The batch must be 1 or more and the length at most {config.max_position_embeddings}, as the model "
                f"knows; they are {batch} and {length}."
            )
        self.weights, self.batch, self.length, self.used = weights, batch, length, 0
        self._refuse_tokens(batch)
        device = embedding.device
        refuse_large_cache(config, batch, length, embedding.element_size(), str(device))
        self.cache = torch.zeros(
            config.num_hidden_layers, 2, batch, config.num_key_value_heads, length, head_size(config),
            dtype=embedding.dtype, device=device,
        )  # fmt: skip
        self.lengths = torch.zeros(batch, dtype=torch.int32, device=device)
        self.tokens = torch.zeros(batch, dtype=torch.int64, device=device)
        self._cos, self._sin = _angles(weights, length)
        self._between = _between(device)
        self._captured: tuple[torch.cuda.CUDAGraph, torch.Tensor] | None = None  # and the logits that it writes

    @torch.no_grad()
    def prefill(self, prompts: torch.Tensor) -> None:
        """Begin anew with prompts, int64 [batch, tokens]: fill the cache, and set `logits`, `tokens` and `lengths`.

        Raises
        ------
        AwqdocError
            If their number is not the batch's, the cache is too short for them, or they hold no tokens of this model.
        """
        if prompts.dim() != 2 or len(prompts) != self.batch or not 1 <= prompts.shape[1] <= self.length:
            raise AwqdocError(
                f"The prompts must be {self.batch} of 1 to {self.length} tokens each, as the cache has room for; they "
                f"are {' x '.join(map(str, prompts.shape))}."
            )
        self._refuse_tokens(prompts.numel())
        vocabulary = len(self.weights.embedding)
        if int(prompts.min()) < 0 or int(prompts.max()) >= vocabulary:
            raise AwqdocError(f"A token must be from 0 to {vocabulary - 1}: use the tokenizer of this model.")
        prompts = prompts.to(self.tokens.device)
        y = self._blocks(self.weights.embedding[prompts.flatten()], partial(plain.fill, cos=self._cos, sin=self._sin))
        self.logits = self.weights.head(y.unflatten(0, prompts.shape)[:, -1].contiguous())
        torch.argmax(self.logits, dim=-1, out=self.tokens)
        self.lengths.fill_(prompts.shape[1])
        self.used = prompts.shape[1]

    @torch.no_grad()
    def compute(self) -> None:
        """Launch one step: from `tokens` to the next ones, which take their place. The host does not count it."""
        attend = partial(self._between.attend, lengths=self.lengths, cos=self._cos, sin=self._sin)
        y = self._blocks(self.weights.embedding[self.tokens], attend)
        self.logits = self.weights.head(y)
        self._between.choose(self.logits, self.tokens, self.lengths)

    def step(self) -> None:
        """Take one step, on a GPU as the replay of a CUDA graph that the first one captures.

        Raises
        ------
        AwqdocError
            If the cache is full.
        """
        if self.used >= self.length:
            raise AwqdocError(f"The cache is full after {self.length} tokens: make a Decoder of a larger length.")
        if self.cache.is_cuda:
            self._captured = self._captured or self._capture()
            graph, self.logits = self._captured
            graph.replay()
        else:
            self.compute()
        self.used += 1

    def generate(self, prompts: torch.Tensor, count: int) -> torch.Tensor:
        """Return `count` tokens that greedily follow prompts, int64 [batch, count], whatever they are.

        After Ctrl-C, standard error says how far it was; the next call begins anew.

        Raises
        ------
        AwqdocError
            As `prefill`, or if the cache is too short for both.
        """
        if count < 1 or prompts.shape[-1] + count - 1 > self.length:
            raise AwqdocError(
                f"{count} tokens after {prompts.shape[-1]} do not fit into a cache of {self.length} tokens: generate "
                "1 or more, or make a Decoder of a larger length."
            )
        found: list[torch.Tensor] = []
        try:
            self.prefill(prompts)
            found.append(self.tokens.clone())
            while len(found) < count:
                self.step()
                found.append(self.tokens.clone())
        except KeyboardInterrupt:
            print(f"\nInterrupted after {len(found)} of {count} tokens; the model can be used again.", file=sys.stderr)
            raise
        return torch.stack(found, dim=1)

    def rewind(self, used: int) -> None:
        """Go on as if `used` tokens of each sequence were in the cache, whatever it holds."""
        self.lengths.fill_(used)
        self.used = used

    def _blocks(self, x: torch.Tensor, attend: Attend) -> torch.Tensor:
        """Run all blocks and the last norm on `x` [tokens, hidden size], which holds the sum of all residuals.

        What a block adds to it is added by the norm behind.
        """
        eps, norm = self.weights.config.rms_norm_eps, self._between.norm
        delta = None
        for layer, cache in zip(self.weights.layers, self.cache, strict=True):
            attended = attend(layer.qkv(norm(x, delta, layer.input_norm, eps)), cache)
            delta = layer.output(attended)
            gate_up = layer.gate_up(norm(x, delta, layer.post_norm, eps))
            delta = layer.down(self._between.activate(gate_up))
        y: torch.Tensor = norm(x, delta, self.weights.norm, eps)
        return y

    def _capture(self) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
        """Return the graph of one step and its logits. What the launches before it, which compile, change is undone."""
        tokens, lengths = self.tokens.clone(), self.lengths.clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                self.compute()  # what it writes to the cache, the first step writes again
                self.tokens.copy_(tokens)
                self.lengths.copy_(lengths)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.compute()
        return graph, self.logits

    def _refuse_tokens(self, tokens: int) -> None:
        product = self.weights.layers[0].qkv
        most = KERNELS[product.backend].most_tokens
        if most and tokens > most and not product.few:
            raise AwqdocError(f"The backend takes up to {most} tokens at once; these are {tokens}: use another one.")


def _between(device: torch.device) -> ModuleType:
    """Return the module with what stands between the products."""
    # Named by text, as adapters are: it is imported only where triton is, and the hash of the sources follows it.
    return importlib.import_module("awqdoc.models.decoding.triton_fused") if device.type == "cuda" else plain


def _angles(weights: Weights, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cos and sin of all positions, float32 [length, head size / 2], as transformers computes them."""
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    positions = torch.arange(length)[None]
    cos, sin = LlamaRotaryEmbedding(weights.config)(torch.zeros(1), positions)
    half = cos.shape[-1] // 2
    device = weights.embedding.device
    return cos[0, :, :half].to(device).contiguous(), sin[0, :, :half].to(device).contiguous()
