"""What becomes of a study's trials, one file a stage.

entering.py     what waits without a sampler's asking: baselines, placebos, finalists
launches.py     what is proposed, and what a worker is given
ladder.py       who waits at a rung, and goes on
continuing.py   what did not end goes on in a new trial, or is given up
failures.py     failures that are held back, as long as nothing worked
tally.py        what is counted, as trials come and go
"""
