"""Which trials are stopped early: Tune's rules, with baselines left alone."""

from __future__ import annotations

import sys
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from search.training.job import Training


class Asha(ASHAScheduler):
    """ASHA that measures candidates against the baselines too, and stops no baseline."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        decision = super().on_trial_result(tune_controller, trial, result)
        return TrialScheduler.CONTINUE if trial.config["baseline"] else decision


class Median(MedianStoppingRule):
    """The median rule, likewise."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        decision = super().on_trial_result(tune_controller, trial, result)
        if trial.config["baseline"]:
            self._stopped_trials.discard(trial)
            return TrialScheduler.CONTINUE
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Nothing: the last message has no epoch, and Tune's own would trip over that."""


def early_stopping(stopping: str | None, training: Training, epochs: int) -> TrialScheduler:
    """No trial is stopped in the first tenth of its epochs."""
    mode = "max" if training.grid.maximize else "min"
    grace = max(1, epochs // 10)
    if stopping == "asha":
        return Asha("epoch", "value", mode, max_t=max(epochs, grace + 1), grace_period=grace)
    if stopping == "median":
        # Left to itself it pauses trials to let others pass, and ours cannot be paused.
        return Median("epoch", "value", mode, grace_period=grace, min_time_slice=sys.maxsize)
    return FIFOScheduler()
