"""The names of objects in a store in object storage.

stages/<key>/manifest.json       makes the stage complete; written last, the first writer wins. Empty: it was set aside
data/<key>~<id>/...              the files of one publication, which the manifest names by its id
damaged/<key>~<id>.json          a manifest that did not verify, and why; its data stay for inspection
work/<key>/...                   unfinished work, see `ktrain.store.checkpoint_mirror`
failures/<key>.txt               how a stage failed
leases/<key>.json                who works on a stage now; empty: nobody
probe/<id>                       exists while conditional writes are tested

Objects are never renamed, and overwritten only by a writer that has read the version it replaces. So the storage has to
provide two things only: an object appears whole or not at all, and conditional writes work.
"""

import re
from collections.abc import Mapping
from typing import Any

from ktrain.fingerprint import NAME, checked_key
from ktrain.store import manifest
from ktrain.store.base import FAILURE
from ktrain.store.json_files import Damage
from ktrain.store.object_client import ObjectClient, ObjectInfo

DATA, DAMAGED, FAILURES, LEASES, PROBE, STAGES, WORK = (
    "data", "damaged", "failures", "leases", "probe", "stages", "work",
)  # fmt: skip
_ID = re.compile(r"[0-9a-f]{12}")


def manifest_of(key: str) -> str:
    """The object whose presence makes a stage complete."""
    return f"{STAGES}/{checked_key(key)}/{manifest.NAME}"


def lease_of(key: str) -> str:
    """The object that holds the lease of a stage."""
    return f"{LEASES}/{checked_key(key)}.json"


def failure_of(key: str) -> str:
    """The object that records how a stage failed."""
    return f"{FAILURES}/{checked_key(key)}.txt"


def note_of(key: str, name: str) -> str:
    """The object of a note on the unfinished work on a stage; failures lie together, because all are listed."""
    return failure_of(key) if name == FAILURE else f"{WORK}/{checked_key(key)}/{name}"


def publication(header: Mapping[str, Any]) -> str:
    """The name of a publication, `<key>~<id>`, from its manifest."""
    return f"{header['key']}~{header['publication']}"


def data_of(header: Mapping[str, Any], file: str = "") -> str:
    """The object that holds a file of a publication, or the folder of all of them."""
    return f"{DATA}/{publication(header)}/{file}".rstrip("/")


def parsed(content: bytes, key: str) -> dict[str, Any]:
    """Parses the manifest of stage `key`. Raises `Damage`."""
    header = manifest.parse(content, key)
    if not _ID.fullmatch(str(header.get("publication"))):
        raise Damage(f"{manifest.NAME} names no publication")
    return header


def named(entry: ObjectInfo) -> str:
    """The part of an object's name between folder and suffix: a key, or `<key>~<id>`."""
    return entry.name.rpartition("/")[2].rpartition(".")[0]


def complete(objects: ObjectClient) -> dict[str, ObjectInfo]:
    """The object of the manifest of each complete stage, by key."""
    manifests = {}
    for entry in objects.entries(STAGES):
        _, key, *rest = entry.name.split("/")
        if rest == [manifest.NAME] and entry.size and NAME.fullmatch(key):
            manifests[key] = entry
    return manifests
