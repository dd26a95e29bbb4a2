"""The queue: which trial Ray Tune runs next, so that a cluster is full, nobody waits for ever, and the end is early.

The longest come first. One that does not fit yet gets a promise: the time at which enough of what runs should have
ended. Until then others may go before it that would end earlier or do not need its place; afterwards nobody may, so
wrong estimates delay it but cannot starve it. Of trials that need one corpus, the first builds it; the others would
hold GPUs and wait for its lease, and wait without.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from ray.tune.search import Searcher

from sweeps.room import Need, Room

LOOK = 2.0
"""Seconds between two looks at a queue in which nothing has changed, and at a store for a corpus."""


@dataclass(frozen=True)
class Waiting:
    """A trial in the queue: its planned seconds, the key of the corpus that it needs and nobody has built, and a line
    about each cell that it serves, for Ray's own tables."""

    name: str
    seconds: float
    corpus: str | None = None
    cells: tuple[str, ...] = ()


@dataclass(frozen=True)
class Live:
    """A trial that runs, `since` when."""

    trial: Waiting
    need: Need
    since: float


class Queue(Searcher):  # type: ignore[misc]
    """Hands out trials to Ray Tune as `{"trial": {"name", "cells", "workers", "worker"}}`, the last being what each of
    the workers holds; every trial has to fit into the empty room.

    `need` is asked when a trial's turn comes, `built` whether a corpus is there, and `ended` hears of trials that are
    over. Ray Tune has to be told `max_concurrent_trials`, or it would stage one trial at a time.
    """

    def __init__(
        self,
        trials: Sequence[Waiting],
        room: Room,
        need: Callable[[str], Need],
        *,
        built: Callable[[str], bool] = lambda key: False,
        ended: Callable[[str], None] = lambda name: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self.room = room
        self._waiting = sorted(trials, key=lambda trial: -trial.seconds)
        self._need, self._built, self._ended, self._clock = need, built, ended, clock
        self._live: dict[str, Live] = {}
        self._promises: dict[str, float] = {}
        self._there: set[str] = set()
        self._paces: list[float] = []
        self._look = self._polled = -math.inf

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Ray Tune asks what is searched for; nothing is."""
        return True

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what is done stands in the store, and the next run makes its queue from that."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as `save`."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The trial to start now; None where none may, `FINISHED` where none is left."""
        if not self._waiting:
            return str(Searcher.FINISHED)
        now = self._clock()
        if now < self._look:
            return None
        chosen = self._chosen(now)
        if chosen is None:
            self._look = now + LOOK
            return None
        trial, need = chosen
        self._waiting.remove(trial)
        self._live[trial_id] = Live(trial, need, now)
        told = {"name": trial.name, "cells": list(trial.cells), "workers": need.workers, "worker": need.resources}
        return {"trial": told}

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """A trial that tells of a stage trains, so it has its corpus."""
        if "stage" in result and (live := self._live.get(trial_id)) and live.trial.corpus:
            self._seen(live.trial.corpus)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """A trial is over, well or not."""
        live = self._live.pop(trial_id, None)
        self._look = -math.inf
        if live is None:
            return
        if not error and live.trial.seconds:
            self._paces.append((self._clock() - live.since) / live.trial.seconds)
        self._ended(live.trial.name)

    @property
    def pace(self) -> float:
        """How many times as long as planned a trial takes."""
        return statistics.median(self._paces) if self._paces else 1.0

    def wall(self, left: Mapping[str, float]) -> float:
        """Seconds until all is done from those that each trial still takes: the longest, or what fills the room."""
        return max(max(left.values()), sum(seconds * self.room.share(self._need(n)) for n, seconds in left.items()))

    def _chosen(self, now: float) -> tuple[Waiting, Need] | None:
        live = [one.need for one in self._live.values()]
        building, pace = self._building(now), self.pace
        reserved: Need | None = None
        end = now
        fits = cache(lambda need: self.room.holds([*live, need]))
        beside = fits
        for trial in self._waiting:
            if trial.corpus in building:
                continue
            need = self._need(trial.name)
            if reserved is None and (fits(need) or not live):
                # Where nothing runs, something must: Ray Tune would wait in vain.
                return trial, need
            if reserved is None:
                end, rest = self._reservation(need, now)
                if now >= self._promises.setdefault(trial.name, end):
                    return None
                reserved, then = need, [*rest, need]
                beside = cache(lambda need, then=then: self.room.holds([*then, need]))
            elif fits(need) and (now + trial.seconds * pace <= end or beside(need)):
                return trial, need
        return None

    def _reservation(self, need: Need, now: float) -> tuple[float, list[Need]]:
        """When a trial should fit at the earliest, and what should run then beside it."""
        pace = self.pace
        # A trial that takes longer than planned may end at any moment, but hardly at this one.
        ends = {id(one): max(one.since + one.trial.seconds * pace, now + LOOK) for one in self._live.values()}
        running = sorted(self._live.values(), key=lambda one: ends[id(one)])
        for k, one in enumerate(running):
            rest = [other.need for other in running[k + 1 :]]
            if self.room.holds([*rest, need]):
                return ends[id(one)], rest
        return math.inf, []

    def _building(self, now: float) -> set[str]:
        """The corpora that trials which run are building."""
        asked = {one.trial.corpus for one in self._live.values() if one.trial.corpus} - self._there
        if now >= self._polled + LOOK:
            self._polled = now
            self._there |= {corpus for corpus in asked if self._built(corpus)}
        return asked - self._there

    def _seen(self, corpus: str) -> None:
        if corpus not in self._there:
            self._there.add(corpus)
            self._look = -math.inf
