"""The whole training step recorded on a GPU, optimizer included, and launched at once.

No compiler, a few milliseconds; small models wait for Python otherwise. The recipe's
`compile: cudagraphs`; same numbers as the eager step up to round-off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Step = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`step(inputs, targets, factor)`: one whole training step in place; the losses before it.
The factor is on the rates, or the rate itself."""

WARM_UP = 3
"""Steps that run as they are before one is recorded: kernels are built and proven, and the
optimizer makes its state."""


class Recorded:
    """A step that is recorded as a CUDA graph after a few calls, and replayed from then on.

    Tensors are copied into the recording's own. The first calls are steps like all others, beside
    the current stream, as torch asks of what is recorded next.
    """

    def __init__(self, step: Step, generators: Sequence[torch.Generator] = ()):
        self.step, self.generators = step, generators
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.tensors: list[Tensor] = []
        self.losses = torch.empty(0)

    def __call__(self, inputs: Tensor, targets: Tensor, factor: float) -> Tensor:
        """The losses before the step, in memory of their own."""
        self.calls += 1
        if self.graph is None:
            now = torch.full((), factor, device=inputs.device)
            if self.calls <= WARM_UP:
                return self._aside(inputs, targets, now)
            self._record(inputs, targets, now)
        assert self.graph is not None
        for kept, new in zip(self.tensors, (inputs, targets), strict=False):
            kept.copy_(new)
        self.tensors[2].fill_(factor)
        self.graph.replay()
        return self.losses.clone()

    def _aside(self, *tensors: Tensor) -> Tensor:
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            losses = self.step(*tensors)
        torch.cuda.current_stream().wait_stream(beside)
        return losses

    def _record(self, *tensors: Tensor) -> None:
        """Nothing is computed yet: recording notes the kernels and their memory."""
        self.tensors = [tensor.clone() for tensor in tensors]
        graph = torch.cuda.CUDAGraph()
        for generator in self.generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph):
            self.losses = self.step(*self.tensors)
        self.graph = graph
