"""Opens the store at an address: a folder of this machine, or a bucket in object storage."""

import os
import re
import stat
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ktrain.errors import WrongRequest, nearest
from ktrain.store.base import Store
from ktrain.store.local import LocalStore
from ktrain.store.object_client import SCHEMES
from ktrain.store.object_store import ObjectStore
from ktrain.system.atomic_write import DEEPEST


def store_at(address: str | Path, *, patience: float = 0.0) -> Store:
    """Returns the store at a path or at a file://, s3://, gs:// or az:// address, for reading.

    A folder is not touched and need not exist, so plan and status can use it. Object storage is contacted once.

    Raises `WrongRequest` for any other address, for a file where a folder must be and, in object storage, for a bucket
    that does not exist, credentials that are refused, or an endpoint that does not answer within about ten seconds.
    With `patience`, an endpoint that does not answer is tried for that many seconds, then `StorageUnavailable` is
    raised.
    """
    text = str(address)
    prefix = re.match(r"([A-Za-z][\w+.-]+):/", text)
    scheme = prefix[1].lower() if prefix else "file"
    try:
        parts = urlsplit(text) if "://" in text else None
    except ValueError as e:
        raise WrongRequest(f"store={text}: is no address: {e}") from None
    if not text or scheme not in ("file", *SCHEMES):
        ways = ", ".join(f"{name}://" for name in SCHEMES)
        raise WrongRequest(f"store={text}: must be a folder or an address, {ways}{nearest(scheme, SCHEMES)}")
    if scheme in SCHEMES:
        if parts is None or not parts.netloc or parts.query or parts.fragment:
            raise WrongRequest(f"store={text}: must be {scheme}://BUCKET/PREFIX")
        path = "/".join(part for part in parts.path.split("/") if part)
        return ObjectStore(f"{scheme}://{parts.netloc}/{path}".rstrip("/")).reached(patience)
    if prefix and (parts is None or parts.netloc not in ("", "localhost")):
        raise WrongRequest(f"store={text}: must be file:///FOLDER, on this machine")
    root = Path(os.path.abspath(unquote(parts.path) if parts else os.path.expanduser(text)))
    if len(root.parts) > DEEPEST:
        raise WrongRequest(f"store={text}: has more than {DEEPEST} folders within each other")
    for folder, name in ((root, ""), (root / "stages", ": its `stages`")):
        if fault := _folder_fault(folder):
            raise WrongRequest(f"store={text}{name}: {fault}")
    return LocalStore(root)


def _folder_fault(path: Path) -> str:
    """Returns why a path cannot be a folder; empty if it is one, or if nothing is there."""
    try:
        return "" if stat.S_ISDIR(path.stat().st_mode) else "is a file, where a folder must be"
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, ValueError) as e:
        return f"is not readable: {getattr(e, 'strerror', None) or e}"


def open_store(address: str | Path, *, patience: float = 0.0) -> Store:
    """Returns the store at an address, ready for writing: its folder exists, a trial write succeeded, and what
    processes left behind when they died is removed.

    Raises what `store_at` raises, and `WrongRequest` for a folder that cannot hold a store and for object storage
    without conditional writes, where two drivers could do the same stage.
    """
    store = store_at(address, patience=patience)
    store.ready(patience, str(address))
    return store
