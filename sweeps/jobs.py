"""Sweeps as jobs of a Ray cluster: sent from a laptop, run by the cluster's head, found again by the sweep's name.

The laptop is needed for sending and asking only. A job carries no secret: what trials need of them stands in the
environment of the nodes.
"""

import argparse
import asyncio
import contextlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ktrain.errors import WrongRequest
from sweeps import dashboard

SHARED = ("s3", "gs", "az")
STOP = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "60"}
"""A job is stopped as a run on a terminal is, by Ctrl-C, and has so many seconds to end."""


@dataclass(frozen=True)
class Job:
    """The latest job of a sweep at a scale. `state` is PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED."""

    id: str
    number: int
    state: str
    entrypoint: str
    said: str
    began: float | None
    ended: float | None

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.state in ("PENDING", "RUNNING")

    def line(self) -> str:
        """Its id, state and times, and how it failed."""
        ended = f", ended {_clock(self.ended)}" if self.ended else ""
        failed = f": {self.said}" if self.state == "FAILED" and self.said else ""
        return f"job {self.id}: {self.state.lower()}, begun {_clock(self.began)}{ended}{failed}"


def add(commands: Any) -> None:
    """The commands `submit`, `logs` and `cancel`; `run` must be there, for `submit` takes all that it takes."""
    run = commands.choices["run"]
    submit = commands.add_parser(
        "submit",
        parents=[run],
        add_help=False,
        help="run a sweep on a cluster, as a job that needs this machine no more",
    )
    dashboard.options(submit)
    submit.set_defaults(handler=lambda arguments: _submit(arguments, _words(arguments, run)))
    logs = commands.add_parser("logs", help="what the job of a sweep has said")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until the job ends")
    logs.set_defaults(handler=_logs)
    cancel = commands.add_parser("cancel", help="stop the job of a sweep; what is done is kept, and submit continues")
    cancel.set_defaults(handler=_cancel)
    for parser in (logs, cancel):
        parser.add_argument("sweep", help="the sweep that was submitted")
        parser.add_argument("--scale", default="mini", help="mini (default), small or full")
        dashboard.options(parser)


def latest(client: Any, sweep: str, scale: str) -> Job | None:
    """The newest job of a sweep on a cluster, or None."""
    found = []
    for job in client.list_jobs():
        if match := re.fullmatch(rf"{re.escape(_prefix(sweep, scale))}(\d+)", job.submission_id or ""):
            said = (job.message or "").strip().splitlines()[-1:]
            times = (t / 1000 if t else None for t in (job.start_time, job.end_time))
            found.append(Job(match[0], int(match[1]), str(job.status), job.entrypoint, " ".join(said), *times))
    return max(found, key=lambda job: job.number, default=None)


def shared(store: str) -> str:
    """A store that may be one for all nodes: an address of object storage, or a folder's whole path.

    Raises `WrongRequest` for another one.
    """
    scheme, allowed = urlsplit(store).scheme, ", ".join(f"{s}://" for s in SHARED)
    if scheme in SHARED or (not scheme and Path(store).is_absolute()):
        return store
    raise WrongRequest(
        f"store={store}: the nodes do not see it; must be {allowed} or the whole path of a shared folder"
    )


def store_here(store: str, cluster: str | None) -> str:
    """The store of a cluster as this machine can read it: the one asked for, else its file's; empty where unknown."""
    from sweeps import cluster as files

    for address in (store, files.store(cluster) if cluster else ""):
        if urlsplit(address).scheme in SHARED or Path(address).is_absolute():
            return address
    return ""


def show(sweep: str, scale: str, address: str | None, cluster: str | None) -> None:
    """Prints the state of a sweep's job, for `ktrain status`."""
    name = _name(sweep)
    with dashboard.client(address, cluster) as client:
        job = latest(client, name, scale)
    print(job.line() if job else f"no job of {name} at scale {scale} on this cluster", flush=True)


def _submit(arguments: argparse.Namespace, words: Sequence[str]) -> int:
    from ktrain.store import Store
    from sweeps import parcel, plan, run
    from sweeps.sweep import load, overridden

    run.check(arguments.workers, arguments.threads, arguments.checkpoint_seconds)
    if "--store" in words:
        shared(arguments.store)
    sweep, overrides = load(arguments.sweep), overridden(arguments.axes)
    with parcel.packed(arguments.sweep, arguments.scale, overrides) as folder:
        # All that a run would refuse is refused here, before anything is sent.
        plan.make(sweep, arguments.scale, overrides, Store.at(str(folder / "none")), arguments.workers)
        entrypoint = parcel.command([parcel.below(arguments.sweep, Path.cwd()), *words])
        with dashboard.client(arguments.address, arguments.cluster) as client:
            job = latest(client, sweep.name, arguments.scale)
            if job and job.running and job.entrypoint != entrypoint:
                raise WrongRequest(f"sweep {sweep.name}: {job.id} runs, and asks for something else; cancel it or wait")
            if job and job.running:
                print(f"{job.line()}; nothing new was sent")
                return 0
            id = f"{_prefix(sweep.name, arguments.scale)}{job.number + 1 if job else 1}"
            client.submit_job(
                entrypoint=entrypoint,
                submission_id=id,
                runtime_env={"working_dir": str(folder), "env_vars": STOP},
                metadata={"sweep": sweep.name, "scale": arguments.scale},
            )
    print(f"job {id}: sent; this machine is needed no more. ktrain logs -f {arguments.sweep} follows it")
    return 0


def _logs(arguments: argparse.Namespace) -> int:
    name = _name(arguments.sweep)
    with dashboard.client(arguments.address, arguments.cluster) as client:
        job = _found(client, name, arguments.scale)
        if not arguments.follow:
            print(client.get_job_logs(job.id), end="")
            return 0
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_follow(client, job.id))
            return 0 if str(client.get_job_status(job.id)) == "SUCCEEDED" else 1
    return 0


async def _follow(client: Any, id: str) -> None:
    async for lines in client.tail_job_logs(id):
        print(lines, end="", flush=True)


def _cancel(arguments: argparse.Namespace) -> int:
    name = _name(arguments.sweep)
    with dashboard.client(arguments.address, arguments.cluster) as client:
        job = _found(client, name, arguments.scale)
        if job.running:
            client.stop_job(job.id)
        while job.running:
            time.sleep(0.5)
            job = _found(client, name, arguments.scale)
    print(f"{job.line()}; what is done is kept, and ktrain submit {arguments.sweep} continues")
    return 0


def _found(client: Any, name: str, scale: str) -> Job:
    if job := latest(client, name, scale):
        return job
    raise WrongRequest(f"sweep {name}: no job of it at scale {scale} on this cluster; ktrain submit sends one")


def _name(sweep: str) -> str:
    from sweeps.sweep import load

    return load(sweep).name


def _prefix(sweep: str, scale: str) -> str:
    """How the ids of a sweep's jobs begin; what may stand in an address stands in them."""
    return f"ktrain-{re.sub('[^A-Za-z0-9]+', '-', sweep)}-{scale}-"


def _words(arguments: argparse.Namespace, run: argparse.ArgumentParser) -> list[str]:
    """The words after the sweep that make `run` do what `submit` was told."""
    words = list(arguments.axes)
    for action in run._actions:
        value = getattr(arguments, action.dest, action.default)
        if action.option_strings and value != action.default:
            words += [action.option_strings[-1], *([] if action.nargs == 0 else [str(value)])]
    return words


def _clock(seconds: float | None) -> str:
    return time.strftime("%d %b %H:%M:%S", time.localtime(seconds)) if seconds else "never"
