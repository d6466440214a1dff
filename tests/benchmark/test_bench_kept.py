"""A benchmark that was measured is not lost: not to a disk that is full, not to a clock that was wrong once."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path

import pytest
from documents import made_up
from models import mlp

from epkit.benchmark import storage
from epkit.benchmark.document import Benchmark
from epkit.benchmark.environment.environment import look
from epkit.benchmark.run import BenchmarkRun
from epkit.discovery.registry import discover
from epkit.errors import ConfigError

ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


@pytest.fixture(scope="module")
def small() -> Benchmark:
    return made_up({"cpu": 1.0, "other": 2.0}, batches=(1,))


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "kept"
    monkeypatch.setenv("EPKIT_BENCH_DIR", str(folder))
    folder.mkdir()
    return folder


def document(folder: Path, name: str, ago: float, text: str = "{}") -> Path:
    file = folder / name
    file.write_text(text)
    os.utime(file, (time.time() - ago, time.time() - ago))
    return file


def test_the_latest_is_what_was_written_last_whatever_its_name_says(kept):
    document(kept, "20990101T000000-1-model.json", ago=3600)
    newest = document(kept, "20260101T000000-1-model.json", ago=60)
    assert storage.latest() == newest


def test_a_file_from_the_future_hides_no_real_one(kept):
    document(kept, "20990101T000000-1-model.json", ago=-(10**9))
    newest = document(kept, "20260101T000000-1-model.json", ago=60)
    assert storage.latest() == newest
    newest.unlink()
    assert storage.latest().name.startswith("2099")


def test_documents_dated_in_the_future_are_the_first_to_go(kept):
    future = [document(kept, f"2099010{n}T000000-1-model.json", ago=-(10**9)) for n in range(1, 9)]
    real = [document(kept, f"20260101T0000{n}-1-model.json", ago=60 + n) for n in range(10, 58)]
    storage.new_file("model")
    assert all(one.exists() for one in real)
    assert sum(one.exists() for one in future) == 1


@pytest.mark.skipif(not ROOT, reason="only root makes files of other users")
def test_a_document_of_another_user_is_neither_the_latest_nor_deleted(kept):
    mine = document(kept, "20260101T000000-1-model.json", ago=600)
    others = [document(kept, f"20260102T0000{n}-1-model.json", ago=60) for n in range(10, 70)]
    for one in others:
        os.chown(one, 54321, 54321)
    (kept / "20260103T000000-1-model.json").symlink_to(others[0])
    assert storage.latest() == mine
    storage.new_file("model")
    assert all(one.exists() for one in (mine, *others))


@pytest.mark.skipif(os.name != "posix", reason="modes as POSIX has them")
def test_the_folder_of_documents_is_made_for_this_user_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("EPKIT_BENCH_DIR", str(tmp_path / "new" / "folder"))
    storage.new_file("model")
    assert [one.stat().st_mode & 0o777 for one in (tmp_path / "new", tmp_path / "new" / "folder")] == [0o700, 0o700]


def test_what_cannot_be_written_meanwhile_is_written_at_the_end(small, tmp_path):
    folder, away = tmp_path / "folder", tmp_path / "away"
    folder.mkdir()
    run = BenchmarkRun(small.measured.request, [], [], look(), discover(), file=folder / "doc.json")
    folder.rename(away)
    run.save()
    with pytest.raises(storage.Unwritten) as error:
        run.save(complete=True)
    assert isinstance(error.value, ConfigError)
    assert error.value.hint
    assert error.value.benchmark.measured.complete
    away.rename(folder)
    found = run.save(complete=True)
    assert json.loads((folder / "doc.json").read_text()) == json.loads(json.dumps(found.as_json()))


@pytest.mark.skipif(os.name != "posix", reason="a pipe with a name")
def test_a_pipe_gets_the_document_once_at_the_end(small, tmp_path):
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        run = BenchmarkRun(small.measured.request, [], [], look(), discover(), file=pipe)
        run.save()
        run.save(complete=True)
        assert json.loads(os.read(reader, 10**6))["measured"]["complete"] is True
    finally:
        os.close(reader)


@pytest.mark.slow
@pytest.mark.skipif(not ROOT, reason="only root makes a device of its own")
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_benchmark_whose_document_cannot_be_written_is_shown_all_the_same(form, empty, tmp_path, command):
    full = tmp_path / "full.json"
    try:
        os.mknod(full, stat.S_IFCHR | 0o666, os.makedev(1, 7))  # as /dev/full: there is no space left
        full.open("wb").close()
    except OSError as error:
        pytest.skip(f"no device node can be made here: {error}")
    (empty / "m.onnx").write_bytes(mlp())
    words = ("bench", "m.onnx", "-t", "cpu", "--budget", "3", "--output", full, "--output", tmp_path / "page.md", *form)
    code, out, err = command(*words)
    assert code == 2
    assert "full.json" in err
    assert "full.json" not in out
    assert (tmp_path / "page.md").stat().st_size > 100
    assert json.loads(out)["measured"]["complete"] is True if form else "cpu" in out
