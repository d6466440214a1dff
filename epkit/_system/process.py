"""How does epkit start a process of its own, talk to it, and end it?

A child is a plain new interpreter (not multiprocessing, which runs the user's script again): requests arrive on its
stdin, a JSON document a line, and replies leave through what was its stdout. Everything that the child or a library in
it prints goes to its stderr, which the parent keeps. When the parent goes, stdin ends, and so does the child.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import IO, Any, NoReturn, cast

from epkit._system import telemetry
from epkit._system.platform import end_with_parent
from epkit.errors import EpkitError, RunError

# How ONNX Runtime writes to a terminal, and how its lines begin that tell of no error: "2026-11-21 08:03 [W:onnx".
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_WARNING = re.compile(r"\[[VIW]:onnxruntime")


class Child:
    """A child process running `module`, in a process group of its own."""

    def __init__(self, module: str) -> None:
        """Start it; raises RunError."""
        if not sys.executable or getattr(sys, "frozen", False):
            told = "this program is not run by a Python interpreter that can be started again"
            raise RunError(
                f"no process can be started: {told}", hint="use epkit from a plain Python, as python -m epkit"
            )
        self.timed_out = False
        with contextlib.ExitStack() as unless_started:
            try:
                self._log = unless_started.enter_context(_log_file())
                self._process = _started(module, self._log)
            except OSError as error:
                raise RunError(f"no process can be started: {error}", hint=f"{sys.executable} -m {module}") from error
            unless_started.pop_all()  # `end` closes it

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def send(self, message: Mapping[str, object], contents: bytes = b"") -> None:
        """Send one message, and bytes after it; a child that is gone is found when its reply is asked for."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.write(contents)
            self._process.stdin.flush()

    def receive(self, seconds: float) -> dict[str, object] | None:
        """Wait for one reply; None when the child died, or did not answer in time and was ended."""
        assert self._process.stdout is not None
        timer = threading.Timer(seconds, self._expire)
        try:
            timer.start()
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        try:
            return cast("dict[str, object]", json.loads(line))
        except ValueError:
            return None

    def ending(self) -> str:
        """Say in words how the child went."""
        if self.timed_out:
            return "did not answer in time and was ended"
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "gave no answer that can be read"
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"crashed ({signal.Signals(-code).name})"
        return f"ended with exit code {code}"

    def log(self) -> str:
        """Return what the child and its libraries have printed so far."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def last_words(self) -> str:
        """Return the last line that it printed, cut to 200 characters; empty when it printed nothing but warnings."""
        lines = [_COLOUR.sub("", line).strip() for line in self.log().splitlines()]
        return next((line[:200] for line in reversed(lines) if line and not _WARNING.search(line)), "")

    def end(self) -> None:
        """End the child and everything that it started, and let go of its pipes."""
        self.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._log.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _expire(self) -> None:
        self.timed_out = True
        self.kill()

    def pause(self) -> None:
        """Stop every thread of the child where it stands; where the system cannot end it with its parent, nothing."""
        self._signal("SIGSTOP")

    def resume(self) -> None:
        """Let the child go on."""
        self._signal("SIGCONT")

    def _signal(self, name: str) -> None:
        # A stopped child does not notice that its parent is gone; Linux then ends it all the same (`end_with_parent`).
        if sys.platform == "linux":
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, getattr(signal, name))

    def kill(self) -> None:
        """End the process group; whoever waits for a reply gets none."""
        if sys.platform == "win32":
            self._process.kill()
            return
        # The group outlives its leader while the leader has children of its own; ESRCH means that nobody is left.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)


def _started(module: str, log: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        # -P: the working directory must not shadow what the child imports
        [sys.executable, "-P", "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path and isinstance(path, str))}
        | {telemetry.VARIABLE: "1"},
        start_new_session=True,
    )


def _log_file() -> IO[bytes]:
    """Return a file for what a child prints: in memory where no folder for temporary files can be written."""
    try:
        return cast("IO[bytes]", tempfile.TemporaryFile())
    except OSError:
        if not hasattr(os, "memfd_create"):
            raise
        return cast("IO[bytes]", os.fdopen(os.memfd_create("epkit-log"), "w+b"))


class Parent:
    """The other end, inside the child: takes stdout away from everything else that prints."""

    def __init__(self) -> None:
        self._replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._requests = os.fdopen(os.dup(0), "rb")

    def receive(self) -> dict[str, object] | None:
        """Wait for one message; None when the parent is gone."""
        line = self._requests.readline()
        return cast("dict[str, object]", json.loads(line)) if line else None

    def contents(self, size: int) -> bytes:
        """Wait for the bytes that were sent after a message."""
        return self._requests.read(size)

    def send(self, message: Mapping[str, object]) -> None:
        """Reply."""
        self._replies.write(json.dumps(message) + "\n")
        self._replies.flush()

    def limit(self, seconds: float | None) -> None:
        """End this process a little after so many seconds, None for never.

        The last resort, where the parent is gone and a library hangs that holds the interpreter's lock.
        """
        if sys.platform != "win32":
            signal.alarm(0 if seconds is None else int(seconds) + 5)

    def leave(self) -> NoReturn:
        """End this process at once: libraries that crash while the interpreter shuts down have answered by now."""
        sys.stderr.flush()
        os._exit(0)

    def leave_with_parent(self) -> None:
        """End this process when the parent goes, whatever it is doing; no more messages can be received."""
        end_with_parent()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        self._requests.read()
        os._exit(1)


def answer_one(work: Callable[[Mapping[str, Any]], Mapping[str, object]]) -> None:
    """Do the work of a child that answers one request: reply with what comes of it, or what went wrong, and leave."""
    parent = Parent()
    request = parent.receive()
    if request is None:
        return
    parent.leave_with_parent()
    try:
        reply = work(request)
    except Exception as error:  # noqa: BLE001 - the boundary of the process: whatever it is, the parent must know
        reply = failure(error)
    parent.send(reply)
    parent.leave()


def failure(error: Exception) -> dict[str, object]:
    """Return what a child replies when it fails: the class if it is one of epkit's, the message and the hint."""
    if isinstance(error, EpkitError):
        return {"error": type(error).__name__, "message": error.message, "hint": error.hint}
    traceback.print_exception(error)
    return {"error": "", "message": f"{type(error).__name__}: {error}", "hint": ""}
