"""The database of a study: two studies of Optuna's, whose trials carry our records.

opening.py       the two studies, and how they are opened
definitions.py   what identifies a study
attributes.py    what is written of a trial
reading.py       what is read of all
storage.py       a file among the results, or a server
mirror.py        a study's trials in the driver's memory, written through
rows.py          many trials at once, from the tables and into them
"""
