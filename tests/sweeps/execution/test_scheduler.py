"""The queue against a simulated cluster: Ray Tune's part is played by a loop with a clock of its own."""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.tune.search import Searcher

from sweeps.execution.capacity import ClusterCapacity, NodeCapacity, ResourceRequest
from sweeps.execution.scheduler import LOOK, BackfillScheduler, PendingTrial, RunningTrial

WHOLE = ResourceRequest(gpus=Fraction(1))


def gpus(workers: int = 1, share: Fraction = Fraction(1)) -> ResourceRequest:
    return ResourceRequest(workers, gpus=share)


@dataclass
class Cluster:
    """Runs a queue to its end. `takes` is how long each trial takes, where that is not as planned."""

    room: ClusterCapacity
    trials: Sequence[PendingTrial]
    needs: dict[str, ResourceRequest]
    takes: dict[str, float] = field(default_factory=dict)
    fails: frozenset[str] = frozenset()
    builds: float = 0.0
    """Seconds that a corpus takes to build."""
    now: float = 0.0
    begun: dict[str, float] = field(default_factory=dict)
    done: dict[str, float] = field(default_factory=dict)
    most: int = 0

    def run(self) -> "Cluster":
        there: dict[str, float] = {}
        queue = BackfillScheduler(
            self.trials,
            self.room,
            self.needs.__getitem__,
            built=lambda key: there.get(key, math.inf) <= self.now,
            clock=lambda: self.now,
        )
        ends: list[tuple[float, str, RunningTrial]] = []
        while True:
            while isinstance(told := queue.suggest(f"id-{len(self.begun)}"), dict):
                name = told["trial"]["name"]
                live = queue._running[f"id-{len(self.begun)}"]
                assert told["trial"]["workers"] == live.need.workers
                self.begun[name] = self.now
                takes = self.takes.get(name, live.trial.seconds)
                if live.trial.corpus and name not in self.fails:
                    there.setdefault(live.trial.corpus, self.now + self.builds)
                heapq.heappush(ends, (self.now + takes, f"id-{len(self.begun) - 1}", live))
                needs = [one.need for _, _, one in ends]
                self.fit(needs)
                self.most = max(self.most, len(needs))
            if not ends:
                assert told == Searcher.FINISHED
                return self
            # Ray Tune asks ten times a second, which would be long here.
            self.now = min(ends[0][0], self.now + LOOK)
            while ends and ends[0][0] <= self.now:
                _, trial, live = heapq.heappop(ends)
                self.done[live.trial.name] = self.now
                queue.on_trial_complete(trial, None, live.trial.name in self.fails)

    def fit(self, needs: Sequence[ResourceRequest]) -> None:
        """Every worker has a place: whole GPUs first, then shares on what is left, or CPUs of one machine."""
        assert len(needs) <= self.room.drivers
        free = [Fraction(1)] * self.room.gpus
        for need in sorted(needs, key=lambda need: -need.gpus):
            for _ in range(need.workers if need.gpus else 0):
                place = next(k for k, left in enumerate(free) if left >= need.gpus)
                free[place] -= need.gpus
        cpus = [node.cpus for node in self.room.nodes for _ in range(node.count)]
        for need in needs:
            for _ in range(0 if need.gpus else need.workers):
                place = next(k for k, left in enumerate(cpus) if left >= need.cpus)
                cpus[place] -= need.cpus

    @property
    def wall(self) -> float:
        return max(self.done.values())


def named(seconds: Sequence[float], **about: str) -> list[PendingTrial]:
    return [PendingTrial(f"t{k}", float(s), **about) for k, s in enumerate(seconds)]


sizes = st.sampled_from(
    [gpus(), gpus(), gpus(), gpus(2), gpus(4), gpus(share=Fraction(1, 2)), gpus(share=Fraction(1, 4))]
)
times = st.floats(1, 1000)


@settings(max_examples=40)
@given(
    jobs=st.lists(st.tuples(times, sizes, times), min_size=1, max_size=40),
    width=st.integers(4, 12),
    drivers=st.sampled_from([math.inf, 3, 1]),
    failing=st.sets(st.integers(0, 39)),
)
def test_everything_is_run_once_and_never_more_than_there_is_room_for(
    jobs: list[tuple[float, ResourceRequest, float]], width: int, drivers: float, failing: set[int]
) -> None:
    trials = named([planned for planned, _, _ in jobs])
    room = ClusterCapacity((NodeCapacity(gpus=width),), drivers)
    needs = {trial.name: need for trial, (_, need, _) in zip(trials, jobs, strict=True)}
    takes = {trial.name: real for trial, (_, _, real) in zip(trials, jobs, strict=True)}
    done = Cluster(room, trials, needs, takes, frozenset(f"t{k}" for k in failing)).run().done
    assert set(done) == {trial.name for trial in trials}


@settings(max_examples=40)
@given(
    jobs=st.lists(st.tuples(times, st.integers(1, 2)), min_size=1, max_size=30),
    machines=st.lists(st.integers(2, 8), min_size=1, max_size=4),
)
def test_on_processors_every_worker_is_whole_on_a_machine(jobs: list[tuple[float, int]], machines: list[int]) -> None:
    trials = named([planned for planned, _ in jobs])
    room = ClusterCapacity(tuple(NodeCapacity(cpus=cpus) for cpus in machines))
    needs = {trial.name: ResourceRequest(1, cpus=2) for trial in trials}
    assert len(Cluster(room, trials, needs).run().done) == len(trials)


@settings(max_examples=40)
@given(seconds=st.lists(times, min_size=1, max_size=30), width=st.integers(1, 16))
def test_trials_of_one_gpu_end_as_early_as_the_longest_first_can(seconds: list[float], width: int) -> None:
    trials = named(seconds)
    cluster = Cluster(
        ClusterCapacity((NodeCapacity(gpus=width),)), trials, dict.fromkeys((t.name for t in trials), WHOLE)
    ).run()
    free = [0.0] * width
    for one in sorted(seconds, reverse=True):
        heapq.heapreplace(free, free[0] + one)
    assert cluster.wall == pytest.approx(max(free))
    # Graham's bound for any list: what is left when all GPUs are busy for the last time is at most one trial.
    assert cluster.wall <= sum(seconds) / width + max(seconds) * (1 - 1 / width) + 1e-6


@settings(max_examples=40)
@given(jobs=st.lists(st.tuples(times, sizes), min_size=1, max_size=30), width=st.sampled_from([4, 8, 64]))
def test_trials_of_all_sizes_end_within_twice_the_bound_and_the_longest(
    jobs: list[tuple[float, ResourceRequest]], width: int
) -> None:
    trials = named([planned for planned, _ in jobs])
    room = ClusterCapacity((NodeCapacity(gpus=width),))
    needs = {trial.name: need for trial, (_, need) in zip(trials, jobs, strict=True)}
    cluster = Cluster(room, trials, needs).run()
    work = sum(trial.seconds * room.share(needs[trial.name]) for trial in trials)
    longest = max(trial.seconds for trial in trials)
    # While anything waits, less than the width of the widest trial is free.
    widest = max(math.ceil(need.workers * need.gpus) for need in needs.values())
    busy = (width - widest + 1) / width
    assert cluster.wall <= work / busy * 2 + 2 * longest + LOOK * len(jobs)


@settings(max_examples=40)
@given(small=st.lists(st.floats(1, 50), min_size=20, max_size=50), late=st.floats(1, 20))
def test_a_stream_of_small_trials_starves_no_large_one(small: list[float], late: float) -> None:
    """Even where every small one takes `late` times as long as planned, none begins after the promise is due."""
    trials = [*named(small), PendingTrial("first", 100.0), PendingTrial("large", 60.0)]
    needs = dict.fromkeys((trial.name for trial in trials), WHOLE) | {"large": gpus(8)}
    takes = {trial.name: late * trial.seconds for trial in trials if trial.name.startswith("t")}
    cluster = Cluster(ClusterCapacity((NodeCapacity(gpus=8),)), trials, needs, takes).run()
    # The first takes 100 s; small ones may go beside it until then, and what has begun by then ends.
    assert cluster.begun["large"] <= 100 + 2 * LOOK + late * 50


def test_an_endless_stream_of_short_trials_stops_when_the_promise_is_due() -> None:
    """Each of them would end before long, so that by the look of it nobody would have to wait for any."""
    trials = [PendingTrial("first", 100.0), PendingTrial("large", 60.0), *named([1.5] * 800)]
    needs = dict.fromkeys((trial.name for trial in trials), WHOLE) | {"large": gpus(8)}
    cluster = Cluster(ClusterCapacity((NodeCapacity(gpus=8),)), trials, needs).run()
    assert 100 <= cluster.begun["large"] <= 100 + 2 * LOOK and cluster.begun["t799"] > 160


def test_where_nothing_runs_something_is_started_whatever_is_thought_of_its_size() -> None:
    """Ray Tune would wait for ten minutes, and then again."""
    queue = BackfillScheduler(named([1, 2]), ClusterCapacity((NodeCapacity(gpus=1),)), lambda name: gpus(2))
    assert isinstance(queue.suggest("a"), dict) and queue.suggest("b") is None


def test_a_large_trial_is_let_by_only_where_nobody_has_to_wait_for_it() -> None:
    """8 GPUs: two long trials, then one of 8 that waits for them; the short ones fill the gap that this leaves."""
    trials = [
        PendingTrial("a", 100),
        PendingTrial("b", 90),
        PendingTrial("wide", 80),
        PendingTrial("c", 70),
        PendingTrial("d", 60),
        PendingTrial("e", 3),
    ]
    needs = dict.fromkeys("abcde", WHOLE) | {"wide": gpus(8)}
    cluster = Cluster(ClusterCapacity((NodeCapacity(gpus=8),)), trials, needs).run()
    assert [cluster.begun[name] for name in "abcde"] == [0] * 5
    assert cluster.begun["wide"] == 100 and cluster.wall == 180


def test_one_that_would_end_too_late_waits_behind_the_large_one() -> None:
    trials = [PendingTrial("a", 100), PendingTrial("wide", 95), PendingTrial("c", 94), PendingTrial("d", 93)]
    takes = {"a": 50.0}
    needs = dict.fromkeys("acd", WHOLE) | {"wide": gpus(2)}
    # `a` ends before its time: then the place is the large one's, not that of `d`.
    cluster = Cluster(ClusterCapacity((NodeCapacity(gpus=2),)), trials, needs, takes).run()
    assert cluster.begun["c"] == 0 and cluster.begun["wide"] == 94 and cluster.begun["d"] >= 94 + 95


def test_trials_that_need_one_corpus_do_not_wait_for_its_lease() -> None:
    trials = [*named([100, 90, 80, 70], corpus="x"), PendingTrial("other", 60, "y"), PendingTrial("plain", 50)]
    needs = dict.fromkeys((trial.name for trial in trials), WHOLE)
    cluster = Cluster(ClusterCapacity((NodeCapacity(gpus=8),)), trials, needs, builds=20).run()
    assert [cluster.begun[name] for name in ("t0", "other", "plain")] == [0, 0, 0]
    assert all(20 <= cluster.begun[name] <= 20 + 2 * LOOK for name in ("t1", "t2", "t3"))


def test_where_the_builder_of_a_corpus_fails_the_next_one_builds_it() -> None:
    trials = named([100, 90, 80], corpus="x")
    needs = dict.fromkeys((trial.name for trial in trials), WHOLE)
    cluster = Cluster(
        ClusterCapacity((NodeCapacity(gpus=8),)), trials, needs, {"t0": 5}, frozenset({"t0"}), builds=20
    ).run()
    assert cluster.begun["t1"] == 5 and 25 <= cluster.begun["t2"] <= 25 + 2 * LOOK


def test_a_result_of_the_builder_says_that_the_corpus_is_there() -> None:
    queue = BackfillScheduler(
        named([2, 1], corpus="x"), ClusterCapacity((NodeCapacity(gpus=8),)), lambda name: WHOLE, clock=lambda: 0.0
    )
    assert isinstance(queue.suggest("a"), dict) and queue.suggest("b") is None
    queue.on_trial_result("a", {"setback/kind": "no room"})
    assert queue.suggest("b") is None
    queue.on_trial_result("a", {"stage": "pretrain", "step": 1})
    assert isinstance(queue.suggest("b"), dict) and queue.suggest("c") == Searcher.FINISHED


def test_ray_is_told_what_a_worker_holds_and_its_tables_which_cells_a_trial_serves() -> None:
    trial = PendingTrial("t", 1.0, cells=("single-n60-s0-1234abcd corpus.multi=1",))
    queue = BackfillScheduler(
        [trial], ClusterCapacity((NodeCapacity(gpus=2),)), lambda name: gpus(share=Fraction(3333, 10_000))
    )
    told = {"name": "t", "cells": list(trial.cells), "workers": 1, "worker": {"GPU": 0.3333}}
    assert queue.suggest("a") == {"trial": told}


def test_the_queue_hears_of_every_trial_that_is_over_and_of_no_other() -> None:
    over: list[str] = []
    queue = BackfillScheduler(
        named([2, 1]), ClusterCapacity((NodeCapacity(gpus=8),)), lambda name: WHOLE, ended=over.append
    )
    queue.suggest("a"), queue.suggest("b")
    queue.on_trial_complete("b", error=True)
    queue.on_trial_complete("unknown")
    queue.on_trial_complete("a")
    assert over == ["t1", "t0"]


def test_times_are_as_fast_as_the_trials_that_are_done() -> None:
    clock = [0.0]
    queue = BackfillScheduler(
        named([10, 10, 10]), ClusterCapacity((NodeCapacity(gpus=1),)), lambda name: WHOLE, clock=lambda: clock[0]
    )
    assert queue.pace == 1.0
    for k, seconds in enumerate((20.0, 30.0, 1.0)):
        queue.suggest(str(k))
        clock[0] += seconds
        queue.on_trial_complete(str(k), error=k == 2)
    assert queue.pace == 2.5, "a trial that failed says nothing of the time that others take"


@pytest.mark.parametrize(("left", "wall"), [({"a": 8.0}, 8.0), ({"a": 8.0, "b": 8.0, "c": 8.0, "d": 8.0}, 16.0)])
def test_the_end_is_when_the_longest_is_done_or_the_room_has_held_all(left: dict[str, float], wall: float) -> None:
    assert BackfillScheduler([], ClusterCapacity((NodeCapacity(gpus=2),)), lambda name: WHOLE).wall(left) == wall
