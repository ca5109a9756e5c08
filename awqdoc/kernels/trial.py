"""A backend tried in a process of its own, where it may crash, hang or compute nonsense without taking others along."""

from __future__ import annotations

import importlib
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import ModuleType

import torch

from awqdoc.kernels.table import KERNELS
from awqdoc.profiling.graphs import captured
from awqdoc.quantize import round_to_nearest

# Different inputs, and calls on each of them: a race shows in some calls only.
INPUTS = 2
CALLS = 8
# The largest relative error (Frobenius norm, against float32) that still counts as right for a peer.
LARGEST_ERROR = 1e-2
# For all M together.
MOST_SECONDS = 120.0
# A process takes seconds to start: a backend that crashes everywhere is soon given up.
MOST_CRASHES = 2
# What a line of standard output that holds a verdict looks like; libraries print there too.
VERDICT, FINE = re.compile(r"^verdict (\d+): (.*)$", re.MULTILINE), "fine"


def trial(
    backend_name: str, n: int, k: int, group_size: int, zero_points: bool, ms: Sequence[int]
) -> dict[int, str | None]:
    """Run a backend in another process, on the GPU if there is one, and say what is wrong with it.

    A random weight is prepared and, for each M, multiplied by several inputs, several times each, into memory that held
    NaN. Every result is compared with a float32 product of the dequantized weight, and with the other results of its
    input. On a GPU the call is then captured in a CUDA graph, which must compute the same when it is replayed. If the
    process crashes at some M, another goes on with the rest.

    Parameters
    ----------
    backend_name : str
        A name of `awqdoc.kernels.table.KERNELS`.
    n, k, group_size : int
        The weight's size.
    zero_points : bool
        Whether the weight has zero points; if not, it is symmetric.
    ms : sequence of int
        Batch sizes to try.

    Returns
    -------
    dict
        M -> None if all is well; else the reason why not, as a part of a sentence whose subject is the backend.
    """
    numbers = [n, k, group_size, int(zero_points)]
    verdicts: dict[int, str | None] = {}
    left, crashed = list(ms), list[int]()
    while left and len(crashed) < MOST_CRASHES:
        found, end = _process(KERNELS[backend_name].module, [*numbers, *left])
        verdicts |= found
        left = [m for m in left if m not in verdicts]
        if left:
            crashed.append(left.pop(0))
            verdicts[crashed[-1]] = end or "its process ended without a verdict"
        elif end:  # it did all that was asked, and would end ours as badly
            verdicts |= {m: reason or end for m, reason in found.items()}
    known = ", ".join(map(str, crashed))
    return verdicts | dict.fromkeys(left, f"not tried, for its process crashed or hung at M = {known}")


def _process(module: str, numbers: list[int]) -> tuple[dict[int, str | None], str | None]:
    """Let another process try some M; return its verdicts, and how it ended if it did not end well."""
    command = [sys.executable, "-m", "awqdoc.kernels.trial", module, *map(str, numbers)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=MOST_SECONDS)
    except subprocess.TimeoutExpired as late:
        return _verdicts(late.stdout or b""), f"it did not end within {MOST_SECONDS:.0f} s"
    return _verdicts(done.stdout), _crash(done.returncode, done.stderr.decode(errors="replace"))


def _verdicts(output: bytes) -> dict[int, str | None]:
    found = VERDICT.findall(output.decode(errors="replace").replace("\r\n", "\n"))
    return {int(m): None if reason == FINE else reason for m, reason in found}


def _crash(status: int, errors: str) -> str | None:
    if status == 0:
        return None
    how = signal.Signals(-status).name if status < 0 else f"status {status}"
    said = re.findall("CUDA error.*", errors) or errors.splitlines()[-1:]
    return f"its process crashed with {how}" + "".join(f" ({first_line(line)})" for line in said[:1])


def main(arguments: list[str]) -> None:
    """Try one adapter in this process: its module, N, K, group size, zero points or not, and every M."""
    module, *numbers = arguments
    n, k, group_size, zero_points, *ms = map(int, numbers)
    try:
        adapter = importlib.import_module(module)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.manual_seed(0)
        weight = round_to_nearest(torch.randn(k, n, device=device).mul_(0.02), group_size, symmetric=not zero_points)
        prepared, reference = adapter.prepare(weight), weight.dequantize().float()
    except Exception as error:
        for m in ms:
            _say(m, _told(error))
        return
    for m in ms:
        try:
            _say(m, _reason(adapter, prepared, reference, m))
        except Exception as error:
            _say(m, _told(error))


def _say(m: int, reason: str | None) -> None:
    print(f"\nverdict {m}: {reason or FINE}", flush=True)


def _told(error: Exception) -> str:
    """Make a verdict of what a library raised, unless this process can no longer use the GPU: then it ends here."""
    if "CUDA error" in str(error):
        raise error
    how = "cannot be imported" if isinstance(error, ImportError) else "failed"
    return f"it {how} ({first_line(error).rstrip('.')})"


def first_line(error: Exception | str) -> str:
    """First line of what was said, without the folders of the machine where it was said: it goes into recordings."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return re.sub(r"(?<!\w)/(?:[^\s/]+/)+", "", first)[:200]


def _reason(adapter: ModuleType, prepared: dict[str, torch.Tensor], reference: torch.Tensor, m: int) -> str | None:
    k, n = reference.shape
    for _ in range(INPUTS):
        x = torch.randn(m, k, device=reference.device).half()
        results = [_on_poison(adapter, x, prepared, n) for _ in range(CALLS)]
        reason = _wrong(results, x.float() @ reference) or _changing(results)
        if reason is None and x.is_cuda:
            reason = _not_in_a_graph(adapter, x, prepared, results[0])
        if reason is not None:
            return reason
    return None


def _on_poison(adapter: ModuleType, x: torch.Tensor, prepared: dict[str, torch.Tensor], n: int) -> torch.Tensor:
    """Call with NaN in memory just freed, which torch hands out next: what a kernel does not write stays NaN."""
    torch.full((x.shape[0], n), torch.nan, dtype=torch.float16, device=x.device)
    y: torch.Tensor = adapter.matmul(x, prepared)
    if x.is_cuda:
        torch.cuda.synchronize()  # an error of the kernel shows here
    return y


def _wrong(results: list[torch.Tensor], wanted: torch.Tensor) -> str | None:
    for y in results:
        if y.dtype != torch.float16 or y.shape != wanted.shape:
            return f"wrong: it returns {str(y.dtype).removeprefix('torch.')} {list(y.shape)}"
        error = float((y.float() - wanted).norm() / wanted.norm())
        if not error < LARGEST_ERROR:  # nan too
            return f"wrong: its relative error against float32 is {error:.2g}"
    return None


def _changing(results: list[torch.Tensor]) -> str | None:
    largest = max(float((y.float() - results[0].float()).abs().max()) for y in results)
    return f"its results change from call to call, by up to {largest:.2g}" if largest > 0 else None


def _not_in_a_graph(
    adapter: ModuleType, x: torch.Tensor, prepared: dict[str, torch.Tensor], wanted: torch.Tensor
) -> str | None:
    """Say if a replay does not compute: kernels launched on another stream than torch's are not in the graph."""
    outputs: list[torch.Tensor] = []
    replay = captured([lambda: outputs.append(adapter.matmul(x, prepared))])
    outputs[-1].fill_(torch.nan)
    replay()
    if torch.equal(outputs[-1], wanted):
        return None
    return "a replayed CUDA graph of it does not compute the same, as where a kernel is not on torch's current stream"


if __name__ == "__main__":
    main(sys.argv[1:])
