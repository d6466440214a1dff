"""Run one trial in a process of its own: forked from this one, which has everything imported, or started anew."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from epkit.errors import EpkitError

LIMIT_S = 40.0
"""How long a trial may take; the commands that have a time limit are given one that is shorter."""
MEMORY = 4 << 30
WRITTEN = 256 << 20
UNEXPECTED = 99
"""The exit code of a process in which an exception came out of the command."""
_PRIVATE, _NEW_NAMESPACE, _READ_ONLY_AGAIN = 1 << 18 | 1 << 14, 0x00020000, 1 | 32 | 4096


@dataclass(frozen=True, slots=True)
class Trial:
    """What is typed, and where."""

    kind: str
    number: int
    words: tuple[str, ...]
    environ: Mapping[str, str] = field(default_factory=dict)
    """Variables beside those of every trial."""
    without: tuple[str, ...] = ()
    """Variables that are not set."""
    stdin: str = "null"
    stdout: str = "file"
    """`file`, `full`, `closed`, `gone` (a pipe that nobody reads) or `null`."""
    stderr: str = "file"
    encoding: str = "utf-8"
    directory: str = "there"
    """The working directory: `there` or `deleted`."""
    root: str = "as it is"
    """`as it is`, or `read-only`."""
    anew: bool = False
    """Whether a new interpreter is started."""
    expected: tuple[int, ...] = (0, 1, 2, 3, 4)
    logs: bool = False
    """Whether the config may ask for ONNX Runtime's own log."""

    def told(self) -> str:
        """Return it in a few lines."""
        odd = {name: getattr(self, name) for name in ("stdin", "stdout", "stderr", "encoding", "directory", "root")}
        usual = {name: Trial.__dataclass_fields__[name].default for name in odd}
        said = ", ".join(f"{name} {value}" for name, value in odd.items() if value != usual[name])
        words = " ".join(word if len(word) < 200 else f"{word[:200]}..." for word in map(ascii, self.words))
        variables = " ".join(f"{name}={value!a:.200}" for name, value in self.environ.items())
        return f"trial {self.number}, {self.kind}: epkit {words}\n  {variables} {said}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended."""

    code: int | str
    """The exit code; the name of a signal, or `hang`."""
    out: bytes
    err: bytes
    seconds: float

    def told(self) -> str:
        """Return it in a few lines."""
        out, err = (text.decode(errors="backslashreplace")[-1500:] for text in (self.out, self.err))
        return f"  ended with {self.code} after {self.seconds:.1f} s\n  stdout: {out!r}\n  stderr: {err}"


def warm_up(base: Path) -> None:
    """Import what trials need, and let answers of probes be remembered."""
    import onnxruntime
    from documents import made_up
    from models import mlp

    import epkit.parity.compare
    import epkit.session.open  # noqa: F401
    from epkit.benchmark import storage
    from epkit.cli import app

    onnxruntime.set_default_logger_severity(4)
    (base / "cache").mkdir()
    os.environ |= usual(base)
    storage.write(made_up({"a": 0.01, "b": 0.02}, processes=2, sweeps=2, runs=2), base / "d.json")
    (base / "m.onnx").write_bytes(mlp())
    shows = [["show", *form] for form in ([], ["--format", "html"], ["--format", "markdown"], ["--json"])]
    commands = [["bench", words[0], str(base / "d.json"), *words[1:]] for words in (*shows, ["verify"])]
    commands += [["explain", str(base / "m.onnx"), "-t", "cpu"], ["inspect", str(base / "m.onnx")], ["doctor"]]
    with contextlib.redirect_stdout(io.StringIO()):
        for words in commands:
            with contextlib.suppress(EpkitError):
                app.main(words, standalone_mode=False)
    assert threading.active_count() == 1, threading.enumerate()


def usual(base: Path) -> dict[str, str]:
    """Return the variables of every trial."""
    return {
        "EPKIT_CACHE_DIR": str(base / "cache"),
        "EPKIT_PROBE": "quick",
        "EPKIT_DISABLE_PLUGINS": "openvino,webgpu,tensorrt-rtx,tensorrt,cuda",
    }


def run(trial: Trial, folder: Path, base: Path) -> Outcome:
    """Run it, and wait for its end."""
    out, err = base / "out", base / "err"
    started = time.monotonic()
    child = os.fork()
    if not child:
        _begin(trial, folder, base, out, err)
    code = _wait(child, started + LIMIT_S)
    return Outcome(code, out.read_bytes(), err.read_bytes(), time.monotonic() - started)


def _wait(child: int, until: float) -> int | str:
    while time.monotonic() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            _kill(child)  # what it left behind
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else signal.Signals(-code).name
        time.sleep(0.005)
    _kill(child)
    os.waitpid(child, 0)
    return "hang"


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _begin(trial: Trial, folder: Path, base: Path, out: Path, err: Path) -> NoReturn:
    try:
        os.setsid()
        os.umask(0o022)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_FSIZE, (WRITTEN, WRITTEN))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        os.environ |= {**usual(base), "HOME": str(folder), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        os.environ |= trial.environ
        for name in trial.without:
            os.environ.pop(name, None)
        out.write_bytes(b"")
        err.write_bytes(b"")
        streams = [_opened(trial.stdin, out), _opened(trial.stdout, out), _opened(trial.stderr, err)]
        os.chdir(folder)
        if trial.directory == "deleted":
            (folder / "deleted").mkdir()
            os.chdir(folder / "deleted")
            (folder / "deleted").rmdir()
        if trial.root == "read-only":
            _mount_read_only()
        for number, stream in enumerate(streams):
            if stream is None:
                os.close(number)
            else:
                os.dup2(stream, number)
        _call(trial)
    except BaseException:  # noqa: BLE001 - the parent must know
        os.write(2, traceback.format_exc().encode(errors="backslashreplace"))
    os._exit(UNEXPECTED)


def _call(trial: Trial) -> None:
    if trial.anew:
        os.environ["PYTHONIOENCODING"] = trial.encoding
        words = [word.encode("utf-8", "surrogateescape") for word in trial.words]
        os.execv(sys.executable, [sys.executable, "-P", "-m", "epkit", *words])
    from epkit.cli import main

    for number, name, errors in ((0, "stdin", "strict"), (1, "stdout", "strict"), (2, "stderr", "backslashreplace")):
        closed = getattr(trial, name) == "closed"
        mode = "w" if number else "r"
        stream = None if closed else os.fdopen(number, mode, encoding=trial.encoding, errors=errors, closefd=False)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.argv = ["epkit", *trial.words]
    try:
        main()
    except SystemExit as left:
        os._exit(left.code if isinstance(left.code, int) else UNEXPECTED)


def _opened(kind: str, file: Path) -> int | None:
    match kind:
        case "closed":
            return None
        case "full":
            return os.open("/dev/full", os.O_WRONLY)
        case "null":
            return os.open("/dev/null", os.O_RDWR)
        case "gone":
            read, write = os.pipe()
            os.close(read)
            return write
    return os.open(file, os.O_WRONLY)


def can_mount() -> bool:
    """Whether a process here may give itself a root file system that cannot be written."""
    if not sys.platform.startswith("linux") or os.geteuid():
        return False
    child = os.fork()
    if not child:
        try:
            _mount_read_only()
            os._exit(0)
        except OSError:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _mount_read_only() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for failed in (
        libc.unshare(_NEW_NAMESPACE),
        libc.mount(None, b"/", None, _PRIVATE, None),
        libc.mount(None, b"/", None, _READ_ONLY_AGAIN, None),
    ):
        if failed:
            raise OSError(ctypes.get_errno(), "the root cannot be made read-only")
