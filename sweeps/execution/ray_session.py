"""The Ray that a command works with: its settings, the connection to it, and silence about it."""

import contextlib
import gc
import json
import logging
import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from ktrain.errors import WrongRequest, shorten
from ktrain.system.cache_dirs import use_machine_caches
from ktrain.system.home_folder import expand_home
from ktrain.system.launchers import forget_launcher
from ktrain.system.loopback import never_proxied
from ktrain.system.source_commit import as_environment
from sweeps.execution import local_ray, stop_signals
from sweeps.execution.cluster_address import LOCAL, VARIABLE

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "2",
    # Ray's default niceness is 15, and then anything else on the machine runs before training.
    "RAY_worker_niceness": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # The store has everything that Ray Tune could restore a run from.
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
}
_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Where Ray tells the driver of a job what the job was sent with, as JSON."""
log = logging.getLogger("ktrain.ray")
STARTS = 2
"""How often a Ray of this machine alone is tried to be started: a loaded machine may take longer than Ray waits."""


_MEMORY_USERS = re.compile(r"running low on memory.*?MEM\(GB\)\tCOMMAND\n\d+\t([\d.]+)\t([^\n]*)", re.DOTALL)
"""The first of the memory's users that Ray lists where it ends processes for the lack of it: gigabytes and command."""


class Interrupted(Exception):
    """The user asked to stop. The store keeps what is done, and the next run continues from there."""


def prepare() -> None:
    """Sets up Ray and the libraries' caches for this process and for a Ray that it starts, and keeps requests to this
    machine away from proxies.

    Variables that the user has set stay, except for those of a launcher and `PYTHONDONTWRITEBYTECODE`. Processes of a
    cluster get these settings with the job, and their caches from their own machine.
    """
    forget_launcher()
    expand_home()
    never_proxied()
    use_machine_caches(Path(".cache"))
    # Ray starts a dozen processes for a trial. Where a container forbids Python to keep the modules that it compiles,
    # each process compiles a thousand, which takes three times as long.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    # The commit too, as it is now: while a sweep trains, the checkout may move on.
    for name, value in (SETTINGS | as_environment()).items():
        os.environ.setdefault(name, value)


def settings_for_cluster() -> dict[str, str]:
    """Returns the variables of `prepare` that processes of a cluster need, because they do not descend from this one.

    Addresses and secrets are not among them: each node has its own in its environment.
    """
    settings = {name: os.environ[name] for name in SETTINGS if name in os.environ} | as_environment()
    return {name: value for name, value in settings.items() if name not in _set_by_job()}


def _set_by_job() -> Collection[str]:
    """The variables that all processes of a job have already, if this process is one: Ray refuses to be told them
    again."""
    job = json.loads(os.environ.get(_JOB, "{}"))
    variables: dict[str, str] = job.get("runtime_env", {}).get("env_vars", {})
    return variables.keys()


class RayEnded(Exception):
    """Ray gave up before the trials did, in one line. The store keeps what is done, and the next run continues."""

    def __init__(self, error: BaseException) -> None:
        text = str(error)
        if user := _MEMORY_USERS.search(text):
            most = f"`{shorten(user[2], 100)}` ({float(user[1]):.1f} GB)"
            super().__init__(f"the memory of this machine is full, and Ray ended the trials; most of it has {most}")
        else:
            super().__init__(f"Ray ended: {shorten((text.splitlines() or [type(error).__name__])[0], 200)}")


@contextlib.contextmanager
def connected(address: str, **own: Any) -> Iterator[None]:
    """Connects to Ray at an address, or starts one with the options `own` at `local`, which only this run can use.

    Raises `WrongRequest` if none lets this process in or starts, `Interrupted` on Ctrl-C, and `RayEnded` in place of
    Ray's own errors.
    """
    import ray
    from ray.exceptions import RayError

    with local_ray.confined() if address == LOCAL else contextlib.nullcontext():
        _init(address, own)
        try:
            yield
        except KeyboardInterrupt:
            raise Interrupted from None
        except RayError as e:
            raise RayEnded(e) from e
        finally:
            # If another thread collects garbage that refers to Ray during the shutdown, Ray ends the process.
            gc.disable()
            gc.collect()
            try:
                ray.shutdown()
            finally:
                gc.enable()


def _init(address: str, own: Mapping[str, Any]) -> None:
    """Initialises Ray; one that does not start on this machine gets another try, with a line that says so."""
    import ray

    tries = STARTS if address == LOCAL else 1
    for left in reversed(range(tries)):
        others = set(psutil.Process().children(recursive=True))
        try:
            with stop_signals.kept():
                # Ray's own start-up lines say nothing about the sweep, and if it does not start, its error says why.
                level = logging.CRITICAL if address == LOCAL else logging.ERROR
                ray.init(address=address, **own, log_to_driver=False, logging_level=level)
            return
        except Exception as e:
            if address != LOCAL:
                why = f"{shorten(e, 200)}; `ktrain doctor --address {address}` says more"
                raise WrongRequest(f"{VARIABLE}={address}: does not let this run in: {why}") from e
            ray.shutdown()
            _end_children(others)
            why = f"Ray does not start here ({shorten(e, 200)}); {machine_load()}"
            if not left:
                raise WrongRequest(f"{why}: end what fills the machine; `ktrain doctor` says more") from e
            log.warning("%s; trying once more", why)


def machine_load() -> str:
    """Returns the load of this machine beside its cores, which is above them where processes wait for each other."""
    return f"the load is {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores"


def _end_children(others: Collection[psutil.Process]) -> None:
    """Ends the processes that have descended from this one meanwhile: those of a Ray that has not started."""
    for process in psutil.Process().children(recursive=True):
        if process not in others:
            with contextlib.suppress(psutil.Error):
                process.kill()


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """Silences the loggers of Ray's libraries."""
    loggers = [logging.getLogger(n) for n in ("ray.tune", "ray.train", "ray.data", "ray")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Silences Ray's loggers and stdout, where Ray Tune prints tables, hints, and how many processes it started."""
    with muted(), open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
