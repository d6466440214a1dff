"""The fuzzing script finds what it is made to find, and repeats a trial from its number."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[1] / "fuzz"
posix = pytest.mark.skipif(sys.platform == "win32", reason="it forks")


def fuzz(*words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, FUZZ, *words], capture_output=True, text=True, timeout=300, env=env)


@posix
@pytest.mark.slow
def test_a_few_trials_of_each_kind_end_well_and_are_the_same_again(tmp_path):
    done = fuzz("--seconds", "8", "--seed", "7", "--keep", str(tmp_path))
    assert done.returncode == 0, done.stdout
    first, again = (fuzz("--seed", "7", "--trial", "3", "--keep", str(tmp_path)) for _ in range(2))
    told = [[line for line in one.stdout.splitlines() if line.startswith("trial 3")] for one in (first, again)]
    assert told[0] == told[1] != []


@posix
@pytest.mark.slow
def test_a_traceback_is_found_and_what_led_to_it_is_kept(tmp_path):
    broken = tmp_path / "sitecustomize.py"
    broken.write_text(
        "import os\n"
        "import epkit.config.file\n"
        "whole, first = epkit.config.file.load, os.getpid()\n"
        "def load(*words, **named):\n"
        "    if os.getpid() == first:\n"
        "        return whole(*words, **named)\n"
        "    raise KeyError('broken on purpose')\n"
        "epkit.config.file.load = load\n"
    )
    environ = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = fuzz("--seconds", "30", "--seed", "1", "--kind", "configs", "--keep", str(tmp_path / "kept"), env=environ)
    assert done.returncode == 1
    assert "Traceback" in done.stdout
    assert "--seed 1 --trial 0 --kind configs" in done.stdout
    assert (tmp_path / "kept" / "1-0" / "epkit.toml").is_file()
