"""Layout: how a store in object storage names what it holds.

stages/<key>/manifest.json       the stage is complete; written last, by the first who comes. Empty: it was moved aside
data/<key>~<id>/...              the files of one publication, which the manifest names by its id
damaged/<key>~<id>.json          what did not verify, and the manifest; its data stay, to be looked at
work/<key>/...                   unfinished work, see `ktrain.mirror`
failures/<key>.txt               how a stage failed
leases/<key>.json                who does a stage now; empty: nobody
probe/<id>                       there while a store is tried out

Nothing is renamed, and nothing is written over but by who has seen it: all that is asked of the storage is that an
object is there whole or not at all, and that conditions of writes hold.
"""

import re
from collections.abc import Mapping
from typing import Any

from ktrain import manifest
from ktrain.keys import NAME
from ktrain.storage import Entry, Objects
from ktrain.store import checked

DATA, DAMAGED, FAILURES, LEASES, PROBE, STAGES, WORK = (
    "data", "damaged", "failures", "leases", "probe", "stages", "work",
)  # fmt: skip
_ID = re.compile(r"[0-9a-f]{12}")


def manifest_of(key: str) -> str:
    """The object that makes a stage complete."""
    return f"{STAGES}/{checked(key)}/{manifest.NAME}"


def lease_of(key: str) -> str:
    """The object that is the lease of a stage."""
    return f"{LEASES}/{checked(key)}.json"


def failure_of(key: str) -> str:
    """The object that says how a stage failed."""
    return f"{FAILURES}/{checked(key)}.txt"


def publication(about: Mapping[str, Any]) -> str:
    """The name of a publication, `<key>~<id>`, from its manifest."""
    return f"{about['key']}~{about['publication']}"


def data_of(about: Mapping[str, Any], file: str = "") -> str:
    """The object with a file of a publication, or the folder of all."""
    return f"{DATA}/{publication(about)}/{file}".rstrip("/")


def parsed(content: bytes, key: str) -> dict[str, Any]:
    """The manifest of stage `key` from its object. Raises `Damage`."""
    about = manifest.parse(content, key)
    if not _ID.fullmatch(str(about.get("publication"))):
        raise manifest.Damage(f"{manifest.NAME} names no publication")
    return about


def named(entry: Entry) -> str:
    """What is between the folder and the suffix of an object's name: a key, or `<key>~<id>`."""
    return entry.name.rpartition("/")[2].rpartition(".")[0]


def complete(objects: Objects) -> dict[str, Entry]:
    """The manifest of each complete stage."""
    found = {}
    for entry in objects.entries(STAGES):
        _, key, *rest = entry.name.split("/")
        if rest == [manifest.NAME] and entry.size and NAME.fullmatch(key):
            found[key] = entry
    return found
