"""Samplers by name, set up for the choices of a grammar: Optuna's, and our own.

Optuna's see paths with choices (`optunas.py`); `evolution` and `behaviour` see whole derivations,
and read all they know from the study's trials.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study

from search.samplers import optunas
from search.samplers.asking import Asking, startup
from search.samplers.behaviour import behaviour_sampler
from search.samplers.evolution import evolution_sampler
from search.samplers.quasi_random import QuasiRandomSampler, scrambled_van_der_corput
from search.space.grammar import Grammar

__all__ = ["SAMPLERS", "build_sampler", "scrambled_van_der_corput", "startup"]


def build_sampler(
    name: str,
    seed: int,
    existing: int,
    trials: int,
    grammar: Grammar | None = None,
    baselines: Study | None = None,
) -> BaseSampler:
    """The sampler called `name`.

    Args:
        seed: of the search.
        existing: trials in the study; together with `seed` it makes the sampler's own seed, so
            that a search that goes on does not draw the same numbers again.
        trials: the budget, which sizes the quasi-random start and the populations.
        grammar: of the space; `evolution` and `behaviour` derive candidates from it.
        baselines: where the trials of those are that the grammar cannot express; `behaviour` learns
            from them too.
    """
    own = np.random.SeedSequence([seed, existing]).generate_state(1).item()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return SAMPLERS[name](Asking(own, seed, trials, grammar, baselines))


SAMPLERS: dict[str, Callable[[Asking], BaseSampler]] = {
    "tpe": optunas.tpe,
    "random": lambda asking: RandomSampler(seed=asking.own),
    "qmc": lambda asking: QuasiRandomSampler(asking.seed),
    "gp": optunas.gp,
    "cmaes": optunas.cmaes,
    "nsgaii": optunas.nsgaii,
    "bruteforce": lambda asking: optunas.AskedBruteForceSampler(seed=asking.own),
    "evolution": evolution_sampler,
    "behaviour": behaviour_sampler,
}
