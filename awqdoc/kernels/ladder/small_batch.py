"""Step 7: as many bytes in flight as the memory asks for (``cuda/small_batch.cu``)."""

from __future__ import annotations

import torch

from awqdoc import compile
from awqdoc.formats import QuantizedWeight
from awqdoc.kernels.ladder import records

MOST_TOKENS = 32
IN_FLIGHT = 96 << 10  # bytes of shared memory for records on their way
# Records asked for before the kernel ahead has ended, up to 8 tokens and for more. With 2 a whole model takes 3 % more;
# but behind too many X has to wait.
EARLY, EARLY_FOR_MORE = 6, 3


def prepare(weight: QuantizedWeight) -> dict[str, torch.Tensor]:
    """Return the records, and the board on which blocks leave what they share."""
    return {**records.prepare(weight), "board": records.board(weight.codes.device)}


def matmul(x: torch.Tensor, prepared: dict[str, torch.Tensor], overlap: bool = False) -> torch.Tensor:
    """Compute X @ W, float16 [M, N]; X float16 [M, K], M up to 32."""
    m, size = x.shape[0], records.sizes(prepared)
    tokens = records.tokens(m, MOST_TOKENS)
    stage = -(-(tokens * 2 * records.SIDE + prepared["records"].shape[2]) // 1024) * 1024
    stages = IN_FLIGHT // stage // 2 * 2  # even: a team always finds its records in the same places
    shared = stages * stage + 1024
    early = EARLY if tokens == 8 else EARLY_FOR_MORE
    kernel = compile.kernel("small_batch.cu", shared, TOKENS=tokens, STAGES=stages, EARLY=early, **size.defines)
    y = torch.empty(m, size.n, dtype=torch.float16, device=x.device)
    compile.launch(
        kernel, (size.blocks(prepared),), 288, shared,
        prepared["records"], compile.tensor_map(x, (tokens, 64)), y, prepared["board"], m, size.n, size.k,
        overlap=overlap,
    )  # fmt: skip
    return y
