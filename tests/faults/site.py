"""A site: a folder, a store, a tracking server and a cluster, in which faults are injected and logged."""

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ktrain.store import object_names
from ktrain.store.base import Store
from ktrain.store.object_client import ObjectClient
from ktrain.store.open import store_at
from sweeps.execution.ray_session import prepare
from tests.faults import checks
from tests.faults.hosts import Hosts
from tests.faults.services import Bucket, Tracking, bucket
from tests.faults.work import PATIENCE, ROOT, Run, Work, Wrong, begin, until

SECONDS = 0.5
"""Between two resume points at most."""


@dataclass(frozen=True)
class Event:
    """A fault, its moment in seconds since the scenario began, and its consequence."""

    at: float
    what: str
    then: str = ""


@dataclass
class Site:
    """One scenario's place. Its store is a folder, until it gets a bucket; that, a cluster and a tracking server come
    when asked for, in this order."""

    folder: Path
    work: Work
    undisturbed: "Undisturbed"
    address: str = ""
    events: list[Event] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)
    _stack: ExitStack = field(default_factory=ExitStack)
    _runs: list[Run] = field(default_factory=list)

    def __enter__(self) -> "Site":
        self.folder.mkdir(parents=True)
        self.address = str(self.root)
        return self

    def __exit__(self, *_: object) -> None:
        for run in self._runs:
            run.end()
        self._stack.close()

    @property
    def root(self) -> Path:
        """The folder of the store, and in any case of reports."""
        return self.folder / "results"

    @property
    def store(self) -> Store:
        """The store, as others see it. Storage on a machine that is busy is asked again."""
        return store_at(self.address, patience=PATIENCE)

    def bucket(self) -> Bucket:
        """Object storage for the store, until the end of the scenario."""
        storage = self._stack.enter_context(bucket(self.folder / "s3.log"))
        self.address = storage.address
        return storage

    def hosts(self, count: int) -> Hosts:
        """A cluster of so many nodes, until the end of the scenario."""
        os.environ["PYTHONPATH"] = str(ROOT)
        prepare()
        return self._stack.enter_context(Hosts(count, self.folder / "disks"))

    def tracking(self) -> Tracking:
        """A tracking server, until the end of the scenario."""
        return self._stack.enter_context(Tracking(self.folder / "tracking"))

    def keeps(self, context: Any) -> Any:
        """Enters a context until the end of the scenario."""
        return self._stack.enter_context(context)

    def run(self, hosts: Hosts, tracking: Tracking, *words: str) -> Run:
        """`ktrain run` on a cluster."""
        command = ["-m", "sweeps.cli", "run", "demo", *self.work.axes, "--store", self.address, "--no-compile"]
        command += ["--checkpoint-seconds", str(SECONDS), *words]
        return self.begin(command, {"RAY_ADDRESS": hosts.address, **tracking.login})

    def alone(self, **environment: str) -> Run:
        """The core without Ray, on the same store."""
        return self.begin(["-m", "tests.faults.alone", self.address, str(self.work.steps), str(SECONDS)], environment)

    def begin(self, command: list[str], environment: dict[str, str]) -> Run:
        """Starts a run, which ends with the scenario at the latest."""
        run = begin(command, self.folder / f"run-{len(self._runs)}.log", environment)
        self._runs.append(run)
        return run

    def tell(self, what: str, then: str = "") -> None:
        """Writes down what was done."""
        self.events.append(Event(round(time.monotonic() - self._began, 1), what, then))

    def progress(self) -> dict[str, int]:
        """Steps of pretraining by stage: what its newest resume point has, or all."""
        store = self.store
        return {key: self.work.steps if store.exists(key) else self._safe(key) for key in self.pretrainings}

    def _safe(self, key: str) -> int:
        if self.address == str(self.root):
            points = [path.name for path in self.root.glob(f"work/{key}/step-*")]
        else:
            objects = ObjectClient(self.address).entries(f"{object_names.WORK}/{key}")
            points = [entry.name.split("/")[-2] for entry in objects if entry.name.endswith("/point.json")]
        return max((int(point.partition("~")[0].removeprefix("step-")) for point in points), default=0)

    @cached_property
    def pretrainings(self) -> list[str]:
        """The keys of both."""
        return [cell.stages.pretrain.key for cell in self.work.plan(self.address).cells]

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
        checks.tidy(self.store)

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

    def is_told_once(self, tracking: Tracking) -> None:
        """Holds MLflow to the store."""
        with tracking.connect() as connection:
            checks.tracked(connection, self.store, self.work)

    @contextmanager
    def published_once(self) -> Iterator[None]:
        """No stage may be published twice meanwhile."""
        with checks.publications(self.store) as once:
            yield
            once()

    def setbacks(self) -> list[dict[str, str]]:
        """What `ktrain run` wrote down of what it began again."""
        file = self.root / "reports" / "demo" / "setbacks.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


class Undisturbed:
    """The results of an undisturbed run, computed once for each size of the work."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._begun: dict[int, Run] = {}
        self._found: dict[int, dict[str, Any]] = {}

    def begin(self, work: Work) -> None:
        """Starts the run early, so that its results are ready when they are needed."""
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
            self._found[work.steps] = checks.results(store_at(self.store(work)), work)
        return self._found[work.steps]

    def end(self) -> None:
        """Kills runs that have not ended."""
        for run in self._begun.values():
            run.end()
