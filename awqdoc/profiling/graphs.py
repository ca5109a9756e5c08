"""CUDA graphs: calls captured once, replayed without Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Call = Callable[[], object]


def captured(calls: Sequence[Call]) -> Callable[[], None]:
    """Return the replay of a CUDA graph of calls, each of which has been called before."""
    import torch

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        calls[0]()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    graph.replay()
    return graph.replay
