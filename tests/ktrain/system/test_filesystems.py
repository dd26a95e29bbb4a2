from pathlib import Path

import pytest

from ktrain.system.filesystems import Mount, mount_of


def test_a_path_is_on_the_innermost_mount_that_holds_it() -> None:
    assert mount_of(Path("/proc/self")).kind == "proc" and mount_of(Path("/proc/self")).point == Path("/proc")
    assert mount_of(Path("/")).point == Path("/")


def test_a_path_that_is_not_there_is_on_the_mount_that_would_hold_it(tmp_path: Path) -> None:
    assert mount_of(tmp_path / "a" / "b") == mount_of(tmp_path)


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/proc")
    assert mount_of(tmp_path / "link" / "self").kind == "proc"


@pytest.mark.parametrize(
    ("kind", "network", "objects"),
    [
        ("ext4", False, False),
        ("overlay", False, False),
        ("tmpfs", False, False),
        ("nfs4", True, False),
        ("lustre", True, False),
        ("fuse.sshfs", True, False),
        ("fuse.s3fs", True, True),
        ("fuse.gcsfuse", True, True),
    ],
)
def test_kinds_of_file_systems(kind: str, network: bool, objects: bool) -> None:
    disk = Mount(Path("/"), kind, ())
    assert (disk.network, disk.objects) == (network, objects)
