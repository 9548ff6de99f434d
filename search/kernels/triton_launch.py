"""Launches of Triton kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from search.kernels.triton_build import OPTIONS, REGISTERS, asked, capped


@dataclass(frozen=True, slots=True)
class Launcher:
    """Launches kernels; a signature seen before goes past Triton's own look-up."""

    _compiled: dict[tuple[Any, ...], Any] = field(default_factory=dict, repr=False)
    """A signature's kernel and its constants."""

    def __call__(
        self,
        kernel: Any,
        grid: tuple[int, ...],
        arguments: Sequence[Tensor | int | None],
        constants: tuple[int, ...],
        warps: int = 4,
        layout: str = "",
        instead: tuple[Any, tuple[int, ...]] | None = None,
    ) -> None:
        """Launch on the current device; `constants` are the kernel's last arguments.

        A kernel that takes more registers than its layout should (see `capped`) is compiled and
        launched once more: it writes the same results again. `instead` is a form of the kernel
        that takes fewer, and its constants.
        """
        signature = (kernel, warps, constants, *map(_specialization, arguments))
        found = self._compiled.get(signature)
        if found is not None:
            compiled, constants = found
            compiled[(*grid, 1, 1)[:3]](*arguments, *constants)
            return
        hip, options = bool(torch.version.hip), OPTIONS | {"num_warps": warps}
        first = capped(registers, hip) if (registers := asked(kernel, hip)) else {}
        compiled = kernel[grid](*arguments, *constants, **options, **first)
        if compiled is None:  # the interpreter compiles nothing
            return
        if first and compiled.n_spills:
            compiled = kernel[grid](*arguments, *constants, **options)
        registers = REGISTERS.get(layout, 0)
        found = compiled, constants
        for form, given in ((kernel, constants), *([instead] if instead else [])):
            if registers and (found[0].n_regs or 0) > registers:
                again = form[grid](*arguments, *given, **options, **capped(registers, hip))
                found = found if again.n_spills else (again, given)
        self._compiled[signature] = found


def _specialization(argument: Tensor | int | None) -> object:
    """What Triton compiles for: dtype, device and alignment; 1, multiples of 16, 64-bit sizes."""
    if isinstance(argument, Tensor):
        return argument.dtype, argument.device.index, argument.data_ptr() % 16 == 0
    if argument is None:
        return None
    return argument == 1, argument % 16 == 0, argument >= 2**31
