"""Services of a cluster: MLflow's server on PostgreSQL, and object storage, each of which can be away for a while."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import s3_server
from fault_proxy import Proxy
from head import Head
from postgres import Missing, Postgres

from tests.faults.disks import NotHere

WRITES = ("PUT", "POST", "DELETE")


class Tracking:
    """`ktrain serve` on a real PostgreSQL, with a login."""

    def __init__(self, folder: Path) -> None:
        """Raises `NotHere` without PostgreSQL."""
        self._folder = folder

    def __enter__(self) -> "Tracking":
        try:
            self.postgres = Postgres.installed()
        except Missing as missing:
            raise NotHere(str(missing)) from None
        self.postgres.__enter__()
        try:
            self._folder.mkdir(parents=True)
            self._head = Head.prepared(self.postgres, "faults", self._folder)
            self.start()
        except BaseException:
            self.postgres.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._head.stop()
        finally:
            self.postgres.__exit__()

    @property
    def login(self) -> dict[str, str]:
        """The environment of a client."""
        return self._head.login

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        self._head.start()

    def stop(self) -> None:
        """Hard, as when its machine is gone."""
        self._head.kill()

    def connect(self) -> Any:
        """A connection to its database."""
        return self.postgres.connect("faults")


class Bucket:
    """Object storage behind a proxy, which can refuse to be written."""

    def __init__(self, proxy: Proxy, port: int) -> None:
        self._proxy = proxy
        self.address = "s3://bucket/results"
        self.environment = {**s3_server.environment(port), "AWS_ENDPOINT_URL": proxy.address}

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Every write is answered with an error meanwhile."""
        self._proxy.before = lambda method, *_: 503 if method in WRITES else None
        try:
            yield
        finally:
            self._proxy.before = lambda *_: None


@contextmanager
def bucket(log: Path) -> Iterator[Bucket]:
    """Object storage, for this process and those that it starts."""
    kept = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    with s3_server.serving(log) as port:
        proxy = Proxy(port)
        made = Bucket(proxy, port)
        for name in kept:
            del os.environ[name]
        os.environ.update(made.environment)
        try:
            yield made
        finally:
            for name in made.environment:
                del os.environ[name]
            os.environ.update(kept)
            proxy.close()
