"""Can what lies in this file or folder be another user's?

What epkit keeps on disk, and a config file that it finds, decide which code runs. They are believed only where nobody
but this user and root can have written them. Windows does not tell in this way; there, everything is believed.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_MOST_LINKS = 40
_OPEN_TO_ALL = stat.S_ISVTX | stat.S_IWOTH
_ACL = "system.posix_acl_access"


def distrust(path: Path, *, above: bool = True) -> str:
    """Say who else can have written what lies at `path`; empty when only this user and root can.

    Looked at are every link that leads there and, with `above`, every folder; without, only those that hold the file or
    a link. A folder above may be one that all may write, such as /tmp, where nobody can take away what is another's.
    Raises OSError where something is missing or cannot be looked at.
    """
    if sys.platform == "win32":
        return ""
    way = list(_way(path))
    if not above:
        ends = [at for at, state in way if stat.S_ISLNK(state.st_mode)] + [way[-1][0]]
        near = {*ends, *(at.parent for at in ends)}
        way = [(at, state) for at, state in way if at in near]
    faults = (fault(at, state, shared=at != way[-1][0]) for at, state in way)
    return next(filter(None, faults), "")


def fault(path: Path, state: os.stat_result, *, shared: bool = False) -> str:
    """Say who else can write one file or folder; `shared` allows all who cannot take away what is another's."""
    if sys.platform == "win32":
        return ""
    if state.st_uid not in (os.geteuid(), 0):
        return f"{path} belongs to {_user(state.st_uid)}"
    if stat.S_ISLNK(state.st_mode) or (shared and state.st_mode & stat.S_ISVTX):
        return ""
    group = state.st_mode & stat.S_IWGRP and not _is_alone(path, state)
    return f"{path} can be written by others" if group or state.st_mode & stat.S_IWOTH else ""


def planted(path: Path) -> Path | None:
    """Return a link on the way to `path` that another user put into a folder that all may write, as Linux has it."""
    if sys.platform == "win32":
        return None
    folders: dict[Path, os.stat_result] = {}
    with contextlib.suppress(FileNotFoundError):
        for at, state in _way(path):
            folders[at] = state
            holder = folders[at.parent]
            foreign = state.st_uid not in (os.geteuid(), holder.st_uid)
            if foreign and stat.S_ISLNK(state.st_mode) and holder.st_mode & _OPEN_TO_ALL == _OPEN_TO_ALL:
                return at
    return None


def read(file: Path) -> bytes:
    """Read a file that nobody but this user and root can have written; raises OSError, as for any that is no file."""
    waits_for_nobody = getattr(os, "O_NONBLOCK", 0)
    with open(file, "rb", opener=lambda name, flags: os.open(name, flags | waits_for_nobody)) as opened:
        state = os.fstat(opened.fileno())
        if not stat.S_ISREG(state.st_mode):
            raise OSError(f"{file} is no regular file")
        if told := fault(file, state):
            raise PermissionError(told)
        return opened.read()


def read_json(file: Path) -> object:
    """Read a JSON document in the same way; raises OSError, or ValueError when it is none."""
    try:
        return json.loads(read(file))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def fields(found: object, kinds: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    """Return these fields of a document, each of of one of its kinds, numbers within 64 bits; raises ValueError."""
    if not isinstance(found, dict):
        raise ValueError("it is no table")
    for name, allowed in kinds.items():
        value = found.get(name)
        if name not in found or type(value) not in allowed:
            raise ValueError(f"{name} is missing or of a wrong type")
        if isinstance(value, int | float) and not -(2**63) <= value < 2**63:
            raise ValueError(f"{name} is out of range")
    return {name: found[name] for name in kinds}


def _way(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield every folder and link that leads to `path`, from the root on, and what lies there; raises OSError."""
    ahead, at, links = deque(path.absolute().parts), Path(), 0
    while ahead:
        part = ahead.popleft()
        if part == os.pardir:
            at = at.parent  # no link is left in it
            continue
        state = (at / part).lstat()
        yield at / part, state
        if not stat.S_ISLNK(state.st_mode):
            at = at / part
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(f"{path} has too many links")
        ahead.extendleft(reversed((at / part).readlink().parts))


def _is_alone(path: Path, state: os.stat_result) -> bool:
    """Whether the owner is the only one in the file's group, as systems are set up that give each user a group."""
    if sys.platform == "win32":
        return True
    import grp
    import pwd

    with contextlib.suppress(KeyError, OSError):
        owner, group = pwd.getpwuid(state.st_uid).pw_name, grp.getgrgid(state.st_gid)
        listed = hasattr(os, "listxattr") and _ACL in os.listxattr(path)
        return group.gr_name == owner and {*group.gr_mem} <= {owner} and not listed
    return False


def _user(uid: int) -> str:
    if sys.platform != "win32":
        import pwd

        with contextlib.suppress(KeyError):
            return f"the user {pwd.getpwuid(uid).pw_name}"
    return f"user {uid}"
