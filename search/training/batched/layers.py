"""Layers of members computed directly, in place of vmap: x (K, N, …), parameters (K, …).

For a chain of the layers in the table. A step of ten digits MLPs spends 1.1 ms in vmap's forward
pass, of which 0.2 is arithmetic. One of ten digits CNNs takes 3.6 ms of processor time where vmap
took 7.2: from convolution to normalisation the members stay beside each other as channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search.activation import Activation
from search.kernels.abreast import apply_abreast
from search.tasks.models.normalise import Normalise
from search.training.batched.dropout import MemberDropout


def chain_of(model: nn.Module) -> list[nn.Module] | None:
    """The layers of a plain chain, or None when the model is another thing."""
    if type(model) is not nn.Sequential:
        return [model] if type(model) in LAYERS and _plain(model) else None
    found: list[nn.Module] = []
    for child in model:
        below = chain_of(child)
        if below is None:
            return None
        found += below
    return found


def _plain(module: nn.Module) -> bool:
    """Whether calling the layer would be no more than its own forward pass."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    pair = isinstance(module, Activation) and len(module.expression.inputs) > 1
    averaged = isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) and module.momentum is None
    other = isinstance(module, nn.Conv2d) and module.padding_mode != "zeros"
    other |= isinstance(module, nn.MaxPool2d) and module.return_indices
    return not (any(hooks) or pair or averaged or other)


def run_chain(layers: list[nn.Module], x: Tensor) -> Tensor:
    """(K, N, …) through all layers."""
    for layer in layers:
        x = LAYERS[type(layer)](layer, x)
    return x


def _flatten(layer: nn.Flatten, x: Tensor) -> Tensor:
    first, last = layer.start_dim, layer.end_dim
    return x.flatten(first + 1 if first >= 0 else first, last + 1 if last >= 0 else last)


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """x W, with W (K, in, out) as it lies in memory."""
    rows = x.flatten(1, -2) if x.ndim != 3 else x
    weight = layer.weight.transpose(1, 2)
    if layer.bias is None:
        y = torch.bmm(rows, weight)
    else:
        y = torch.baddbmm(layer.bias.unsqueeze(1), rows, weight)
    return y if x.ndim == 3 else y.view(*x.shape[:-1], -1)


def _activation(layer: Activation, x: Tensor) -> Tensor:
    channel_dim = layer._channel_dim(x.detach()[0])
    parameters = [layer._parameters[p.name] for p in layer.expression.trainable]
    assert all(p is not None for p in parameters)
    own: list[Any] = parameters
    if layer._penalty_formula is not None and layer.training and torch.is_grad_enabled():
        value = apply_abreast(layer._penalty_formula, x, own, channel_dim)
        layer._penalty = value.float().flatten(1).mean(1)
    return apply_abreast(layer._formula, x, own, channel_dim)


def _layer_norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    y = F.layer_norm(x, layer.normalized_shape, eps=layer.eps)
    before = (len(x), *(1,) * (x.ndim - 1 - len(layer.normalized_shape)))
    if layer.weight is not None:
        y = y * layer.weight.view(*before, *layer.normalized_shape)
    return y if layer.bias is None else y + layer.bias.view(*before, *layer.normalized_shape)


def _flat(tensor: Tensor | None) -> Tensor | None:
    """(K, C, …) as (K · C, …)."""
    return None if tensor is None else tensor.flatten(0, 1)


def _beside(x: Tensor) -> Tensor:
    """(K, N, C, …) as (N, K · C, …): members as further channels, a view of what was made so."""
    return x.transpose(0, 1).flatten(1, 2)


def _apart(y: Tensor, members: int) -> Tensor:
    """(N, K · C, …) as (K, N, C, …), in the same memory."""
    return y.unflatten(1, (members, -1)).transpose(0, 1)


def _batch_norm(layer: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor) -> Tensor:
    if layer.training and layer.num_batches_tracked is not None:
        layer.num_batches_tracked.add_(1)
    y = F.batch_norm(
        _beside(x),
        _flat(layer.running_mean),
        _flat(layer.running_var),
        _flat(layer.weight),
        _flat(layer.bias),
        layer.training or layer.running_mean is None,
        layer.momentum or 0.0,
        layer.eps,
    )
    return _apart(y, len(x))


def _conv(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Every member a group of its own."""
    y = F.conv2d(
        _beside(x),
        layer.weight.flatten(0, 1),
        _flat(layer.bias),
        layer.stride,
        layer.padding,
        layer.dilation,
        len(x) * layer.groups,
    )
    return _apart(y, len(x))


def _max_pool(layer: nn.MaxPool2d, x: Tensor) -> Tensor:
    size = layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode
    return _apart(F.max_pool2d(_beside(x), *size), len(x))


def _dropout(layer: MemberDropout, x: Tensor) -> Tensor:
    return layer.of_members(x)


def _normalise(layer: Normalise, x: Tensor) -> Tensor:
    return (x.to(layer.mean.dtype) - layer.mean.unsqueeze(1)) / layer.std.unsqueeze(1)


LAYERS: dict[type[nn.Module], Callable[[Any, Tensor], Tensor]] = {
    nn.Flatten: _flatten,
    nn.Linear: _linear,
    Activation: _activation,
    nn.LayerNorm: _layer_norm,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.Conv2d: _conv,
    nn.MaxPool2d: _max_pool,
    MemberDropout: _dropout,
    Normalise: _normalise,
    nn.Identity: lambda layer, x: x,
}
