"""Forward and backward passes recorded once for each shape of pack and replayed (CUDA graphs).

A small model's pass is a few thousand short kernels, and asking for them takes the host longer than running them takes
the GPU. A replay asks once. What is recorded must not wait for the device and reads its inputs where they lay.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Graphs", "Pass"]

Pass = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
"""Inputs by name -> loss terms by name; gradients are added to the weights' own."""

WARMUP = 2
"""Passes before recording, in which kernels are chosen and memory is laid out."""


@dataclass(frozen=True, slots=True, eq=False)
class _Recording:
    graph: torch.cuda.CUDAGraph
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


class Graphs:
    """The recordings of a trainer; their intermediates share one pool of memory."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give the weights gradients of zeros: recorded passes add to these, so they must stay where they are."""
        self._parameters = [p for p in parameters if p.requires_grad]
        for parameter in self._parameters:
            parameter.grad = torch.zeros_like(parameter)
        self._recordings: dict[Hashable, _Recording] = {}
        self._pool: Any = None

    def run(self, key: Hashable, compute: Pass, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What `compute` does and gives, by way of a recording.

        Args:
            key: of everything but the inputs' values: passes of one key must be the same kernels.
            compute: reads nothing that changes but its inputs and the weights.
        """
        recording = self._recordings.get(key)
        if recording is None:
            recording = self._recordings[key] = self._record(compute, inputs)
        for name, value in inputs.items():
            recording.inputs[name].copy_(value, non_blocking=True)
        recording.graph.replay()
        return {name: value.clone() for name, value in recording.outputs.items()}

    def zero(self) -> None:
        """Set all gradients to zero, in place."""
        torch._foreach_zero_(self._gradients())

    def _gradients(self) -> list[Tensor]:
        return [p.grad for p in self._parameters if p.grad is not None]

    def _record(self, compute: Pass, inputs: Mapping[str, Tensor]) -> _Recording:
        held = {name: value.clone() for name, value in inputs.items()}
        # What warming up adds is taken away again.
        before = [gradient.clone() for gradient in self._gradients()]
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARMUP):
                compute(held)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Of this thread alone: the data loader's pins memory meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            outputs = compute(held)
        self._pool = graph.pool()
        torch._foreach_copy_(self._gradients(), before)
        return _Recording(graph, held, outputs)
