"""Start Python processes that have NumPy, ONNX Runtime and epkit imported already, by forking one that has. Linux only.

A new interpreter that imports them costs 0.7 s and more of CPU time, a fork some milliseconds, and the tests start a
thousand. While `warm()` holds, `subprocess.Popen` asks the server for

- what runs a module of epkit: `python -P -m epkit...`, which is how epkit starts its workers, and `python -m epkit`;
- whatever else names `PYTHON` instead of `sys.executable`.

Everything else, and what a fork could not do as a new interpreter would (another loader path, another encoding, modules
that hide ours), is started from nothing. The process is a child of its caller like any other: the server forks twice,
and the orphan falls to the caller, its subreaper meanwhile.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import gc
import importlib
import inspect
import io
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


class _Warm(str):
    """The path of this interpreter, where a fork may stand for it."""

    __slots__ = ()


PYTHON = _Warm(sys.executable)

MODULES = (
    *("numpy", "onnxruntime", "pydantic", "pluggy", "filelock", "click", "platformdirs", "rich.console", "rich.table"),
    *(
        "epkit.cli",
        "epkit.session.open",
        "epkit.discovery.probe",
        "epkit.discovery.registry",
        "epkit.benchmark",
        "epkit.parity",
    ),
)
COLD = ("epkit.testing.import_worker",)
"""Watches what a plugin imports."""

READ_AT_START = ("LD_", "PYTHON", "LC_", "LANG", "OMP_", "OPENBLAS_", "MKL_", "MALLOC_", "GLIBC_", "ORT_", "NPY_")
"""Variables that the loader, the interpreter, or a library reads once."""

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_ORDINARY = {"restore_signals": True, "umask": -1, "process_group": -1, "pass_fds": (), "shell": False}
_ROOM = 1 << 14


def fixed(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that only a new interpreter could take differently."""
    return {
        name: value
        for name, value in environ.items()
        if name.startswith(READ_AT_START) and name not in ("PYTHONPATH", "ORT_DISABLE_TELEMETRY")
    }


# -- the caller


class Server:
    """A process that is forked from."""

    def __init__(
        self,
        connection: socket.socket,
        environ: Mapping[str, str],
        process: subprocess.Popen[bytes] | None = None,
    ) -> None:
        self.connection = connection
        self.process = process
        self.fixed = fixed(environ)
        self.owner = os.getpid()
        self.lock = threading.Lock()

    @classmethod
    def start(cls) -> Server:
        """Start it from nothing; it ends with this process."""
        ours, theirs = socket.socketpair()
        # ORT_DISABLE_TELEMETRY: else importing ONNX Runtime starts a thread, which no fork has.
        environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        room = "x" * _ROOM
        process = _plain_popen(
            [sys.executable, "-P", __file__, str(theirs.fileno()), room],
            env=environ | {"ORT_DISABLE_TELEMETRY": "1"},
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        return cls(ours, environ, process)

    def end(self) -> None:
        """Let go of it, which ends it."""
        self.connection.close()
        if self.process is not None:
            self.process.wait()

    def fork(self, request: Mapping[str, object], descriptors: Sequence[int]) -> int:
        """Ask for a process; returns its number, 0 if only a new interpreter will do."""
        message = json.dumps(request).encode()
        with self.lock:
            assert _LIBC is not None
            _LIBC.prctl(_SUBREAPER, 1, 0, 0, 0)
            try:
                rights = array.array("i", descriptors)
                head = len(message).to_bytes(4, "big")
                self.connection.sendmsg([head], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
                self.connection.sendall(message)
                return int.from_bytes(_exactly(self.connection, 4), "big")
            finally:
                _LIBC.prctl(_SUBREAPER, 0, 0, 0, 0)


def server_pid() -> int | None:
    """Return the number of the server that this process has started, for who counts its children."""
    return _server.process.pid if _server is not None and _server.process is not None else None


def _exactly(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = connection.recv(size - len(found))
        if not part:
            raise EOFError
        found += part
    return found


_plain_popen = subprocess.Popen
_server: Server | None = None
_starting = threading.Lock()


def _running() -> Server:
    global _server
    with _starting:
        if _server is None or _server.owner != os.getpid():
            _server = Server.start()
        return _server


class Popen(subprocess.Popen):  # type: ignore[type-arg]
    """Starts a process by a fork of the server where that comes to the same."""

    def _execute_child(self, *given: Any, **named: Any) -> None:
        bound = inspect.signature(super()._execute_child).bind(*given, **named)  # type: ignore[misc]
        asked = bound.arguments
        pid = 0
        try:
            request = _request(asked)
            if request is not None:
                ends = [asked["p2cread"], asked["c2pwrite"], asked["errwrite"]]
                pid = _running().fork(request, [end if end != -1 else own for own, end in enumerate(ends)])
        except (OSError, EOFError):
            pid = 0
        if not pid:
            super()._execute_child(*given, **named)  # type: ignore[misc]
            return
        self.pid = pid
        self._child_created = True
        pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(asked[name] for name in pipes))  # type: ignore[attr-defined]


def _request(asked: Mapping[str, Any]) -> dict[str, object] | None:
    """Return what to ask the server for, None where only a new interpreter will do."""
    if not isinstance(asked["args"], list | tuple) or asked["preexec_fn"] is not None or not asked["close_fds"]:
        return None
    if any(asked.get(name, usual) != usual for name, usual in _ORDINARY.items()):
        return None
    if any(asked[name] is not None for name in ("uid", "gid", "gids")):
        return None
    program, *words = asked["args"]
    if program != sys.executable or asked["executable"] not in (None, program):
        return None
    words = [os.fspath(word) for word in words]
    safe = words[:1] == ["-P"]
    kind, rest = (words[safe : safe + 1] or [""])[0], words[safe + 1 :]
    if kind.startswith("-") and (kind not in ("-m", "-c") or not rest):
        return None
    module = rest[0] if kind == "-m" else ""
    if not isinstance(program, _Warm) and (module.split(".")[0] != "epkit" or module in COLD):
        return None
    environ = dict(os.environ if asked["env"] is None else asked["env"])
    if fixed(environ) != _running().fixed or environ.get("ORT_DISABLE_TELEMETRY") != "1":
        return None
    mask = os.umask(0)
    os.umask(mask)
    return {
        "words": words[safe:],
        "safe": safe,
        "environ": environ,
        "cwd": os.path.join(os.getcwd(), os.fspath(asked["cwd"] or "")),  # noqa: PTH109, PTH118 - as it is spelt
        "session": bool(asked["start_new_session"]),
        "umask": mask,
        "cores": sorted(os.sched_getaffinity(0)),
    }


@contextlib.contextmanager
def warm() -> Iterator[None]:
    """Let `subprocess.Popen` fork; elsewhere than on Linux, change nothing."""
    if sys.platform != "linux":
        yield
        return
    _running()  # before any test counts its children
    subprocess.Popen = Popen  # type: ignore[misc]
    try:
        yield
    finally:
        subprocess.Popen = _plain_popen  # type: ignore[misc]
        if _server is not None:
            _server.end()


# -- the server


def serve(connection: socket.socket, base: Sequence[str]) -> list[str]:
    """Fork for each request; returns in the forked process, with the words that it is to run, never in the server."""
    while True:
        try:
            head, ancillary, *_ = connection.recvmsg(4, socket.CMSG_SPACE(12))
            if not head:
                os._exit(0)
            request = json.loads(_exactly(connection, int.from_bytes(head, "big")))
        except (OSError, EOFError):
            os._exit(0)
        descriptors = array.array("i")
        for _, _, data in ancillary:
            descriptors.frombytes(data)
        if _hides(request, base):
            pid = 0
        else:
            pid = _fork_twice()
            if pid < 0:
                connection.close()
                _become(request, descriptors, base)
                return list(request["words"])
        for descriptor in descriptors:
            os.close(descriptor)
        connection.sendall(pid.to_bytes(4, "big"))


def _fork_twice() -> int:
    """Return the number of a process that is nobody's child here, and in that process -1."""
    reading, writing = os.pipe()
    between = os.fork()
    if between:
        os.close(writing)
        os.waitpid(between, 0)
        with os.fdopen(reading, "rb") as pipe:
            return int.from_bytes(pipe.read(4), "big")
    parent = os.getpid()
    pid = os.fork()
    if pid:
        os.write(writing, pid.to_bytes(4, "big"))
        os._exit(0)
    os.close(reading)
    os.close(writing)
    while os.getppid() == parent:
        os.sched_yield()
    return -1


def _places(request: Mapping[str, Any]) -> list[str]:
    """Return where the process is to look for modules first."""
    places = [place for place in request["environ"].get("PYTHONPATH", "").split(os.pathsep) if place]
    words = request["words"]
    if words[0] in ("-m", "-c"):
        return places if request["safe"] else [request["cwd"] if words[0] == "-m" else "", *places]
    return [str(Path(request["cwd"], words[0]).resolve().parent), *places]


def _hides(request: Mapping[str, Any], base: Sequence[str]) -> bool:
    """Whether it would find another NumPy, ONNX Runtime or epkit than is imported here."""
    homes = {
        name: Path(str(sys.modules[name].__file__)).resolve().parent
        for name in {name.partition(".")[0] for name in MODULES}
    } | dict.fromkeys(("sitecustomize", "usercustomize"))
    for place in _places(request):
        here = Path(request["cwd"], place)
        if place not in base and any(
            (here / f"{name}.py").exists() or ((here / name).exists() and (here / name).resolve() != home)
            for name, home in homes.items()
        ):
            return True
    return False


def _become(request: Mapping[str, Any], descriptors: Sequence[int], base: Sequence[str]) -> None:
    """Take on what a new interpreter would be given."""
    if request["session"]:
        os.setsid()
    for own, given in enumerate(descriptors):
        os.dup2(given, own)
    for given in descriptors:
        if given > 2:
            os.close(given)
    os.environ.clear()
    os.environ.update(request["environ"])
    os.chdir(request["cwd"])
    os.umask(request["umask"])
    os.sched_setaffinity(0, request["cores"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    tempfile.tempdir = None
    sys.path[:] = [*_places(request), *base]
    importlib.invalidate_caches()
    for own, name in enumerate(("stdin", "stdout", "stderr")):
        plain = getattr(sys, f"__{name}__")
        raw = io.FileIO(own, "rb" if own == 0 else "wb", closefd=False)
        buffer: Any = io.BufferedReader(raw) if own == 0 else io.BufferedWriter(raw)
        lines = own == 2 or os.isatty(own)
        stream = io.TextIOWrapper(buffer, plain.encoding, plain.errors, line_buffering=lines)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    shown = [sys.executable, *(["-P"] if request["safe"] else []), *request["words"]]
    sys.orig_argv[:] = shown
    _show(shown)


def _show(words: Sequence[str]) -> None:
    """Write a command line where Linux reads this process's."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    line = b"".join(word.encode(errors="surrogateescape") + b"\0" for word in words)
    ctypes.memmove(start, line[: end - start - 1].ljust(end - start, b"\0"), end - start)


def _run(words: Sequence[str]) -> None:
    """Do what a new interpreter does with these words."""
    kind, *rest = words
    if kind == "-m":
        sys.argv[:] = ["-m", *rest[1:]]
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv[:] = ["-c", *rest[1:]]
        main = types.ModuleType("__main__")
        sys.modules["__main__"] = main
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    else:
        sys.argv[:] = words
        runpy.run_path(kind, run_name="__main__")


def _split() -> socket.socket | None:
    """Fork a server for what this process will start; returns there the socket to serve, and here None."""
    global _server
    ours, theirs = socket.socketpair()
    if os.fork():
        theirs.close()
        _server = Server(ours, os.environ)
        subprocess.Popen = Popen  # type: ignore[misc]
        return None
    ours.close()
    nothing = os.open(os.devnull, os.O_RDWR)
    for own in range(3):
        os.dup2(nothing, own)
    os.close(nothing)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return theirs


def main() -> None:
    """Be a server, on the socket that was inherited, and then what it forked."""
    connection: socket.socket | None = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.modules["warm"] = sys.modules["__main__"]  # should a forked process import it: one module, one server
    base = list(sys.path)
    for name in MODULES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    words: list[str] = []
    while connection is not None:
        words = serve(connection, base)
        connection = None if words[:2] == ["-m", "epkit.discovery.probe_worker"] else _split()
    _run(words)


if __name__ == "__main__":
    main()
