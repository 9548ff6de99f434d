"""TPE over many trials: a model of the best and the latest."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.samplers.optunas import BEST, MOST, RecentTPESampler


def told(count: int, start: int = 0) -> list[FrozenTrial]:
    """Trials with a choice and a number each."""
    rng = np.random.default_rng(start)
    kinds, range_ = CategoricalDistribution(["a", "b", "c"]), FloatDistribution(0.1, 10, log=True)
    distributions: dict[str, BaseDistribution] = {"F": kinds, "F[0].s": range_}
    found = []
    for value in rng.random(count):
        params = {"F": "abc"[int(rng.integers(3))], "F[0].s": float(10 ** rng.uniform(-1, 1))}
        params = params if params["F"] == "a" else {"F": params["F"]}
        own = {name: distributions[name] for name in params}
        found.append(create_trial(params=params, distributions=own, value=float(value)))
    return found


def asked_of(study: optuna.Study) -> list[object]:
    trial = study.ask()
    return [
        trial.suggest_categorical("F", ["a", "b", "c"]),
        trial.suggest_float("F[0].s", 0.1, 10, log=True),
    ]


def study_of(sampler: optuna.samplers.BaseSampler, trials: list[FrozenTrial]) -> optuna.Study:
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials(trials)
    return study


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_tpe_models_the_best_and_the_latest_of_many_trials_as_if_there_were_no_others():
    how: dict[str, Any] = {
        "n_startup_trials": 0,
        "multivariate": True,
        "constant_liar": True,
        "seed": 5,
    }
    trials = told(MOST + 300)
    model = RecentTPESampler(**how)
    asked = asked_of(study_of(model, trials))
    assert model.kept is not None and len(model.kept) == MOST + 1  # and the one that is asked for
    kept = [trial for trial in model.kept if trial.state == TrialState.COMPLETE]
    best = sorted(trials, key=lambda trial: -(trial.value or 0.0))[:25]
    assert {t.value for t in best} <= {t.value for t in kept}
    assert [t.value for t in kept[BEST:]] == [t.value for t in trials[BEST - MOST :]]
    assert asked == asked_of(study_of(TPESampler(**how), kept))
    assert asked != asked_of(study_of(TPESampler(**how), trials))


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_tpe_models_all_of_few_trials():
    model, trials = RecentTPESampler(seed=1, multivariate=True), told(60)
    plain = TPESampler(seed=1, multivariate=True)
    assert asked_of(study_of(model, trials)) == asked_of(study_of(plain, trials))
    assert model.kept is None
