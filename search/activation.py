"""An expression as a torch module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from search.errors import TaskError
from search.kernels.formula import load_formula
from search.kernels.operators import apply_formula
from search.kernels.program import penalty_expression
from search.language.catalog import read_activation
from search.language.expression import Expression


class Activation(nn.Module):
    """`y = f(x)`, or `y = f(x, u)` for a gated pair, with the formula's parameters trainable.

    expression: a formula, a catalogue name, or a parsed expression.
    channels: the number of per-channel values; left out, it is read off the first input.
    channel_dim: the dimension of the channels, and of statistics over features; left out, 1 for
        inputs of four or five dimensions (N, C, H, W[, D]), the last otherwise.
    kernel: what computes it: "auto" (C on the CPU where a compiler is at hand, Triton on a GPU once
        proven there), "torch", "c", "triton", or "composed" (torch's operations and autograd, as
        one would write it by hand).

    The trainable parameters are the module's own, named as declared: shape () per layer,
    (channels,) per channel. Input and output share shape, dtype and device; 16-bit inputs are
    computed in float32.

    >>> Activation("x * sigmoid(b * x) where b = 1 per channel", channels=3)
    Activation('x * sigmoid(b * x) where b = 1 per channel')
    """

    is_activation = True
    """Its parameters get no weight decay unless asked, and its penalty joins the loss."""

    def __init__(
        self,
        expression: str | Expression,
        channels: int | None = None,
        channel_dim: int | None = None,
        kernel: str = "auto",
    ):
        super().__init__()
        if isinstance(expression, str):
            expression = read_activation(expression)
        self.expression = expression
        self.channel_dim = channel_dim
        self.kernel = kernel
        for p in expression.trainable:
            setattr(self, p.name, _parameter(p.scope, p.initial, channels))
        self._penalty: Tensor | None = None
        self._load()

    def _load(self) -> None:
        # Read here: Python 3.11 caches a property under a lock, which torch 2.11 cannot trace.
        self._inputs = self.expression.inputs
        self._formula = load_formula(self.expression, self.kernel)
        penalty = penalty_expression(self.expression)
        self._penalty_formula = load_formula(penalty, self.kernel) if penalty else None

    def forward(self, x: Tensor, u: Tensor | None = None) -> Tensor:
        self._check(x, u)
        channel_dim = self._channel_dim(x)
        if self.has_uninitialized():
            self._materialize(x.shape[channel_dim], x.device)
        inputs = (x,) if u is None else (x, u)
        parameters = [self._broadcastable(p.name, channel_dim) for p in self.expression.trainable]
        if self._penalty_formula is not None and self.training and torch.is_grad_enabled():
            read = dict(zip(self._inputs, inputs, strict=True))
            used = [read[name] for name in self._penalty_formula.expression.inputs]
            value = apply_formula(self._penalty_formula, used, parameters, channel_dim)
            self._penalty = value.float().mean()
        try:
            return apply_formula(self._formula, inputs, parameters, channel_dim)
        except RuntimeError as error:
            if problem := self._mismatch(inputs, channel_dim):
                raise TaskError(f"{self}: {problem}") from error
            raise

    def _mismatch(self, inputs: tuple[Tensor, ...], channel_dim: int) -> str:
        """Which tensor does not fit the input, in words; empty when all do."""
        x = inputs[0]
        values = dict(zip(self._inputs, inputs, strict=True))
        for name, value in (values | dict(self.named_parameters())).items():
            if value.device != x.device:
                return f"{name} is on {value.device}, x on {x.device}"
            if name in values and value.shape != x.shape:
                return f"{name} has shape {tuple(value.shape)}, x {tuple(x.shape)}"
            if name not in values and value.ndim and value.numel() != x.shape[channel_dim]:
                wanted = f"x has {x.shape[channel_dim]} in dimension {channel_dim}"
                return f"{name} has {value.numel()} channels, {wanted} of {tuple(x.shape)}"
        return ""

    def penalty(self) -> Tensor:
        """The formula's penalty of the last training forward, a scalar; zero if it has none.

        Taken once: the graph it holds is let go.
        """
        value, self._penalty = self._penalty, None
        return torch.zeros(()) if value is None else value

    def has_uninitialized(self) -> bool:
        """Whether per-channel parameters still wait for the first input."""
        return any(isinstance(p, UninitializedParameter) for p in self._parameters.values())

    def _check(self, x: Tensor, u: Tensor | None) -> None:
        if (u is not None) != (len(self._inputs) == 2):
            expected, got = " and ".join(self._inputs), "x" if u is None else "x and u"
            raise TaskError(f"{self}: expects {expected}, got {got}")
        if not x.dtype.is_floating_point:
            raise TaskError(f"{self}: expects a floating-point tensor, got {x.dtype}")

    def _channel_dim(self, x: Tensor) -> int:
        """Negative, so that it stays right under vmap."""
        if self.channel_dim is None:
            return 1 - x.ndim if x.ndim in (4, 5) else -1
        if not -x.ndim <= self.channel_dim < x.ndim:
            raise TaskError(f"{self}: channel_dim {self.channel_dim} of a {x.ndim}-d input")
        return self.channel_dim - x.ndim if self.channel_dim >= 0 else self.channel_dim

    def _broadcastable(self, name: str, channel_dim: int) -> Tensor:
        parameter = getattr(self, name)
        if parameter.ndim == 0 or channel_dim == -1:
            return parameter
        return parameter.view(-1, *(1,) * (-channel_dim - 1))

    def _materialize(self, channels: int, device: torch.device) -> None:
        for p in self.expression.trainable:
            parameter = self._parameters[p.name]
            if isinstance(parameter, UninitializedParameter):
                dtype = torch.get_default_dtype()
                parameter.materialize((channels,), device=device, dtype=dtype)
                nn.init.constant_(parameter, p.initial)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **options: Any
    ) -> None:
        for name, parameter in self._parameters.items():
            stored = state_dict.get(prefix + name)
            if isinstance(parameter, UninitializedParameter) and isinstance(stored, Tensor):
                parameter.materialize(stored.shape, dtype=stored.dtype)
        super()._load_from_state_dict(state_dict, prefix, *args, **options)

    def __getstate__(self) -> dict[str, Any]:
        dropped = ("_inputs", "_formula", "_penalty_formula", "_penalty")
        return {key: value for key, value in self.__dict__.items() if key not in dropped}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._penalty = None
        self._load()

    def __repr__(self) -> str:
        return f"Activation('{self.expression}')"


def _parameter(
    scope: str, initial: float, channels: int | None
) -> nn.Parameter | UninitializedParameter:
    if scope == "layer":
        return nn.Parameter(torch.tensor(initial, dtype=torch.get_default_dtype()))
    if channels is None:
        return UninitializedParameter()
    return nn.Parameter(torch.full((channels,), initial, dtype=torch.get_default_dtype()))
