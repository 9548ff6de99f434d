"""Whether a study is what it claims to be, and what is done where it is not.

sealing.py    a hash in every record that is written
audit.py      one function a kind of problem: states, duplicates, orphans, hashes
checking.py   `python -m search.run --check results/gated`
mending.py    what a repair writes into the database
salvage.py    what can still be read of a damaged file
"""
