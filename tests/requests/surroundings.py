"""Environments, working folders and stores that are odd."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.requests.attempt import CLEAN, REFUSED, Request

VALUES = {
    "empty": "",
    "blank": " ",
    "a device": "/dev/null",
    "full": "/dev/full",
    "in a file": "/dev/null/x",
    "in /proc": "/proc/nowhere/x",
    "too long": "/" + "x" * 5000,
    "minus": "-1",
    "markup": "[/red]",
    "lines": "a\nb",
    "no text": "\udcff",
    "home of nobody": "~nobody-at-all/x",
    "malformed IPv6": "http://[::1",
    "scheme": "nothing://x",
    "port": "http://127.0.0.1:99999999",
}
VARIABLES = (
    *("KTRAIN_STORE", "KTRAIN_CACHE", "KTRAIN_DATABASE_URL", "COLUMNS", "LINES", "TERM", "HOME", "XDG_CONFIG_HOME"),
    *("TMPDIR", "RAY_TMPDIR", "RAY_ADDRESS", "OMP_NUM_THREADS", "LANG", "NO_COLOR", "FORCE_COLOR", "http_proxy"),
    *("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "CUDA_VISIBLE_DEVICES"),
)
TRACKING = {
    **VALUES,
    "malformed IPv6 with a port": "http://[::1:5000",
    "no host": "http://",
    "no host but a port": "http://:5000",
    "a word as port": "http://localhost:port",
    "a password": "http://me:secret@localhost:5000",
    "a database in memory": "sqlite://",
    "a database without a name": "sqlite:///",
    "a database in memory by name": "sqlite:///:memory:",
    "a database of a host": "sqlite://host/x.db",
    "a database that is a folder": "sqlite:///results",
    "the root": "sqlite:////",
    "a database in a folder that is not there": "sqlite:////nowhere/at/all/mlflow.db",
    "a database in a file": "sqlite:////dev/null/mlflow.db",
    "a device as database": "sqlite:////dev/null",
    "a text as database": "sqlite:///text.db",
    "a folder": "results",
    "a file address": "file:///tmp/x",
    "an unknown database": "oracle://x/y",
    "a space": "http://local host",
    "a comma": "http://localhost:1,http://localhost:2",
    "databricks": "databricks",
}
"""Values of MLFLOW_TRACKING_URI; all but the first, which sets nothing, must be refused."""


def _link_loop(path: Path) -> None:
    path.symlink_to(path.name)


def _file(path: Path) -> None:
    path.write_text("no store")


def _stages_file(path: Path) -> None:
    path.mkdir()
    (path / "stages").write_text("no folder")


def _stages_loop(path: Path) -> None:
    path.mkdir()
    (path / "stages").symlink_to("stages")


def _stages_dangling(path: Path) -> None:
    path.mkdir()
    (path / "stages").symlink_to("nowhere")


def _leases_file(path: Path) -> None:
    path.mkdir()
    (path / "leases").write_text("no folder")


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.symlink_to("/dev/null")


def _database_folder(path: Path) -> None:
    (path / "mlflow.db").mkdir(parents=True)


def _database_text(path: Path) -> None:
    path.mkdir()
    (path / "mlflow.db").write_text("no database" * 1000)


def _database_loop(path: Path) -> None:
    path.mkdir()
    (path / "mlflow.db").symlink_to("mlflow.db")


def _database_fifo(path: Path) -> None:
    path.mkdir()
    os.mkfifo(path / "mlflow.db")


def _reports_file(path: Path) -> None:
    path.mkdir()
    (path / "reports").write_text("no folder")


STORES: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "a file": (_file, ("plan", "status", "results", "report", "run", "why")),
    "a FIFO": (_fifo, ("plan", "status", "results", "report", "run", "why")),
    "a device": (_device, ("plan", "status", "results", "report", "run", "why")),
    "a link to itself": (_link_loop, ("plan", "status", "results", "report", "run", "why")),
    "a link to nothing": (_dangling, ("run",)),
    "with a file as stages": (_stages_file, ("plan", "status", "results", "report", "run", "why")),
    "with a link to itself as stages": (_stages_loop, ("plan", "status", "results", "report", "run", "why")),
    "with a link to nothing as stages": (_stages_dangling, ("run",)),
    "with a file as leases": (_leases_file, ("run",)),
    "with a folder as database": (_database_folder, ("results", "report", "run", "ui")),
    "with a text as database": (_database_text, ("results", "report", "run")),
    "with a link to itself as database": (_database_loop, ("results", "report", "run", "ui")),
    "with a FIFO as database": (_database_fifo, ("results", "report", "run", "ui")),
    "with a file as reports": (_reports_file, ("report",)),
}
"""What makes a store odd, and the commands that must refuse it."""
COMMANDS = ("plan", "status", "results", "report", "run", "why", "ui")
WORKING: dict[str, Callable[[Path], None]] = {
    "is gone": lambda work: work.rmdir(),
    "has a file as cache": lambda work: (work / ".cache").touch(),
    "has a link to itself as cache": lambda work: (work / ".cache").symlink_to(".cache"),
}
BACKGROUND: dict[str, tuple[Callable[[Path], None], str]] = {
    "has a folder of text's name": (lambda text: (text / "b.txt").mkdir(), CLEAN),
    "has a broken link": (lambda text: (text / "b.txt").symlink_to("nowhere"), CLEAN),
    "has a link to itself": (lambda text: (text / "b.txt").symlink_to("b.txt"), CLEAN),
    "has a FIFO": (lambda text: os.mkfifo(text / "b.txt"), CLEAN),
    "has an empty text": (lambda text: (text / "b.txt").touch(), REFUSED),
    "has a text that is no UTF-8": (lambda text: (text / "b.txt").write_bytes(b"\xff"), CLEAN),
}


def requests() -> Iterator[Request]:
    """Yields odd environments, stores, working folders and folders of background text."""
    for variable in VARIABLES:
        for number, (what, value) in enumerate(VALUES.items()):
            command = ("plan", "status", "results")[number % 3]
            yield Request(f"environment: {variable} is {what}", (command, "demo"), environment={variable: value})
    for number, (what, value) in enumerate(TRACKING.items()):
        # Without an address, a run makes a database, which takes seconds.
        for command in ("results", "report", "run") if number else ("results", "report"):
            yield Request(
                f"environment: MLFLOW_TRACKING_URI is {what}, {command}",
                (command, "demo"),
                REFUSED if number else CLEAN,
                files={"text.db": "no database"},
                environment={"MLFLOW_TRACKING_URI": value},
                prepare=lambda work: (work / "results").mkdir(),
            )
    for what, (make, refusing) in STORES.items():
        for command in COMMANDS:
            if command == "run" and command not in refusing:
                continue
            words = (command, *({"ui": (), "why": ("key",)}.get(command, ("demo",))))
            end = REFUSED if command in refusing else CLEAN
            yield Request(
                f"store: {what}, {command}", words, end, prepare=lambda work, make=make: make(work / "results")
            )
    for what, change in WORKING.items():
        for words in (
            ("plan", "demo"),
            ("status", "demo"),
            ("results", "demo"),
            ("show", "people"),
            ("run", "nowhere"),
        ):
            yield Request(f"working folder: {what}, {words[0]}", words, prepare=change)
    for what, (make, end) in BACKGROUND.items():

        def prepare(work: Path, make: Callable[[Path], None] = make) -> None:
            (work / "text").mkdir()
            (work / "text" / "a.txt").write_text("An old river runs through the valley." * 99)
            make(work / "text")

        yield Request(f"background: {what}", ("plan", "demo", "corpus.background=text"), end, prepare=prepare)
