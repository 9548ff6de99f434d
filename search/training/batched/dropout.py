"""Dropout for members of a batch: each draws from a stream of its own.

On the CPU the draws are those of the member's plain run, bit for bit; on a GPU, where torch fuses
its dropout, they follow the same distribution. A stream of its own keeps a member's draws the
same when others leave.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from search.training.streams import LAYERS, stream_seed

_FEATURES = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
"""Layers that drop whole channels."""
_DROPOUT = (nn.Dropout, *_FEATURES)


class Streams:
    """One generator a member."""

    def __init__(self, seeds: Sequence[int], device: torch.device):
        self.seeds = list(seeds)
        self.generators = [torch.Generator(device) for _ in seeds]

    def seed(self, step: int) -> None:
        """Begin an epoch, as a plain run does."""
        for seed, generator in zip(self.seeds, self.generators, strict=True):
            generator.manual_seed(stream_seed(seed, LAYERS, step))

    def keep(self, index: Sequence[int]) -> None:
        """Go on with some members."""
        self.seeds = [self.seeds[k] for k in index]
        self.generators = [self.generators[k] for k in index]


class MemberDropout(nn.Module):
    """x · b / (1 - p) with b of Bernoulli(1 - p), drawn member by member."""

    def __init__(self, p: float, streams: Streams, features: bool):
        super().__init__()
        self.p = p
        self.streams = streams
        self.features = features

    def forward(self, x: Tensor) -> Tensor:
        """The shape of x."""
        if not self.training or not self.p:
            return x
        return x * _Noise.apply(x.detach(), self)

    def of_members(self, x: Tensor) -> Tensor:
        """The same for (K, …) outside vmap."""
        return x * self.noise(x.detach()) if self.training and self.p else x

    def noise(self, x: Tensor) -> Tensor:
        """The factors of x (K, …)."""
        like = x[(..., *(slice(1),) * (x.ndim - 3))] if self.features else x
        draws = [
            torch.empty_like(one).bernoulli_(1 - self.p, generator=generator)
            for one, generator in zip(like, self.streams.generators, strict=True)
        ]
        noise = torch.stack(draws)
        return noise.div_(1 - self.p) if self.p < 1 else noise


class _Noise(torch.autograd.Function):
    """Factors for x; only ever called under vmap, which hands over all members at once."""

    @staticmethod
    def forward(x: Tensor, layer: MemberDropout) -> Tensor:
        raise RuntimeError("dropout of members outside a batch")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        return None

    @staticmethod
    def vmap(
        info: Any, in_dims: Sequence[Any], x: Tensor, layer: MemberDropout
    ) -> tuple[Tensor, int]:
        return layer.noise(x.movedim(in_dims[0], 0)), 0


def with_member_dropout(model: nn.Module, streams: Streams) -> nn.Module:
    """The model with its dropout layers replaced, in place."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, _DROPOUT):
                features = isinstance(child, _FEATURES)
                setattr(module, name, MemberDropout(child.p, streams, features))
    return model
