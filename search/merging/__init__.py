"""Several studies of one space as one: `python -m search.run --merge A B -o AB`.

sources.py    the studies, each read from a copy of its database
joining.py    which of their trials are the same, and what is kept of each
writing.py    the merged study's database, and what stands beside it
"""

from search.merging.merge import merge_studies

__all__ = ["merge_studies"]
