"""The weights of a Llama as a decoder wants them: few large products, each laid out for one backend.

The inputs of q, k and v are the same, and so are those of gate and up. So their weights stand side by side as one, as
serving engines do: fewer launches, and larger products, which come closer to the memory's bandwidth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from awqdoc import gpu
from awqdoc.errors import AwqdocError
from awqdoc.formats import Problem, QuantizedWeight
from awqdoc.kernels import adapter, fp16
from awqdoc.kernels.dispatch import Prepared, matmul
from awqdoc.kernels.table import KERNELS, why_not
from awqdoc.models.decoding.budget import GROUP_SIZE, head_size, refuse_large_model, shapes
from awqdoc.models.linear import QuantizedLinear
from awqdoc.quantize import round_to_nearest

SEED = 0


class Product(Prepared):
    """Y = X W by one backend, with the weight in its layout."""

    @classmethod
    def of(cls, weight: QuantizedWeight, backend: str, place: str) -> Product:
        """Lay a quantized weight out.

        Raises
        ------
        AwqdocError
            If there is no such backend, or it cannot take this weight on its device; `place` names the weight.
        """
        k, n = weight.codes.shape
        capability = gpu.capability(str(weight.codes.device))
        known = _backend(backend)
        reason = why_not(known, Problem(1, n, k, weight.group_size), capability, not weight.symmetric)
        if reason is None and known.bits != 16 and weight.bits != known.bits:
            reason = f"it takes codes of {known.bits} bits; these have {weight.bits}"
        if reason is not None:
            raise AwqdocError(f"{known.title} cannot take {place}, a {k} x {n} weight: {reason}; use another backend.")
        try:
            return cls(backend, adapter(known).prepare(weight))
        except ImportError as error:
            raise AwqdocError(f"{known.title} cannot be imported ({error}): install it, or use another one.") from None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return X W, [M, N]; X [M, K], float16 unless the backend is ``fp16``, which takes the weight's dtype.

        A kernel for few tokens of an FP16 weight leaves more to torch's product: the layout is the same.
        """
        return fp16.matmul(x, self.tensors) if 0 < self.few < len(x) else matmul(x, self)

    @property
    def few(self) -> int:
        """The most tokens that an FP16 kernel for few takes; else 0."""
        kernel = KERNELS[self.backend]
        return kernel.most_tokens if kernel.bits == 16 else 0


@dataclass(frozen=True)
class Layer:
    """The weights of one block: two norms [hidden size] and four products."""

    input_norm: torch.Tensor
    qkv: Product
    output: Product
    post_norm: torch.Tensor
    gate_up: Product
    down: Product


@dataclass(frozen=True)
class Weights:
    """The weights of a Llama.

    Attributes
    ----------
    config : transformers.LlamaConfig
    embedding : torch.Tensor
        [vocabulary, hidden size], whose dtype is that of all activations.
    layers : tuple of Layer
    norm : torch.Tensor
        [hidden size].
    head : Product
        With lm_head.
    """

    config: Any
    embedding: torch.Tensor
    layers: tuple[Layer, ...]
    norm: torch.Tensor
    head: Product

    @property
    def products(self) -> Iterator[Product]:
        """All products, lm_head last."""
        for layer in self.layers:
            yield from (layer.qkv, layer.output, layer.gate_up, layer.down)
        yield self.head

    @property
    def nbytes(self) -> int:
        """Bytes that they take, what several share counted once."""
        tensors = [
            self.embedding,
            self.norm,
            *(t for layer in self.layers for t in (layer.input_norm, layer.post_norm)),
        ]
        tensors += [tensor for product in self.products for tensor in product.tensors.values()]
        return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())


def weights_of(model: Any, backend: str = "fp16", lm_head: str = "fp16") -> Weights:
    """Take over the weights of a transformers model.

    Parameters
    ----------
    model : transformers.LlamaForCausalLM
        As `awqdoc.models.load` returns it, quantized (`QuantizedLinear` layers) or not.
    backend, lm_head : str
        A name of `awqdoc.kernels.table.KERNELS` for the products of the layers, and one for lm_head, which is rounded
        to 4 bits in groups of 128 if its backend has 4. ``fp16`` is torch's product in the model's own dtype; it takes
        quantized layers too, dequantized once.

    Raises
    ------
    AwqdocError
        If the model is no Llama, has biases or a rotation that changes with the length, is not float16 where the
        backend or the GPU asks for it, is not quantized where the backend asks for it, or no kernel takes its format.
    """
    config, dtype = model.config, model.get_input_embeddings().weight.dtype
    _refuse_architecture(config)
    fours = [name for name in (backend, lm_head) if _backend(name).bits != 16]
    if dtype != torch.float16 and (fours or model.device.type == "cuda"):
        what = KERNELS[fours[0]].title if fours else "The decoder on a GPU"
        raise AwqdocError(f"{what} computes in float16; the model is {dtype}: load it with dtype=torch.float16.")
    layers = []
    for number, block in enumerate(model.model.layers):
        place, attention, mlp = f"layer {number}'s ", block.self_attn, block.mlp
        layers.append(
            Layer(
                block.input_layernorm.weight.detach(),
                _product([attention.q_proj, attention.k_proj, attention.v_proj], backend, dtype, place + "q, k and v"),
                _product([attention.o_proj], backend, dtype, place + "o_proj"),
                block.post_attention_layernorm.weight.detach(),
                _product([mlp.gate_proj, mlp.up_proj], backend, dtype, place + "gate and up"),
                _product([mlp.down_proj], backend, dtype, place + "down_proj"),
            )
        )
    embedding, head = model.get_input_embeddings().weight.detach(), model.lm_head.weight.detach()
    if _backend(lm_head).bits != 16:
        last = Product.of(round_to_nearest(head.float().t().contiguous(), GROUP_SIZE), lm_head, "lm_head")
    else:
        last = Product(lm_head, {"weight": head})
    return Weights(config, embedding, tuple(layers), model.model.norm.weight.detach(), last)


def random_weights(config: Any, backend: str = "fp16", lm_head: str = "fp16", device: str = "cuda") -> Weights:
    """Make random weights, the same for every backend: all are rounded to 4 bits, and ``fp16`` dequantizes them.

    Parameters
    ----------
    config : transformers.LlamaConfig
        As of `llama_3_8b`.

    Raises
    ------
    AwqdocError
        If they do not fit into the GPU's memory, or no kernel takes their format.
    """
    _refuse_architecture(config)
    refuse_large_model(config, _backend(backend).bits, _backend(lm_head).bits, device)
    generator = torch.Generator(device).manual_seed(SEED)

    def product(n: int, k: int, backend: str, place: str) -> Product:
        weight = torch.randn(k, n, generator=generator, device=device).mul_(0.02)
        return Product.of(round_to_nearest(weight, GROUP_SIZE), backend, place)

    ones = torch.ones(config.hidden_size, dtype=torch.float16, device=device)
    head = product(config.vocab_size, config.hidden_size, lm_head, "lm_head")  # first: it needs most memory to make
    layers = []
    for number in range(config.num_hidden_layers):
        made = {name: product(n, k, backend, f"layer {number}'s {name}") for name, (n, k) in shapes(config).items()}
        layers.append(Layer(ones.clone(), made["qkv"], made["output"], ones.clone(), made["gate_up"], made["down"]))
    size = (config.vocab_size, config.hidden_size)
    embedding = torch.randn(size, generator=generator, device=device, dtype=torch.float16)
    return Weights(config, embedding, tuple(layers), ones, head)


def llama_3_8b(layers: int = 32) -> Any:
    """Return the configuration of Llama-3-8B, or of the same with fewer layers."""
    from transformers import LlamaConfig

    return LlamaConfig(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=layers, num_attention_heads=32,
        num_key_value_heads=8, vocab_size=128256, max_position_embeddings=8192, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0}, tie_word_embeddings=False,
    )  # fmt: skip


def _backend(name: str) -> Any:
    if name not in KERNELS:
        raise AwqdocError(f"There is no backend {name!r}; there are {', '.join(KERNELS)}.")
    return KERNELS[name]


def _refuse_architecture(config: Any) -> None:
    if config.model_type != "llama" or config.hidden_act != "silu":
        raise AwqdocError(
            f"Only models of the type 'llama' with SiLU are decoded here; this one is {config.model_type!r} with "
            f"{getattr(config, 'hidden_act', 'another activation')}."
        )
    kind = config.rope_parameters["rope_type"]
    if kind in ("dynamic", "longrope"):
        raise AwqdocError(f"The model's rotation ({kind!r}) changes with the length, which a captured step cannot do.")
    size = head_size(config)
    if size < 32 or size & (size - 1):
        raise AwqdocError(f"The size of a head must be a power of two from 32 on; it is {size}.")


def _product(linears: Sequence[Any], backend: str, dtype: torch.dtype, place: str) -> Product:
    """Make one product of the layers that read the same input."""
    bits = _backend(backend).bits
    if any(linear.bias is not None for linear in linears):
        raise AwqdocError(f"There is a bias in {place}, which is not decoded here: use a model without.")
    quantized = [linear for linear in linears if isinstance(linear, QuantizedLinear)]
    if len(quantized) == len(linears):
        product = Product.of(_beside([linear.quantized_weight for linear in quantized]), backend, place)
        return Product(backend, {"weight": product.tensors["weight"].to(dtype)}) if bits == 16 else product
    if quantized or not all(isinstance(linear, nn.Linear) for linear in linears):
        raise AwqdocError(f"{place} must be all quantized or none: use a checkpoint that leaves none of them out.")
    if bits != 16:
        raise AwqdocError(
            f"{KERNELS[backend].title} takes quantized layers, and {place} are not: quantize the model first "
            "(awqdoc.models.quantize), or use fp16."
        )
    return Product(backend, {"weight": torch.cat([linear.weight.detach() for linear in linears])})


def _beside(weights: Sequence[QuantizedWeight]) -> QuantizedWeight:
    """Put weights of the same K side by side along N."""
    zeros = [weight.zeros for weight in weights if weight.zeros is not None]
    return QuantizedWeight(
        torch.cat([weight.codes for weight in weights], dim=1),
        torch.cat([weight.scales for weight in weights], dim=1),
        torch.cat(zeros, dim=1) if zeros else None,
        weights[0].group_size,
        weights[0].bits,
    )
