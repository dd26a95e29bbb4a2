"""Whether a tracking address can be used, and the tables of an SQLite database, which MLflow makes when a client is
first used.

Of two processes that do so at once, one fails at a column that is there. A server makes its tables itself.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ktrain.errors import WrongRequest
from ktrain.store.compare_and_swap import locked
from sweeps.tracking.address import database_file
from sweeps.tracking.server_errors import refusal


@contextmanager
def schema_lock(uri: str) -> Iterator[None]:
    """Lets no other process of this machine make the tables of an SQLite database while the block runs."""
    file = database_file(uri)
    if file is None:
        yield
        return
    with locked(file.absolute().parent, f".{file.name}.lock"):
        yield


def await_schema(uri: str) -> None:
    """Waits until no other command makes the tables of a database that exists; one that only reads makes none."""
    file = database_file(uri)
    if file is not None and file.is_file():
        # Where this process may not write, it cannot lock.
        with suppress(OSError), schema_lock(uri):
            pass


def is_new(uri: str) -> bool:
    """Whether an address is that of a database which is still to be made.

    Raises `WrongRequest` if its folder is there and not writable; that of a new store is not there yet.
    """
    file = database_file(uri)
    if file is None or file.exists():
        return False
    folder = file.absolute().parent
    try:
        if folder.exists():
            tempfile.TemporaryFile(dir=folder).close()
    except OSError as e:
        raise WrongRequest(f"MLFLOW_TRACKING_URI={uri}: {folder} is not writable: {e.strerror}") from None
    return True


def require_usable(uri: str, sweep: str) -> None:
    """Raises `WrongRequest` if a server, or a database that exists, cannot be used for a sweep; creates nothing."""
    from mlflow import MlflowClient

    if is_new(uri):
        return
    try:
        with schema_lock(uri):
            MlflowClient(uri).get_experiment_by_name(sweep)
    except Exception as e:
        raise refusal(uri, e) from e
