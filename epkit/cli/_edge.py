"""Run a command, and report every error as a sentence, a hint and an exit code."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import click

from epkit._system.text import printable
from epkit.errors import ConfigError, EpkitError, PluginError, RunError

READER_GONE = 141
"""The exit code that a shell reports for SIGPIPE."""
INTERRUPTED = 130

_HINTS = {
    errno.ENOSPC: "free some space on the disk",
    errno.EDQUOT: "free some space on the disk",
    errno.EROFS: "name a place that can be written",
    errno.EACCES: "check the permissions",
    errno.EPERM: "check the permissions",
    errno.EMFILE: "ulimit -n 4096",
    errno.ENOMEM: "free some memory, or give smaller inputs",
}


class ReaderGone(Exception):
    """The reader of the output pipe has closed it."""


class Expired(BaseException):
    """The time limit of the command has passed; a BaseException, so that no handler of errors catches it."""

    def __init__(self, error: EpkitError) -> None:
        super().__init__(error.message)
        self.error = error


class CheckedOutput:
    """Standard output that raises an error of epkit if a write fails."""

    def __init__(self, stream: Any, closed: str = "") -> None:
        self.stream = stream
        self._closed = closed

    def write(self, text: str) -> int:
        if self._closed:
            raise _unwritten(self._closed)
        with _writing():
            return int(self.stream.write(text))

    def flush(self) -> None:
        with _writing():
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def call(command: click.Command) -> int:
    """Run a command with the arguments of `sys.argv`, and return its exit code."""
    with _standard_streams():
        try:
            code = command.main(standalone_mode=False)
            sys.stdout.flush()
        except EpkitError as error:
            code = report(error)
        except click.ClickException as error:
            code = _report_usage(error)
        except SystemExit:
            # click bypasses `CheckedOutput` for help if the encoding is ASCII. If the reader is gone, it then replaces
            # the stream by its own, and exits with 1.
            if isinstance(sys.stdout, CheckedOutput):
                raise
            code = READER_GONE
        except Expired as expired:
            code = report(expired.error)
        except ReaderGone:
            code = READER_GONE
        except (OSError, UnicodeError, MemoryError) as error:
            code = report(translate(error))
        except (click.Abort, KeyboardInterrupt):
            complain("epkit: interrupted")
            code = INTERRUPTED
        flush_or_discard()
    return code if isinstance(code, int) else 0


def report(error: EpkitError) -> int:
    """Print an error, with --json also as a document, and return its exit code."""
    _document(type(error).__name__, error.message, error.hint)
    if isinstance(error, PluginError) and error.__cause__ is not None:
        traceback.print_exception(error.__cause__)  # only raised for authors who asked for it
    complain(f"epkit: {error.message}", *([f"  hint: {error.hint}"] if error.hint else []))
    return error.exit_code


def translate(error: OSError | UnicodeError | MemoryError) -> EpkitError:
    """Convert an error of the system or a codec to one of epkit."""
    if isinstance(error, MemoryError):
        return RunError("there is not enough memory for this", hint=_HINTS[errno.ENOMEM])
    if isinstance(error, UnicodeError):
        return ConfigError(f"a text cannot be converted: {error}", hint="rename it, or: export LC_ALL=C.UTF-8")
    reason = error.strerror or str(error) or type(error).__name__
    told = reason if error.filename is None else f"{os.fsdecode(error.filename)}: {reason}"
    return ConfigError(f"the system refused: {told}", hint=_HINTS.get(error.errno or 0, "check the path"))


def complain(*lines: str) -> None:
    """Write lines to stderr; ignore a write that fails."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write("".join(f"{printable(line)}\n" for line in lines))
        sys.stderr.flush()


def _report_usage(error: click.ClickException) -> int:
    _document(type(error).__name__, error.format_message(), "epkit --help")
    told = io.StringIO()
    error.show(file=told)
    complain(*told.getvalue().splitlines())
    return error.exit_code


def _document(kind: str, message: str, hint: str) -> None:
    if "--json" in sys.argv:
        fault = {"type": kind, "message": message, "hint": hint}
        with contextlib.suppress(ConfigError, ReaderGone):  # it may be stdout that is at fault
            sys.stdout.write(json.dumps({"schema": "epkit.error/1", "error": fault}) + "\n")
            sys.stdout.flush()


@contextlib.contextmanager
def _standard_streams() -> Iterator[None]:
    """Provide three standard streams that accept any text, even if the process was started without them."""
    before = sys.stdout, sys.stderr
    _fill_descriptors()
    sys.stdout = CheckedOutput(_tolerant(before[0], 1), "" if before[0] is not None else "it is closed")
    sys.stderr = _tolerant(before[1], 2)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _fill_descriptors() -> None:
    """Open the descriptors 0, 1 and 2 if closed: the next opened file would get their number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the system gives the lowest that is free


def _tolerant(stream: Any, number: int) -> Any:
    """Return a stream that escapes characters that its encoding does not have."""
    if stream is None:
        return io.TextIOWrapper(io.FileIO(number, "w", closefd=False), "utf-8", "backslashreplace")
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return stream


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise ReaderGone from error
    except OSError as error:
        raise _unwritten(error.strerror or str(error)) from error


def _unwritten(reason: str) -> ConfigError:
    return ConfigError(f"the answer cannot be written to stdout: {reason}", hint="direct it to a file")


def flush_or_discard() -> None:
    """Flush stdout and stderr; after a failure, discard the rest, so that Python does not report it at exit."""
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            stream.flush()
        except (OSError, ValueError, ConfigError, ReaderGone):
            with contextlib.suppress(OSError):
                nothing = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nothing, number)
                os.close(nothing)
