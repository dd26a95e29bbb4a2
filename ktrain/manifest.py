"""The manifest of a stage: what makes a folder complete, and what its files must be."""

import importlib.metadata
import json
import os
import platform
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ktrain
from ktrain.keys import plain, sha256

NAME = "manifest.json"
_PACKAGES = ("torch", "transformers", "deepspeed", "ray")
_verified: dict[tuple[str, int, int], str] = {}
"""SHA-256 by path, time of change (ns) and size: a model of gigabytes is read once per process."""


class Damage(Exception):
    """Which file of a stage is wrong, and how."""


def describe(folder: Path, about: dict[str, Any]) -> dict[str, Any]:
    """The manifest of what lies in a folder: `about`, size and SHA-256 of each file, versions, the time.

    Raises `ValueError` for anything but regular files and folders, for a `manifest.json` among them, and for what JSON
    cannot hold.
    """
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()) or name == NAME:
            raise ValueError(f"{name} cannot be published: only regular files and folders, besides the manifest")
        if path.is_file():
            files[name] = {"size": path.stat().st_size, "sha256": sha256(path)}
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return {**plain(about), "files": files, "versions": _versions(), "created": created}


def text(manifest: dict[str, Any]) -> str:
    """As it is written. Raises `ValueError` for what JSON cannot hold."""
    return json.dumps(manifest, indent=1, allow_nan=False)


def seal(folder: Path, about: dict[str, Any]) -> None:
    """Writes the manifest, after everything that it speaks of has reached the disk."""
    whole = text(describe(folder, about))
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for path in folder.rglob("*"):
        if path.is_file():
            flush(path)
    (folder / NAME).write_text(whole, encoding="utf-8")
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
    for package in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def finding(folder: Path, key: str) -> str | None:
    """The first wrong file of a stage and what is wrong with it, or None."""
    try:
        for name, entry in read(folder, key)["files"].items():
            verify(folder, name, entry)
    except Damage as damage:
        return str(damage)
    return None


def read(folder: Path, key: str) -> dict[str, Any]:
    """The manifest of stage `key`. Raises `Damage` where there is none that can be read as such."""
    try:
        return parse((folder / NAME).read_bytes(), key)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise Damage(f"{NAME} is missing") from None


def parse(content: bytes, key: str) -> dict[str, Any]:
    """The manifest of stage `key` from what was written. Raises `Damage` for anything else."""
    try:
        manifest: dict[str, Any] = json.loads(content)
        entries = [(entry["size"], entry["sha256"]) for entry in manifest["files"].values()]
        whole = manifest["key"] == key and all(isinstance(size, int) for size, _ in entries)
        # Whoever may write to the store may not write elsewhere on the machines that read it.
        whole = whole and not any(name.startswith("/") or ".." in name.split("/") for name in manifest["files"])
    except (ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise Damage(f"{NAME} is not readable as the manifest of this stage")
    return manifest


def verify(folder: Path, name: str, entry: dict[str, Any]) -> None:
    """Holds one file to its entry. Raises `Damage` where its size or SHA-256 differs."""
    path = folder / name
    try:
        stat = path.stat()
        if stat.st_size != entry["size"]:
            raise Damage(f"{name} has {stat.st_size} bytes instead of {entry['size']}")
        seen = (str(path), stat.st_mtime_ns, stat.st_size)
        if seen not in _verified:
            _verified[seen] = sha256(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise Damage(f"{name} is missing") from None
    if _verified[seen] != entry["sha256"]:
        raise Damage(f"{name} has other content than when it was published")
