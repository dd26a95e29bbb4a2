"""Upkeep of a store in object storage: whether it keeps to conditions of writes, and what the dead left in it."""

import uuid
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from ktrain import layout, manifest
from ktrain.errors import WrongRequest
from ktrain.layout import DAMAGED, DATA, LEASES, PROBE, WORK
from ktrain.patience import StorageAway
from ktrain.storage import Objects

ABANDONED = timedelta(hours=1)
"""What was not finished is removed when nothing of it, and no lease of its stage, has changed for so long."""
_NEVER = datetime.min.replace(tzinfo=UTC)


def try_out(objects: Objects) -> datetime:
    """Writes, sees that conditions of writes hold, and returns the time by the clock of the store.

    Raises `StorageAway`, and `WrongRequest` for a storage in which two drivers could do one stage.
    """
    name, words = f"{PROBE}/{uuid.uuid4().hex}", [uuid.uuid4().hex.encode() for _ in range(4)]
    try:
        first = objects.create(name, words[0])
        held = (
            first is not None
            and objects.create(name, words[1]) is None
            and objects.replace(name, words[2], first) is not None
            and objects.replace(name, words[3], first) is None
        )
        now = [entry.modified for entry in objects.entries(PROBE) if entry.name == name]
    finally:
        with suppress(StorageAway):
            objects.remove([name])
    if not held or not now:
        raise WrongRequest(
            f"store={objects.address}: this storage does not keep to conditions of writes (If-None-Match, If-Match), "
            "so two drivers could do one stage; choose one that does, or a shared folder"
        )
    return now[0]


def sweep(objects: Objects, now: datetime) -> None:
    """Removes what drivers left that have died: files of publications that no manifest names, work on what is
    complete, and what they tried out. Raises `StorageAway`."""
    # Listed first: what comes to be complete meanwhile is in the listing of manifests after it.
    data, begun = objects.folders(DATA), objects.folders(WORK)
    complete = layout.complete(objects)
    count = Counter(_key(name) for name in data)
    suspect = [name for name in data if _key(name) not in complete or count[_key(name)] > 1]
    if suspect:
        kept = {layout.named(entry) for entry in objects.entries(DAMAGED)}
        kept |= {_published(objects, key) for key in {_key(name) for name in suspect} & complete.keys()}
        suspect = [name for name in suspect if name not in kept]
    left = [f"{DATA}/{name}" for name in suspect] + [f"{WORK}/{key}" for key in begun if key in complete]
    leases = {layout.named(entry): entry.modified for entry in objects.entries(LEASES) if entry.size} if left else {}
    for folder in left:
        entries = list(objects.entries(folder))
        changed = max((entry.modified for entry in entries), default=_NEVER)
        if now - max(changed, leases.get(_key(folder), _NEVER)) > ABANDONED:
            objects.remove(entry.name for entry in entries)
    objects.remove(entry.name for entry in objects.entries(PROBE) if now - entry.modified > ABANDONED)


def _published(objects: Objects, key: str) -> str:
    """The publication that a stage's manifest names; empty where it names none."""
    found = objects.get(layout.manifest_of(key))
    try:
        return layout.publication(layout.parsed(found[0] if found else b"", key))
    except manifest.Damage:
        return ""


def _key(name: str) -> str:
    """Of `<key>~<id>`, `data/<key>~<id>` and `work/<key>`."""
    return name.rpartition("/")[2].partition("~")[0]
