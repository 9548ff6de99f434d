"""So many inputs, drawn from a seed, and what became of them.

python tests/fuzz/counting.py spaces 10000 --seed 1 -o counts.jsonl
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

sys.path.insert(0, str(Path(__file__).parent))  # as pytest does

from command_lines import Command, commands, prepared, ran
from formula_texts import formulas
from outcomes import Outcomes, watch
from space_texts import SETTINGS, space_files

from search.errors import ExpressionError
from search.language.derivative import derivative
from search.language.expression import X
from search.language.fingerprint import fingerprint
from search.language.latex import latex
from search.language.parser import parse
from search.language.simplify import canonical_expression
from search.space import Space, load_space

GOOD = "name: fuzz\ntask: digits\nlearning_rate: {grid: [0.1], default: 0.1}\nbaselines: [relu]\n"


SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example)


def tried(strategy: SearchStrategy, inputs: int, own_seed: int, one: Callable) -> None:
    """Give `one` so many inputs; the smallest that fails is told with its failure."""
    exact = settings(
        max_examples=inputs,
        database=None,
        deadline=None,
        derandomize=False,
        suppress_health_check=SLOW,
        phases=[Phase.generate, Phase.shrink],
        print_blob=False,
    )
    seed(own_seed)(exact(given(strategy)(lambda each: one(each) and None)))()


def count_formulas(inputs: int, own_seed: int) -> Outcomes:
    """A formula is read, its text reads back, and every pass takes it; or it is refused."""
    outcomes = Outcomes()
    watch()

    def read(text: str) -> None:
        e = parse(text, "fuzz")
        assert parse(str(e)) == e
        if len(str(e)) < 300:
            assert len(fingerprint(e)) == 16 and latex(e) and derivative(e, X)
            canonical_expression(e)

    outcomes.of(lambda: read("mish(x) + golu(x)"))
    tried(formulas(), inputs, own_seed, lambda text: outcomes.of(lambda: read(text)))
    return outcomes


def count_spaces(inputs: int, own_seed: int) -> Outcomes:
    """A space is read, what it resolves to is the same space, and a candidate can be drawn of it;
    or it is refused."""
    outcomes = Outcomes()
    watch()
    with TemporaryDirectory() as name:
        path, again = Path(name) / "s.yaml", Path(name) / "again.yaml"
        path.write_text(GOOD)
        load_space(path)

        def one(data: bytes) -> None:
            path.write_bytes(data)
            space = outcomes.of(lambda: load_space(path))
            if isinstance(space, Space):
                again.write_text(yaml.safe_dump(space.resolved(), sort_keys=False))
                assert load_space(again) == space, f"{data!r} resolves to another space"
                usable(space, random.Random(own_seed))
            assert sorted(each.name for each in path.parent.iterdir()) in ALLOWED

        tried(space_files(), inputs, own_seed, one)
    return outcomes


ALLOWED = (["s.yaml"], ["again.yaml", "s.yaml"])
"""What stands in the folder: nothing that an input has made."""


def usable(space: Space, chance: random.Random) -> None:
    """Its definition is JSON, its grammar can be counted, and derives what reads back."""
    json.dumps(space.definition())
    if space.grammar is None:
        return
    space.grammar.count()
    candidate = space.grammar.sample(Dice(chance))
    assert space.grammar.derive(candidate.choices).expression == candidate.expression
    try:
        assert parse(str(candidate.expression)) == candidate.expression
    except ExpressionError as error:  # 1 / a, where a is drawn from {0, 1}: a gate refuses it
        assert "expected a finite number" in str(error) and candidate.choices


class Dice:
    """Draws choices as a sampler would."""

    def __init__(self, chance: random.Random):
        self.chance = chance

    def suggest_categorical(self, name: str, choices):
        return self.chance.choice(list(choices))

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return self.chance.uniform(low, high)


def count_settings(inputs: int, own_seed: int) -> Outcomes:
    """A `--set` is taken, or refused."""
    outcomes = Outcomes()
    watch()
    with TemporaryDirectory() as name:
        (path := Path(name) / "s.yaml").write_text(GOOD)
        load_space(path)
        one = lambda setting: outcomes.of(lambda: load_space(path, [setting]))  # noqa: E731
        tried(SETTINGS, inputs, own_seed, one)
    return outcomes


WORK = 10.0
"""Seconds of a command: `show` integrates, whatever the formula."""


def count_commands(inputs: int, own_seed: int) -> Outcomes:
    """A command line of garbage ends with 2 and printable lines, or does its work."""
    outcomes = Outcomes()
    watch()
    with TemporaryDirectory() as name:
        place = Path(name)
        (place / "s.yaml").write_text(GOOD)

        def one(command: Command) -> None:
            arguments = prepared(command, place)
            outcomes.of(lambda: ran(command.module, arguments), WORK, "works")

        one(Command("show", "x * sigmoid(x)"))
        tried(commands(), inputs, own_seed, one)
    return outcomes


KINDS = {
    "formulas": count_formulas,
    "spaces": count_spaces,
    "settings": count_settings,
    "commands": count_commands,
}


def main() -> None:
    """Append a line of counts to a file."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("kind", choices=KINDS)
    words.add_argument("inputs", type=int)
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("-o", "--output", type=Path, required=True)
    given_words = words.parse_args()
    warnings.simplefilter("error")  # as in the tests: a user must not see one
    began = time.process_time()
    found = KINDS[given_words.kind](given_words.inputs, given_words.seed)
    seconds = round(time.process_time() - began, 1)
    line = {"kind": given_words.kind, "seed": given_words.seed, "seconds": seconds}
    with given_words.output.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**line, **found.as_json()}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
