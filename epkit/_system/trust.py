"""Check whether another user could have written a file or folder.

epkit's cache, and a config file that it finds, decide which code runs. They are trusted only if no user but this one
and root can write them. Windows has other permissions, which are not checked: there, every file is trusted.
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

_MAX_LINKS = 40
_WORLD_WRITABLE = stat.S_ISVTX | stat.S_IWOTH
_ACL = "system.posix_acl_access"


def distrust(path: Path, *, above: bool = True) -> str:
    """Return why `path` is not trusted: which other user could have written it; "" if only this user and root can.

    Checks every link on the path and, with `above`, every folder; otherwise only folders that hold the file or a link.
    A parent folder may be world-writable with the sticky bit, such as /tmp: there, users cannot replace each other's
    files. Raises OSError if something is missing or cannot be read.
    """
    if sys.platform == "win32":
        return ""
    entries = list(_walk(path))
    if not above:
        ends = [entry for entry, state in entries if stat.S_ISLNK(state.st_mode)] + [entries[-1][0]]
        near = {*ends, *(end.parent for end in ends)}
        entries = [(entry, state) for entry, state in entries if entry in near]
    reasons = (distrust_entry(entry, state, shared=entry != entries[-1][0]) for entry, state in entries)
    return next(filter(None, reasons), "")


def distrust_entry(path: Path, state: os.stat_result, *, shared: bool = False) -> str:
    """Return which other user can write this one file or folder; `shared` accepts a folder with the sticky bit."""
    if sys.platform == "win32":
        return ""
    if state.st_uid not in (os.geteuid(), 0):
        return f"{path} belongs to {_user(state.st_uid)}"
    if stat.S_ISLNK(state.st_mode) or (shared and state.st_mode & stat.S_ISVTX):
        return ""
    group = state.st_mode & stat.S_IWGRP and not _is_alone(path, state)
    return f"{path} can be written by others" if group or state.st_mode & stat.S_IWOTH else ""


def find_planted_link(path: Path) -> Path | None:
    """Return a link on the path that another user put into a world-writable folder (Linux: protected_symlinks)."""
    if sys.platform == "win32":
        return None
    folders: dict[Path, os.stat_result] = {}
    with contextlib.suppress(FileNotFoundError):
        for entry, state in _walk(path):
            folders[entry] = state
            folder = folders[entry.parent]
            is_foreign = state.st_uid not in (os.geteuid(), folder.st_uid)
            if is_foreign and stat.S_ISLNK(state.st_mode) and folder.st_mode & _WORLD_WRITABLE == _WORLD_WRITABLE:
                return entry
    return None


def read(file: Path) -> bytes:
    """Read a regular file that only this user and root can write; raises OSError for any other."""
    nonblocking = getattr(os, "O_NONBLOCK", 0)
    with open(file, "rb", opener=lambda name, flags: os.open(name, flags | nonblocking)) as opened:
        state = os.fstat(opened.fileno())
        if not stat.S_ISREG(state.st_mode):
            raise OSError(f"{file} is not a regular file")
        if reason := distrust_entry(file, state):
            raise PermissionError(reason)
        return opened.read()


def read_json(file: Path) -> object:
    """Read a JSON document as `read` does; raises OSError, or ValueError if it is not valid."""
    try:
        return json.loads(read(file))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def check_fields(found: object, types: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    """Return these fields of a document; raises ValueError for a missing one, a wrong type, or beyond 64 bits."""
    if not isinstance(found, dict):
        raise ValueError("it is not a table")
    for name, allowed in types.items():
        value = found.get(name)
        if name not in found or type(value) not in allowed:
            raise ValueError(f"{name} is missing or of a wrong type")
        if isinstance(value, int | float) and not -(2**63) <= value < 2**63:
            raise ValueError(f"{name} is out of range")
    return {name: found[name] for name in types}


def _walk(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield every folder and link on the way to `path`, from the root, and the file itself; raises OSError."""
    parts, current, links = deque(path.absolute().parts), Path(), 0
    while parts:
        part = parts.popleft()
        if part == os.pardir:
            current = current.parent  # its links are resolved already
            continue
        state = (current / part).lstat()
        yield current / part, state
        if not stat.S_ISLNK(state.st_mode):
            current = current / part
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(f"{path} has too many links")
        parts.extendleft(reversed((current / part).readlink().parts))


def _is_alone(path: Path, state: os.stat_result) -> bool:
    """Whether the owner is the only member of the file's group, as on systems with a group for each user."""
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
