"""Temporary folders: gone when they are done with, however their process ended."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from together import together

from epkit._system.folders import SCRATCH_LOCK, SCRATCH_PREFIX, make_scratch_folder


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def aged(folder: Path) -> Path:
    an_hour_ago = time.time() - 3600
    os.utime(folder, (an_hour_ago, an_hour_ago))
    return folder


def started(temporary: Path) -> tuple[subprocess.Popen[str], Path]:
    """Start a process that makes a folder, and waits."""
    code = (
        "import sys\nfrom epkit._system.folders import make_scratch_folder\n"
        "with make_scratch_folder() as folder:\n"
        "    (folder / 'compiled').mkdir()\n    (folder / 'compiled' / 'engine').write_bytes(b'1' * 1000)\n"
        "    print(folder, flush=True)\n    sys.stdin.read()"
    )
    environment = {**os.environ, "TMPDIR": str(temporary)}
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_folder_is_gone_after_the_block_with_what_is_in_it(temporary):
    with contextlib.suppress(KeyboardInterrupt), make_scratch_folder() as folder:
        (folder / "file").write_text("kept for a moment")
        assert folder.parent == temporary
        raise KeyboardInterrupt
    assert list(temporary.iterdir()) == []


def test_what_a_killed_process_left_goes_with_the_next_folder_and_what_a_living_one_needs_stays(temporary):
    (killed, left), (living, needed) = started(temporary), started(temporary)
    try:
        killed.kill()
        killed.communicate()
        assert (left / "compiled" / "engine").exists()
        aged(left)
        aged(needed)
        with make_scratch_folder():
            assert not left.exists()
            assert (needed / "compiled" / "engine").exists()
    finally:
        living.communicate("")
    assert list(temporary.iterdir()) == [], "the living one's is gone when that ends"


def test_a_folder_that_is_young_is_left_alone(temporary):
    # Its process may be about to lock it.
    young = temporary / f"{SCRATCH_PREFIX}young"
    young.mkdir()
    with make_scratch_folder():
        pass
    assert list(temporary.iterdir()) == [young]
    aged(young)
    with make_scratch_folder():
        pass
    assert list(temporary.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="this system has no owners of files to tell apart")
def test_what_belongs_to_others_or_is_no_folder_is_left_alone(temporary, monkeypatch):
    theirs = temporary / f"{SCRATCH_PREFIX}theirs"
    theirs.mkdir()
    aged(theirs)
    link, target = temporary / f"{SCRATCH_PREFIX}link", temporary / "precious"
    target.mkdir()
    link.symlink_to(target)
    os.utime(link, (0, 0), follow_symlinks=False)
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    with make_scratch_folder():
        pass
    monkeypatch.undo()
    assert theirs.exists()
    assert not (theirs / SCRATCH_LOCK).exists(), "nor was it touched"
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with make_scratch_folder():
        pass
    assert sorted(one.name for one in temporary.iterdir()) == [link.name, "precious"]
    assert list(target.iterdir()) == []


def test_many_threads_have_a_folder_each(temporary):
    def work(number: int) -> None:
        for _ in range(5):
            with make_scratch_folder() as folder:
                aged(folder)
                (folder / "mine").write_text(str(number))
                time.sleep(0.01)
                assert (folder / "mine").read_text() == str(number)

    together(work)
    assert list(temporary.iterdir()) == []
