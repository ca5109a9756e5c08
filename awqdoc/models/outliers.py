"""Give a small model the outliers that large ones have, without changing what it computes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from awqdoc.models.blocks import fold_scale
from awqdoc.models.families import blocks_of, family_of, linear_of

SHARE = 0.01
FACTOR = 30.0


@torch.no_grad()
def add_outliers(model: Any, share: float = SHARE, factor: float = FACTOR, seed: int = 0) -> Any:
    """Make a few channels behind each norm `factor` times as large, and the weights that read them as much smaller.

    The function of the model stays the same (up to rounding): it is AWQ's folding with 1 / factor. So what it does
    to rounding shows what outliers do; that AWQ can undo it is no surprise, and no evidence for large models.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A Llama or an OPT; changed in place.
    share : float
        Share of the channels, at least one.
    factor : float
        How much larger. LLM.int8() (Dettmers et al. 2022) reports outliers of some twenty times the other channels.
    seed : int
        Which channels.

    Returns
    -------
    transformers.PreTrainedModel
        The same model.
    """
    family = family_of(model)
    generator = torch.Generator().manual_seed(seed)
    for block in blocks_of(model, family):
        for fold in family.folds:
            if not isinstance(block.get_submodule(fold.producer), nn.Linear):
                producer = linear_of(block, fold.producer)
                channels = producer.weight.shape[0]
                chosen = torch.randperm(channels, generator=generator)[: max(1, round(share * channels))]
                scale = torch.ones(channels)
                scale[chosen] = 1 / factor
                fold_scale(block, fold, scale.to(producer.weight.device))
    return model
