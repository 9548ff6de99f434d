"""Which candidate is trained next: what waits, then what a sampler proposes and nobody had yet, and
the finalists at last."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from optuna.samplers import RandomSampler

from search.language.expression import Expression
from search.language.fingerprint import fingerprint
from search.records import Trial
from search.samplers import build_sampler
from search.space.grammar import Grammar
from search.study import Launch, Proposal, Study

PATIENCE = 10
"""Proposals in a row that a sampler may waste on known or rejected candidates."""
LISTABLE = 20_000
"""The largest finite space whose candidates are listed when its sampler finds nothing new."""
HOPELESS = 300
"""Proposals in a row without a candidate worth training, after which the search ends."""
SECONDS = 0.5
"""How long the driver looks for a candidate while workers wait for its answers."""

Gate = Callable[[Expression], Any]
"""Returns None, or a rejection with `gate` and `reason`."""


class Proposals:
    """The order in which candidates come: baselines and what was cut off, then the sampler's.

    A proposal that is the same function as any earlier trial is told as a duplicate, one that
    fails a gate as rejected; neither counts against the budget. After `PATIENCE` of them in a row
    the sampler repeats itself, and gets one candidate from elsewhere to learn from: of a finite
    space one that was never tried, until none is left; of a larger one a random one.
    """

    def __init__(self, study: Study, gate: Gate | None, seconds: float = SECONDS):
        self.study = study
        self.space = study.space
        self.gate = gate if study.space.gates else None
        search = study.space.search
        seed, existing = search.seed, study.existing()
        grammar = study.space.grammar
        name = search.sampler if grammar else "random"  # without a grammar it is never asked
        self.sampler = build_sampler(
            name, seed, existing, search.trials, grammar, self.study.baselines
        )
        self.random = RandomSampler(seed=_own_seed(seed, existing))
        self.seconds = seconds
        self.misses = 0
        self.unseen: Iterator[dict[str, Any]] | None = None
        self.searched = ""
        """Why no more candidates will come; empty while some may."""
        self.enough = False
        """Whether the candidates that train now use up the budget, if none of them is refused."""
        self.early = False
        """Whether the baselines' finalists were entered while the last candidates train."""
        self.ended = ""
        """Why nothing more will come; empty while something may."""
        self._given_up: list[Trial] = []

    def next(self) -> Launch | None:
        """What to train now, or None: nothing at this moment, or nothing ever once `ended`."""
        waiting = self.study.next_waiting() or self.study.promote()
        if waiting is not None or self.ended:
            return waiting
        launch = None if self.searched else self._next_candidate()
        if launch is None and (ended := self.study.give_up()):
            self._given_up += ended
            return self.next()
        return self._next_finalist() if launch is None else launch

    def given_up(self) -> list[Trial]:
        """Those that nobody promoted, since the last time that this was asked."""
        found, self._given_up = self._given_up, []
        return found

    def _next_finalist(self) -> Launch | None:
        """Candidates are chosen once no score is missing, so that baselines, which all are
        finalists, fill the slots until then; and the end is once no worker is left that may die,
        and whose trial would have to go on."""
        over = bool(self.searched) and not self.study.running()
        soon = self.enough or bool(self.searched)
        if not over and (self.early or not soon or self.study.running("baseline")):
            return None
        self.early = True
        if self.space.finalists is not None and self.study.enter_finalists(candidates=over):
            return self.study.next_waiting()
        self.ended = self.searched if over else self.ended
        return None

    def _next_candidate(self) -> Launch | None:
        budget, busy = self.space.search.trials, len(self.study.running("search"))
        if self.space.grammar is None or self.study.trained() >= budget:
            done = f"all {budget} trials are done" if self.space.grammar else "all are done"
            self.searched, self.enough = done, True
            return None
        self.enough = self.study.trained() + busy >= budget
        if self.enough:
            return None
        until, waiting_workers = time.monotonic() + self.seconds, bool(self.study.active())
        while not self.searched and (not waiting_workers or time.monotonic() < until):
            launch = self._propose(self.space.grammar)
            if launch is not None:
                return launch
        return None

    def _propose(self, grammar: Grammar) -> Launch | None:
        proposal = self._proposal(grammar)
        if proposal is None:
            return None
        self.misses += 1
        earlier = self.study.seen().get(proposal.fingerprint)
        if earlier is not None:
            self.study.refuse(
                proposal, "duplicate", f"the same function as trial {earlier}", earlier
            )
            return None
        rejection = self.gate(proposal.candidate.expression) if self.gate else None
        if rejection is not None:
            self.study.refuse(proposal, "rejected", f"{rejection.gate}: {rejection.reason}")
            return None
        self.misses = 0
        return self.study.launch(proposal)

    def _proposal(self, grammar: Grammar) -> Proposal | None:
        if self.misses >= HOPELESS:
            self.searched = f"the last {HOPELESS} proposals were known or rejected"
            return None
        if self.misses < PATIENCE:
            return self.study.propose(self.sampler, self.space.search.sampler)
        size = grammar.count()
        if size.continuous or size.derivations > LISTABLE:
            return self.study.propose(self.random, "random")
        if self.unseen is None:
            self.unseen = self._unseen(grammar)
        choices = next(self.unseen, None)
        if choices is None:
            self.searched = f"none of the space's {size.derivations} candidates is left untried"
            self.study.exhaust(self.searched)
            return None
        return self.study.propose_choices(choices, "enumeration")

    def _unseen(self, grammar: Grammar) -> Iterator[dict[str, Any]]:
        """The choices of every candidate that is new when its turn comes, in random order."""
        candidates = list(grammar.candidates())
        search = self.space.search
        order = np.random.default_rng(_own_seed(search.seed, self.study.existing()))
        for index in order.permutation(len(candidates)):
            if fingerprint(candidates[index].expression) not in self.study.seen():
                yield candidates[index].choices


def _own_seed(seed: int, existing: int) -> int:
    """A seed that a search which goes on does not draw from again."""
    return np.random.SeedSequence([seed, existing, 1]).generate_state(1).item()
