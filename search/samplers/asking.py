"""What a sampler is built from."""

from __future__ import annotations

from dataclasses import dataclass

from optuna.study import Study

from search.space.grammar import Grammar


@dataclass(frozen=True, slots=True)
class Asking:
    """A search, as its sampler needs to know it."""

    own: int
    """The sampler's own seed: another one whenever the search goes on."""
    seed: int
    """Of the search: what a replay repeats."""
    trials: int
    """The budget."""
    grammar: Grammar | None = None
    """For samplers that propose whole derivations."""
    baselines: Study | None = None
    """Trials of functions that the grammar cannot express, for samplers that know what a function
    does."""

    @property
    def rules(self) -> Grammar:
        """The grammar, of a sampler that cannot do without.

        Raises:
            ValueError: there is none.
        """
        if self.grammar is None:
            raise ValueError("a sampler of whole derivations: expected a grammar, got None")
        return self.grammar


def startup(trials: int) -> int:
    """How many finished trials the model-based samplers want before their model is asked.

    >>> startup(40), startup(1000), startup(4)
    (10, 10, 2)
    """
    return max(2, min(10, trials // 4))
