"""Several copies of one model as one program: parameters and buffers with members in dimension 0.

`torch.func.vmap` takes the forward pass of one model to that of all; the backward pass is torch's
own, outside vmap, where an operation costs what it costs in a plain loop. (Digits, ten members:
vmap around forward and backward took 1.6 times as long.)

Linear weights lie transposed in memory, (members, in, out), which is the order in which their
gradients come: the optimizer then reads and writes straight on, where it spent 0.75 of 2.3 ms in
transposing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from search.training.batched.attention import FoldedAttention
from search.training.batched.dropout import Streams, with_member_dropout
from search.training.batched.layers import chain_of, run_chain
from search.training.batched.refusing import BatchingError
from search.training.optimizers import penalties


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in a module where a member's tensor is put before the forward pass."""

    owner: dict[str, Any]
    name: str
    index: int


@dataclass(slots=True)
class Stacked:
    """K models as one. Every tensor has the members in its first dimension."""

    model: nn.Module
    """The program. It has no numbers of its own: a tensor that was not put in its place would be
    an error, never a silent share."""
    slots: list[Slot]
    stored: list[Tensor]
    """The trainable parameters as they lie in memory, contiguous."""
    transposed: list[bool]
    """Which of them lie as (K, in, out)."""
    constants: list[Tensor]
    """Frozen parameters and buffers; a forward pass may change them in place."""
    streams: Streams
    """Of the members' dropout."""
    names: list[str]
    chain: list[nn.Module] | None = None
    """The layers, where they can be computed without vmap."""
    leaves: list[Tensor] = field(default_factory=list)
    """The trainable parameters as the model sees them: views of `stored`."""
    _terms: list[Callable[[], Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._terms = penalties(self.model)
        self.chain = chain_of(self.model)
        self._show()

    def _show(self) -> None:
        """Make the leaves anew, after `stored` has changed."""
        pairs = zip(self.stored, self.transposed, strict=True)
        seen = [s.transpose(1, 2) if turned else s for s, turned in pairs]
        self.leaves = [s.detach().requires_grad_() for s in seen]

    def __call__(self, inputs: Tensor, *, shared: bool = False) -> tuple[Tensor, list[Tensor]]:
        """Outputs (K, N, …) of inputs (K, N, …), and the activations' penalties, each (K,).

        shared: the inputs are (N, …), the same for all members, and there are no penalties.
        """
        tensors = [*self.leaves, *self.constants]
        if self.chain is not None:
            self._put(tensors)
            inputs = inputs.expand(len(tensors[0]), *inputs.shape) if shared else inputs
            return run_chain(self.chain, inputs), self._penalties()
        with FoldedAttention():
            return torch.vmap(self._member, in_dims=(0, None if shared else 0))(tensors, inputs)

    def _member(self, tensors: Sequence[Tensor], inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        self._put(tensors)
        outputs = self.model(inputs)
        for slot in self.slots:
            if slot.owner[slot.name] is not tensors[slot.index]:
                raise BatchingError(
                    f"buffer {slot.name} is replaced in the forward pass; expected a change in"
                    " place (copy_)"
                )
        return outputs, self._penalties()

    def _put(self, tensors: Sequence[Tensor]) -> None:
        for slot in self.slots:
            slot.owner[slot.name] = tensors[slot.index]

    def _penalties(self) -> list[Tensor]:
        return [term() for term in self._terms] if self.model.training else []

    def gradients(self, losses: Tensor, weights: Tensor) -> list[Tensor]:
        """The gradient of each member's loss (K,) times its weight, laid out as `stored`."""
        found = torch.autograd.grad(losses, self.leaves, weights)
        pairs = zip(found, self.transposed, strict=True)
        return [(g.transpose(1, 2) if turned else g).contiguous() for g, turned in pairs]

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Buffers that change within the block are as before after it."""
        before = [(tensor, tensor.clone()) for tensor in self.constants]
        yield
        for tensor, value in before:
            tensor.copy_(value)

    def leave_out_unused(self, losses: Tensor) -> None:
        """Parameters that have no part in the losses are constants, as optimizers skip them."""
        ones = torch.ones_like(losses)
        found = torch.autograd.grad(losses, self.leaves, ones, allow_unused=True)
        used = [k for k, gradient in enumerate(found) if gradient is not None]
        unused = [k for k, gradient in enumerate(found) if gradient is None]
        fixed = range(len(self.leaves), len(self.leaves) + len(self.constants))
        place = {old: new for new, old in enumerate([*used, *unused, *fixed])}
        leaves = [self.leaves[k].detach() for k in unused]
        self.slots = [Slot(slot.owner, slot.name, place[slot.index]) for slot in self.slots]
        self.constants = [*leaves, *self.constants]
        self.names = [self.names[k] for k in used]
        self.stored = [self.stored[k] for k in used]
        self.transposed = [self.transposed[k] for k in used]
        self._show()

    def keep(self, index: Tensor) -> None:
        """Go on with some members: compact every tensor."""
        self.stored = [tensor[index] for tensor in self.stored]
        self.constants = [tensor[index] for tensor in self.constants]
        self.streams.keep(index.tolist())
        self._show()


def stack_models(
    models: Sequence[nn.Module], seeds: Sequence[int], device: torch.device
) -> Stacked:
    """K models of one architecture as one; the first of them becomes the program.

    seeds: of the members' dropout streams.

    Raises:
        BatchingError: parameters of several dtypes.
    """
    model = models[0]
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    if len({model.get_parameter(name).dtype for name in trainable}) > 1:
        raise BatchingError("its parameters are of several dtypes")
    turned = _linear_weights(model)
    fixed = [name for name, _ in _tensors(model) if name not in set(trainable)]
    by_model = [dict(_tensors(each)) for each in models]
    stored = [_stack([m[name] for m in by_model], name in turned) for name in trainable]
    constants = [_stack([m[name] for m in by_model], False) for name in fixed]
    index = {name: k for k, name in enumerate([*trainable, *fixed])}
    streams = Streams(list(seeds), device)
    model = with_member_dropout(model, streams).to("meta")
    return Stacked(
        model=model,
        slots=_slots(model, index),
        stored=stored,
        transposed=[name in turned for name in trainable],
        constants=constants,
        streams=streams,
        names=trainable,
    )


def _stack(tensors: Sequence[Tensor], turned: bool) -> Tensor:
    """(K, …) in memory of its own; a model that stands for several members stands there often."""
    return torch.stack([t.detach().t() if turned else t.detach() for t in tensors])


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers by name, a shared one under its first name."""
    yield from model.named_parameters()
    yield from model.named_buffers()


def _linear_weights(model: nn.Module) -> set[str]:
    """Names of the matrices whose gradients come transposed."""
    names = {id(p): name for name, p in model.named_parameters()}
    linear = (module.weight for module in model.modules() if type(module) is nn.Linear)
    embedded = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    return {names[id(weight)] for weight in linear if id(weight) not in embedded}


def _slots(model: nn.Module, index: dict[str, int]) -> list[Slot]:
    """Every place of every parameter and buffer, shared ones included."""
    owners = dict(model.named_modules())
    first: dict[int, str] = {id(tensor): name for name, tensor in reversed(list(_tensors(model)))}
    slots = []
    for module in owners.values():
        for owner in (module._parameters, module._buffers):
            for name, tensor in owner.items():
                if tensor is not None:
                    slots.append(Slot(owner, name, index[first[id(tensor)]]))
    return slots
