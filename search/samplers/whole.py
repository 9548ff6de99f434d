"""An Optuna sampler that decides about a whole derivation before the first choice is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search.samplers.history import History, Past
from search.samplers.quasi_random import QuasiRandomSampler

ATTRIBUTE = "proposal"
"""The trial's user attribute that tells how its candidate came about."""


@dataclass(frozen=True, slots=True)
class Proposed:
    """A derivation, and why."""

    choices: Mapping[str, Any]
    why: dict[str, Any] = field(default_factory=dict)
    """JSON values: what is logged."""


class Proposer(Protocol):
    """Decides from the past alone, so that a restart or a replay decides the same."""

    def propose(self, number: int, past: Sequence[Past]) -> Proposed | None: ...


class WholeSampler(BaseSampler):
    """Asks `proposer` once a trial, and answers every choice from its derivation.

    Where it has none, or it foresaw another path, the choice is quasi-random.
    """

    def __init__(self, proposer: Proposer, history: History, seed: int):
        self.proposer = proposer
        self.history = history
        self.quasi_random = QuasiRandomSampler(seed)
        self._asked: dict[int, Mapping[str, Any]] = {}

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Decide about all choices of the trial, unless they are given."""
        if "fixed_params" in trial.system_attrs:
            return
        past = self.history.read(study, trial.number)
        proposed = self.proposer.propose(trial.number, past)
        why = {"by": "quasi-random"} if proposed is None else proposed.why
        self._asked[trial.number] = {} if proposed is None else proposed.choices
        study._storage.set_trial_user_attr(trial._trial_id, ATTRIBUTE, why)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        choices = self._asked.get(trial.number, {})
        if param_name in choices:
            return choices[param_name]
        return self.quasi_random.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        self._asked.pop(trial.number, None)
