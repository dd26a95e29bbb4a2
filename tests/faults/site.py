"""A site: a folder, a store, a tracking server and a cluster in which faults are made and written down."""

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ktrain.store import Store
from sweeps.run import cache
from tests.faults import checks
from tests.faults.hosts import Hosts
from tests.faults.services import Tracking
from tests.faults.work import ROOT, Run, Work, Wrong, begin, until

SECONDS = 0.5
"""Between two resume points at most."""


@dataclass(frozen=True)
class Event:
    """What was done to the work at a moment, in seconds since the scenario began, and what came of it."""

    at: float
    what: str
    then: str = ""


@dataclass
class Site:
    """One scenario's place. `store` and `uri` are addresses; a cluster and a server of its own come when asked for."""

    folder: Path
    work: Work
    undisturbed: "Undisturbed"
    uri: str | None = None
    events: list[Event] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)
    _stack: ExitStack = field(default_factory=ExitStack)
    _runs: list[Run] = field(default_factory=list)

    def __enter__(self) -> "Site":
        self.folder.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        for run in self._runs:
            run.end()
        self._stack.close()

    @property
    def root(self) -> Path:
        """The folder of the store."""
        return self.folder / "results"

    @property
    def store(self) -> Store:
        """The store, as others see it."""
        return Store.at(self.root)

    def hosts(self, count: int) -> Hosts:
        """A cluster of so many nodes, until the end of the scenario."""
        cache(ROOT / ".cache")
        os.environ["PYTHONPATH"] = str(ROOT)
        return self._stack.enter_context(Hosts(count))

    def tracking(self) -> Tracking:
        """A tracking server, until the end of the scenario."""
        return self._stack.enter_context(Tracking(self.folder / "tracking"))

    def keeps(self, context: Any) -> Any:
        """Enters a context until the end of the scenario."""
        return self._stack.enter_context(context)

    def run(self, hosts: Hosts, uri: str, *words: str) -> Run:
        """`ktrain run` on a cluster."""
        command = ["-m", "sweeps.cli", "run", "demo", *self.work.axes, "--store", str(self.root), "--no-compile"]
        command += ["--checkpoint-seconds", str(SECONDS), *words]
        environment = {"RAY_ADDRESS": hosts.address, "MLFLOW_TRACKING_URI": uri, "KTRAIN_CACHE": str(ROOT / ".cache")}
        return self._begin(command, environment)

    def alone(self, **environment: str) -> Run:
        """The core without Ray, on the same store."""
        return self._begin(
            ["-m", "tests.faults.alone", str(self.root), str(self.work.steps), str(SECONDS)], environment
        )

    def _begin(self, command: list[str], environment: dict[str, str]) -> Run:
        run = begin(command, self.folder / f"run-{len(self._runs)}.log", environment)
        self._runs.append(run)
        return run

    def tell(self, what: str, then: str = "") -> None:
        """Writes down what was done."""
        self.events.append(Event(round(time.monotonic() - self._began, 1), what, then))

    def progress(self) -> dict[str, int]:
        """Steps of pretraining by stage: what its newest resume point has, or all."""
        found = {}
        for key in self.pretrainings:
            points = [int(path.name.removeprefix("step-")) for path in self.root.glob(f"work/{key}/step-*")]
            found[key] = self.work.steps if self.store.exists(key) else max(points, default=0)
        return found

    @property
    def pretrainings(self) -> list[str]:
        """The keys of both."""
        return [cell.stages[1].key for cell in self.work.plan(str(self.root)).cells]

    def reaches(self, steps: int, run: Run) -> None:
        """Waits until so many steps of pretraining are safe in all."""
        until(lambda: sum(self.progress().values()) >= steps, f"step {steps}", run)

    def ends_well(self, run: Run) -> None:
        """Waits for the end of a run, which has to be done with everything."""
        if code := run.wait():
            raise Wrong(f"exit code {code}:\n{run.said[-3000:]}")

    def is_as_undisturbed(self) -> None:
        """Holds the results to those of an undisturbed run, and finds nothing else in the store."""
        checks.same(checks.results(self.store, self.work), self.undisturbed(self.work))
        checks.tidy(self.root)

    def loss_apart(self, most: float) -> float:
        """The largest difference to a final loss of the undisturbed run, as a share. Raises `Wrong` above `most`."""
        wanted = self.undisturbed(self.work)
        shares = []
        for key in self.pretrainings:
            loss, calm = self.store.metrics(key)["train/loss"], wanted[key]["metrics"]["train/loss"]
            shares.append(abs(loss - calm) / calm)
        if max(shares) > most:
            raise Wrong(f"final losses differ by {max(shares):.1%} from the undisturbed run's")
        return max(shares)

    def copies_undisturbed(self) -> None:
        """Begins with everything done."""
        self.undisturbed.copy(self.work, self.root)

    def is_told_once(self, uri: str) -> None:
        """Holds MLflow to the store."""
        checks.tracked(uri, self.store, self.work)

    @contextmanager
    def published_once(self) -> Iterator[None]:
        """No stage may be published twice meanwhile."""
        with checks.publications(self.root) as once:
            yield
            once()

    def setbacks(self) -> list[dict[str, str]]:
        """What `ktrain run` wrote down of what it began again."""
        file = self.root / "reports" / "demo" / "setbacks.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


class Undisturbed:
    """What the work comes to when nothing happens, once for each size of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._begun: dict[int, Run] = {}
        self._found: dict[int, dict[str, Any]] = {}

    def begin(self, work: Work) -> None:
        """Starts it, so that it is done when it is asked for."""
        if work.steps not in self._begun:
            self._folder.mkdir(parents=True, exist_ok=True)
            command = ["-m", "tests.faults.alone", str(self.store(work)), str(work.steps), "1e9"]
            self._begun[work.steps] = begin(command, self._folder / f"{work.steps}.log", {})

    def store(self, work: Work) -> Path:
        """Where its results lie."""
        return self._folder / str(work.steps)

    def copy(self, work: Work, to: Path) -> None:
        """Its results, for changing."""
        self(work)
        shutil.copytree(self.store(work), to)

    def __call__(self, work: Work) -> dict[str, Any]:
        """Digests and metrics by stage."""
        if work.steps not in self._found:
            self.begin(work)
            run = self._begun[work.steps]
            if code := run.wait():
                raise Wrong(f"the undisturbed run ended with {code}:\n{run.said[-3000:]}")
            self._found[work.steps] = checks.results(Store.at(self.store(work)), work)
        return self._found[work.steps]

    def end(self) -> None:
        """Kills what has not ended."""
        for run in self._begun.values():
            run.end()
