"""Checkpoints: a training that was cut off goes on where it was last written down.

    <folder>/trial_7/<run or batch>.pt   all that the next step depends on; whole, or not there
    <folder>/stop                        somebody asked for the end: write what there is, and leave

A plain run and a batch have a `Checkpoint` each, in a file each; a run of several processes has a
file of each process (`shared.py`). A file is written under another
name and renamed; it is torch's own, read with `weights_only`, and every part of it has a checksum.
What cannot be read, or is of another training, is left aside with one line, and that training
begins anew. When a run or a batch has ended, its file shrinks to what came of it, so that a driver
killed before it heard of that loses nothing; the driver removes the folder when the trial ends.
"""

from search.training.checkpoints.keeping import Keeping, ask_to_pause, tidy
from search.training.checkpoints.shared import run_checkpoint
from search.training.checkpoints.store import Directory, State, Store
from search.training.checkpoints.trial import Checkpoint, Checkpoints, Paused

__all__ = [
    "Checkpoint",
    "Checkpoints",
    "Directory",
    "Keeping",
    "Paused",
    "State",
    "Store",
    "ask_to_pause",
    "run_checkpoint",
    "tidy",
]
