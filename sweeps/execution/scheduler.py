"""The scheduler: which trial Ray Tune starts next. It is EASY backfill, with the longest trials first.

Trials wait in a queue, the longest first. The first one that does not fit yet gets a reservation: the time at which
enough running trials should have ended. Until then, a trial further back may start if it fits and either ends before
the reservation or leaves the reserved resources free. After that time nothing else starts, so a wrong estimate delays
the reserved trial but cannot starve it. Of several trials that need one corpus, the first builds it, and the others
wait in the queue: once started, they would hold GPUs while they wait for its lease.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from ray.tune.search import Searcher

from sweeps.execution.capacity import ClusterCapacity, ResourceRequest

LOOK = 2.0
"""Seconds between two passes over a queue in which nothing has changed, and between two checks for a corpus."""


@dataclass(frozen=True)
class PendingTrial:
    """A trial in the queue.

    `seconds` is its planned time; `corpus` the key of the corpus that it needs and nobody has built yet, None if there
    is none; `cells` has a line about each cell that it serves, for Ray's own tables.
    """

    name: str
    seconds: float
    corpus: str | None = None
    cells: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunningTrial:
    """A trial that started at time `since` and holds what it requested."""

    trial: PendingTrial
    need: ResourceRequest
    since: float


@dataclass(frozen=True)
class Reservation:
    """When the first trial that does not fit should start, and the requests that should be running then, its own
    included.
    """

    start: float
    requests: tuple[ResourceRequest, ...]


class BackfillScheduler(Searcher):  # type: ignore[misc]
    """Hands out trials to Ray Tune as `{"trial": {"name", "cells", "workers", "worker"}}`, where `worker` is what each
    worker holds. Every trial has to fit into the empty cluster.

    `need(name)` returns a trial's request when its turn comes, `built(key)` whether a corpus is in the store, and
    `ended(name)` is called for every trial that is over. Set Ray Tune's `max_concurrent_trials` to the number of
    trials; without it, Tune stages one trial at a time.
    """

    def __init__(
        self,
        trials: Sequence[PendingTrial],
        capacity: ClusterCapacity,
        need: Callable[[str], ResourceRequest],
        *,
        built: Callable[[str], bool] = lambda key: False,
        ended: Callable[[str], None] = lambda name: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self.capacity = capacity
        self._queue = sorted(trials, key=lambda trial: -trial.seconds)
        self._need, self._built, self._ended, self._clock = need, built, ended, clock
        self._running: dict[str, RunningTrial] = {}
        self._reservations: dict[str, float] = {}
        """When a reserved trial was first told to start. It stays, so later estimates cannot postpone the trial."""
        self._built_corpora: set[str] = set()
        self._paces: list[float] = []
        self._next_pass = self._last_poll = -math.inf

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Ray Tune passes the metric to optimize; there is none."""
        return True

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: the store has what is done, and the next run makes its queue from that."""

    def restore(self, checkpoint_path: str) -> None:
        """Does nothing, like `save`."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Returns the trial to start now, None if none may start, and `FINISHED` if the queue is empty."""
        if not self._queue:
            return str(Searcher.FINISHED)
        now = self._clock()
        if now < self._next_pass:
            return None
        trial = self._choose(now)
        if trial is None:
            self._next_pass = now + LOOK
            return None
        need = self._need(trial.name)
        self._queue.remove(trial)
        self._running[trial_id] = RunningTrial(trial, need, now)
        config = {"name": trial.name, "cells": list(trial.cells), "workers": need.workers, "worker": need.resources}
        return {"trial": config}

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """A trial reported. If it names a stage, it is training, so its corpus is built."""
        if "stage" in result and (running := self._running.get(trial_id)) and running.trial.corpus:
            self._corpus_is_built(running.trial.corpus)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """A trial is over, whether it succeeded or failed."""
        running = self._running.pop(trial_id, None)
        self._next_pass = -math.inf
        if running is None:
            return
        if not error and running.trial.seconds:
            self._paces.append((self._clock() - running.since) / running.trial.seconds)
        self._ended(running.trial.name)

    @property
    def pace(self) -> float:
        """The time that trials take over their planned time: the median of those that succeeded, 1 before the first."""
        return statistics.median(self._paces) if self._paces else 1.0

    def wall(self, left: Mapping[str, float]) -> float:
        """Estimates the seconds until all trials are done from the seconds that each still takes.

        This is a lower bound: the longest trial, or the work of all over the cluster's capacity.
        """
        work = sum(seconds * self.capacity.share(self._need(name)) for name, seconds in left.items())
        return max([*left.values(), work])

    def _choose(self, now: float) -> PendingTrial | None:
        """Picks the first trial of the queue that may start: EASY backfill."""
        running = [one.need for one in self._running.values()]
        building = self._corpora_being_built(now)
        # Many trials make the same request, and whether one fits takes long to count.
        fits_now = cache(lambda need: self.capacity.fits([*running, need]))
        candidates = [trial for trial in self._queue if trial.corpus not in building]
        for place, trial in enumerate(candidates):
            need = self._need(trial.name)
            # Where nothing runs, something has to start: Ray Tune would wait in vain.
            if fits_now(need) or not running:
                return trial
            reservation = self._reserve(need, now)
            if now >= self._reservations.setdefault(trial.name, reservation.start):
                return None
            return self._backfill(candidates[place + 1 :], reservation, now, fits_now)
        return None

    def _backfill(
        self,
        candidates: Sequence[PendingTrial],
        reservation: Reservation,
        now: float,
        fits_now: Callable[[ResourceRequest], bool],
    ) -> PendingTrial | None:
        """Picks the first trial that may start before a reserved one: it fits, and it does not delay that one."""
        fits_beside = cache(lambda need: self.capacity.fits([*reservation.requests, need]))
        pace = self.pace
        for trial in candidates:
            need = self._need(trial.name)
            ends_before = now + trial.seconds * pace <= reservation.start
            if fits_now(need) and (ends_before or fits_beside(need)):
                return trial
        return None

    def _reserve(self, need: ResourceRequest, now: float) -> Reservation:
        """Finds the earliest time at which a request should fit, as running trials end in their estimated order."""
        pace = self.pace
        # A trial that takes longer than planned may end at any moment, but hardly at this one.
        ends = [(max(one.since + one.trial.seconds * pace, now + LOOK), one) for one in self._running.values()]
        ends.sort(key=lambda pair: pair[0])
        for count, (end, _) in enumerate(ends, start=1):
            requests = (*(one.need for _, one in ends[count:]), need)
            if self.capacity.fits(requests):
                return Reservation(end, requests)
        return Reservation(math.inf, (need,))

    def _corpora_being_built(self, now: float) -> set[str]:
        """Returns the corpora that running trials build, after asking the store about them every `LOOK` seconds."""
        wanted = {one.trial.corpus for one in self._running.values() if one.trial.corpus}
        if now >= self._last_poll + LOOK:
            self._last_poll = now
            self._built_corpora |= {corpus for corpus in wanted - self._built_corpora if self._built(corpus)}
        return wanted - self._built_corpora

    def _corpus_is_built(self, corpus: str) -> None:
        if corpus not in self._built_corpora:
            self._built_corpora.add(corpus)
            self._next_pass = -math.inf
