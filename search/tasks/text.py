"""Character-level language modelling with a small GPT."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from search.errors import TaskError
from search.tasks.models.gpt import FEED_FORWARDS, GPT
from search.tasks.task import MakeActivation, Recipe, Split, Splits, Task


def load(data_root: Path | None, *, path: str = "", context: int = 64, **_: Any) -> Splits:
    """The text's first 80 % to train on, the next 10 % to validate, the last 10 % to test.

    A sample is `context` characters, int64 (N, context), its target the same moved on by one;
    samples do not overlap. The alphabet is the whole text's.
    """
    text = _read(Path(path).expanduser()) if path else _topics()
    alphabet = {character: number for number, character in enumerate(sorted(set(text)))}
    numbers = torch.tensor([alphabet[character] for character in text])
    ends = [0, len(text) * 8 // 10, len(text) * 9 // 10, len(text)]
    parts = [numbers[start:end] for start, end in pairwise(ends)]
    if min(map(len, parts)) <= context:
        place = f"options.path: {path or 'the standard text'} has {len(text)} characters"
        raise TaskError(f"{place}; expected more than {10 * (context + 1)} for context {context}")
    return Splits(*(_windows(part, context) for part in parts), outputs=len(alphabet))


def _topics() -> str:
    """The standard library's help topics: 0.46 million characters of English and Python."""
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))


def _read(path: Path) -> str:
    """A text file in UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        words = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise TaskError(f"options.path: {path}: {words}; expected a text file") from error


def _windows(numbers: Tensor, context: int) -> Split:
    """Consecutive windows and their successors; what is left over at the end is dropped."""
    count = (len(numbers) - 1) // context
    inputs, targets = numbers[: count * context], numbers[1 : count * context + 1]
    return Split(inputs.reshape(count, context), targets.reshape(count, context))


def build(
    make_activation: MakeActivation,
    splits: Splits,
    *,
    layers: int,
    heads: int,
    width: int,
    context: int,
    ffn: str,
    path: str = "",
) -> nn.Module:
    """A GPT over the text's alphabet."""
    shape = {"layers": layers, "heads": heads, "width": width, "context": context}
    return GPT(make_activation, splits.outputs, **shape, ffn=ffn)


def check(options: Mapping[str, Any]) -> Iterable[str]:
    """The heads must share the width evenly."""
    if options["width"] % options["heads"]:
        wrong = f"got {options['width']} for {options['heads']} heads"
        yield f"options.width: {wrong}; expected a multiple of heads"


def right_characters(outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """For each sample the share of its characters predicted right, summed over the batch."""
    return {"accuracy": (outputs.argmax(-1) == targets).float().mean(-1).sum()}


TASK = Task(
    name="text",
    title="the next character of a text, by a small GPT",
    load=load,
    build=build,
    options={
        "path": "",
        "layers": 2,
        "heads": 4,
        "width": 64,
        "context": 64,
        "ffn": "plain",
    },
    choices={"ffn": FEED_FORWARDS},
    check=check,
    metrics=right_characters,
    metric="loss",
    maximize=False,
    recipe=Recipe(
        optimizer="adamw",
        learning_rate=3e-3,
        betas=(0.9, 0.99),
        weight_decay=0.1,
        schedule="cosine",
        warmup=0.05,
        batch_size=32,
        epochs=3,
        clip_norm=1.0,
    ),
)
