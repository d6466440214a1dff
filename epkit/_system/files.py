"""Write files atomically: a reader gets the old contents or the new ones, never a part."""

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

MAX_NAME_BYTES = 255
"""The longest file name that nearly every file system allows, in bytes."""
PRIVATE_MODE = 0o600
"""The mode of files in epkit's cache."""
_OPEN_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_NONBLOCKING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_STREAM_PATHS = {"/dev/stdout": "/dev/fd/1", "/dev/stderr": "/dev/fd/2"}


@contextlib.contextmanager
def open_atomic(file: Path, *, mode: int = 0o666, durable: bool = False) -> Iterator[IO[bytes]]:
    """Open a temporary file, and move it to `file` if the block raises nothing.

    Links are followed. An existing file keeps its mode and owner; a new one gets `mode`, less the umask. A device such
    as /dev/null, a terminal or a pipe is not replaced: the contents are written to it at the end of the block. With
    `durable`, the file is flushed to the disk before it is moved.

    Raises OSError, also for a link that another user put into a world-writable folder, for a block device, and for a
    pipe without a reader.
    """
    link = trust.find_planted_link(file)
    if link is not None:
        raise PermissionError(f"{link} is a link that another user put there")
    if not is_replaced(file):
        contents = io.BytesIO()
        yield contents
        _write_through(file, contents.getbuffer())
        return
    target = Path(os.path.realpath(file))
    before = _stat_writable(target)
    temporary = target.with_name(f".epkit-{secrets.token_hex(8)}")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN_FLAGS, mode), "wb") as new:  # noqa: PTH123
            yield new
            if before is not None:
                _copy_owner_and_mode(new.fileno(), before)
            if durable:
                new.flush()
                os.fsync(new.fileno())
        temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_atomic(file: Path, contents: str | bytes, *, mode: int = 0o666, durable: bool = False) -> None:
    """Write a file as `open_atomic` does; text as UTF-8. Raises OSError."""
    with open_atomic(file, mode=mode, durable=durable) as new:
        new.write(contents.encode() if isinstance(contents, str) else contents)


def copy_owner_and_mode(new: Path, old: Path) -> None:
    """Give the file `new` the owner and mode of the file `old` that it will replace, if that exists; raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        before = old.stat()
        with new.open("rb") as opened:
            _copy_owner_and_mode(opened.fileno(), before)


def is_replaced(file: Path) -> bool:
    """Whether writing makes or replaces a regular file; False for a device, terminal or pipe. Raises OSError."""
    if _stream_descriptor(file) is not None:
        return False
    with contextlib.suppress(FileNotFoundError):
        state = file.stat()
        if stat.S_ISDIR(state.st_mode):
            raise IsADirectoryError("it is a folder")
        if stat.S_ISBLK(state.st_mode):
            raise OSError("it is a block device")
        return stat.S_ISREG(state.st_mode)
    return True


def make_private_folder(folder: Path) -> None:
    """Make a folder with mode 0700, and the missing folders above it; raises OSError."""
    for part in reversed((folder, *folder.parents)):
        if not part.is_dir():
            with contextlib.suppress(FileExistsError):
                part.mkdir(mode=0o700)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder")


def shorten_name(name: str, spare: int = 0) -> str:
    """Shorten a file name, so that `spare` bytes can be appended; a digest replaces the end of a long one."""
    limit, encoded = MAX_NAME_BYTES - spare, os.fsencode(name)
    if len(encoded) <= limit:
        return name
    suffix = f"-{hashlib.sha256(encoded).hexdigest()[:16]}"
    return encoded[: limit - len(suffix)].decode(errors="ignore") + suffix


def _stat_writable(target: Path) -> os.stat_result | None:
    """Return the state of the file that will be replaced; raises OSError if this process may not write to it."""
    try:
        opened = os.open(target, os.O_WRONLY | _OPEN_FLAGS)
    except FileNotFoundError:
        return None
    try:
        return os.fstat(opened)
    finally:
        os.close(opened)


def _copy_owner_and_mode(new: int, before: os.stat_result) -> None:
    """Give the new file the owner and mode of the old one; without group rights if the group cannot be set."""
    mode = stat.S_IMODE(before.st_mode)
    if hasattr(os, "fchown"):
        try:
            os.fchown(new, before.st_uid, before.st_gid)
        except PermissionError:
            mode &= ~stat.S_IRWXG
    if hasattr(os, "fchmod"):
        os.fchmod(new, mode)


def _write_through(file: Path, contents: memoryview) -> None:
    """Write to a device, terminal or pipe, without replacing it."""
    stream = _stream_descriptor(file)
    descriptor = os.dup(stream) if stream is not None else os.open(file, os.O_WRONLY | _NONBLOCKING | _OPEN_FLAGS)
    try:
        if stream is None and _NONBLOCKING:
            os.set_blocking(descriptor, True)
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise FileExistsError("it was replaced by a regular file meanwhile")
        while contents:
            contents = contents[os.write(descriptor, contents) :]
    finally:
        os.close(descriptor)


def _stream_descriptor(file: Path) -> int | None:
    """Return the descriptor of a path such as /dev/stdout: writing to it continues at the stream's position."""
    found = re.fullmatch(r"/(?:dev|proc/self)/fd/(\d{1,9})", _STREAM_PATHS.get(os.fspath(file), os.fspath(file)))
    return int(found[1]) if found and os.name == "posix" else None
