"""The manifest of a stage: its presence makes the stage complete, and it holds size and SHA-256 of every file."""

import errno
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ktrain
from ktrain.fingerprint import digest, plain, sha256
from ktrain.store.json_files import PARSERS, Damage, is_mapping, parse_json, parse_metrics
from ktrain.store.regular_files import IrregularFile, read_bytes, status_of
from ktrain.system.source_commit import source_commit

NAME, METRICS = "manifest.json", "metrics.json"
CHECKSUM = "checksum"
"""The field that holds the SHA-256 of all other fields. Manifests of older versions lack it."""
STARTED = "started"
"""The field that says when work on the stage began. Manifests of older versions lack it, too."""
_FIELDS = {"key", "kind", "config", "files", "versions", "created"}
_OPTIONAL = {CHECKSUM, STARTED, "publication", "machine"}
_PACKAGES = ("torch", "transformers", "deepspeed", "ray")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
_verified: dict[tuple[str, int, int, int, int], str] = {}
"""SHA-256 by path and what changes with the content, so that each process reads a model of gigabytes only once."""


def describe(folder: Path, header: dict[str, Any]) -> dict[str, Any]:
    """Returns the manifest of a folder: `header`, size and SHA-256 of each file, versions, the
    machine, the time, the checksum.

    Raises `ValueError` for anything but regular files and folders, for a file named `manifest.json`, for a key that is
    not that of the config, and for what JSON cannot hold.
    """
    if digest(header["config"]) != _digest_in(header["key"]):
        raise ValueError(f"{header['key']} is not the key of its config")
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()) or name == NAME:
            raise ValueError(f"{name} cannot be published: only regular files and folders, besides the manifest")
        if path.is_file():
            files[name] = {"size": path.stat().st_size, "sha256": sha256(path)}
    created = timestamp(time.time())
    return with_checksum(
        {**plain(header), "files": files, "versions": _versions(), "machine": _machine(), "created": created}
    )


def timestamp(seconds: float) -> str:
    """A moment in seconds since the epoch, as a manifest holds it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def with_checksum(manifest: dict[str, Any]) -> dict[str, Any]:
    """Returns the manifest with the checksum of its other fields, which comes last."""
    others = {name: value for name, value in manifest.items() if name != CHECKSUM}
    return {**others, CHECKSUM: hashlib.sha256(text(others).encode()).hexdigest()}


def text(manifest: dict[str, Any]) -> str:
    """The manifest as JSON text. Raises `ValueError` for what JSON cannot hold."""
    return json.dumps(manifest, indent=1, allow_nan=False)


def write_manifest(folder: Path, header: dict[str, Any]) -> None:
    """Writes the manifest of a folder once every file in it has reached the disk."""
    content = text(describe(folder, header))
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for path in folder.rglob("*"):
        if path.is_file():
            flush(path)
    (folder / NAME).write_text(content, encoding="utf-8")
    flush(folder / NAME)
    for path in reversed(folders):
        flush(path)


def flush(path: Path) -> None:
    """Waits until a file, or the list of names in a folder, has reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _versions() -> dict[str, str]:
    versions = {"ktrain": ktrain.__version__, "python": platform.python_version()}
    if commit := source_commit():
        versions["commit"] = commit
    for package in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def _machine() -> dict[str, str]:
    """The device that this process computes on; nothing for one that has not loaded PyTorch, which has trained nothing
    and should not take seconds to load it for this."""
    if "torch" not in sys.modules:
        return {}
    from ktrain.system.device import describe_device

    return describe_device()


def damage_of(folder: Path, key: str, *, afresh: bool = False) -> str | None:
    """Returns the first wrong file of a stage and what is wrong with it, or None.

    Reads every file that this process has not read since it changed, or, `afresh`, every file.
    """
    try:
        files = read(folder, key)["files"]
        for name, entry in files.items():
            verify(folder, name, entry, afresh=afresh)
        parse_known(folder, files)
    except Damage as damage:
        return str(damage)
    return None


def read_unchanged(folder: Path, key: str) -> dict[str, Any]:
    """Reads the manifest of a stage, and compares the size of every file with it and, where a file has changed later
    than the manifest, the content. Raises `Damage`.

    Afterwards the manifest's time of change is that of the comparison, so that the next call need not read these files.
    """
    began = time.time_ns()
    manifest = read(folder, key)
    written = (folder / NAME).stat().st_mtime_ns
    changed = []
    for name, entry in manifest["files"].items():
        status = _sized(folder, name, entry)
        # A copied file may keep its time of modification; no program sets the other one.
        if max(status.st_mtime_ns, status.st_ctime_ns) > written:
            changed.append((name, entry))
    for name, entry in changed:
        verify(folder, name, entry)
    if changed:
        with suppress(OSError):  # A store that others own is read all the same.
            os.utime(folder / NAME, ns=(began, began))
    return manifest


def read(folder: Path, key: str) -> dict[str, Any]:
    """Reads the manifest of stage `key`. Raises `Damage` where there is none that is readable."""
    return parse(_content(folder, NAME), key)


def parse_known(folder: Path, names: Iterable[str]) -> None:
    """Parses those of some files of a stage that numbers are shown from. Raises `Damage` for malformed content, even if
    the manifest has its SHA-256."""
    for name in names:
        if name in PARSERS:
            PARSERS[name](_content(folder, name))


def read_metrics(folder: Path) -> dict[str, float]:
    """Reads the metrics of a stage without comparing them with its manifest. Raises `Damage`."""
    return parse_metrics(_content(folder, METRICS))


def parse(content: bytes, key: str) -> dict[str, Any]:
    """Parses the manifest of stage `key`. Raises `Damage` for anything else, for a manifest that is not as it was
    written, and for one whose config is not that of the key."""
    try:
        manifest = parse_json(content, NAME)
        if not _well_formed(manifest) or manifest["key"] != key:
            raise Damage
        own = digest(manifest["config"])
    except (Damage, RecursionError, ValueError):
        raise Damage(f"{NAME} is not readable as the manifest of this stage") from None
    # Compared byte by byte, so that what JSON leaves open, such as spaces, is not open here.
    if CHECKSUM in manifest and text(with_checksum(manifest)).encode() != content:
        raise Damage(f"{NAME} has other content than when it was published")
    if own != _digest_in(key):
        raise Damage(f"{NAME} holds another config than that of its key")
    return dict(manifest)


def _well_formed(manifest: Any) -> bool:
    """Whether a value has the fields of a manifest, each of its type, and names only files below the stage's folder."""
    return (
        is_mapping(manifest)
        and manifest.keys() - _OPTIONAL == _FIELDS
        and all(isinstance(manifest[name], str) for name in ("key", "kind", "created"))
        and isinstance(manifest.get(STARTED, ""), str)
        and isinstance(manifest["config"], dict)
        and is_mapping(manifest["versions"], str)
        and is_mapping(manifest.get("machine", {}), str)
        and is_mapping(manifest["files"], dict)
        and all(map(_stays_below, manifest["files"]))
        and all(map(_well_formed_entry, manifest["files"].values()))
    )


def _well_formed_entry(entry: dict[str, Any]) -> bool:
    size, content = entry.get("size"), entry.get("sha256")
    return type(size) is int and size >= 0 and isinstance(content, str) and bool(_SHA256.fullmatch(content))


def _stays_below(name: str) -> bool:
    """Whether a file's name leads nowhere else: a writer to the store must not gain the power to write elsewhere on the
    machines that read it."""
    return name.isprintable() and not any(part in ("", ".", "..") for part in name.split("/"))


def _digest_in(key: str) -> str:
    """The digest of its config that a key ends with."""
    return key.rpartition("-")[2]


def verify(folder: Path, name: str, entry: dict[str, Any], *, afresh: bool = False) -> None:
    """Compares a file with its entry in the manifest. Raises `Damage` where size or SHA-256 differ.

    A file that this process has read since it changed is not read again, unless `afresh`.
    """
    status, path = _sized(folder, name, entry), folder / name
    identity = (str(path), status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
    if afresh or identity not in _verified:
        try:
            _verified[identity] = sha256(path)
        except OSError as error:
            raise _damage(name, error) from None
    if _verified[identity] != entry["sha256"]:
        raise Damage(f"{name} has other content than when it was published")


def _content(folder: Path, name: str) -> bytes:
    """Reads a small file. Raises `Damage` where there is none."""
    try:
        return read_bytes(folder / name, folder.parent)
    except OSError as error:
        raise _damage(name, error) from None


def _sized(folder: Path, name: str, entry: dict[str, Any]) -> os.stat_result:
    """Returns the status of a file. Raises `Damage` where it is missing or has another size than in the manifest."""
    try:
        status = status_of(folder / name, folder.parent)
    except OSError as error:
        raise _damage(name, error) from None
    if status.st_size != entry["size"]:
        raise Damage(f"{name} has {status.st_size} bytes instead of {entry['size']}")
    return status


def _damage(name: str, error: OSError) -> Damage:
    """The damage that an error in opening a file shows. Raises the error where it says nothing about the file."""
    if isinstance(error, IrregularFile):
        return Damage(f"{name} {error.strerror}")
    if error.errno not in _ABSENT:
        raise error
    return Damage(f"{name} is missing")
