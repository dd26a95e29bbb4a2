"""The checks `tracking` and `tracking-schema` of databases: SQLite beside the store, or one named by its address."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ktrain.system.filesystems import mount_of
from sweeps.doctor.finding import Finding, fail, first_line, ok

SECONDS = 5


def sqlite(uri: str, nodes: int) -> Iterator[Finding]:
    """`tracking` of an SQLite file, which only one machine may use; `tracking-schema` if the file exists."""
    path = Path(uri.removeprefix("sqlite:///"))
    server = "export MLFLOW_TRACKING_URI=http://HEAD:5000 and start `ktrain serve` there"
    kind = mount_of(path)
    if nodes > 1:
        detail = f"SQLite, which only one machine may use, and {nodes} nodes"
        yield fail("tracking", detail, server)
    elif kind.network and kind.kind != "fuse.overlayfs":
        detail = f"SQLite on {kind.kind} ({kind.point}), whose locks it cannot trust"
        yield fail("tracking", detail, server)
    elif not uri.startswith("sqlite:////"):
        yield fail(
            "tracking",
            f"{uri} means another file in every folder",
            f"export MLFLOW_TRACKING_URI=sqlite:///{path.absolute()}",
        )
    elif not path.exists():
        yield ok("tracking", f"the first run makes {path}")
    else:
        yield from schema(uri)


def schema(uri: str) -> Iterator[Finding]:
    """`tracking` and `tracking-schema`: the database answers, and has the tables of the installed MLflow."""
    import sqlalchemy
    from mlflow.store.db.utils import _get_latest_schema_revision, _get_schema_version

    shown = without_password(uri)
    sqlite = uri.startswith("sqlite")
    path = uri.removeprefix("sqlite:///")
    # MLflow's own engine would create missing tables.
    options: dict[str, Any] = {} if sqlite else {"connect_args": {"connect_timeout": SECONDS}}
    try:
        engine = sqlalchemy.create_engine(f"sqlite:///file:{path}?mode=ro&uri=true" if sqlite else uri, **options)
        try:
            there, here = _get_schema_version(engine), _get_latest_schema_revision()
        finally:
            engine.dispose()
    except Exception as e:
        again = f"move {path} aside: the next run makes it again from the store"
        fix = again if sqlite else "start it, or mend its address"
        yield fail("tracking", f"{shown}: {root_cause(e)}", fix)
        return
    yield ok("tracking", f"{shown} answers")
    if there is None:
        yield ok("tracking-schema", "empty: the first run makes its tables")
    elif there != here:
        fix = f"back it up, then `mlflow db upgrade {shown}` with the newest MLflow that writes to it"
        yield fail("tracking-schema", f"its tables are of revision {there}, this MLflow needs {here}", fix)
    else:
        yield ok("tracking-schema", f"revision {there}, as this MLflow needs")


def without_password(uri: str) -> str:
    """Returns an address with its password, if it has one, replaced by `***`."""
    return re.sub(r"(//[^/@:]*):[^/]*@", r"\1:***@", uri)


def root_cause(error: BaseException) -> str:
    """Returns the first line of the innermost cause of an error, which names no address with a password."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return first_line(error)
