"""Why a model cannot be batched, by the layer that was the reason."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from search.errors import first_line


class BatchingError(Exception):
    """This model cannot be trained in a batch; the text names the layer."""


@contextmanager
def naming_layers(model: nn.Module) -> Iterator[None]:
    """Turns an error of a forward or backward pass into a BatchingError that names the layer.

    The layer entered last is the one that failed in the forward pass, as errors are raised there.
    """
    entered: list[str] = []
    named = {id(module): name for name, module in model.named_modules()}

    def note(module: nn.Module, _: object) -> None:
        entered[:] = [f"{named[id(module)] or 'the model'} ({type(module).__name__})"]

    hooks = [module.register_forward_pre_hook(note) for module in model.modules()]
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except BatchingError:
        raise
    except Exception as error:
        layer = entered[0] if entered else "the model"
        raise BatchingError(f"layer {layer}: {_words_of(error)}") from error
    finally:
        for hook in hooks:
            hook.remove()


def _words_of(error: Exception) -> str:
    """Its own words, less those with which torch asks to be told of it."""
    if "data-dependent control flow" in str(error):
        return "data-dependent control flow (a choice by a tensor's value); expected torch.where"
    words = first_line(error)
    return words if len(words) <= 160 else words[:159] + "…"
