"""What a format cannot hold, said in one sentence each."""

from __future__ import annotations

import torch

from awqdoc.errors import AwqdocError
from awqdoc.formats import QuantizedWeight
from awqdoc.packing.bits import Order
from awqdoc.packing.layouts import LAYOUTS, Layout


def find(format: str) -> Layout:
    """Return a layout by name, or say which there are."""
    if format not in LAYOUTS:
        raise AwqdocError(f"The format must be one of {', '.join(LAYOUTS)}; found {format!r}.")
    return LAYOUTS[format]


def sizes(layout: Layout, k: int, n: int, group_size: int) -> None:
    """Refuse a shape or a group size that the format cannot hold."""
    if not any(k % rows == 0 and n % columns == 0 for rows, columns in layout.sizes):
        wanted = " or ".join(f"{rows} and {columns}" for rows, columns in layout.sizes)
        nearest = min(((_up(k, r), _up(n, c)) for r, c in layout.sizes), key=lambda shape: shape[0] * shape[1])
        raise AwqdocError(
            f"'{layout.name}' needs K and N to be multiples of {wanted}; found {k} x {n}, the nearest larger is "
            f"{nearest[0]} x {nearest[1]}."
        )
    allowed = [k if size == -1 else size for size in layout.group_sizes]
    if allowed and group_size not in allowed:
        raise AwqdocError(
            f"'{layout.name}' takes group sizes {', '.join(map(str, layout.group_sizes))} (-1: all of K, here {k}); "
            f"found {group_size}."
        )
    if layout.padded and layout.padding(group_size) == 1:
        raise AwqdocError(f"'{layout.name}' takes group sizes from {layout.padded[-1][0]} up; found {group_size}.")


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def weight(layout: Layout, weight: QuantizedWeight) -> None:
    """Refuse a weight that the format cannot hold without loss."""
    k, n = weight.codes.shape
    sizes(layout, k, n, weight.group_size)
    for name, values in (("codes", weight.codes), ("zero points", weight.zeros)):
        if values is not None and int(values.max()) > 15:
            raise AwqdocError(
                f"The {name} must be 0 to 15; found {int(values.max())}: clamp them before packing, or they would "
                "spill into the next nibble."
            )
    if not torch.isfinite(weight.scales).all():
        raise AwqdocError("The scales must be finite; found inf or nan: look for it in the weights they come from.")
    if layout.zeros is None:
        _symmetric(layout, weight)
    if layout.zero == "z - 1" and weight.zeros is not None and int(weight.zeros.min()) == 0:
        count = int((weight.zeros == 0).sum())
        raise AwqdocError(
            f"'{layout.name}' stores a zero point less one, so it has none for 0; found {count} of them: use 'gptq_v2'."
        )


def _symmetric(layout: Layout, weight: QuantizedWeight) -> None:
    zeros = weight.zeros
    if (weight.bits == 4) if zeros is None else bool((zeros == 8).all()):
        return
    if zeros is None:
        found = f"symmetric codes of {weight.bits} bits, whose middle is {2 ** (weight.bits - 1)}"
    else:
        found = f"zero points from {int(zeros.min())} to {int(zeros.max())}"
    raise AwqdocError(
        f"'{layout.name}' stores no zero points, its kernels subtract 8 from every code; found {found}: use "
        "'awq_marlin', or quantize with symmetric=True and 4 bits."
    )


def zero_points(layout: Layout, zeros: torch.Tensor) -> None:
    """Refuse zero points that were unpacked and are none."""
    if zeros.numel() and int(zeros.max()) > 15:
        why = "a 0 that wrapped around" if layout.zero == "z - 1" else "a product that no 0 to 15 makes"
        raise AwqdocError(
            f"qzeros of '{layout.name}' holds {int((zeros > 15).sum())} values that stand for no zero point of 0 to 15 "
            f"({why}): was it made by another format or version?"
        )


def tensors(
    layout: Layout, found: dict[str, torch.Tensor], group_size: int, shape: tuple[int, int] | None
) -> tuple[int, int]:
    """Return the shape (K, N) that packed tensors have, or refuse tensors that do not fit together.

    Parameters
    ----------
    found : dict
        ``qweight``, ``scales`` and ``qzeros``, as `awqdoc.packing.pack` returns them.
    group_size : int
        -1: all of K.
    shape : tuple or None
        K and N if the caller knows them.
    """
    wanted = ("qweight", "scales") if layout.zeros is None else ("qweight", "qzeros", "scales")
    missing = [name for name in wanted if name not in found]
    if missing:
        raise AwqdocError(f"'{layout.name}' has the tensors {', '.join(wanted)}; {missing[0]} is missing.")
    if layout.zeros is None and "qzeros" in found:
        raise AwqdocError(f"'{layout.name}' stores no zero points, but qzeros is given: is it 'awq_marlin'?")
    k, n = _shape(layout, found["qweight"])
    if shape is not None and tuple(shape) != (k, n):
        raise AwqdocError(f"qweight of '{layout.name}' holds K x N = {k} x {n}; found shape={tuple(shape)}.")
    g = k if group_size == -1 else group_size
    if g < 1 or k % g:
        raise AwqdocError(f"The group size must divide K = {k}; found {group_size}.")
    order = found.get("g_idx")
    if order is not None and not torch.equal(order.long().cpu(), torch.arange(k) // g):
        raise AwqdocError(
            "g_idx holds an activation order (desc_act), which awqdoc's weights cannot hold: quantize the model again "
            "with desc_act=False."
        )
    sizes(layout, k, n, g)
    groups = _up(k // g, layout.padding(g))
    plain = layout.zero == "-s z"
    _expect(layout, "scales", found["scales"], torch.float16, _stored(layout.scale_order(k // g), groups, n))
    if layout.zeros is not None:
        _expect(
            layout, "qzeros", found["qzeros"], torch.float16 if plain else torch.int32, _stored(layout.zeros, groups, n)
        )
    return k, n


def _shape(layout: Layout, qweight: torch.Tensor) -> tuple[int, int]:
    """K and N that a packed weight [rows, words] has: how often the rest of each axis is counted in rows and words."""
    order = layout.weight
    dtype = torch.int32 if order.nibbles == 8 else torch.int16
    if qweight.dtype != dtype or qweight.dim() != 2:
        found = f"{str(qweight.dtype).removeprefix('torch.')} {list(qweight.shape)}"
        raise AwqdocError(
            f"qweight of '{layout.name}' must be {str(dtype).removeprefix('torch.')} of two axes; found {found}."
        )
    last = order.at(qweight.shape[0] - 1, qweight.shape[1] - 1, order.nibbles - 1)
    shape = last["k"] + 1, last["n"] + 1
    if shape[0] % order.tile["k"] or shape[1] % order.tile["n"] or _stored(order, *shape) != tuple(qweight.shape):
        raise AwqdocError(
            f"qweight of '{layout.name}' must hold whole tiles of {order.tile['k']} x {order.tile['n']}; found "
            f"{qweight.shape[0]} rows of {qweight.shape[1]} words."
        )
    return shape


def _stored(order: Order, first: int, second: int) -> tuple[int, int]:
    """Rows and words of a tensor whose values are [first, second]."""
    last = order.where(**dict(zip(order.axes, (first - 1, second - 1), strict=True)))
    return last["row"] + 1, last["word"] + 1


def _expect(layout: Layout, name: str, found: torch.Tensor, dtype: torch.dtype, shape: tuple[int, int]) -> None:
    if found.dtype != dtype or tuple(found.shape) != shape:
        wanted, is_now = (str(d).removeprefix("torch.") for d in (dtype, found.dtype))
        raise AwqdocError(
            f"{name} of '{layout.name}' must be {wanted} {list(shape)} for this qweight and group size; "
            f"found {is_now} {list(found.shape)}."
        )
