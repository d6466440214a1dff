"""What another user can have written is not believed: config files that were found, answers, compiled models."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from models import mlp

import epkit
from epkit._system import trust
from epkit._system.folders import make_cache_folder
from epkit.config import file as config
from epkit.discovery import probe_cache, registry
from epkit.errors import ConfigError, UnknownTarget
from epkit.model import digest
from epkit.provider import Usable
from epkit.session import compile, doctor
from epkit.session.cache import manage, store

ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
pytestmark = pytest.mark.skipif(not ROOT, reason="only root makes files of other users")
STRANGER = 54321
EVIL = '[targets.t]\nprovider = "cpu"\n'


def give_away(place: Path) -> Path:
    os.chown(place, STRANGER, STRANGER, follow_symlinks=False)
    return place


def write(file: Path, text: str = EVIL, mode: int = 0o644) -> Path:
    file.write_text(text)
    file.chmod(mode)
    return file


# What is believed at all


@pytest.mark.parametrize(
    ("mode", "uid", "shared", "believed"),
    [
        (stat.S_IFREG | 0o644, 0, False, True),
        (stat.S_IFREG | 0o646, 0, False, False),
        (stat.S_IFREG | 0o664, 0, False, True),  # group root has no other member
        (stat.S_IFREG | 0o600, STRANGER, False, False),
        (stat.S_IFDIR | 0o777, 0, True, False),
        (stat.S_IFDIR | 0o1777, 0, True, True),
        (stat.S_IFDIR | 0o1777, 0, False, False),
        (stat.S_IFDIR | 0o1777, STRANGER, True, False),
        (stat.S_IFLNK | 0o777, 0, False, True),
        (stat.S_IFLNK | 0o777, STRANGER, False, False),
    ],
)
def test_only_what_this_user_or_root_alone_can_write_is_believed(mode, uid, shared, believed, tmp_path):
    state = os.stat_result((mode, 1, 1, 1, uid, 0, 1, 0, 0, 0))
    assert (trust.distrust_entry(tmp_path, state, shared=shared) == "") is believed


def test_a_group_of_others_is_others(tmp_path):
    file = write(tmp_path / "f", mode=0o664)
    assert trust.distrust(file) == ""
    os.chown(file, 0, STRANGER)
    assert trust.distrust(file)


def test_every_folder_and_link_on_the_way_counts(tmp_path):
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to("a/../a/b")
    assert trust.distrust(link / "..") == ""
    (tmp_path / "a").chmod(0o777)
    assert str(tmp_path / "a") in trust.distrust(link)
    assert trust.distrust(inner, above=False)
    assert trust.distrust(write(inner / "f"), above=False) == ""
    (tmp_path / "a").chmod(0o755)
    give_away(link)
    assert str(link) in trust.distrust(link / "f")
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(OSError, match="links"):
        trust.distrust(tmp_path / "round")


@pytest.mark.parametrize("found", [[], {"a": True}, {"a": float("nan")}, {"a": 10**400}, {"a": "1"}, {}])
def test_a_document_of_other_types_is_a_value_error(found):
    with pytest.raises(ValueError, match=r"\w"):
        trust.check_fields(found, {"a": (int, float)})


# Config files that were found


def folder_of_all(empty: Path, mode: int = 0o777) -> Path:
    empty.chmod(mode)
    return empty


CONFIGS: dict[str, Callable[[Path], object]] = {
    "of another user": lambda folder: give_away(write(folder / "epkit.toml")),
    "that all may write": lambda folder: write(folder / "epkit.toml", mode=0o666),
    "in a folder that all may write": lambda folder: write(folder_of_all(folder) / "epkit.toml"),
    "of another user in a folder such as /tmp": lambda folder: give_away(
        write(folder_of_all(folder, 0o1777) / "epkit.toml")
    ),
    "in another user's folder": lambda folder: write(give_away(folder) / "epkit.toml"),
    "through another user's link": lambda folder: (
        write(folder.parent / "mine.toml"),
        (folder / "epkit.toml").symlink_to(folder.parent / "mine.toml"),
        give_away(folder / "epkit.toml"),
    ),
    "to which a link leads that another user's file is": lambda folder: (
        give_away(write(folder.parent / "other.toml")),
        (folder / "epkit.toml").symlink_to(folder.parent / "other.toml"),
    ),
    "in a pyproject.toml of another user": lambda folder: give_away(
        write(folder / "pyproject.toml", EVIL.replace("[targets", "[tool.epkit.targets"))
    ),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_config_file_is_not_found(case, empty):
    CONFIGS[case](empty)
    found = config.load(environ={}, directory=empty)
    assert (found.targets, found.default, len(found.ignored)) == ({}, None, 1)


OWN: dict[str, Callable[[Path], object]] = {
    "of one's own": lambda folder: write(folder / "epkit.toml"),
    "that one's own group may write": lambda folder: (folder.chmod(0o775), write(folder / "epkit.toml", mode=0o664)),
    "of one's own in a folder such as /tmp": lambda folder: write(folder_of_all(folder, 0o1777) / "epkit.toml"),
    "of one's own in a shared folder of a group": lambda folder: (
        write(folder / "epkit.toml"),
        os.chown(folder.parent, 0, STRANGER),
        folder.parent.chmod(0o2775),
    ),
    "behind one's own link": lambda folder: (
        write(folder.parent / "mine.toml"),
        (folder / "epkit.toml").symlink_to(folder.parent / "mine.toml"),
    ),
}


@pytest.mark.parametrize("case", OWN)
def test_a_config_file_is_found(case, empty):
    OWN[case](empty)
    found = config.load(environ={}, directory=empty)
    assert (list(found.targets), found.ignored) == (["t"], ())


def test_a_file_of_another_user_that_is_named_is_obeyed(empty):
    file = give_away(write(folder_of_all(empty) / "epkit.toml", mode=0o666))
    assert list(config.load(file, environ={}).targets) == ["t"]
    assert list(config.load(environ={"EPKIT_CONFIG": str(file)}).targets) == ["t"]


def test_the_search_goes_on_beyond_what_is_not_read(empty):
    inner = empty / "inner"
    inner.mkdir()
    give_away(write(inner / "epkit.toml", "default = 'evil'"))
    write(empty / "epkit.toml", "default = 'mine'")
    found = config.load(environ={}, directory=inner)
    assert (found.default and found.default.value, len(found.ignored)) == ("mine", 1)


def test_what_is_not_read_is_said_where_a_person_looks(empty, command):
    give_away(write(empty / "epkit.toml"))
    model = empty / "m.onnx"
    model.write_bytes(mlp())
    with epkit.open(model, "cpu") as session:
        assert any("epkit.toml" in note for note in session.report.notes)
    with pytest.raises(UnknownTarget) as error:
        epkit.open(model, "t")
    assert "--config epkit.toml" in error.value.hint
    assert any("epkit.toml was not read" in one.found for one in doctor._config())
    assert "epkit.toml was not read" in command("explain", "m.onnx", "-t", "cpu")[1]


def test_a_pipe_in_the_place_of_a_config_file_is_none(empty):
    os.mkfifo(empty / "epkit.toml")
    os.mkfifo(empty / "pyproject.toml")
    assert config.load(environ={}, directory=empty).targets == {}


# What is kept


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("EPKIT_CACHE_DIR", str(folder))
    return folder


CACHES: dict[str, Callable[[Path], object]] = {
    "a folder that all may write": lambda folder: (folder.mkdir(), folder.chmod(0o777)),
    "another user's folder": lambda folder: (folder.mkdir(), give_away(folder)),
    "another user's folder in one such as /tmp": lambda folder: (
        (folder / "probe").mkdir(parents=True),
        folder.chmod(0o1777),
        give_away(folder / "probe"),
    ),
    "another user's link": lambda folder: (
        folder.symlink_to(folder.parent),
        give_away(folder),
    ),
}


@pytest.mark.parametrize("case", CACHES)
def test_nothing_is_remembered_in(case, cache):
    CACHES[case](cache)
    with pytest.raises(PermissionError):
        make_cache_folder("probe")
    assert [one.state for one in doctor._cache()] == ["problem"]


def test_folders_are_made_for_this_user_alone_whatever_the_umask(cache):
    code = "import os; os.umask(0); from epkit._system.folders import make_cache_folder; make_cache_folder('probe')"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert [stat.S_IMODE(one.stat().st_mode) for one in (cache, cache / "probe")] == [0o700, 0o700]


ANSWERS = {
    "a time of 400 digits": '{"usable": true, "detail": "x", "note": "", "transient": false, "at": ' + "9" * 400 + "}",
    "deep lists": "[" * 200_000,
    "deep tables": '{"a":' * 200_000,
    "a detail that is no text": '{"usable": true, "detail": [], "note": "", "transient": false, "at": 1}',
    "a list": "[]",
    "no UTF-8": "\udcff",
    "an infinite time": '{"usable": true, "detail": "x", "note": "", "transient": false, "at": Infinity}',
}


@pytest.mark.parametrize("case", ANSWERS)
def test_an_answer_that_cannot_be_read_is_as_if_it_were_not_there(case, cache):
    file = make_cache_folder("probe") / "answer.json"
    file.write_bytes(ANSWERS[case].encode(errors="surrogateescape"))
    memory = probe_cache.CachedProbe(file)
    assert memory.read() is None
    memory.write(Usable("fine"))
    assert (memory.read(), memory.note) == (Usable("fine"), "")


@pytest.mark.parametrize("place", ["pipe", "of another user", "that all may write"])
def test_an_answer_that_others_can_have_written_is_as_if_it_were_not_there(place, cache):
    file = make_cache_folder("probe") / "answer.json"
    memory = probe_cache.CachedProbe(file)
    memory.write(Usable("fine"))
    if place == "pipe":
        file.unlink()
        os.mkfifo(file)
    else:
        give_away(file) if "user" in place else file.chmod(0o666)
    assert memory.read() is None


def test_a_remembered_digest_of_another_type_is_worked_out_again(cache, tmp_path):
    file = tmp_path / "model"
    file.write_bytes(b"contents")
    os.utime(file, (1, 1))
    wanted = digest.digest_file(file)
    memory = digest._cache_file(file)
    assert memory is not None
    for text in ("[" * 200_000, json.dumps({"state": digest._state(file), "sha256": 3}), "9" * 5000):
        memory.write_text(text)
        assert digest.digest_file(file) == wanted


# What is compiled, by ONNX Runtime's CPU under another name

SLOW = '''
from pathlib import Path
from epkit.hookspecs import hookimpl
from epkit.provider import Caching, Options, Provider

class SlowOptions(Options):
    """Options of `slow`."""
    folder: str | None = None
    """Where it keeps what it compiles."""

class SlowCaching(Caching):
    def with_dir(self, options, device, folder):
        return SlowOptions(folder=str(folder) if folder else None)

    def requested_dir(self, options):
        return options.folder

class Slow(Provider):
    """ONNX Runtime's CPU, said to compile."""
    name = "slow"
    ort_name = "CPUExecutionProvider"
    options = SlowOptions
    caching = SlowCaching(compiles="opening")

    def add(self, runtime, session_options, sent, devices):
        super().add(runtime, session_options, sent, devices)
        if sent.get("folder") and not (file := Path(sent["folder"]) / "compiled.bin").exists():
            file.write_text("compiled")

@hookimpl
def epkit_providers():
    return [Slow()]
'''


@pytest.fixture
def opened(install: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Open a model with the cache, and return what became of it and its folder."""
    install("slow", SLOW)
    monkeypatch.setenv("EPKIT_PROBE", "quick")

    def _opened(**keys: object) -> Any:
        target = {"provider": "slow", "cache": True, **keys}
        with epkit.open(mlp(), "t", config={"targets": {"t": target}}) as session:
            (row,) = session.report.cache
        return row

    return _opened


def test_what_is_compiled_is_kept_for_this_user_alone_whatever_the_umask(opened):
    before = os.umask(0)
    try:
        row = opened()
    finally:
        os.umask(before)
    assert row.outcome == "built"
    entry = Path(row.folder)
    writable = [one for one in (entry, *entry.rglob("*"), *entry.parent.glob("*.json")) if one.stat().st_mode & 0o022]
    assert writable == []
    assert [stat.S_IMODE(one.stat().st_mode) for one in (entry, entry.parent, entry.parent.parent)] == [0o700] * 3
    assert opened().outcome == "hit"
    assert [one.state for one in manage.look(thorough=True).rows] == ["sound"]


FAKES: dict[str, Callable[[Path, Path], object]] = {
    "the folder of all is all's": lambda cache, entry: cache.chmod(0o777),
    "the folder is another user's": lambda cache, entry: give_away(cache),
    "the shelf is another user's": lambda cache, entry: (cache.chmod(0o1777), give_away(entry.parent)),
    "all may write the shelf": lambda cache, entry: entry.parent.chmod(0o1777),
    "the entry is another user's": lambda cache, entry: give_away(entry),
    "all may write the entry": lambda cache, entry: entry.chmod(0o777),
    "the files are another user's": lambda cache, entry: give_away(entry / "files" / "compiled.bin"),
    "all may write the files": lambda cache, entry: (entry / "files" / "compiled.bin").chmod(0o666),
    "all may write their folder": lambda cache, entry: (entry / "files").chmod(0o777),
    "the manifest is another user's": lambda cache, entry: give_away(entry / "manifest.json"),
    "the files are links": lambda cache, entry: (
        shutil.move(entry / "files" / "compiled.bin", cache.parent / "elsewhere"),
        (entry / "files" / "compiled.bin").symlink_to(cache.parent / "elsewhere"),
    ),
}


@pytest.mark.parametrize("case", FAKES)
def test_no_session_starts_from_what_others_can_have_written(case, opened, cache):
    row = opened()
    FAKES[case](cache, Path(row.folder))
    assert [one.state for one in manage.look(thorough=True).rows] == ["damaged"]
    again = opened(cache=None)
    assert again.outcome in ("failed", "miss")
    assert again.reason


def test_what_is_not_believed_is_built_anew_where_that_can_be_kept(opened, cache):
    folder = Path(opened().folder)
    (folder / "files" / "compiled.bin").chmod(0o666)
    assert [opened().outcome for _ in range(2)] == ["built", "hit"]
    cache.chmod(0o777)
    assert opened().outcome == "failed"


def test_no_lock_is_taken_where_others_could_take_it(tmp_path):
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    shelf.chmod(0o1777)
    with pytest.raises(PermissionError), store.locked(shelf / ("0" * 32), 0):
        pass
    assert list(shelf.iterdir()) == []


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    (shelf / ("0" * 32 + ".lock")).symlink_to(victim)
    with pytest.raises(OSError, match=r"\w"), store.locked(shelf / ("0" * 32), 0):
        pass
    assert victim.read_text() == "precious"


WRONG: list[object] = [None, True, -1, 1.5, 10**400, float("nan"), "text", [], {}, [[]], [1], {"a": 1}]
FIELDS = ["provider", "model", "model_bytes", "device", "parts", "made", "seconds", "files", "schema"]
OF_FILES = ["name", "bytes", "mtime_ns", "sha256"]


def test_a_manifest_of_any_other_types_never_breaks_opening_or_listing(opened):
    file = Path(opened().folder) / "manifest.json"
    sound = json.loads(file.read_text())
    wrong = [json.dumps({**sound, name: value}) for name in FIELDS for value in WRONG]
    wrong += [json.dumps({**sound, "files": [{**sound["files"][0], name: one}]}) for name in OF_FILES for one in WRONG]
    wrong += [json.dumps({key: one for key, one in sound.items() if key != name}) for name in FIELDS]
    wrong += ["[" * 200_000, '{"a":' * 200_000, "", "null", "3", "9" * 5000, "\0"]
    wrong += [json.dumps({**sound, "files": [{**sound["files"][0], "name": "../../x"}]})]
    for text in wrong:
        file.write_text(text)
        try:
            entry = store.read(file.parent)
        except ValueError:
            continue
        assert entry is not None
        assert isinstance(store.fault(entry, thorough=True), str)
        manage._row(file.parent, registry.discover(), thorough=True).folder.encode()
        json.dumps(manage.look().as_json(), allow_nan=False)
    file.write_text("[" * 200_000)
    assert [one.state for one in manage.look().rows] == ["damaged"]
    assert opened(cache=None).outcome == "miss"
    assert opened().outcome == "built"


AS_ANOTHER_USER = f"""
import json, os, sys, epkit
def row():
    target = {{"provider": "slow", "cache": True}}
    with epkit.open(open(sys.argv[1], "rb").read(), "t", config={{"targets": {{"t": target}}}}) as session:
        (row,) = session.report.cache
    return row.outcome
first = row()  # everything is imported while that is still allowed
os.setegid({STRANGER})
os.seteuid({STRANGER})
print(json.dumps([first, row()]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("readable", [True, False])
def test_a_service_starts_from_what_root_compiled_for_it_where_it_may_read(readable, install):
    with tempfile.TemporaryDirectory() as reachable:  # pytest's own folders cannot be entered by other users
        folder = Path(reachable)
        folder.chmod(0o755)
        (folder / "m.onnx").write_bytes(mlp())
        environ = {**os.environ, "EPKIT_CACHE_DIR": str(folder / "cache"), "EPKIT_PROBE": "quick"}
        environ["PYTHONPATH"] = str(shutil.copytree(install("slow", SLOW), folder / "site"))

        def opened() -> list[str]:
            words = [sys.executable, "-c", AS_ANOTHER_USER, str(folder / "m.onnx")]
            done = subprocess.run(words, env=environ, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            return list(json.loads(done.stdout))

        assert opened() == ["built", "failed"]  # what is kept for one user alone is not there for another
        if readable:
            subprocess.run(["chmod", "-R", "a+rX", str(folder / "cache")], check=True)
        assert opened() == ["hit", "hit" if readable else "failed"]


# What is written ahead of time


def test_a_compiled_model_replaces_files_alone(tmp_path):
    check = compile._check_place
    (tmp_path / "link").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(ConfigError):
            check(tmp_path / name, force=True)
    old, new, side, new_side = (tmp_path / name for name in ("m.onnx", "new", "m.bin", "new.bin"))
    for file in (old, new, new_side):
        file.write_text(file.name)
    old.chmod(0o600)
    check(old, force=True)
    check(side, force=False)
    done = compile._moved({new_side: side, new: old})
    assert (old.read_text(), side.read_text(), sorted(done)) == ("new", "new.bin", sorted([str(old), str(side)]))
    assert stat.S_IMODE(old.stat().st_mode) == 0o600
