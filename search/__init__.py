"""Find activation functions, and tune the models that use them.

The public names; everything else is reached through its own module.
"""

from search.activation import Activation
from search.errors import SearchError
from search.language.catalog import CATALOG
from search.language.expression import Expression
from search.language.parser import parse
from search.replacement import replace_activations
from search.space.space import Space, load_space
from search.tasks.task import Recipe, Split, Splits, Task

__all__ = [
    "CATALOG",
    "Activation",
    "Expression",
    "Recipe",
    "SearchError",
    "Space",
    "Split",
    "Splits",
    "Task",
    "load_space",
    "parse",
    "replace_activations",
]
