"""Start child processes, exchange messages with them, and end them.

A child is a new Python interpreter (not multiprocessing, which runs the user's script again). It reads requests from
stdin, one JSON document a line, and writes replies to its original stdout. Everything else that the child or its
libraries print goes to stderr, which the parent stores in a log. When the parent ends, stdin is closed and the child
ends too.
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
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, NoReturn, cast

from epkit._system import telemetry
from epkit._system.platform import kill_with_parent
from epkit.errors import EpkitError, RunError

# The colours of ONNX Runtime's log on a terminal, and the severity of lines that are not errors: "[W:onnxruntime".
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_NO_ERROR = re.compile(r"\[[VIW]:onnxruntime")


class Child:
    """A child process that runs `module`, in its own process group."""

    def __init__(self, module: str) -> None:
        """Start the process; raises RunError."""
        if not sys.executable or getattr(sys, "frozen", False):
            raise RunError(
                "no process can be started: this program is not run by a Python interpreter that can be started again",
                hint="use epkit from a plain Python, as python -m epkit",
            )
        self.timed_out = False
        with contextlib.ExitStack() as unless_started:
            try:
                self._log = unless_started.enter_context(_open_log())
                self._process = _start(module, self._log)
            except OSError as error:
                raise RunError(f"no process can be started: {error}", hint=f"{sys.executable} -m {module}") from error
            unless_started.pop_all()  # `end` closes it

    @property
    def pid(self) -> int:
        """The process ID."""
        return self._process.pid

    def send(self, message: Mapping[str, object], contents: bytes = b"") -> None:
        """Send one message, followed by bytes. A child that has ended is reported by `receive`, not here."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.write(contents)
            self._process.stdin.flush()

    def receive(self, seconds: float) -> dict[str, object] | None:
        """Wait for one reply; None if the child ended, or did not reply in time and was killed."""
        assert self._process.stdout is not None
        timer = threading.Timer(seconds, self._time_out)
        try:
            timer.start()
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        try:
            return cast("dict[str, object]", json.loads(line))
        except ValueError:
            return None

    def describe_end(self) -> str:
        """Return how the child ended: "crashed (SIGSEGV)", "ended with exit code 1"."""
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

    def read_log(self) -> str:
        """Return what the child and its libraries have printed so far."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def last_line(self) -> str:
        """Return the last line that the child printed, cut to 200 characters, warnings of ONNX Runtime left out."""
        lines = [_COLOUR.sub("", line).strip() for line in self.read_log().splitlines()]
        return next((line[:200] for line in reversed(lines) if line and not _NO_ERROR.search(line)), "")

    def end(self) -> None:
        """Kill the child and every process that it started, and close its pipes."""
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

    def _time_out(self) -> None:
        self.timed_out = True
        self.kill()

    def pause(self) -> None:
        """Suspend the child. Only on Linux, where the system kills a suspended child when its parent ends."""
        self._signal("SIGSTOP")

    def resume(self) -> None:
        """Resume a suspended child."""
        self._signal("SIGCONT")

    def _signal(self, name: str) -> None:
        # A suspended child cannot notice that its parent has ended; on Linux the system kills it (`kill_with_parent`).
        if sys.platform == "linux":
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, getattr(signal, name))

    def kill(self) -> None:
        """Kill the process group; a `receive` that is waiting returns None."""
        if sys.platform == "win32":
            self._process.kill()
            return
        # The group outlives its leader while other processes are in it; ESRCH means that none is left.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)


def _start(module: str, log: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        # -P: the working directory must not shadow modules that the child imports
        [sys.executable, "-P", "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path and isinstance(path, str))}
        | {telemetry.VARIABLE: "1"},
        start_new_session=True,
    )


def _open_log() -> IO[bytes]:
    """Open a file for the output of a child: in memory if no folder for temporary files is writable."""
    try:
        return cast("IO[bytes]", tempfile.TemporaryFile())
    except OSError:
        if not hasattr(os, "memfd_create"):
            raise
        return cast("IO[bytes]", os.fdopen(os.memfd_create("epkit-log"), "w+b"))


class Parent:
    """The connection to the parent, inside the child. Redirects stdout, so that only replies reach the parent."""

    def __init__(self) -> None:
        self._replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._requests = os.fdopen(os.dup(0), "rb")

    def receive(self) -> dict[str, object] | None:
        """Wait for one message; None if the parent has ended."""
        line = self._requests.readline()
        return cast("dict[str, object]", json.loads(line)) if line else None

    def receive_bytes(self, size: int) -> bytes:
        """Wait for the bytes that follow a message."""
        return self._requests.read(size)

    def send(self, message: Mapping[str, object]) -> None:
        """Send a reply."""
        self._replies.write(json.dumps(message) + "\n")
        self._replies.flush()

    def set_time_limit(self, seconds: float | None) -> None:
        """End this process 5 seconds after this time limit; None removes the limit.

        Needed if the parent has ended while a library hangs and holds the interpreter's lock.
        """
        if sys.platform != "win32":
            signal.alarm(0 if seconds is None else int(seconds) + 5)

    def exit(self) -> NoReturn:
        """End this process without shutting down the interpreter, during which some libraries crash."""
        sys.stderr.flush()
        os._exit(0)

    def exit_with_parent(self) -> None:
        """End this process as soon as the parent ends. No more messages can be received after this call."""
        kill_with_parent()
        threading.Thread(target=self._wait_for_parent, daemon=True).start()

    def _wait_for_parent(self) -> None:
        self._requests.read()
        os._exit(1)


def serve_one(work: Callable[[Mapping[str, Any]], Mapping[str, object]]) -> None:
    """Receive one request, reply with the result of `work` or with the error, and end the process."""
    parent = Parent()
    request = parent.receive()
    if request is None:
        return
    parent.exit_with_parent()
    try:
        reply = work(request)
    except Exception as error:  # noqa: BLE001 - the boundary of the process: the parent must get every error
        reply = error_reply(error)
    parent.send(reply)
    parent.exit()


def error_reply(error: Exception) -> dict[str, object]:
    """Return the reply for an error: its class if it is one of epkit's, message and hint."""
    if isinstance(error, EpkitError):
        return {"error": type(error).__name__, "message": error.message, "hint": error.hint}
    traceback.print_exception(error)
    return {"error": "", "message": f"{type(error).__name__}: {error}", "hint": ""}


def run_program(command: Sequence[str], limit_s: float) -> str | None:
    """Run a program and return what it prints; None if it is missing, fails, or takes longer than `limit_s`."""
    nothing = subprocess.DEVNULL
    try:
        process = subprocess.Popen(command, stdin=nothing, stdout=subprocess.PIPE, stderr=nothing)
    except OSError:
        return None
    assert process.stdout is not None
    try:
        output, _ = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        # Not subprocess.run, which waits for the killed program: one that hangs in a driver does not end.
        process.kill()
        process.stdout.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1.0)
        return None
    return output.decode(errors="replace") if process.returncode == 0 else None
