"""How much the memory of a process grows with the number of runs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import warm

MOST_KB = 4 * 1024
"""A leak of a hundred bytes in each of so many runs is far more than this; the allocator's own noise is less."""

WATCH = """
import gc, os
import numpy as np
import epkit
from models import identity, mlp

def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024

def watched(work, before, count):
    work(before)
    start = resident()
    work(count)
    print(resident() - start)

def times(work):
    def repeat(count):
        for _ in range(count):
            work()
    return repeat

small = np.ones(8, np.float32)
"""


def grown(code: str) -> int:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    }
    done = subprocess.run(
        [warm.PYTHON, "-c", WATCH + code], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)
