"""The architectures that can be quantized, as a table: where their blocks are and which scales can be folded where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from awqdoc.errors import AwqdocError
from awqdoc.models.linear import QuantizedLinear


@dataclass(frozen=True)
class Fold:
    """One scale of a block: `producer` gives it away, `consumers` take it up, the block's function stays the same.

    Attributes
    ----------
    producer : str
        A norm or a linear layer, whose output channels are divided by the scale.
    consumers : tuple of str
        The linear layers that read this output, whose input channels are multiplied by it.
    inspected : str
        The module whose output decides how good a scale is; for one linear layer, that layer.
    """

    producer: str
    consumers: tuple[str, ...]
    inspected: str


@dataclass(frozen=True)
class Family:
    """An architecture: its blocks and their folds, as in llm-awq (``awq/quantize/auto_scale.py``) and AutoAWQ.

    Every linear layer of a block is a consumer of exactly one fold.
    """

    model_type: str
    blocks: str
    folds: tuple[Fold, ...]
    # Queries and keys meet in a product before anything is compared, so the references do not clip them.
    unclipped: tuple[str, ...] = ("self_attn.q_proj", "self_attn.k_proj")

    @property
    def linears(self) -> tuple[str, ...]:
        """The linear layers of a block, which are quantized."""
        return tuple(name for fold in self.folds for name in fold.consumers)


_QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_LLAMA = (
    Fold("input_layernorm", _QKV, "self_attn"),
    Fold("self_attn.v_proj", ("self_attn.o_proj",), "self_attn.o_proj"),
    Fold("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj"), "mlp"),
    # Linear in the product silu(gate) * up, so what up_proj gives away passes through unchanged.
    Fold("mlp.up_proj", ("mlp.down_proj",), "mlp.down_proj"),
)
_OPT = (
    Fold("self_attn_layer_norm", _QKV, "self_attn"),
    Fold("self_attn.v_proj", ("self_attn.out_proj",), "self_attn.out_proj"),
    Fold("final_layer_norm", ("fc1",), "fc1"),
    # ReLU(x / s) = ReLU(x) / s for s > 0.
    Fold("fc1", ("fc2",), "fc2"),
)
_TABLE = (Family("llama", "model.layers", _LLAMA), Family("opt", "model.decoder.layers", _OPT))
FAMILIES = {family.model_type: family for family in _TABLE}


def family_of(model: Any) -> Family:
    """Return the family of a transformers model.

    Raises
    ------
    AwqdocError
        If its architecture, or a layer in one of its blocks, is none that can be quantized, it is quantized already or
        has no blocks.
    """
    kind = model.config.model_type
    family = FAMILIES.get(kind)
    if family is None:
        raise AwqdocError(
            f"Models of the type {kind!r} ({type(model).__name__}) can't be quantized here; "
            f"supported are {', '.join(FAMILIES)}."
        )
    if kind == "opt" and not (model.config.do_layer_norm_before and model.config.layer_norm_elementwise_affine):
        raise AwqdocError(
            "This OPT normalizes after its layers or has norms without weights, so no scale can be folded into them; "
            "supported are those with do_layer_norm_before and layer_norm_elementwise_affine, as facebook/opt-125m."
        )
    if kind == "opt" and model.config.activation_function != "relu":
        raise AwqdocError(
            f"This OPT has the activation {model.config.activation_function!r}, through which no scale can be folded; "
            "supported is 'relu'."
        )
    blocks = blocks_of(model, family)
    if len(blocks) == 0:
        raise AwqdocError("The model has no blocks (num_hidden_layers 0): there is nothing to quantize.")
    for number, block in enumerate(blocks):
        _check_block(f"{family.blocks}.{number}", block, family)
    return family


def _check_block(place: str, block: nn.Module, family: Family) -> None:
    supported = ", ".join(family.linears)
    leaves = {name: module for name, module in block.named_modules() if not list(module.children())}
    matrices = {name for name, leaf in leaves.items() for p in leaf.parameters(recurse=False) if p.dim() > 1}
    for name in (*family.linears, *matrices):
        module = leaves.get(name)
        if isinstance(module, QuantizedLinear):
            raise AwqdocError("The model is quantized already: give its original.")
        found = "nothing" if module is None else f"a {type(module).__name__}"
        if type(module) is not nn.Linear or name not in family.linears:
            raise AwqdocError(f"{place}.{name} is {found}, which can't be quantized; supported are Linear {supported}.")


def blocks_of(model: Any, family: Family) -> nn.ModuleList:
    """Return the list of a model's blocks."""
    return cast(nn.ModuleList, model.get_submodule(family.blocks))


def linear_of(block: nn.Module, name: str) -> nn.Linear:
    """Return a linear layer of a block; also used for a norm, whose weight [K] it has."""
    return cast(nn.Linear, block.get_submodule(name))


def applicable(fold: Fold, block: nn.Module) -> bool:
    """Whether a fold can be made: grouped-query attention has fewer value channels than its output layer reads.

    The references leave the fold out then, and so do we.
    """
    producer, consumer = linear_of(block, fold.producer), linear_of(block, fold.consumers[0])
    return not (isinstance(producer, nn.Linear) and producer.weight.shape[0] != consumer.weight.shape[1])
