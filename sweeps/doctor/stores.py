"""The checks `store`, `disk`, `file-system` and `store-sharing`: writable, with room, one for all nodes."""

import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ktrain.errors import WrongRequest
from ktrain.fingerprint import digest
from ktrain.store.base import Store
from ktrain.store.lease import LeaseHeldElsewhere
from ktrain.store.open import open_store, store_at
from ktrain.system.filesystems import Mount, mount_of
from ktrain.system.home_folder import expanded
from sweeps.doctor.finding import CheckContext, Finding, fail, first_line, ok, skipped, warn
from sweeps.doctor.machine import room

LIMIT = 60.0
"""Seconds for the check of a store: a dozen requests to object storage, which may refuse only after ten seconds."""
VISIBLE_WITHIN = 5.0
"""Seconds within which every node must see what another wrote: network file systems cache for a while."""
DRIVER = "driver"
Ask = Callable[[str, Mapping[str, tuple[Any, ...]]], Mapping[str, Any]]
"""Calls one of `METHODS` on nodes, with arguments for each; returns results, or exceptions, by node."""


def address(store: str) -> str:
    """Returns the store's address, absolute if it is a folder."""
    return store if _scheme(store) else str(expanded(store).absolute())


def folder(store: str) -> Path | None:
    """Returns the folder of a store, or None for object storage."""
    scheme = _scheme(store)
    return Path(unquote(urlsplit(store).path) if scheme else store) if scheme in ("", "file") else None


def store(context: CheckContext) -> Iterator[Finding]:
    """`store`: writes, reads and removes a word, and takes a lease that only one holder may get."""
    key, word = _new()
    where, elsewhere = context.store, "or choose another place with --store or KTRAIN_STORE"
    try:
        opened = open_store(where)
        try:
            opened.note_failure(key, word)
            with _lease(opened, lease_key()):
                if opened.failure(key) != word:
                    yield fail("store", f"{where} gives back something else than was written", f"mend it, {elsewhere}")
                elif contend(where, lease_key()):
                    yield fail("store", f"{where}: two get one lease, so its locks do nothing", f"mend it, {elsewhere}")
                else:
                    yield ok("store", f"{where} takes, gives and locks")
        finally:
            opened.clear_work(key)
    except (WrongRequest, OSError) as e:
        yield fail("store", first_line(e), f"make it writable for this account, {elsewhere}")


def space(context: CheckContext) -> Iterator[Finding]:
    """`disk`: the free space of a store that is a folder."""
    local = folder(context.store)
    yield room("disk", "store", local) if local else skipped("disk", "store: object storage has no end")


def file_system(context: CheckContext) -> Iterator[Finding]:
    """`file-system`: whether the kind of disk that holds the store has the locks and renames that a store needs."""
    local = folder(context.store)
    yield hint(mount_of(local), context.nodes) if local else skipped("file-system", "the store is object storage")


def hint(disk: Mount, nodes: int) -> Finding:
    """Returns `file-system` of a store on this mount, used by `nodes` nodes."""
    name, kind, options = "file-system", disk.kind or "unknown", set(disk.options)
    if disk.objects:
        fix = "give the bucket's own address as the store: s3://, gs:// or az://"
        return fail(name, f"{disk.point} is {kind}: object storage as a folder has neither renames nor locks", fix)
    if unlocked := options & {"nolock", "local_lock=all", "local_lock=flock", "localflock", "nobrl"}:
        detail = f"{disk.point} is {kind} with {', '.join(sorted(unlocked))}: locks hold on one machine only"
        return fail(name, detail, f"mount it without {', '.join(sorted(unlocked))}") if nodes > 1 else ok(name, detail)
    if kind == "lustre" and "noflock" in options:
        return fail(name, f"{disk.point} is lustre without flock", "mount it with -o flock")
    if kind == "nfs" and options & {"vers=2", "nfsvers=2"}:
        return fail(name, f"{disk.point} is NFS 2, which has no locks", "mount it with -o vers=4.2")
    if kind.startswith("nfs") and "soft" in options:
        detail = f"{disk.point} is {kind} mounted soft: writes get lost when its server is slow"
        return warn(name, detail, "mount it with -o hard")
    if nodes > 1 and not disk.network:
        detail = f"{disk.point} is {kind}, which only one machine can use"
        return warn(name, detail, "see store-sharing; use a folder that all nodes mount, or s3://")
    if kind in ("tmpfs", "ramfs", "overlay"):
        end = "container" if kind == "overlay" else "machine"
        fix = f"use a folder that outlives the {end}"
        return warn(name, f"{disk.point} is {kind}: what is in it goes with the {end}", fix)
    return ok(name, f"{disk.point} is {kind}")


def sharing(ask: Ask, store: str, nodes: list[str]) -> list[Finding]:
    """Returns `store-sharing` of each node: it reads what all wrote, and gets no lease that the driver holds.

    The driver writes and reads too. A node that does not answer fails. All words are removed at the end.
    """
    words = {name: _new() for name in (DRIVER, *nodes)}
    names = {key: name for name, (key, _) in words.items()}

    def everywhere(method: str, arguments: Callable[[str], tuple[Any, ...]]) -> dict[str, Any]:
        answers = ask(method, {node: arguments(node) for node in nodes})
        return {DRIVER: _tried(METHODS[method], arguments(DRIVER)), **answers}

    written = everywhere("leave", lambda name: (store, *words[name]))
    wanted = {key: word for name, (key, word) in words.items() if not isinstance(written[name], Exception)}
    try:
        detail = everywhere("missing", lambda _: (store, wanted))
        got: Mapping[str, Any] = {}
        if not isinstance(written[DRIVER], Exception):
            with _lease(open_store(store), lease_key()):
                got = ask("contend", {node: (store, lease_key()) for node in nodes})
    finally:
        everywhere("clear", lambda name: (store, words[name][0]))
    return [_shared(name, names, written[name], detail[name], got.get(name, False), store) for name in words]


def _shared(name: str, names: Mapping[str, str], written: Any, missing: Any, got: Any, store: str) -> Finding:
    one = f"{store} must be one place for all nodes: a folder that all mount, or s3://"
    for answer in (written, missing, got):
        if isinstance(answer, Exception):
            mount = f"make {store} writable there; see the lines `store` and `nodes` of this node"
            return Finding("store-sharing", "fail", f"no answer: {first_line(answer)}", mount, name)
    if missing:
        others = ", ".join(names[key] for key in missing)
        detail = f"what {others} wrote is not there after {VISIBLE_WITHIN:.0f} s"
        return Finding("store-sharing", "fail", detail, one, name)
    if got:
        detail = "got a lease that the driver holds: locks do not reach from node to node"
        return Finding(
            "store-sharing", "fail", detail, "mount it with locks (no nolock, local_lock), or use s3://", name
        )
    return Finding("store-sharing", "ok", f"reads what all {len(names)} wrote; a lease has one holder", "", name)


def lease_key() -> str:
    """Returns the key of this machine's test lease, always the same one: object storage keeps a trace of each."""
    return f"doctor-{digest(socket.gethostname())}"


def leave(store: str, key: str, word: str) -> None:
    """Writes a word under a key."""
    open_store(store).note_failure(key, word)


def missing(store: str, wanted: Mapping[str, str]) -> list[str]:
    """Returns the keys whose word has not appeared within `VISIBLE_WITHIN` seconds."""
    opened, end = open_store(store), time.monotonic() + VISIBLE_WITHIN
    while (lacking := [key for key, word in wanted.items() if opened.failure(key) != word]) and time.monotonic() < end:
        time.sleep(0.2)
    return lacking


def contend(store: str, key: str) -> bool:
    """Returns whether the lease is free."""
    try:
        with _lease(store_at(store), key, patience=0):
            return True
    except LeaseHeldElsewhere:
        return False


def clear(store: str, key: str) -> None:
    """Removes what `leave` wrote."""
    store_at(store).clear_work(key)


METHODS: Mapping[str, Callable[..., Any]] = {f.__name__: f for f in (leave, missing, contend, clear)}


def _lease(store: Store, key: str, **options: Any) -> AbstractContextManager[Any]:
    return store.lease(key, **options)


def _tried(method: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        return method(*arguments)
    except Exception as e:
        return e


def _new() -> tuple[str, str]:
    """Returns a key that no stage has, and a random word."""
    return f"doctor-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex


def _scheme(store: str) -> str:
    return urlsplit(store).scheme if "://" in store else ""
