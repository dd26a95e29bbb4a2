"""Scenarios: one fault each, made while work is done, and what must hold afterwards."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.faults import checks
from tests.faults.hosts import Hosts
from tests.faults.site import Site
from tests.faults.work import Run, Wrong, until


@dataclass(frozen=True)
class Extent:
    """How much is done in a scenario: `kills` of nodes, services being away for `away` seconds."""

    kills: int
    away: float


def nodes_removed(site: Site, extent: Extent, rng: random.Random) -> str:
    """Nodes vanish, each at a random moment of the training, and others come in their place."""
    tracking, hosts = site.tracking(), site.hosts(3)
    moments = sorted(rng.uniform(0.02, 0.95) for _ in range(extent.kills))
    with site.published_once():
        run = site.run(hosts, tracking.uri)
        for moment in moments:
            site.reaches(int(moment * 2 * site.work.steps), run)
            node = rng.choice(until(hosts.busy, "a node at work", run))
            # Wherever in the next seconds: also while others are still coming back.
            _pause(rng.uniform(0.0, 2.0), run)
            if not run.runs:
                break
            before = site.progress()
            hosts.remove(node)
            site.tell(f"node {node.node_id[:6]} removed at {moment:.0%}", _steps(before))
            hosts.add()
        site.ends_well(run)
    return _whole(site, tracking.uri, extent.kills)


def _whole(site: Site, uri: str, removed: int) -> str:
    site.is_as_undisturbed()
    site.is_told_once(uri)
    begun = {key: checks.starts(site.store, key, site.work.steps) for key in site.pretrainings}
    again = len(site.setbacks())
    # A readout may have been begun again too, and a start may have ended before its first step.
    if sum(begun.values()) > len(begun) + again:
        raise Wrong(f"pretrainings were begun {begun} times, and {again} setbacks are known")
    return f"{removed} removed, {again} begun again, pretrainings begun {'+'.join(map(str, begun.values()))}x; as undisturbed"


def _steps(progress: dict[str, int]) -> str:
    return " ".join(f"{'single' if 'single' in key else 'multi5'}:{step}" for key, step in progress.items())


def _pause(seconds: float, run: Run) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and run.runs:
        time.sleep(0.05)


Scenario = Callable[[Site, Extent, random.Random], str]
SCENARIOS: dict[str, Scenario] = {"nodes-removed": nodes_removed}
_unused: tuple[Any, ...] = (Hosts,)
