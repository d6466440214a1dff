"""What SIGTERM does to a command: it ends at once, and takes with it what it started."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import alive
from slow_model import slow

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="it has no /proc")]
LONG = 20_000
"""Rows with which one run takes minutes."""


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("slow") / "slow.onnx"
    file.write_bytes(slow(LONG))
    return file


def started(*words: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "epkit", *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def until(true: Callable[[], object], seconds: float = 120) -> None:
    started = time.monotonic()
    while not true():
        assert time.monotonic() - started < seconds, "it never came about"
        time.sleep(0.05)


def busy(process: subprocess.Popen[bytes]) -> bool:
    """Whether a process is at work in ONNX Runtime: it has used seconds of CPU since its threads began."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return "onnxruntime_pybind11" in Path(f"/proc/{process.pid}/maps").read_text() and int(fields[11]) > 400


def test_a_command_ends_while_onnx_runtime_works(model_file):
    process = started("run", model_file, "-t", "cpu")
    try:
        until(lambda: busy(process))
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == -signal.SIGTERM
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("words", "worker"),
    [
        (("bench", "-t", "cpu", "--budget", "60"), "epkit.benchmark.worker"),
        (("compare", "-t", "cpu", "-t", "cpu"), "epkit.parity.worker"),
    ],
    ids=["bench", "compare"],
)
def test_a_command_with_processes_of_its_own_takes_them_with_it(model_file, words, worker):
    command, *others = words
    process = started(command, model_file, *others)
    try:
        until(lambda: alive(worker, process.pid))
        workers = alive(worker, process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
        until(lambda: not set(workers) & set(alive(worker, 0)), 20)
    finally:
        process.kill()
        process.wait()
