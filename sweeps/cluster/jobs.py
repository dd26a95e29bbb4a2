"""Runs sweeps as jobs of a Ray cluster: submitted from a laptop, driven by the head, identified by the sweep's name.

The laptop may go offline afterwards. A job carries no secrets: trials read them from the environment of the nodes.
"""

import asyncio
import contextlib
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from typer import Option

from ktrain.errors import WrongRequest
from ktrain.system.source_commit import as_environment
from sweeps.cluster import head_client
from sweeps.options import (
    EXIT_DONE,
    EXIT_FAILED,
    AxisWords,
    CheckpointSeconds,
    ClusterPath,
    GpuMemory,
    HeadAddress,
    ManyCells,
    MostGpus,
    NoCompile,
    ScaleName,
    StoreAddress,
    SweepName,
    Threads,
    Wide,
    Workers,
)

SHARED = ("s3", "gs", "az")
STOP = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "60"}
"""Ray stops a job as Ctrl-C stops a run, and kills it after 60 seconds."""


@dataclass(frozen=True)
class Job:
    """The latest job of a sweep at a scale. `state` is PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED."""

    id: str
    number: int
    state: str
    entrypoint: str
    message: str
    started: float | None
    ended: float | None

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self.state in ("PENDING", "RUNNING")

    def line(self) -> str:
        """Its id, state, times and error."""
        ended = f", ended {_clock(self.ended)}" if self.ended else ""
        failed = f": {self.message}" if self.state == "FAILED" and self.message else ""
        return f"job {self.id}: {self.state.lower()}, begun {_clock(self.started)}{ended}{failed}"


def latest(client: Any, sweep: str, scale: str) -> Job | None:
    """The newest job of a sweep on a cluster, or None."""
    jobs = []
    for job in client.list_jobs():
        if match := re.fullmatch(rf"{re.escape(_prefix(sweep, scale))}(\d+)", job.submission_id or ""):
            message = (job.message or "").strip().splitlines()[-1:]
            times = (t / 1000 if t else None for t in (job.start_time, job.end_time))
            jobs.append(Job(match[0], int(match[1]), str(job.status), job.entrypoint, " ".join(message), *times))
    return max(jobs, key=lambda job: job.number, default=None)


def shared(store: str) -> str:
    """Returns a store that all nodes can reach: an object-storage address, or the whole path of a folder.

    Raises `WrongRequest` for any other.
    """
    scheme, allowed = urlsplit(store).scheme, ", ".join(f"{s}://" for s in SHARED)
    if scheme in SHARED or (not scheme and Path(store).is_absolute()):
        return store
    raise WrongRequest(
        f"store={store}: the nodes do not see it; must be {allowed} or the whole path of a shared folder"
    )


def store_here(store: str, cluster: str | None) -> str:
    """The store of a cluster: `store`, else that of its cluster file; empty if neither can be read from here."""
    from sweeps.cluster import ray_start

    for address in (store, ray_start.store(cluster) if cluster else ""):
        if urlsplit(address).scheme in SHARED or Path(address).is_absolute():
            return address
    return ""


def show(sweep: str, scale: str, address: str | None, cluster: str | None) -> None:
    """Prints the state of a sweep's job; part of `ktrain status`."""
    name = _name(sweep)
    with head_client.client(address, cluster) as client:
        job = latest(client, name, scale)
    print(job.line() if job else f"no job of {name} at scale {scale} on this cluster", flush=True)


def submit(
    context: typer.Context,
    sweep: SweepName,
    axes: AxisWords,
    scale: ScaleName = "mini",
    store: StoreAddress = "results",
    workers: Workers = 1,
    threads: Threads = 1,
    checkpoint_seconds: CheckpointSeconds = 900.0,
    no_compile: NoCompile = False,
    gpus_max: MostGpus = None,
    gpu_memory: GpuMemory = None,
    wide: Wide = False,
    many_cells: ManyCells = False,
    address: HeadAddress = None,
    cluster: ClusterPath = None,
) -> int:
    """Run a sweep on a cluster, as a job that no longer needs this machine."""
    from ktrain.store.open import store_at
    from sweeps.cluster import job_bundle
    from sweeps.execution import run
    from sweeps.planning import plan
    from sweeps.planning.grid import MOST_CELLS, load, parse_overrides

    run.check(workers, threads, checkpoint_seconds, gpus_max, gpu_memory)
    words = run_words(context)
    if "--store" in words:
        shared(store)
    loaded, overrides = load(sweep), parse_overrides(axes)
    most = None if many_cells else MOST_CELLS
    with job_bundle.pack_job(sweep, scale, overrides, most) as folder:
        # Refuses here, before anything is sent, what the run would refuse on the cluster.
        plan.make(loaded, scale, overrides, store_at(str(folder / "none")), workers, most)
        entrypoint = job_bundle.command([job_bundle.below(sweep, Path.cwd()), *words])
        with head_client.client(address, cluster) as client:
            job = latest(client, loaded.name, scale)
            if job and job.running and job.entrypoint != entrypoint:
                raise WrongRequest(f"sweep {loaded.name}: {job.id} runs and asks for something else; cancel it or wait")
            if job and job.running:
                print(f"{job.line()}; nothing new was sent")
                return EXIT_DONE
            id = f"{_prefix(loaded.name, scale)}{job.number + 1 if job else 1}"
            client.submit_job(
                entrypoint=entrypoint,
                submission_id=id,
                runtime_env={"working_dir": str(folder), "env_vars": STOP | as_environment()},
                metadata={"sweep": loaded.name, "scale": scale},
            )
    print(f"job {id}: sent; this machine is needed no more. ktrain logs -f {sweep} follows it")
    return EXIT_DONE


def logs(
    sweep: SweepName,
    scale: ScaleName = "mini",
    follow: Annotated[bool, Option("--follow", "-f", help="Go on until the job ends.")] = False,
    address: HeadAddress = None,
    cluster: ClusterPath = None,
) -> int:
    """Print the log of a sweep's job on a cluster."""
    name = _name(sweep)
    with head_client.client(address, cluster) as client:
        job = _existing(client, name, scale)
        if not follow:
            print(client.get_job_logs(job.id), end="")
            return EXIT_DONE
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_follow(client, job.id))
            return EXIT_DONE if str(client.get_job_status(job.id)) == "SUCCEEDED" else EXIT_FAILED
    return EXIT_DONE


def cancel(
    sweep: SweepName, scale: ScaleName = "mini", address: HeadAddress = None, cluster: ClusterPath = None
) -> int:
    """Stop the job of a sweep on a cluster; what is done is kept, and submit continues it."""
    name = _name(sweep)
    with head_client.client(address, cluster) as client:
        job = _existing(client, name, scale)
        if job.running:
            client.stop_job(job.id)
        while job.running:
            time.sleep(0.5)
            job = _existing(client, name, scale)
    print(f"{job.line()}; what is done is kept, and ktrain submit {sweep} continues")
    return EXIT_DONE


def run_words(context: typer.Context) -> list[str]:
    """Returns the words after the sweep that make `run` do what the command line of a `submit` asks."""
    words = list(context.params["axes"])
    for option in context.command.params:
        source = context.get_parameter_source(str(option.name))
        if option.param_type_name != "option" or option.name in ("address", "cluster") or source is None:
            continue
        # By name: Typer does not export the enum.
        if source.name == "COMMANDLINE":
            value = context.params[str(option.name)]
            words += [option.opts[-1]] if value is True else [option.opts[-1], str(value)]
    return words


async def _follow(client: Any, id: str) -> None:
    async for lines in client.tail_job_logs(id):
        print(lines, end="", flush=True)


def _existing(client: Any, name: str, scale: str) -> Job:
    if job := latest(client, name, scale):
        return job
    raise WrongRequest(f"sweep {name}: no job of it at scale {scale} on this cluster; ktrain submit sends one")


def _name(sweep: str) -> str:
    from sweeps.planning.grid import load

    return load(sweep).name


def _prefix(sweep: str, scale: str) -> str:
    """The prefix of the ids of a sweep's jobs, which occur in URLs."""
    return f"ktrain-{re.sub('[^A-Za-z0-9]+', '-', sweep)}-{scale}-"


def _clock(seconds: float | None) -> str:
    return time.strftime("%d %b %H:%M:%S", time.localtime(seconds)) if seconds else "never"
