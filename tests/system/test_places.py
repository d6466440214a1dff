"""Folders that are gone, closed, full or not there: epkit does without, or says so in an error of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from models import identity, mlp

import epkit
from epkit._system.process import Child
from epkit.benchmark import storage
from epkit.config.file import load
from epkit.errors import ConfigError, RunError

posix = pytest.mark.skipif(os.name != "posix", reason="folders as POSIX has them")
X = {"x": [[0.0] * 16]}


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    file = tmp_path / "m.onnx"
    file.write_bytes(mlp())
    return file


@pytest.fixture
def deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder that is not there any more."""
    folder = tmp_path / "deleted"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    return folder


@pytest.fixture
def unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a folder that may not be looked into."""
    folder = tmp_path / "closed" / "inner"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    user = os.geteuid()
    if not user:  # who may do anything is somebody else for a while
        for parent in (tmp_path, *tmp_path.parents):
            if parent.is_relative_to(tempfile.gettempdir()) and parent != Path(tempfile.gettempdir()):
                parent.chmod(0o755)
    folder.chmod(0)
    folder.parent.chmod(0)
    if not user:
        os.seteuid(65534)
    yield folder
    if not user:
        os.seteuid(0)
    folder.parent.chmod(0o755)
    folder.chmod(0o755)


@pytest.fixture
def no_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave no place where a temporary file can be made."""

    def _none(*_: object) -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "_get_default_tempdir", _none)
    monkeypatch.setattr(tempfile, "tempdir", None)


@posix
def test_a_working_directory_that_is_deleted_holds_no_config(deleted, model_file):
    assert load(environ={}).place == load({}, environ={}).place or load(environ={}).targets == {}
    with epkit.open(model_file, "cpu") as session:
        assert set(session.run(X)) == {"y"}


@posix
def test_a_working_directory_that_may_not_be_looked_into_holds_no_config(unreadable):
    assert load(environ={}).targets == {}


@posix
def test_a_config_that_is_named_is_read_from_a_working_directory_that_is_deleted(deleted, tmp_path):
    (tmp_path / "its.toml").write_text('[targets.a]\nprovider = "cpu"\n')
    assert set(load(tmp_path / "its.toml", environ={}).targets) == {"a"}
    with pytest.raises(ConfigError):
        load("its.toml", environ={})


@posix
@pytest.mark.parametrize("words", [("inspect",), ("explain", "-t", "cpu"), ("run", "-t", "cpu"), ("compare",)])
def test_every_command_works_where_the_working_directory_is_deleted(deleted, model_file, command, words):
    words = ("compare", "-t", "cpu", "-t", "cpu", "--seeds", "1") if words == ("compare",) else words
    assert command(words[0], model_file, *words[1:])[0] == 0


@posix
def test_what_is_named_relative_to_a_working_directory_that_is_deleted_is_not_found(deleted, model_file, command):
    for words, expected in (
        (("inspect", "m.onnx"), 4),
        (("run", model_file, "-t", "cpu", "--output-dir", "out"), 2),
        (("compile", model_file, "-t", "cpu", "--output", "c.onnx"), 2),
        (("bench", model_file, "--output", "b.json"), 2),
        (("new-plugin", "acme"), 2),
        (("cache", "list", "here"), 0),
    ):
        code, _, err = command(*words)
        assert (code, "Traceback" in err) == (expected, False), (words, err)


def test_a_folder_for_benchmarks_that_cannot_be_written_is_said_before_anything_is_measured(
    model_file, command, monkeypatch, tmp_path
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EPKIT_BENCH_DIR", str(tmp_path / "file" / "inside"))
    code, out, err = command("bench", model_file, "-t", "cpu", "-t", "cpu", "--json")
    assert code == 2
    assert json.loads(out)["error"]["hint"]
    assert str(tmp_path / "file") in err


@posix
@pytest.mark.slow
def test_a_benchmark_is_measured_and_shown_where_the_home_is_a_file(model_file, command, monkeypatch):
    monkeypatch.delenv("EPKIT_BENCH_DIR", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", "/dev/null")
    code, out, err = command("bench", model_file, "-t", "cpu", "-t", "cpu", "--budget", "6")
    assert (code, err) == (0, "")
    assert "note: no benchmark can be saved in" in out


@posix
def test_a_process_without_a_home_makes_no_folder_called_like_a_tilde(empty, monkeypatch):
    from epkit._system import folders

    for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "EPKIT_CACHE_DIR", "EPKIT_BENCH_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    with pytest.raises(OSError, match="directory"):
        folders.make_cache_folder("probe")
    with pytest.raises(ConfigError):
        storage.new_file("m.onnx")
    assert [one.name for one in empty.iterdir()] == [".git"]


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no files in memory")
def test_a_provider_is_proven_without_a_temporary_folder(no_temporary_folder):
    with Child("epkit.discovery.probe_worker") as child:
        child.kill()
        assert child.receive(10) is None
        assert child.read_log() == ""


def test_a_comparison_without_a_temporary_folder_says_how_to_name_one(no_temporary_folder, model_file):
    with pytest.raises(ConfigError) as refused:
        epkit.compare(model_file, ["cpu", "cpu"])
    assert "TMPDIR" in refused.value.hint


def test_a_program_that_cannot_start_python_again_is_told_so(model_file, monkeypatch):
    monkeypatch.setattr(sys, "executable", None)
    with pytest.raises(RunError) as refused:
        epkit.compare(model_file, ["cpu", "cpu"])
    assert refused.value.hint
    with pytest.raises(RunError):
        epkit.bench(model_file, ["cpu", "cpu"], budget=5)
    with epkit.open(identity(), "cpu") as session:
        assert set(session.run({"x": [1.0]})) == {"y"}


@pytest.mark.slow
@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root, and a root file system to mount"
)
def test_a_root_that_cannot_be_written_hinders_no_run(model_file):
    command = f"{sys.executable} -m epkit"
    script = (
        "mount -o remount,ro,bind / || exit 77; cd /; if touch /tmp/written; then rm /tmp/written; exit 77; fi;"
        f"{command} run {model_file} -t cpu --json && {command} doctor --json > /dev/null; test $? -le 1 &&"
        f"{{ {command} compare {model_file} -t cpu -t cpu > /dev/null; test $? -eq 2; }}"
    )
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", script],
        capture_output=True,
        env=os.environ | {"HOME": "/nonexistent", "EPKIT_CACHE_DIR": "/tmp/none"},
        timeout=120,
    )
    if done.returncode == 77:
        pytest.skip("the root cannot be made read-only here")
    assert b"Traceback" not in done.stderr
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["outputs"]) == {"y"}
