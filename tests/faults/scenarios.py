"""Scenarios on a cluster: each injects a fault while `ktrain run` works, and checks the results afterwards."""

import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

from tests.faults import checks, cloud
from tests.faults.hosts import Hosts
from tests.faults.services import Tracking
from tests.faults.site import Site
from tests.faults.work import Run, Wrong, begin, pause, until

MISSED = "the next run delivers what it missed"


@dataclass(frozen=True)
class Extent:
    """The extent of a scenario: how many nodes are removed, and for how many seconds services are away."""

    kills: int
    away: float


def nodes_removed(site: Site, extent: Extent, rng: random.Random) -> str:
    """Nodes vanish at random moments of the training and are replaced."""
    tracking, hosts = _cluster(site, 3)
    moments = sorted(rng.uniform(0.02, 0.95) for _ in range(extent.kills))
    with site.published_once():
        run = site.run(hosts, tracking)
        for moment in moments:
            site.reaches(int(moment * 2 * site.work.steps), run)
            node = rng.choice(until(hosts.busy, "a node at work", run))
            # Wherever in the next seconds: also while others are still coming back.
            pause(rng.uniform(0.0, 2.0), run)
            _remove(site, hosts, node, f"at {moment:.0%}")
            hosts.add()
        site.ends_well(run)
    return _whole(site, tracking)


def preempted(site: Site, extent: Extent, rng: random.Random) -> str:
    """A cloud announces an interruption; the trial checkpoints and leaves."""
    tracking, hosts = _cluster(site, 3)
    with site.published_once():
        run = site.run(hosts, tracking)
        _announce(site, hosts, run, rng)
        site.ends_well(run)
    _kinds(site, {"preempted": 1})
    return _whole(site, tracking)


def shrunk(site: Site, extent: Extent, rng: random.Random) -> str:
    """One of two nodes vanishes without a replacement; a trial of two workers goes on with one, but for rounding."""
    tracking, hosts = _cluster(site, 2)
    with site.published_once():
        run = site.run(hosts, tracking, "--workers", "2")
        site.reaches(int(rng.uniform(0.1, 0.5) * site.work.steps), run)
        _remove(site, hosts, rng.choice(hosts.nodes))
        site.ends_well(run)
    kinds = Counter(setback["kind"] for setback in site.setbacks())
    if kinds["node lost"] != 1 or not kinds["no room"]:
        raise Wrong(f"setbacks {dict(kinds)}")
    site.is_told_once(tracking)
    return f"went on with one worker; final losses differ by {site.loss_apart(0.05):.2%} at most"


def driver_killed(site: Site, extent: Extent, rng: random.Random) -> str:
    """The driver is killed; the same command continues."""
    tracking, hosts = _cluster(site, 2)
    with site.published_once():
        run = site.run(hosts, tracking)
        site.reaches(int(rng.uniform(0.1, 0.6) * 2 * site.work.steps), run)
        run.kill()
        site.tell("driver killed", _steps(site))
        until(lambda: not hosts.busy(), "the end of its workers")
        site.ends_well(site.run(hosts, tracking))
    return _whole(site, tracking, starts=2)


def waiter_killed(site: Site, extent: Extent, rng: random.Random) -> str:
    """The process that waits for a trial's workers is killed, and its workers with it; the run starts it again."""
    tracking, hosts = _cluster(site, 2)
    with site.published_once():
        run = site.run(hosts, tracking)
        site.reaches(int(rng.uniform(0.1, 0.6) * 2 * site.work.steps), run)
        rng.choice(until(hosts.waiters, "a process that waits", run)).kill()
        site.tell("a trial's driver killed", _steps(site))
        site.ends_well(run)
    _kinds(site, {"driver lost": 1})
    return _whole(site, tracking)


def two_drivers(site: Site, extent: Extent, rng: random.Random) -> str:
    """Two drivers run one sweep at once."""
    tracking, hosts = _cluster(site, 3)
    with site.published_once():
        runs = [site.run(hosts, tracking) for _ in range(2)]
        site.tell("two drivers started")
        for run in runs:
            site.ends_well(run)
    return _whole(site, tracking)


def tracking_away(site: Site, extent: Extent, rng: random.Random) -> str:
    """The tracking server is away for a while in the middle of training."""
    tracking, hosts = _cluster(site, 2)
    with site.published_once():
        run = site.run(hosts, tracking)
        site.reaches(int(rng.uniform(0.1, 0.5) * 2 * site.work.steps), run)
        tracking.stop()
        site.tell("tracking server killed", _steps(site))
        pause(extent.away, run)
        ended = not run.runs
        tracking.start()
        site.tell("tracking server back", "the run had ended" if ended else _steps(site))
        site.ends_well(run)
    if ended:
        if MISSED not in " ".join(run.said.split()):
            raise Wrong(f"nothing is said of what MLflow has missed:\n{run.said[-2000:]}")
        site.ends_well(site.run(hosts, tracking))
    return _whole(site, tracking)


def postgres_restarted(site: Site, extent: Extent, rng: random.Random) -> str:
    """The database of the tracking server is away for a while; the server keeps running."""
    tracking, hosts = _cluster(site, 2)
    with site.published_once():
        run = site.run(hosts, tracking)
        site.reaches(int(rng.uniform(0.3, 0.6) * 2 * site.work.steps), run)
        tracking.postgres.stop()
        site.tell("PostgreSQL stopped", _steps(site))
        pause(min(extent.away, 20.0), run)
        tracking.postgres.start()
        site.tell("PostgreSQL back", _steps(site))
        site.ends_well(run)
    return _whole(site, tracking)


def storage_away(site: Site, extent: Extent, rng: random.Random) -> str:
    """Object storage refuses every write for a while in the middle of training, leases and resume points included."""
    bucket = site.bucket()
    tracking, hosts = site.tracking(), site.hosts(2)
    with site.published_once():
        run = site.run(hosts, tracking)
        site.reaches(int(rng.uniform(0.1, 0.6) * 2 * site.work.steps), run)
        with bucket.refusing():
            site.tell("storage refuses writes", _steps(site))
            pause(min(extent.away, 30.0), run)
        site.tell("storage takes writes", _steps(site))
        site.ends_well(run)
    return _whole(site, tracking)


def everything(site: Site, extent: Extent, rng: random.Random) -> str:
    """In one run: one node is preempted with notice, another vanishes, and the tracking server is away."""
    tracking, hosts = _cluster(site, 3)
    with site.published_once():
        run = site.run(hosts, tracking)
        _announce(site, hosts, run, rng)
        tracking.stop()
        site.tell("tracking server killed")
        hosts.add()
        until(lambda: site.setbacks(), "the move", run)
        pause(rng.uniform(0.0, 8.0), run)
        _remove(site, hosts, rng.choice(until(hosts.busy, "a node at work", run)))
        tracking.start()
        site.tell("tracking server back", _steps(site))
        site.ends_well(run)
        # On a slow machine the work may be done before the server is back.
        if MISSED in " ".join(run.said.split()):
            site.ends_well(site.run(hosts, tracking))
    _kinds(site, {"preempted": 1, "node lost": 1})
    return _whole(site, tracking)


def _cluster(site: Site, nodes: int) -> tuple[Tracking, Hosts]:
    """Starts object storage, a tracking server on PostgreSQL, and `nodes` nodes."""
    site.bucket()
    return site.tracking(), site.hosts(nodes)


def _remove(site: Site, hosts: Hosts, node: Any, when: str = "") -> None:
    before = _steps(site)
    hosts.remove(node)
    site.tell(f"node {node.node_id[:6]} removed {when}", before)


def _announce(site: Site, hosts: Hosts, run: Run, rng: random.Random) -> None:
    """As on a spot machine: in the middle of training the cloud announces that it takes it, to
    `ktrain watch-preemption`."""
    node, service = rng.choice(until(hosts.busy, "a node at work", run)), site.keeps(cloud.serving())
    command = [
        "-m",
        "sweeps.cli",
        "watch-preemption",
        "--cloud",
        "aws",
        "--metadata",
        service.address,
        "--every",
        "0.2",
    ]
    command += ["--address", hosts.address, "--node-id", node.node_id]
    watch = begin(command, site.folder / "watch-preemption.log", {})
    try:
        until(lambda: service.requests, "a question to the cloud", watch)
        site.reaches(int(rng.uniform(0.05, 0.4) * site.work.steps), run)
        service.takes_back(120.0)
        if watch.wait() or "drained" not in watch.said:
            raise Wrong(f"watch-preemption: {watch.said}")
    finally:
        watch.end()
    site.tell(f"node {node.node_id[:6]} announced and drained", _steps(site))


def _kinds(site: Site, wanted: dict[str, int]) -> None:
    """Counts restarts by their reason, without waits for capacity, which depend on the machine."""
    kinds = dict(Counter(setback["kind"] for setback in site.setbacks()))
    kinds.pop("no room", None)
    if kinds != wanted:
        raise Wrong(f"setbacks {kinds} instead of {wanted}")


def _whole(site: Site, tracking: Tracking, starts: int = 1) -> str:
    """Checks that everything is there once, as undisturbed; `starts` is how many runs began the work."""
    site.is_as_undisturbed()
    site.is_told_once(tracking)
    begun = {key: checks.starts(site.store, key, site.work.steps) for key in site.pretrainings}
    setbacks = Counter(setback["kind"] for setback in site.setbacks())
    # A readout may have been begun again instead, and a start may have ended before its first step.
    if sum(begun.values()) > starts * len(begun) + setbacks.total():
        raise Wrong(f"pretrainings were begun {begun} times, and these setbacks are known: {dict(setbacks)}")
    counts = ", ".join(f"{count} {kind}" for kind, count in setbacks.items()) or "no setback"
    return f"{counts}; pretrainings begun {' and '.join(map(str, begun.values()))} times; as undisturbed"


def _steps(site: Site) -> str:
    return ", ".join(f"{'single' if 'single' in k else 'multi5'} {v}" for k, v in site.progress().items())
