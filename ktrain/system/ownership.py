"""Who can change what lies in a folder."""

import os
import stat
from pathlib import Path


def writable_by_others(folder: Path) -> str:
    """Returns why an account other than this one and root could change what lies in an existing folder, naming the
    path that lets it; an empty string if none could.

    The folder itself must belong to this account or root and admit no other writer. On the way to it, links included,
    another may write only into folders like `/tmp`, where nobody can rename what is not theirs (the sticky bit).
    """
    path = folder.resolve()
    for each in dict.fromkeys((path, *path.parents, *folder.absolute().parents)):
        status = each.stat()
        if status.st_uid not in (os.getuid(), 0):
            return f"{each} belongs to {_user(status.st_uid)}"
        if _admits_others(status) and (each == path or not status.st_mode & stat.S_ISVTX):
            return f"others can write to {each} (mode {stat.S_IMODE(status.st_mode):04o})"
    return ""


def _admits_others(status: os.stat_result) -> bool:
    by_group = status.st_mode & stat.S_IWGRP and not _only_member(status.st_gid)
    return bool(status.st_mode & stat.S_IWOTH or by_group)


def _only_member(group: int) -> bool:
    """Whether a group is this account's own, as Debian makes one for each account, and has no other member."""
    import grp
    import pwd

    try:
        account, entry = pwd.getpwuid(os.getuid()), grp.getgrgid(group)
    except KeyError:
        return False
    return entry.gr_gid == account.pw_gid and entry.gr_name == account.pw_name and set(entry.gr_mem) <= {entry.gr_name}


def _user(number: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"
