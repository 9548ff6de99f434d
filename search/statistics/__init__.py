"""Numbers only: what runs, pairs of activations and choices say, and what may be claimed of them.

The plain descriptions are named here; the tests and their families have a file each.
"""

from search.statistics.descriptive import (
    Difference,
    RateSummary,
    correlation_ratio,
    expected_maximum,
    mean,
    non_dominated,
    paired_difference,
    pooled_error,
    rate_key,
    robust_range,
    scores_by_seed,
    spared_share,
    squared_rank_correlation,
    standard_error,
    summarize_rates,
    time_in_activations,
    tolerant_range,
)

__all__ = [
    "Difference",
    "RateSummary",
    "correlation_ratio",
    "expected_maximum",
    "mean",
    "non_dominated",
    "paired_difference",
    "pooled_error",
    "rate_key",
    "robust_range",
    "scores_by_seed",
    "spared_share",
    "squared_rank_correlation",
    "standard_error",
    "summarize_rates",
    "time_in_activations",
    "tolerant_range",
]
