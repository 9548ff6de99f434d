"""Find activation functions, and tune the models that use them.

The public names; everything else is reached through its own module. They are imported when first
used, so that the language alone (`search.language`, `python -m search.show`) never waits for torch.
"""

from typing import TYPE_CHECKING

from search.first_use import first_use

if TYPE_CHECKING:
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

_HOMES = {
    "CATALOG": "search.language.catalog",
    "Activation": "search.activation",
    "Expression": "search.language.expression",
    "Recipe": "search.tasks.task",
    "SearchError": "search.errors",
    "Space": "search.space.space",
    "Split": "search.tasks.task",
    "Splits": "search.tasks.task",
    "Task": "search.tasks.task",
    "load_space": "search.space.space",
    "parse": "search.language.parser",
    "replace_activations": "search.replacement",
}

__getattr__ = first_use(__name__, _HOMES)
