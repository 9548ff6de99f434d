"""Counting trials as they change comes to what a look at all of them does."""

from __future__ import annotations

import random
from collections import Counter

from search.progress import Goal, standing, standing_of
from search.records import Trial
from search.trials.tally import TOLD, Tally
from tests.rings import trial

ORIGINS = ("search", "search", "search", "baseline", "placebo", "finalist")
ENDS = ("complete", "complete", "pruned", "diverged", "rejected", "failed", "duplicate")
GOAL = Goal("toy", "accuracy", True, 40, 7, concurrent=2)


def ended(draw: random.Random, old: Trial) -> Trial:
    state = draw.choice(ENDS)
    score = round(draw.random(), 1) if state == "complete" else None
    more = {"of": 3, "task": draw.choice(("", "mnist"))} if old.origin == "finalist" else {}
    more |= {"name": old.name, "fingerprint": old.fingerprint}
    seconds = draw.choice((0.0, 1.5, 4.0))
    return trial(old.number, score, old.origin, state=state, seconds=seconds, **more)


def test_a_tally_that_is_kept_is_one_that_is_taken():
    draw = random.Random(0)
    kept, trials = Tally(True), dict[int, Trial]()
    for step in range(600):
        running = [t for t in trials.values() if t.state == "running"]
        if running and draw.random() < 0.1:
            gone = draw.choice(running).number
            del trials[gone]
            kept.drop(gone)
        elif running and draw.random() < 0.6:
            now = ended(draw, draw.choice(running))
            trials[now.number] = now
            kept.put(now)
        else:
            own = str(draw.randrange(60))
            origin = draw.choice(ORIGINS)
            trials[step] = trial(step, None, origin, state="running", fingerprint=own)
            kept.put(trials[step])
        taken = Tally(True, trials.values())
        assert kept.trials == trials
        assert standing_of(kept, GOAL) == standing(trials.values(), GOAL)
        assert +kept.states == +taken.states and set(kept.running) == set(taken.running)
        assert kept.anything_worked() == any(t.state in TOLD[:3] for t in trials.values())
    assert kept.count("search") == sum(
        t.origin == "search" and t.state in TOLD for t in trials.values()
    )
    assert kept.of("search") == Counter(t.state for t in trials.values() if t.origin == "search")


def test_the_first_of_a_function_is_forgotten_with_its_trial():
    tally = Tally(False)
    tally.put(trial(0, None, "baseline", state="running", fingerprint="a"))
    tally.put(trial(1, None, "search", state="running", fingerprint="a"))
    tally.put(trial(2, None, "finalist", state="running", fingerprint="b"))
    assert tally.firsts == {"a": 0}
    tally.drop(1)
    assert tally.firsts == {"a": 0}
    tally.drop(0)
    assert tally.firsts == {}


def test_the_best_is_the_earliest_of_equals_and_smaller_losses_are_better():
    tally = Tally(False)
    for number, score in ((4, 0.5), (2, 0.5), (9, 0.7), (7, 0.5)):
        tally.put(trial(number, score))
    assert tally.best["search"].number == 2
