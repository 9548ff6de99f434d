"""The training step as one compiled program, where the recipe's `compile` says so.

    inductor     forward, backward and clipping of a batch of runs, traced to torch's operations
                 (formulas among them) and fused by torch.compile; the optimizer is one fused call
                 already
    cudagraphs   the whole step, optimizer included, recorded on a GPU and launched at once: no
                 compiler, a few milliseconds; small models wait for Python otherwise

Same numbers as the eager step up to round-off. Compiling takes 7 to 20 s on a CPU and is paid for
every candidate and every number of members: for runs of minutes, not for digits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from search.training.member_dropout import MemberDropout
from search.training.stacked import Stacked

_LOG = logging.getLogger("search.training")

Gradients = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, list[Tensor]]]
"""`gradients(inputs, targets, weights)`: the members' losses (K,), and every stored tensor's
gradient."""

WARM_UP = 3
"""Steps that run as they are before one is recorded: kernels are built and proven, and the
optimizer makes its state."""


class CompileError(Exception):
    """This step cannot be compiled; the text says why."""


# --- Inductor ------------------------------------------------------------------------------------


def traced(
    stacked: Stacked, gradients: Gradients, example: Sequence[Tensor], backend: str = "inductor"
) -> Gradients:
    """`gradients` as one program for tensors like the example's, compiled now.

    The trace is of fake tensors: what depends on values cannot be in it, and is refused.
    backend: of torch.compile.

    Raises:
        CompileError: it cannot be traced or compiled.
    """
    for name, module in stacked.model.named_modules():
        if isinstance(module, MemberDropout) and module.p:
            raise CompileError(
                f"layer {name} (Dropout): each member draws from a stream of its own"
            )

    def pure(leaves: list[Tensor], constants: list[Tensor], *data: Tensor):
        with _holding(stacked, leaves, constants), torch.enable_grad():
            return gradients(data[0], data[1], data[2])

    from torch.fx.experimental.proxy_tensor import make_fx  # 0.3 s, for who compiles alone

    try:
        graph = make_fx(pure, tracing_mode="fake")(stacked.leaves, stacked.constants, *example)
        program = torch.compile(graph, dynamic=False, fullgraph=True, backend=backend)

        def run(inputs: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, list[Tensor]]:
            leaves = [leaf.detach() for leaf in stacked.leaves]
            with torch.no_grad():
                return program(leaves, stacked.constants, inputs, targets, weights)

        with stacked.untouched():
            run(*example)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise CompileError(first_line(error)) from error
    return run


@contextmanager
def _holding(stacked: Stacked, leaves: list[Tensor], constants: list[Tensor]) -> Iterator[None]:
    """The program with other tensors in place of its own."""
    before = stacked.leaves, stacked.constants
    stacked.leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    stacked.constants = list(constants)
    try:
        yield
    finally:
        stacked.leaves, stacked.constants = before


def first_line(error: BaseException) -> str:
    """The error in one line."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:160]


def told(error: CompileError) -> None:
    """Say in one line that a step runs as it is."""
    _LOG.warning("recipe.compile: %s; the step runs as it is", error)


# --- CUDA graphs ---------------------------------------------------------------------------------

Step = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`step(inputs, targets, factor)`: one whole training step in place; the losses before it."""


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
