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


def told(count: int, kinds: str = "abc", start: int = 0) -> list[FrozenTrial]:
    """Trials with a choice each, and some with a number."""
    rng = np.random.default_rng(start)
    distributions: dict[str, BaseDistribution] = {
        "F": CategoricalDistribution(["a", "b", "c"]),
        "F[0].s": FloatDistribution(0.1, 10, log=True),
    }
    found = []
    for value in rng.random(count):
        kind, number = kinds[int(rng.integers(len(kinds)))], float(10 ** rng.uniform(-1, 1))
        params = {"F": kind, "F[0].s": number} if kind == "a" else {"F": kind}
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
    trials = [*told(700, "b"), *told(MOST, "ac", start=1)]
    proposed: dict[str, list[object]] = {"recent": [], "kept": [], "all": []}
    for seed in range(8):
        how: dict[str, Any] = {"n_startup_trials": 0, "multivariate": True, "seed": seed}
        model = RecentTPESampler(**how)
        proposed["recent"] += asked_of(study_of(model, trials))
        # And the one that is asked for.
        assert model.kept is not None and len(model.kept) == MOST + 1
        kept = [trial for trial in model.kept if trial.state == TrialState.COMPLETE]
        best = sorted(trials, key=lambda trial: -(trial.value or 0.0))[:25]
        assert {t.value for t in best} <= {t.value for t in kept}
        assert [t.value for t in kept[BEST:]] == [t.value for t in trials[BEST - MOST :]]
        proposed["kept"] += asked_of(study_of(TPESampler(**how), kept))
        proposed["all"] += asked_of(study_of(TPESampler(**how), trials))
    assert proposed["recent"] == proposed["kept"] != proposed["all"]


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_tpe_models_all_of_few_trials():
    model, trials = RecentTPESampler(seed=1, multivariate=True), told(60)
    plain = TPESampler(seed=1, multivariate=True)
    assert asked_of(study_of(model, trials)) == asked_of(study_of(plain, trials))
    assert model.kept is None
