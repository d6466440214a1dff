"""What does another program of this system answer, in a moment or not at all?"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from contextlib import suppress


def answer(command: Sequence[str], limit_s: float) -> str | None:
    """Return what a program prints; None when it is not there, fails, or is not done in time."""
    nothing = subprocess.DEVNULL
    try:
        process = subprocess.Popen(command, stdin=nothing, stdout=subprocess.PIPE, stderr=nothing)
    except OSError:
        return None
    assert process.stdout is not None
    try:
        told, _ = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        # Not subprocess.run, which waits for whoever was killed: a program that hangs in a driver does not even die.
        process.kill()
        process.stdout.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(1.0)
        return None
    return told.decode(errors="replace") if process.returncode == 0 else None
