"""The INT4 layouts in use, each as a value: which bits of k and n make row, word and nibble."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from awqdoc.packing.bits import Order, gather


@dataclass(frozen=True)
class Layout:
    """How a format stores codes, scales and zero points.

    Attributes
    ----------
    name, title, source : str
        As users name it, in a few words, and the file that the format comes from.
    weight : Order
        Codes, indexed by k and n.
    scales : Order
        FP16 scales, indexed by the group g and n.
    zeros : Order or None
        Zero points; None if the format has none, so that 8 is subtracted from every code.
    zero : str
        What stands for a zero point z: ``"z"``, ``"z - 1"``, or ``"-s z"``, the FP16 product with the scale.
    single_scales : Order or None
        Order of the scales if there is one group; None: as with several.
    sizes : tuple of (int, int)
        Multiples that K and N must be of; one of the pairs suffices.
    group_sizes : tuple of int
        The group sizes that the format allows, -1 for one group; empty: any that divides K.
    padded : tuple of (int, int)
        Group size from which on -> to a multiple of how many groups scales and zero points are padded with zeros.
    lane : dict
        For tensor-core formats: lane, register and half of a code as fields of k and n.
    """

    name: str
    title: str
    source: str
    weight: Order
    scales: Order
    zeros: Order | None
    zero: str = "z"
    single_scales: Order | None = None
    sizes: tuple[tuple[int, int], ...] = ()
    group_sizes: tuple[int, ...] = ()
    padded: tuple[tuple[int, int], ...] = ()
    lane: dict[str, str] = field(default_factory=dict)

    def where(self, k: int | torch.Tensor, n: int | torch.Tensor) -> dict[str, int | torch.Tensor]:
        """Return row, word and nibble of the code at (k, n), and lane, register and half where the format has them."""
        fields = {name: gather(text, {"k": k, "n": n}) for name, text in self.lane.items()}
        return {**self.weight.where(k=k, n=n), **fields}

    def scale_order(self, groups: int) -> Order:
        """Return the order of the scales of a weight with this many groups."""
        return self.single_scales if self.single_scales is not None and groups == 1 else self.scales

    def padding(self, group_size: int) -> int:
        """Return to a multiple of how many groups scales and zero points are padded."""
        return next((multiple for least, multiple in self.padded if group_size >= least), 1)


_PLAIN = Order("gn", row="g0+", word="n0+")
# Marlin: a tile of 16 rows and 64 columns, of which each of 32 lanes owns four words.
_MARLIN = Order("kn", row="k4+", word="n6+ n2 n1 n0 k2 k1 n5 n4", nibble="k0 n3 k3")
_MARLIN_SCALES = Order("gn", row="g0+", word="n6+ n2 n1 n0 n5 n4 n3")
_MARLIN_SINGLE = Order("gn", row="g0+", word="n5+ n2 n1 n4 n3 n0")
_FRAGMENT = {"lane": "n2 n1 n0 k2 k1", "register": "n5 n4 n3 k3", "half": "k0"}
# AutoAWQ pads the groups of its GEMV formats to whole words (awq/modules/linear/gemv.py, calculate_zeros_width).
_GEMV_PADDED = ((128, 8), (64, 16), (32, 32))

_TABLE = (
    Layout(
        "awq", "AWQ (GEMM): AutoAWQ, llm-awq and nearly every AWQ checkpoint", "AutoAWQ, awq/modules/linear/gemm.py",
        weight=Order("kn", row="k0+", word="n3+", nibble="n0 n2 n1"),
        scales=_PLAIN,
        zeros=Order("gn", row="g0+", word="n3+", nibble="n0 n2 n1"),
        sizes=((1, 8),),
    ),
    Layout(
        "awq_gemv", "AWQ (GEMV): AutoAWQ's kernel for one token", "AutoAWQ, awq/modules/linear/gemv.py",
        weight=Order("kn", row="n0+", word="k3+", nibble="k2 k1 k0"),
        scales=Order("gn", row="n0+", word="g0+"),
        zeros=Order("gn", row="n0+", word="g3+", nibble="g2 g1 g0"),
        sizes=((8, 8),), padded=_GEMV_PADDED,
    ),
    Layout(
        "awq_gemv_fast", "AWQ (GEMV fast), llm-awq's version 2", "AutoAWQ, awq/modules/linear/gemv_fast.py",
        weight=Order("kn", row="n2+", word="k6+ n1 n0 k5 k2 k1 k0", nibble="k4 k3"),
        scales=_PLAIN,
        zeros=_PLAIN, zero="-s z",
        sizes=((64, 8),), padded=_GEMV_PADDED,
    ),
    Layout(
        "gptq", "GPTQ (version 1): zero points less one", "AutoGPTQ and GPTQModel, qlinear",
        weight=Order("kn", row="k3+", word="n0+", nibble="k2 k1 k0"),
        scales=_PLAIN,
        zeros=Order("gn", row="g0+", word="n3+", nibble="n2 n1 n0"), zero="z - 1",
        sizes=((8, 8),),
    ),
    Layout(
        "gptq_v2", "GPTQ (version 2): zero points as they are", "GPTQModel, qlinear",
        weight=Order("kn", row="k3+", word="n0+", nibble="k2 k1 k0"),
        scales=_PLAIN,
        zeros=Order("gn", row="g0+", word="n3+", nibble="n2 n1 n0"),
        sizes=((8, 8),),
    ),
    Layout(
        "marlin", "Marlin: symmetric", "IST-DASLab/marlin, marlin/__init__.py",
        weight=_MARLIN, scales=_MARLIN_SCALES, single_scales=_MARLIN_SINGLE, zeros=None,
        sizes=((128, 256),), group_sizes=(-1, 128), lane=_FRAGMENT,
    ),
    Layout(
        "awq_marlin", "Marlin with zero points: vLLM's awq_marlin", "vLLM, marlin_utils.py; awq_marlin_repack.cu",
        weight=_MARLIN, scales=_MARLIN_SCALES, single_scales=_MARLIN_SINGLE,
        zeros=Order("gn", row="g0+", word="n6+ n2 n1 n0", nibble="n3 n5 n4"),
        sizes=((128, 64), (64, 128)), group_sizes=(-1, 32, 64, 128), lane=_FRAGMENT,
    ),
)  # fmt: skip
LAYOUTS = {layout.name: layout for layout in _TABLE}
"""Format name -> layout."""
