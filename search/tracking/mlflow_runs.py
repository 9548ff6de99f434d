"""A study as runs of MLflow: `python -m search.report results/gated --mlflow URI`.

One experiment a study; in it one run a trial (formula, score, best rate, cost), and below that one
for every training, with its curve. What is there already, known by its tag, is left as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from search.errors import StudyError
from search.records import Run, Trial

TAG = "activation_search"
"""Of a run: the study's trial, rate and seed."""
ENDED = ("complete", "pruned", "diverged", "failed")
LONGEST = 6000
"""Characters of a parameter that MLflow takes."""


def write_runs(trials: Sequence[Trial], study: str, uri: str) -> int:
    """Write the trials that are not there yet; how many that was.

    Args:
        study: the experiment's name.
        uri: of the tracking server, or a folder or database that MLflow understands.

    Raises:
        StudyError: the package is missing, or the server refuses.
    """
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError:
        raise StudyError(
            "--mlflow needs the package mlflow; expected pip install 'activation-search[mlflow]'"
        ) from None
    try:
        client = MlflowClient(tracking_uri=uri)
        found = client.get_experiment_by_name(study)
        experiment = found.experiment_id if found else client.create_experiment(study)
        known = _known(client, experiment)
        new = [trial for trial in trials if trial.state in ENDED and _tag(trial) not in known]
        for trial in new:
            _write(client, experiment, trial)
    except (MlflowException, OSError) as error:
        told = " ".join(str(error).split())[:200]
        raise StudyError(f"{uri}: MLflow cannot write there: {told}") from None
    return len(new)


def _known(client: Any, experiment: str) -> set[str]:
    """The tags of all trials that are there as a whole."""
    tags, token = set[str](), None
    while True:
        page = client.search_runs(
            [experiment], "attributes.status = 'FINISHED'", max_results=1000, page_token=token
        )
        tags |= {run.data.tags[TAG] for run in page if TAG in run.data.tags}
        token = page.token
        if not token:
            return tags


def _tag(trial: Trial) -> str:
    return f"trial {trial.number}"


def _write(client: Any, experiment: str, trial: Trial) -> None:
    """A trial and its runs below it; the trial ends last, so half a one is written again."""
    label = trial.name or trial.expression[:80]
    parent = client.create_run(experiment, tags={TAG: _tag(trial)}, run_name=label).info.run_id
    for run in trial.runs:
        name = f"rate {run.learning_rate:g} seed {run.seed}"
        child = {TAG: f"{_tag(trial)} {name}", "mlflow.parentRunId": parent}
        own = client.create_run(experiment, tags=child, run_name=name).info.run_id
        params = {"learning_rate": run.learning_rate, "seed": run.seed, "state": run.state}
        _log(client, own, params, _curve(run))
        client.set_terminated(own)
    params = {"expression": trial.expression, "origin": trial.origin, "state": trial.state}
    params |= {"name": trial.name, "reason": trial.reason, "best_rate": trial.best_rate}
    score = {"score": trial.score, "cost": trial.cost, "seconds": trial.seconds}
    _log(client, parent, params, [(key, value, 0) for key, value in score.items()])
    client.set_terminated(parent)


def _curve(run: Run) -> list[tuple[str, float | None, int]]:
    curve: list[tuple[str, float | None, int]] = []
    for point in run.curve:
        curve += [("score", point.score, point.step), ("loss", point.loss, point.step)]
        curve.append(("train_loss", point.train_loss, point.step))
    return curve


def _log(
    client: Any, own: str, params: Mapping[str, Any], values: Sequence[tuple[str, Any, int]]
) -> None:
    from mlflow.entities import Metric, Param

    kept = [Param(k, str(v)[:LONGEST]) for k, v in params.items() if v not in (None, "")]
    finite = [each for each in values if each[1] is not None and math.isfinite(each[1])]
    metrics = [Metric(key, float(value), 0, step) for key, value, step in finite]
    for start in range(0, max(1, len(metrics)), 1000):  # as many as one call takes
        client.log_batch(own, metrics[start : start + 1000], kept if start == 0 else [])
