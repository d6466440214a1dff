"""What a forked process does with the sessions it inherits, as the workers of `gunicorn --preload` do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks no processes")]

PARENT = '''
import asyncio, json, os, signal, sys, threading, time
import numpy as np
import epkit
from epkit._system import streams
from epkit.discovery import registry
from epkit.runtime import api as _runtime
from epkit.runtime import events
from epkit.errors import SessionClosed
from epkit.runtime.concurrency import PROCESS
from models import mlp
from running import LARGE, floats
from slow_model import slow

def in_child(work, leave=os._exit):
    """Do the work in a forked process, and return what it says, or how it ended; it has 30 seconds."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(30)  # a child that waits for ever dies of it
        try:
            said = work()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(write, json.dumps(said).encode())
        os.close(write)
        leave(0)
    os.close(write)
    said = os.fdopen(read, "rb").read()
    _, status = os.waitpid(child, 0)
    return json.loads(said) if not status else f"ended with status {status} after {said!r}"

def right(found, wanted):
    return bool(np.allclose(found["y"], wanted, rtol=1e-4, atol=1e-6))

session = epkit.open(mlp(), "cpu")
x = floats(2, 16)
wanted = session.run(x)["y"]
binding = session.bind(x)

async def gathered():
    return await asyncio.gather(*(session.run_async(x, timeout=50) for _ in range(12)))

def every_way():
    said = {
        "run": all(right(session.run(x), wanted) for _ in range(4)),
        "timeout": all(right(session.run(x, timeout=50), wanted) for _ in range(4)),
        "run_async": all(right(one, wanted) for one in asyncio.run(gathered())),
        "binding": all(right(binding.run(x), wanted) for _ in range(4)),
        "bind": right(session.bind(x).run(), wanted),
    }
    with epkit.open(mlp(), "cpu") as another:
        said["open"] = right(another.run(x), wanted)
    session.close()
    try:
        session.run(x)
    except SessionClosed:
        said["closed"] = True
    return said

found = {"never used": in_child(every_way)}
for _ in range(3):
    session.run(x), session.run(x, timeout=50), binding.run(x)
asyncio.run(gathered())
found["used in every way"] = in_child(every_way)
found["a fork of a fork"] = in_child(lambda: in_child(every_way))
found["two children, one after the other"] = [in_child(every_way), in_child(every_way)]
found["leaves as any process"] = in_child(every_way, sys.exit)

# -- other threads of the parent are in the middle of something
longer = epkit.open(slow(), "cpu", session_options={"intra_op_num_threads": 1})
one = np.ones((1, 768), np.float32)
long_binding = longer.bind(one)

def busy(call):
    thread = threading.Thread(target=call)
    thread.start()
    while not longer._caller.active_runs.running:
        time.sleep(0.001)
    time.sleep(0.05)
    return thread

def runs_and_closes():
    said = {"run": bool((longer.run(one)["y"] == 1).all())}
    said["timeout"] = bool((longer.run(one, timeout=50)["y"] == 1).all())
    longer.close()
    return said | {"closed": True}

big = np.ones((300, 768), np.float32)
thread = busy(lambda: longer.run(big))
found["a thread runs"] = in_child(runs_and_closes)
thread.join()
thread = busy(lambda: longer.run(big, timeout=50))
found["a thread runs with a time limit"] = in_child(runs_and_closes)
thread.join()
thread = busy(lambda: long_binding.run(big))
found["a thread runs a binding"] = in_child(runs_and_closes)
thread.join()

def held(lock):
    taken, done = threading.Event(), threading.Event()
    def hold():
        with lock:
            taken.set()
            done.wait()
    threading.Thread(target=hold).start()
    taken.wait()
    return done

locks = [held(lock) for lock in (PROCESS, _runtime._lock, registry._lock, streams._lock, events._logs_lock)]
def opens():
    with PROCESS:
        _runtime._prepared.clear()
        registry.discover()
        with epkit.open(mlp(), "cpu") as another:
            return right(another.run(x), wanted)
found["a thread holds every lock"] = in_child(opens)
for lock in locks:
    lock.set()
found["the parent goes on"] = right(session.run(x, timeout=50), wanted) and right(binding.run(x), wanted)
print(json.dumps(found))
'''

RIGHT = dict.fromkeys(("run", "timeout", "run_async", "binding", "bind", "open", "closed"), True)
ALONE = dict.fromkeys(("run", "timeout", "closed"), True)


def ran(script: str, *words: str) -> object:
    """Run a script as a process of its own, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
        # Imported before epkit, as these scripts do, ONNX Runtime has a thread that a forked process waits for at exit.
        env=os.environ | {"ORT_DISABLE_TELEMETRY": "1"},
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def found() -> dict[str, object]:
    return ran(PARENT)


def test_a_session_that_nobody_used_serves_the_child(found):
    assert found["never used"] == RIGHT


def test_a_session_whose_threads_the_parent_used_serves_the_child_and_closes(found):
    assert found["used in every way"] == RIGHT


def test_grandchildren_and_several_children_are_served(found):
    assert found["a fork of a fork"] == RIGHT
    assert found["two children, one after the other"] == [RIGHT, RIGHT]


def test_a_child_may_end_as_any_process_does(found):
    assert found["leaves as any process"] == RIGHT


@pytest.mark.parametrize("what", ["a thread runs", "a thread runs with a time limit", "a thread runs a binding"])
def test_runs_of_the_parent_that_the_child_does_not_have_are_waited_for_by_nobody(found, what):
    assert found[what] == ALONE


def test_locks_that_threads_of_the_parent_held_are_free_in_the_child(found):
    assert found["a thread holds every lock"] is True


def test_the_parent_goes_on_as_before(found):
    assert found["the parent goes on"] is True


LEFT_BEHIND = """
import json, os, sys
import numpy as np
import epkit
from epkit.errors import SessionClosed
from models import mlp

if sys.argv[1] == "device":
    session = epkit.open(mlp(), "cpu")
    session._caller._unforkable = "what its parent has on acme:0"  # as where a provider has memory of its own
else:
    session = epkit.open(mlp(), "cpu", session_options={"execution_mode": "ORT_PARALLEL"})
x = np.ones((2, 16), np.float32)
binding = session.bind(x)
for _ in range(4):
    session.run(x), binding.run(x)
read, write = os.pipe()
if not os.fork():
    said = []
    for way in (session.run, lambda x: session.run(x, timeout=50), binding.run, session.bind):
        try:
            said.append(str(way(x)))
        except SessionClosed as error:
            said.append(["before a fork" in error.message, bool(error.hint)])
    binding.close()
    session.close()
    os.write(write, json.dumps(said).encode())
    os._exit(0)
os.wait()
print(os.read(read, 1000).decode())
"""


@pytest.mark.parametrize("what", ["device", "ORT_PARALLEL"])
def test_a_session_that_does_not_survive_a_fork_says_so(what):
    assert ran(LEFT_BEHIND, what) == [[True, True]] * 4
