"""Which file system holds a path, and whether other machines may hold it too."""

import os
from dataclasses import dataclass
from pathlib import Path

import psutil

NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "afs", "9p", "efs")
"""Kinds of file systems that several machines mount."""
OBJECTS = ("s3fs", "gcsfuse", "goofys", "rclone", "blobfuse", "blobfuse2", "mount-s3", "geesefs", "juicefs")
"""Programs that show object storage as a folder."""


@dataclass(frozen=True)
class Mount:
    """Where a file system is mounted, its kind as in /proc/mounts, and its options."""

    point: Path
    kind: str
    options: tuple[str, ...]

    @property
    def objects(self) -> bool:
        """Whether this is object storage that looks like a folder."""
        return self.kind.removeprefix("fuse.") in OBJECTS

    @property
    def network(self) -> bool:
        """Whether other machines may mount it too; of FUSE that is not known, so it is assumed."""
        return self.kind in NETWORK or self.kind.startswith("fuse")


def mount(path: Path) -> Mount:
    """The mount that holds `path`, which need not exist; of unknown kind where the system tells of none."""
    real = Path(os.path.realpath(path))
    found = Mount(Path("/"), "", ())
    for part in psutil.disk_partitions(all=True):
        point = Path(part.mountpoint)
        # Of several at one place the last one hides the others.
        if real.is_relative_to(point) and len(point.parts) >= len(found.point.parts):
            found = Mount(point, part.fstype, tuple(part.opts.split(",")))
    return found
