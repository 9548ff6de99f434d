"""The plain alternative that `bench trials` measures against; run as `python -m` on its own.

What one writes in an afternoon: one Ray Tune trial per (candidate, rate, seed), Tune's defaults (a
fresh process for every trial), activations composed of torch operations. Data, model, loop and
recipe are ours, so that the trainings are the same.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import torch

from search.benchmarks.handwritten import HandWritten
from search.language.parser import parse
from search.space.space import load_space
from search.training.from_space import task_of, training_of
from search.training.loop import train
from search.training.prepared import prepare


def trainable(config: dict[str, Any]) -> dict[str, Any]:
    """One run, in a process of its own."""
    torch.set_num_threads(1)
    space = load_space(config["space"], config["overrides"])
    prepared = prepare(training_of(space, task_of(space)))
    expression = parse(config["expression"])
    run = train(
        prepared.task,
        prepared.splits,
        lambda: HandWritten(expression),
        options=prepared.options,
        recipe=prepared.recipe,
        learning_rate=config["rate"],
        seed=config["seed"],
    )
    return {"score": -1.0 if run.score is None else run.score}


def main() -> None:
    import ray
    from ray import tune

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("space", type=Path)
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args()
    space = load_space(options.space, options.set)
    shared = {"space": options.space.resolve(), "overrides": options.set}
    names = [str(space.baseline(name)) for name in space.baselines]
    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    trials = [
        {**shared, "expression": expression, "rate": rate, "seed": seed}
        for expression, rate, seed in product(names, space.learning_rate.grid, space.seeds)
    ]
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space=tune.grid_search(trials),  # type: ignore[arg-type]
        tune_config=tune.TuneConfig(metric="score", mode="max"),
        run_config=tune.RunConfig(verbose=0, storage_path=tempfile.mkdtemp()),
    )
    results = tuner.fit()
    print(len(results), "runs,", results.num_errors, "errors")


if __name__ == "__main__":
    main()
