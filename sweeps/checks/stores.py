"""The store: writable, with locks or leases that work, with room, and one and the same from every node."""

import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ktrain.errors import WrongRequest
from ktrain.keys import digest
from ktrain.lease import LeaseHeld
from ktrain.mounts import Mount, mount
from ktrain.store import Store
from sweeps.checks.finding import Finding, Setting, fail, first_line, ok, skipped, warn
from sweeps.checks.machine import room

LIMIT = 60.0
"""Seconds for the whole check of one store; object storage is asked a dozen times, and says no only after some ten."""
SEEN_WITHIN = 5.0
"""Seconds in which what one node writes must be there for the others; network file systems remember for a while."""
DRIVER = "driver"
Ask = Callable[[str, Mapping[str, tuple[Any, ...]]], Mapping[str, Any]]
"""Calls a function of this module on nodes, by its name, with arguments for each: what came back, or an exception."""


def address(store: str) -> str:
    """The store's address such that it means the same from every folder."""
    return store if _scheme(store) else str(Path(store).expanduser().absolute())


def folder(store: str) -> Path | None:
    """The folder of a store that is one; None of object storage."""
    scheme = _scheme(store)
    return Path(unquote(urlsplit(store).path) if scheme else store) if scheme in ("", "file") else None


def store(setting: Setting) -> Iterator[Finding]:
    """`store`: a word written, read and removed; renames; a lease that only one holder gets."""
    key, word = _new()
    where, elsewhere = setting.store, "or choose another place with --store or KTRAIN_STORE"
    try:
        opened = Store.open(where)
        try:
            opened.note_failure(key, word)
            with _held(opened, mine()):
                if opened.failure(key) != word:
                    yield fail("store", f"{where} gives back something else than was written", f"mend it, {elsewhere}")
                elif contend(where, mine()):
                    yield fail("store", f"{where}: two get one lease, so its locks do nothing", f"mend it, {elsewhere}")
                else:
                    yield ok("store", f"{where} takes, gives and locks")
        finally:
            opened.clear_work(key)
    except (WrongRequest, OSError) as e:
        yield fail("store", first_line(e), f"make it writable for this account, {elsewhere}")


def space(setting: Setting) -> Iterator[Finding]:
    """`disk`, the line of the store."""
    local = folder(setting.store)
    yield room("disk", "store", local) if local else skipped("disk", "store: object storage has no end")


def file_system(setting: Setting) -> Iterator[Finding]:
    """`file-system`: what is known of the kind of disk that the store is on."""
    local = folder(setting.store)
    yield hint(mount(local), setting.nodes) if local else skipped("file-system", "the store is object storage")


def hint(disk: Mount, nodes: int) -> Finding:
    """The line for a store on such a mount, used by so many nodes."""
    name, kind, options = "file-system", disk.kind or "unknown", set(disk.options)
    if disk.objects:
        fix = "give the bucket's own address as the store: s3://, gs:// or az://"
        return fail(name, f"{disk.point} is {kind}: object storage as a folder has neither renames nor locks", fix)
    if unlocked := options & {"nolock", "local_lock=all", "local_lock=flock", "localflock", "nobrl"}:
        seen = f"{disk.point} is {kind} with {', '.join(sorted(unlocked))}: locks hold on one machine only"
        return fail(name, seen, f"mount it without {', '.join(sorted(unlocked))}") if nodes > 1 else ok(name, seen)
    if kind == "lustre" and "noflock" in options:
        return fail(name, f"{disk.point} is lustre without flock", "mount it with -o flock")
    if kind == "nfs" and options & {"vers=2", "nfsvers=2"}:
        return fail(name, f"{disk.point} is NFS 2, which has no locks", "mount it with -o vers=4.2")
    if kind.startswith("nfs") and "soft" in options:
        seen = f"{disk.point} is {kind} mounted soft: writes get lost when its server is slow"
        return warn(name, seen, "mount it with -o hard")
    if nodes > 1 and not disk.network:
        seen = f"{disk.point} is {kind}, which one machine has for itself"
        return warn(name, seen, "see store-sharing; use a folder that all nodes mount, or s3://")
    if kind in ("tmpfs", "ramfs", "overlay"):
        end = "container" if kind == "overlay" else "machine"
        fix = f"use a folder that outlives the {end}"
        return warn(name, f"{disk.point} is {kind}: what is in it goes with the {end}", fix)
    return ok(name, f"{disk.point} is {kind}")


def sharing(ask: Ask, store: str, nodes: list[str]) -> list[Finding]:
    """`store-sharing` of each node: it reads what all have written, and gets no lease that the driver holds.

    The driver writes and reads too. What a node does not answer is a failure. All that was written is removed.
    """
    words = {name: _new() for name in (DRIVER, *nodes)}
    names = {key: name for name, (key, _) in words.items()}

    def everywhere(method: str, arguments: Callable[[str], tuple[Any, ...]]) -> dict[str, Any]:
        answers = ask(method, {node: arguments(node) for node in nodes})
        return {DRIVER: _tried(METHODS[method], arguments(DRIVER)), **answers}

    written = everywhere("leave", lambda name: (store, *words[name]))
    wanted = {key: word for name, (key, word) in words.items() if not isinstance(written[name], Exception)}
    try:
        seen = everywhere("missing", lambda _: (store, wanted))
        got: Mapping[str, Any] = {}
        if not isinstance(written[DRIVER], Exception):
            with _held(Store.open(store), mine()):
                got = ask("contend", {node: (store, mine()) for node in nodes})
    finally:
        everywhere("clear", lambda name: (store, words[name][0]))
    return [_shared(name, names, written[name], seen[name], got.get(name, False), store) for name in words]


def _shared(name: str, names: Mapping[str, str], written: Any, missing: Any, got: Any, store: str) -> Finding:
    one = f"{store} must be one place for all nodes: a folder that all mount, or s3://"
    for answer in (written, missing, got):
        if isinstance(answer, Exception):
            mount = f"make {store} writable there; see the lines `store` and `nodes` of this node"
            return Finding("store-sharing", "fail", f"no answer: {first_line(answer)}", mount, name)
    if missing:
        others = ", ".join(names[key] for key in missing)
        seen = f"what {others} wrote is not there after {SEEN_WITHIN:.0f} s"
        return Finding("store-sharing", "fail", seen, one, name)
    if got:
        seen = "got a lease that the driver holds: locks do not reach from node to node"
        return Finding("store-sharing", "fail", seen, "mount it with locks (no nolock, local_lock), or use s3://", name)
    return Finding("store-sharing", "ok", f"reads what all {len(names)} wrote; a lease has one holder", "", name)


def mine() -> str:
    """The key of the lease that this machine tries. Always the same: object storage keeps a trace of each."""
    return f"doctor-{digest(socket.gethostname())}"


def leave(store: str, key: str, word: str) -> None:
    """Writes a word under a key."""
    Store.open(store).note_failure(key, word)


def missing(store: str, wanted: Mapping[str, str]) -> list[str]:
    """The keys under which the wanted word is not there, however often one looks for `SEEN_WITHIN` seconds."""
    opened, end = Store.open(store), time.monotonic() + SEEN_WITHIN
    while (lacking := [key for key, word in wanted.items() if opened.failure(key) != word]) and time.monotonic() < end:
        time.sleep(0.2)
    return lacking


def contend(store: str, key: str) -> bool:
    """Whether a lease can be had at once."""
    try:
        with _held(Store.at(store), key, patience=0):
            return True
    except LeaseHeld:
        return False


def clear(store: str, key: str) -> None:
    """Removes what `leave` wrote."""
    Store.at(store).clear_work(key)


METHODS: Mapping[str, Callable[..., Any]] = {f.__name__: f for f in (leave, missing, contend, clear)}


def _held(store: Store, key: str, **options: Any) -> AbstractContextManager[Any]:
    return store.lease(key, **options)


def _tried(method: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        return method(*arguments)
    except Exception as e:
        return e


def _new() -> tuple[str, str]:
    """A key that no stage has, and a random word."""
    return f"doctor-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex


def _scheme(store: str) -> str:
    return urlsplit(store).scheme if "://" in store else ""
