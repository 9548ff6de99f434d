"""Many runs in one program: the rates and seeds of a sweep, or of several, an epoch at a time.

    one forward pass, one backward pass and one optimizer step for all members

The members' models are of one architecture: those of one candidate, or of several whose formulas
are one program up to numbers (`search.training.alike`). A member has its own weights, buffers,
rate, order of data, augmentation, dropout stream, clipping and penalties; it follows the trajectory
of its own plain run (`search.training.loop`) up to round-off, and a NaN in one changes no bit of
the others. One that diverges leaves at its step, with the reason that the plain loop gives, and the
batch is compacted; products of another size then move the others by round-off.
"""

from search.training.batched.refusing import BatchingError
from search.training.batched.runs import of_one, run_members, run_together

__all__ = ["BatchingError", "of_one", "run_members", "run_together"]
