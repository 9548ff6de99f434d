"""Trials on Ray Tune: workers train, the driver asks and tells the study. The only room with Ray.

One process per worker, used again for the next candidate (a fresh one costs 2 s for importing
torch); a worker sends every finished run at once. Ray decides where trials run and, when asked
for, which are stopped early; it keeps nothing: a search that goes on starts Ray anew.
"""

from search.tuner.cluster import running_ray
from search.tuner.measuring import on_a_worker, plan_on_a_cluster
from search.tuner.tuning import run_search

__all__ = ["on_a_worker", "plan_on_a_cluster", "run_search", "running_ray"]
