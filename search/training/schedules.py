"""Learning-rate schedules as plain numbers: the factor on the rate at each step."""

from __future__ import annotations

import math

from search.tasks.task import Recipe


def rate_factor(recipe: Recipe, step: int, steps: int) -> float:
    """The factor on the learning rate at `step` of 0 … steps - 1, in (0, 1].

    Warm-up rises linearly over the first `warmup · steps` steps. Then constant: 1; cosine:
    (1 + cos(π t)) / 2 with t from 0 to 1 over what is left; multistep: `gamma` to the number of
    milestones (fractions of the whole run) that are passed.
    """
    rising = math.ceil(recipe.warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    match recipe.schedule:
        case "cosine":
            return (1 + math.cos(math.pi * (step - rising) / (steps - rising))) / 2
        case "multistep":
            return recipe.gamma ** sum(step >= place * steps for place in recipe.milestones)
        case "constant":
            return 1.0
