"""How is a file written, so that nobody meets half of it and nothing goes but what it replaces?"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from epkit._system import trust

LONGEST_NAME = 255
"""How many bytes the name of a file has at most, on nearly every file system."""
KEPT = 0o600
"""The mode of what epkit keeps for itself."""
_PLAIN = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_STREAMS = {"/dev/stdout": "/dev/fd/1", "/dev/stderr": "/dev/fd/2"}


@contextlib.contextmanager
def written(file: Path, *, mode: int = 0o666, durable: bool = False) -> Iterator[IO[bytes]]:
    """Give a file to write into, which takes the place of `file` once the block has ended well.

    Links are followed; mode and owner stay as they are, and a new file gets `mode`, less the umask. What is no regular
    file (/dev/null, a terminal, a pipe) stays, and is given everything at the end. `durable` waits for the disk.

    Raises OSError, also for a link that another user put into a folder that all may write, for a disk's device, and for
    a pipe that nobody reads.
    """
    link = trust.planted(file)
    if link is not None:
        raise PermissionError(f"{link} is a link that another user put there")
    if not is_replaced(file):
        contents = io.BytesIO()
        yield contents
        _pour(file, contents.getbuffer())
        return
    place = Path(os.path.realpath(file))
    before = _writable(place)
    aside = place.with_name(f".epkit-{secrets.token_hex(8)}")
    try:
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _PLAIN, mode), "wb") as new:  # noqa: PTH123
            yield new
            if before is not None:
                _take_over(new.fileno(), before)
            if durable:
                new.flush()
                os.fsync(new.fileno())
        aside.replace(place)
    except BaseException:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise


def write(file: Path, contents: str | bytes, *, mode: int = 0o666, durable: bool = False) -> None:
    """Write a file in one step, as `written` does; text as UTF-8. Raises OSError."""
    with written(file, mode=mode, durable=durable) as new:
        new.write(contents.encode() if isinstance(contents, str) else contents)


def inherit(new: Path, old: Path) -> None:
    """Give a finished file the owner and mode of the one that it will replace, if there is one; raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        before = old.stat()
        with new.open("rb") as opened:
            _take_over(opened.fileno(), before)


def is_replaced(file: Path) -> bool:
    """Whether writing replaces a regular file or makes one, rather than going into what is there; raises OSError."""
    if _stream(file) is not None:
        return False
    with contextlib.suppress(FileNotFoundError):
        state = file.stat()
        if stat.S_ISDIR(state.st_mode):
            raise IsADirectoryError("it is a folder")
        if stat.S_ISBLK(state.st_mode):
            raise OSError("it is the device of a disk")
        return stat.S_ISREG(state.st_mode)
    return True


def private_folder(folder: Path) -> None:
    """Make a folder that this user alone can enter, with those above it that are missing; raises OSError."""
    for one in reversed((folder, *folder.parents)):
        if not one.is_dir():
            with contextlib.suppress(FileExistsError):
                one.mkdir(mode=0o700)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder")


def fitting(name: str, spare: int = 0) -> str:
    """Return a name that leaves `spare` bytes of a file name's; a digest stands for the rest of a long one."""
    most, whole = LONGEST_NAME - spare, os.fsencode(name)
    if len(whole) <= most:
        return name
    mark = f"-{hashlib.sha256(whole).hexdigest()[:16]}"
    return whole[: most - len(mark)].decode(errors="ignore") + mark


def _writable(place: Path) -> os.stat_result | None:
    """Return the state of the file that will be replaced, which must be one that may be written; raises OSError."""
    try:
        opened = os.open(place, os.O_WRONLY | _PLAIN)
    except FileNotFoundError:
        return None
    try:
        return os.fstat(opened)
    finally:
        os.close(opened)


def _take_over(new: int, before: os.stat_result) -> None:
    """Give the new file the owner and mode of the one before; a group that cannot be kept gets nothing."""
    mode = stat.S_IMODE(before.st_mode)
    if hasattr(os, "fchown"):
        try:
            os.fchown(new, before.st_uid, before.st_gid)
        except PermissionError:
            mode &= ~stat.S_IRWXG
    if hasattr(os, "fchmod"):
        os.fchmod(new, mode)


def _pour(file: Path, contents: memoryview) -> None:
    """Write into what is no regular file and stays."""
    stream = _stream(file)
    at = os.dup(stream) if stream is not None else os.open(file, os.O_WRONLY | _AT_ONCE | _PLAIN)
    try:
        if stream is None and _AT_ONCE:
            os.set_blocking(at, True)
            if stat.S_ISREG(os.fstat(at).st_mode):
                raise FileExistsError("it has just become a file")
        while contents:
            contents = contents[os.write(at, contents) :]
    finally:
        os.close(at)


def _stream(file: Path) -> int | None:
    """Return the descriptor that a path such as /dev/stdout stands for: it goes on where the stream has got to."""
    found = re.fullmatch(r"/(?:dev|proc/self)/fd/(\d{1,9})", _STREAMS.get(os.fspath(file), os.fspath(file)))
    return int(found[1]) if found and os.name == "posix" else None
