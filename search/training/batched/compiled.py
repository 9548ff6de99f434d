"""The gradients of a batch of runs as one compiled program: the recipe's `compile: inductor`.

Forward, backward and clipping are traced to torch's operations, formulas among them, and fused by
torch.compile; the optimizer is one fused call already. Same numbers as the eager step up to
round-off. Compiling takes 7 to 20 s on a CPU and is paid for every candidate and every number of
members: for runs of minutes, not for digits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from search.errors import first_line
from search.training.batched.dropout import MemberDropout
from search.training.batched.stacked import Stacked

_LOG = logging.getLogger("search.training")

Gradients = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, list[Tensor]]]
"""`gradients(inputs, targets, weights)`: the members' losses (K,), and every stored tensor's
gradient."""


class CompileError(Exception):
    """This step cannot be compiled; the text says why."""


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
        raise CompileError(first_line(error)[:160]) from error
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


def told(error: CompileError) -> None:
    """Say in one line that a step runs as it is."""
    _LOG.warning("recipe.compile: %s; the step runs as it is", error)
