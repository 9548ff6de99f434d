"""Putting an activation into a model somebody else wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from search.errors import TaskError

Kinds = type[nn.Module] | tuple[type[nn.Module], ...]


class CallSites(nn.Module):
    """One activation for each call of a module that a model calls several times in a forward.

    torchvision's residual blocks call one ReLU two or three times, on tensors of different width:
    each call gets parameters of its own. The model's forward starts the count again.
    """

    def __init__(self, activations: list[nn.Module]):
        super().__init__()
        self.sites = nn.ModuleList(activations)
        self.call = 0

    def forward(self, x: Tensor) -> Tensor:
        site = self.sites[self.call % len(self.sites)]
        self.call += 1
        return site(x)


def replace_activations(
    model: nn.Module,
    old: Kinds,
    make_activation: Callable[[], nn.Module],
    example: Tensor | None = None,
) -> int:
    """Put a fresh activation in the place of every `old` module, in place; returns their number.

    A module that stands at several places, or is called several times in a forward, is one site
    with one set of parameters, as its weights would be. With an `example` input the calls are
    counted in one forward (in evaluation mode, without gradient), and every call becomes a site of
    its own.

    Raises TaskError when the model has no `old` module.
    """
    calls = _count_calls(model, old, example) if example is not None else Counter()
    replaced: dict[nn.Module, nn.Module] = {}
    sites = 0
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if not isinstance(child, old):
                continue
            if child not in replaced:
                n = max(1, calls[child])
                fresh = [make_activation() for _ in range(n)]
                replaced[child] = fresh[0] if n == 1 else CallSites(fresh)
                sites += n
            parent._modules[name] = replaced[child]
    if not replaced:
        kinds = old if isinstance(old, tuple) else (old,)
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise TaskError(f"{type(model).__name__}: has no {wanted} to replace")
    if any(isinstance(site, CallSites) for site in replaced.values()):
        model.register_forward_pre_hook(_restart)
    return sites


def _restart(model: nn.Module, inputs: Any) -> None:
    for module in model.modules():
        if isinstance(module, CallSites):
            module.call = 0


def _count_calls(model: nn.Module, old: Kinds, example: Tensor) -> Counter[nn.Module]:
    calls: Counter[nn.Module] = Counter()
    hooks = [
        module.register_forward_hook(lambda module, inputs, output: calls.update([module]))
        for module in model.modules()
        if isinstance(module, old)
    ]
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    with torch.no_grad():
        model(example)
    for module, mode in training:
        module.training = mode
    for hook in hooks:
        hook.remove()
    return calls
