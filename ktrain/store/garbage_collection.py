"""Tests that object storage honours conditional writes, and removes what dead drivers left in it."""

import uuid
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from ktrain.errors import WrongRequest
from ktrain.store import object_names
from ktrain.store.json_files import Damage
from ktrain.store.object_client import ObjectClient
from ktrain.store.object_names import DAMAGED, DATA, LEASES, PROBE, WORK
from ktrain.system.retry import StorageUnavailable

ABANDONED = timedelta(hours=1)
"""Unfinished data are removed once neither they nor the lease of their stage have changed for this long."""
_NEVER = datetime.min.replace(tzinfo=UTC)


def probe_conditional_writes(objects: ObjectClient) -> datetime:
    """Tests conditional writes with a temporary object, and returns the time by the clock of the storage.

    Raises `StorageUnavailable`, and `WrongRequest` for storage in which two drivers could do the same stage.
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
        with suppress(StorageUnavailable):
            objects.remove([name])
    if not held or not now:
        raise WrongRequest(
            f"store={objects.address}: this storage does not keep to conditions of writes (If-None-Match, If-Match), "
            "so two drivers could do one stage; choose one that does, or a shared folder"
        )
    return now[0]


def collect_garbage(objects: ObjectClient, now: datetime) -> None:
    """Removes what dead drivers left: files of publications that no manifest names, work on complete stages, and
    objects of probes. Raises `StorageUnavailable`."""
    # Listed before the manifests, so that a stage that becomes complete in between is not taken for garbage.
    data, begun = objects.folders(DATA), objects.folders(WORK)
    complete = object_names.complete(objects)
    count = Counter(_key(name) for name in data)
    suspect = [name for name in data if _key(name) not in complete or count[_key(name)] > 1]
    if suspect:
        needed = {object_names.named(entry) for entry in objects.entries(DAMAGED)}
        needed |= {_published(objects, key) for key in {_key(name) for name in suspect} & complete.keys()}
        suspect = [name for name in suspect if name not in needed]
    left = [f"{DATA}/{name}" for name in suspect] + [f"{WORK}/{key}" for key in begun if key in complete]
    leases = (
        {object_names.named(entry): entry.modified for entry in objects.entries(LEASES) if entry.size} if left else {}
    )
    for folder in left:
        entries = list(objects.entries(folder))
        changed = max((entry.modified for entry in entries), default=_NEVER)
        if now - max(changed, leases.get(_key(folder), _NEVER)) > ABANDONED:
            objects.remove(entry.name for entry in entries)
    objects.remove(entry.name for entry in objects.entries(PROBE) if now - entry.modified > ABANDONED)


def _published(objects: ObjectClient, key: str) -> str:
    """The publication that a stage's manifest names; empty where it names none."""
    stored = objects.get(object_names.manifest_of(key))
    try:
        return object_names.publication(object_names.parsed(stored[0] if stored else b"", key))
    except Damage:
        return ""


def _key(name: str) -> str:
    """The key in `<key>~<id>`, `data/<key>~<id>` or `work/<key>`."""
    return name.rpartition("/")[2].partition("~")[0]
