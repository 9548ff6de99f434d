"""An exported activation as an ONNX model, checked by onnx's own reference evaluator."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from search.errors import KernelError
from search.exporting.writing import check_path
from search.language.expression import Expression

PACKAGES = ("onnx", "onnxscript")


def check_onnx(path: Path, force: bool) -> None:
    """Raises KernelError without the packages, or where the model cannot be written."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise KernelError(
            f"--onnx: needs {' and '.join(missing)}; pip install 'activation-search[onnx]'"
        )
    check_path(path, force, ".onnx")


def write_onnx(activation: type[nn.Module], expression: Expression, path: Path) -> str:
    """Write the function at its initial parameters, float32; what it takes, and how exact it is.

    A parameter per channel is one number, its initial value, that broadcasts over the channels.

    Raises:
        KernelError: ONNX has no operator for it, or the file cannot be written.
    """
    import onnx

    made = activation(channels=1) if _per_channel(expression) else activation()
    draw = torch.Generator().manual_seed(0)
    inputs = tuple(1.5 * torch.randn(4, 6, generator=draw) for _ in expression.inputs)
    try:
        model = _exported(made.eval(), inputs, expression)
        onnx.checker.check_model(model)
        onnx.save(model, str(path))
    except OSError as error:
        raise KernelError(f"{path}: cannot be written: {error.strerror or error}") from None
    except (torch.onnx.errors.OnnxExporterError, onnx.checker.ValidationError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise KernelError(f"{path}: ONNX cannot say this formula: {reason}") from None
    error = _difference(model, made, inputs, expression)
    names = " and ".join(expression.inputs)
    return f"{names} (batch, features), float32; worst error {error:.1e} in onnx's evaluator"


def _exported(made: nn.Module, inputs: tuple[Tensor, ...], expression: Expression) -> Any:
    sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    program = torch.onnx.export(
        made,
        inputs,
        input_names=list(expression.inputs),
        output_names=["y"],
        dynamic_shapes=tuple(sizes for _ in inputs),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    return program.model_proto


def _per_channel(expression: Expression) -> bool:
    return any(p.scope == "channel" for p in expression.trainable)


def _difference(
    model: Any, made: nn.Module, inputs: tuple[Tensor, ...], expression: Expression
) -> float:
    """Worst |error| / max(1, |exact|) against float64."""
    from onnx.reference import ReferenceEvaluator

    given = {name: t.numpy() for name, t in zip(expression.inputs, inputs, strict=True)}
    (found,) = ReferenceEvaluator(model).run(None, given)
    y = torch.as_tensor(found).double()
    exact = made.double()(*(t.double() for t in inputs)).detach()
    return ((y - exact).abs() / exact.abs().clamp_min(1.0)).max().item()
