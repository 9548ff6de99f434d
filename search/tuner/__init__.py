"""Trials on Ray Tune: workers train, the driver asks and tells the study. The only room with Ray.

One process per worker, used again for the next candidate (a fresh one costs 4 s for importing
torch and Ray); a worker sends every finished run at once. Ray decides where trials run and, when
asked for, which are stopped early; it keeps nothing: a search that goes on starts Ray anew.

The names are imported when first used: a worker needs none of what the driver does.
"""

from typing import TYPE_CHECKING

from search.first_use import first_use

if TYPE_CHECKING:
    from search.tuner.cluster import running_ray
    from search.tuner.measuring import on_a_worker, plan_on_a_cluster
    from search.tuner.tuning import run_search

__all__ = ["on_a_worker", "plan_on_a_cluster", "run_search", "running_ray"]

_HOMES = {
    "on_a_worker": "search.tuner.measuring",
    "plan_on_a_cluster": "search.tuner.measuring",
    "run_search": "search.tuner.tuning",
    "running_ray": "search.tuner.cluster",
}

__getattr__ = first_use(__name__, _HOMES)
