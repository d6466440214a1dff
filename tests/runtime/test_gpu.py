"""Do the promises of `gpu_promises` hold on this machine's GPU?

Each is kept in a process of its own, since a native crash would end the tests. Where there is no NVIDIA GPU they skip
with the probe's own reason, and the same bodies run on the CPU and, where it is usable, on WebGPU.
"""

from __future__ import annotations

import subprocess

import gpu_promises
import pytest
import warm
from gpu_promises import NVIDIA, PROMISES, RTX, SKIPPED

import epkit
from epkit.discovery import listing

SECONDS = 240
CASES = [
    pytest.param(on, one.name, id=f"{one.name}-{on}")
    for on in (*NVIDIA, RTX)
    for one in PROMISES.values()
    if on in one.on
]


@pytest.fixture(scope="module")
def rows() -> dict[str, listing.ProviderRow]:
    return {row.name: row for row in epkit.providers().rows}


def skip_unless_usable(on: str, rows: dict[str, listing.ProviderRow]) -> None:
    """Skip with the reason of its row, or since it has none."""
    if on not in rows or rows[on].status != "usable":
        pytest.skip(f"{on}: {rows[on].reason if on in rows else 'is not installed'}")


def kept(on: str, *names: str) -> None:
    """Keep promises in a child; fail with what it printed, and how it ended."""
    command = [warm.PYTHON, gpu_promises.__file__, on, *names]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired as slow:
        printed = slow.stdout.decode(errors="replace") if isinstance(slow.stdout, bytes) else slow.stdout or ""
        pytest.fail(f"{on}: not done after {SECONDS} s\n{printed[-3000:]}", pytrace=False)
    if done.returncode == SKIPPED:
        pytest.skip(done.stdout.strip())
    if done.returncode:
        how = f"crashed with signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        pytest.fail(f"{on}: {how}\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}", pytrace=False)


@pytest.mark.gpu
@pytest.mark.parametrize(("on", "name"), CASES)
def test_a_promise_is_kept_on_the_gpu(on: str, name: str, rows: dict[str, listing.ProviderRow]):
    skip_unless_usable(on, rows)
    kept(on, name)


@pytest.mark.parametrize("on", ["cpu", "webgpu"])
def test_the_same_promises_are_kept_without_an_nvidia_gpu(on: str, rows: dict[str, listing.ProviderRow]):
    skip_unless_usable(on, rows)
    kept(on)


def test_a_promise_that_is_broken_or_crashes_is_a_failure_that_says_so():
    with pytest.raises(pytest.fail.Exception, match=r"no provider is named|no target or provider is named"):
        kept("acme", "the_report_says_where_the_nodes_run")
    with pytest.raises(pytest.skip.Exception, match=r"does not tell how much memory|PyTorch"):
        kept("cpu", "a_tensor_on_the_gpu_is_read_where_it_is")
