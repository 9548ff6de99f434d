"""Where a plain run stands: all that its next step depends on, and how that is written down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from search.records import Point, Run, RunState, ended_run
from search.training.checkpoints import State
from search.training.streams import AUGMENTATION, ORDER, generator


@dataclass(slots=True)
class PlainRun:
    """One run on its way.

    Weights follow from the seed, the schedule and the layers' noise from the step; what remains is
    here. Within an epoch, `order` has drawn its permutation from the state `began`, `losses` says
    how far the epoch is, and torch's own generators stand where the layers left them.
    """

    learning_rate: float
    seed: int
    model: nn.Module
    optimizer: Optimizer
    scaler: GradScaler
    device: torch.device
    order: torch.Generator = field(init=False)
    draws: torch.Generator = field(init=False)
    step: int = 0
    """Steps of the epochs that have ended."""
    losses: list[float] = field(default_factory=list)
    """Of the steps of the epoch under way."""
    curve: list[Point] = field(default_factory=list)
    seconds: float = 0.0
    began: Tensor | None = None
    """The state of `order` when the epoch under way began; None between two epochs."""
    noise: list[Tensor] = field(default_factory=list)
    """States of torch's own generators with which the epoch goes on, after a restart."""

    def __post_init__(self) -> None:
        self.order, self.draws = generator(self.seed, ORDER), generator(self.seed, AUGMENTATION)

    def begin_epoch(self) -> None:
        """Within the epoch's own seeding: take up a run that was left in its middle."""
        if self.noise:
            torch.set_rng_state(self.noise[0])
            for state in self.noise[1:]:
                torch.cuda.set_rng_state(state, self.device)
            self.noise = []
        self.began = self.order.get_state()

    def end_epoch(self, point: Point) -> None:
        """The epoch has been evaluated."""
        self.curve.append(point)
        self.losses, self.began = [], None

    def run(self, state: RunState, reason: str = "", test: float | None = None) -> Run:
        """Its record, when it ends so."""
        key, steps = (self.learning_rate, self.seed), self.step + len(self.losses)
        return ended_run(key, state, reason, self.curve, steps, self.seconds, test)

    # --- checkpoints -----------------------------------------------------------------------------

    def state(self) -> State:
        """All of it, between two steps."""
        return {
            "tensors": dict(tensors(self.model)),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "order": self.order.get_state() if self.began is None else self.began,
            "draws": self.draws.get_state(),
            "noise": [] if self.began is None else _noise(self.device),
            "step": self.step,
            "losses": list(self.losses),
            "curve": [list(astuple(point)) for point in self.curve],
            "seconds": self.seconds,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Stand where the state was written; raises what a state of another model leads to."""
        put(dict(tensors(self.model)), state["tensors"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.order.set_state(state["order"])
        self.draws.set_state(state["draws"])
        self.noise, self.losses = list(state["noise"]), list(state["losses"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.curve = [Point(*point) for point in state["curve"]]


def tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers, the ones that no state dict has included."""
    return [*model.named_parameters(), *model.named_buffers()]


@torch.no_grad()
def put(places: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Copy values into the tensors of the same names.

    Raises:
        ValueError: other names or shapes.
    """
    if {name: tensor.shape for name, tensor in places.items()} != {
        name: value.shape for name, value in values.items()
    }:
        raise ValueError("it is of another model")
    for name, tensor in places.items():
        tensor.copy_(values[name])


def _noise(device: torch.device) -> list[Tensor]:
    own = [torch.get_rng_state()]
    return own if device.type != "cuda" else [*own, torch.cuda.get_rng_state(device)]
