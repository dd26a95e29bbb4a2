"""The cache folders of one machine, which it never shares with other machines."""

import logging
import os
import stat
import tempfile
from pathlib import Path

from ktrain.errors import WrongRequest
from ktrain.system.filesystems import mount_of
from ktrain.system.home_folder import expanded
from ktrain.system.ownership import writable_by_others

CACHE = "KTRAIN_CACHE"
"""The environment variable for the cache folder; each node of a cluster may set its own."""
LIBRARIES = {
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TORCH_EXTENSIONS_DIR": "extensions",
    "TRITON_CACHE_DIR": "triton",
    "TRITON_HOME": "triton-home",
    "HF_HOME": "huggingface",
    "MPLCONFIGDIR": "matplotlib",
    "XDG_CACHE_HOME": "xdg",
}
"""The environment variables for the caches of libraries, and the subfolder of each."""
_log = logging.getLogger("ktrain.cache")
SETTINGS = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}


def cache_folder(default: Path | None = None) -> Path:
    """Returns the absolute folder where this machine keeps copies of results and caches of libraries: `KTRAIN_CACHE`,
    else `default`, else `~/.cache/ktrain`.

    The compiler runs what lies there, so a folder that another account could write to is passed over with a warning;
    raises `WrongRequest` if it is that of `KTRAIN_CACHE`. Where the folder is on a network file system, the temporary
    folder takes its place: machines that compile into one folder wait for each other's locks and load code that was
    compiled for another processor.
    """
    if named := os.environ.get(CACHE):
        folder = expanded(named).absolute()
        if reason := _open_to_others(folder):
            raise WrongRequest(f"{CACHE}={named}: {reason}; name a folder that only you can write to")
        return folder
    home = expanded("~/.cache/ktrain")
    for folder in dict.fromkeys(path.absolute() for path in (default or home, home)):
        if mount_of(folder).network:
            break
        if not (reason := _open_to_others(folder)):
            return folder
        _log.warning("%s is not used as a cache: %s", folder, reason)
    return temporary_folder()


def temporary_folder() -> Path:
    """Returns a folder of this user in the temporary folder, with the same path on every machine, and creates it.

    Raises `WrongRequest` if it exists and another account could write to it.
    """
    folder = Path(tempfile.gettempdir()) / f"ktrain-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if reason := _open_to_others(folder):
        raise WrongRequest(f"TMPDIR={folder.parent}: {reason}; name a folder that only you can write to")
    return folder


def _open_to_others(folder: Path) -> str:
    """Returns why another account could write to a cache folder, which may not exist yet; an empty string if none."""
    real = existing = Path(os.path.realpath(folder))
    while not existing.exists():
        existing = existing.parent
    if existing != real:
        if not existing.stat().st_mode & stat.S_ISVTX:
            return writable_by_others(existing)
        # In a folder like /tmp another account could take the name before it is used, so it is taken now.
        real.mkdir(mode=0o700, parents=True, exist_ok=True)
    parts = (path for name in LIBRARIES.values() if (path := folder / name).exists())
    return next(filter(None, map(writable_by_others, (folder, *parts))), "")


def use_machine_caches(default: Path | None = None) -> Path:
    """Points the caches of all libraries into `cache_folder(default)`, for this process and its children, and returns
    that folder. Variables that the user has set stay.

    Call it before the libraries are imported. A worker of a cluster inherits the environment of its machine, not the
    driver's, whose folders may not exist there.
    """
    root = cache_folder(default)
    os.environ[CACHE] = str(root)
    for name, part in LIBRARIES.items():
        os.environ.setdefault(name, str(root / part))
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    return root
