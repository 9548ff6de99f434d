"""Spaces: a grammar of activation functions and the settings of its study, from one YAML file."""

from search.space.grammar import Candidate, Count, Grammar
from search.space.reading import parse_grammar
from search.space.settings import LearningRates, Resources, SearchSettings, Space
from search.space.space import load_space

__all__ = [
    "Candidate",
    "Count",
    "Grammar",
    "LearningRates",
    "Resources",
    "SearchSettings",
    "Space",
    "load_space",
    "parse_grammar",
]
