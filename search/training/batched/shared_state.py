"""State that members of a batch would share: what a forward pass changes besides its buffers.

A buffer is each member's own. An attribute of a module, or a global of the file that defines it, is
one for all members, and would be changed once where their plain runs change it K times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from search.training.batched.refusing import BatchingError

_OWN = frozenset(nn.Module().__dict__)
"""Attributes of every module: parameters, buffers, hooks, the mode."""
_TRUSTED = ("torch", "torchvision", "search", "builtins")
"""Packages whose modules keep their state in buffers."""


@contextmanager
def refusing_shared_state(model: nn.Module, *functions: Callable[..., Any]) -> Iterator[None]:
    """Raises BatchingError when the block changes an attribute of one of the user's modules, or a
    global of their files or of the functions'; it is set back."""
    places = [*_attributes(model), *_globals(model, functions)]
    before = [{key: (value, _size(value)) for key, value in held.items()} for _, held in places]
    yield
    for (words, held), kept in zip(places, before, strict=True):
        names = [key for key in held if key not in _OWN and _changed(held[key], kept.get(key))]
        for key in names:
            held.update({key: kept[key][0]} if key in kept else {})
            raise BatchingError(
                f"{words} changes '{key}' in the forward pass, which is one for all runs; expected"
                " a buffer (register_buffer)"
            )


def _attributes(model: nn.Module) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, module in model.named_modules():
        if not _trusted(type(module).__module__):
            yield f"layer {name or 'the model'} ({type(module).__name__})", vars(module)


def _globals(
    model: nn.Module, functions: tuple[Callable[..., Any], ...]
) -> Iterator[tuple[str, dict[str, Any]]]:
    forwards = [type(module).forward for module in model.modules()]
    found = {id(f.__globals__): f for f in (*forwards, *functions) if hasattr(f, "__globals__")}
    for function in found.values():
        if not _trusted(function.__module__):
            yield f"the file of {function.__qualname__}", function.__globals__


def _trusted(module: str) -> bool:
    return module.partition(".")[0] in _TRUSTED


def _size(value: Any) -> int | None:
    """Of a list, dictionary or set, which may grow in place."""
    return len(value) if isinstance(value, list | dict | set) else None


def _changed(value: Any, kept: tuple[Any, int | None] | None) -> bool:
    if kept is None:
        return True
    old, size = kept
    if value is old:
        return _size(value) != size
    plain = isinstance(value, bool | int | float | str) and type(value) is type(old)
    return not (plain and value == old)
