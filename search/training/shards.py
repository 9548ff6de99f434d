"""One run in several processes: each trains on its share of every batch.

Every process runs the same program: the same weights to begin with, the same batches in the same
order, of which process r of n takes the r-th share. Gradients are averaged by
DistributedDataParallel, losses and metrics are summed over all, so that every process sees the same
numbers and takes the same decisions. Up to round-off they are those of the plain run, except where
a layer looks at the whole batch on a CPU: batch norm, and statistics over the tensor, see a share.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.parallel import DistributedDataParallel

from search.tasks.task import Split

T = TypeVar("T")
Backward = Callable[[Tensor, Tensor], Tensor]
"""`backward(inputs, targets)` of a batch: adds its gradients; the batch's mean loss, detached."""


@dataclass(frozen=True, slots=True)
class Shards:
    """Which of the processes this one is; with several, torch's process group is theirs."""

    rank: int = 0
    world: int = 1

    def part(self, batch: Tensor) -> Tensor:
        """This process's share of a batch (N, …): N / world samples, rounded up or down."""
        return batch.tensor_split(self.world)[self.rank]

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, the same in each."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def of_all(self, value: T) -> list[T]:
        """What every process has, by rank; small, as it is pickled."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            dist.barrier()

    def of_split(self, split: Split) -> Split:
        """This process's share of what is evaluated."""
        return Split(self.part(split.inputs), self.part(split.targets))

    def agree(self, model: nn.Module) -> None:
        """Give every process the first one's buffers, such as running means."""
        for buffer in model.buffers() if self.world > 1 else ():
            dist.broadcast(buffer, 0)

    def synchronised(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The model, whose batch norms see whole batches where torch can do that: on GPUs."""
        if self.world > 1 and device.type == "cuda":
            return nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return model


ALONE = Shards()


def in_parts(
    model: nn.Module,
    loss_of: Callable[[nn.Module, Tensor, Tensor], Tensor],
    scaler: GradScaler,
    shards: Shards,
    pieces: int,
) -> Backward:
    """The gradients of a batch that is split among processes, and into `pieces` one after another.

    With N samples in the batch, piece p of n_p samples counts n_p / N of its mean loss, which adds
    up to the batch's mean. DistributedDataParallel divides by the number of processes, so each
    multiplies by it. Only the last piece exchanges gradients.
    """
    # A formula may leave a parameter out, for which the others would wait.
    forward = (
        DistributedDataParallel(model, find_unused_parameters=True) if shards.world > 1 else model
    )

    def backward(inputs: Tensor, targets: Tensor) -> Tensor:
        count = len(targets)
        if count < shards.world:
            raise ValueError(f"a batch of {count} for {shards.world} processes")
        own = [shards.part(each).tensor_split(pieces) for each in (inputs, targets)]
        parts = [(x, y) for x, y in zip(*own, strict=True) if len(y)]
        total = torch.zeros((), device=targets.device)
        for number, (x, y) in enumerate(parts, 1):
            waits = isinstance(forward, DistributedDataParallel) and number < len(parts)
            with forward.no_sync() if waits else nullcontext():  # pyright: ignore[reportCallIssue]
                loss = loss_of(forward, x, y) * (len(y) / count)
                scaler.scale(loss * shards.world).backward()
            total += loss.detach()
        return shards.total(total)

    return backward
