"""What providers compile is kept, found again exactly when nothing that it depends on changed, and never in the way.

The provider of these tests is ONNX Runtime's CPU under another name: it "compiles" by writing a file into the folder
that it is given, and notes each build.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import warm
from epkit_tensorrt.options import TensorRTOptions
from epkit_tensorrt.provider import TensorRT
from hypothesis import given
from hypothesis import strategies as st
from models import mlp
from texts import says
from together import together

import epkit
from epkit.config.schema import Warmup
from epkit.errors import ConfigError, ModelError
from epkit.model import digest
from epkit.model.file import read_model
from epkit.provider import Caching, Provider
from epkit.runtime.configured import ConfiguredProvider
from epkit.runtime.create import Settings
from epkit.session import compile as compilation
from epkit.session.cache import manage, store
from epkit.session.cache.key import parts_of, why_missed
from epkit.session.cache.session_cache import shelf

SLOW = '''
import os, time
from pathlib import Path
from epkit.hookspecs import hookimpl
from epkit.provider import Caching, GraphCapture, Options, Provider

class SlowOptions(Options):
    """Options of `slow`."""
    level: int | None = None
    """How hard it tries."""
    folder: str | None = None
    """Where it keeps what it compiles."""
    graph: bool | None = None
    """Whether it captures graphs."""

class SlowCaching(Caching):
    def with_dir(self, options, device, folder):
        return SlowOptions(**options.written() | {"folder": str(folder) if folder else None})

    def requested_dir(self, options):
        return options.folder

    def fingerprint(self, device):
        return [os.environ.get("SLOW_VERSION", "slow 1")]

class Slow(Provider):
    """ONNX Runtime's CPU, said to compile."""
    name = "slow"
    ort_name = "CPUExecutionProvider"
    options = SlowOptions
    caching = SlowCaching(compiles="opening")
    capture = GraphCapture("graph")

    def add(self, runtime, session_options, sent, devices):
        super().add(runtime, session_options, sent, devices)
        folder = sent.get("folder")
        if folder is None:
            return
        file = Path(folder) / "compiled.bin"
        if file.exists():
            if file.read_text() == "poison":
                session_options.optimized_model_filepath = "/no/such/folder/model.onnx"
            return
        if os.environ.get("SLOW_BUILDS"):
            with open(os.environ["SLOW_BUILDS"], "a") as builds:
                builds.write(f"{os.getpid()}\\n")
        file.write_text("half")
        time.sleep(float(os.environ.get("SLOW_SECONDS", "0")))
        file.write_text(os.environ.get("SLOW_WRITES", "compiled"))

@hookimpl
def epkit_providers():
    return [Slow()]
'''
CHILD = """
import json, sys, epkit
with epkit.open(sys.argv[1], sys.argv[2], config=json.loads(sys.argv[3])) as session:
    print(json.dumps([row.outcome for row in session.report.cache]))
"""


@pytest.fixture
def slow(install: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install the provider, with a cache of its own; the file that notes its builds."""
    install("slow", SLOW)
    monkeypatch.setenv("EPKIT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("SLOW_BUILDS", str(tmp_path / "builds"))
    return tmp_path / "builds"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    path.write_bytes(mlp())
    return path


def config(**keys: object) -> dict[str, Any]:
    return {"targets": {"t": {"provider": "slow", "cache": True, **keys}}}


def opened(model: Path | bytes, **keys: object) -> epkit.Session:
    return epkit.open(model, "t", config=config(**keys))


def row(model: Path | bytes, **keys: object) -> Any:
    """Open a model and return what the report says of the cache."""
    with opened(model, **keys) as session:
        assert session.report.provider == "slow"
        (found,) = session.report.cache
        return found


def builds(noted: Path) -> int:
    return len(noted.read_text().splitlines()) if noted.exists() else 0


def child(model: Path, *, wait: bool = True, written: dict[str, Any] | None = None, **environment: str) -> Any:
    """Open a model in a process of its own; its outcomes, or the process itself."""
    arguments = [warm.PYTHON, "-c", CHILD, str(model), "t", json.dumps(written or config())]
    path = os.pathsep.join(sys.path)
    started = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path} | environment
    )
    if not wait:
        return started
    out, _ = started.communicate(timeout=60)
    assert started.returncode == 0
    return json.loads(out)


def until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends, "it never happened"
        time.sleep(0.02)


def entry(found: Any) -> Path:
    return Path(found.folder)


# -- hits and misses


def test_a_second_process_starts_from_what_the_first_compiled(slow, file):
    assert child(file) == ["built"]
    assert child(file) == ["hit"]
    assert builds(slow) == 1


def test_what_compile_built_is_used_by_a_target_that_asks_for_nothing(slow, file):
    done = epkit.compile(file, "slow")
    assert [one.outcome for one in done.cache] == ["built"]
    assert done.exit_code == 0
    with epkit.open(file, "slow") as session:
        (found,) = session.report.cache
        assert (found.outcome, found.folder) == ("hit", done.cache[0].folder)
        assert found.bytes == len("compiled")
    assert builds(slow) == 1


def test_nothing_is_built_where_nobody_asks(slow, file):
    with epkit.open(file, "slow") as session:
        (found,) = session.report.cache
    assert (found.outcome, found.reason) == ("miss", "nothing was built for this model")
    assert builds(slow) == 0


def test_no_digest_is_computed_where_nothing_can_be_there(slow, file, monkeypatch):
    monkeypatch.setattr(digest, "digest_files", lambda model: pytest.fail("the model was read"))
    with epkit.open(file, "slow") as session:
        assert session.report.cache[0].outcome == "miss"
    with epkit.open(file, "cpu") as session:
        assert session.report.cache == ()


def test_cache_false_never_looks(slow, file):
    row(file)
    found = row(file, cache=False)
    assert (found.outcome, found.reason) == ("off", "the target says cache = false")


def test_cache_false_contradicts_an_option_that_asks_for_one(slow, file, tmp_path):
    with says(ConfigError):
        opened(file, cache=False, options={"folder": str(tmp_path)})


def test_an_option_that_names_a_folder_keeps_it_there(slow, file, tmp_path):
    found = row(file, cache=None, options={"folder": str(tmp_path / "own")})
    assert found.outcome == "built"
    assert entry(found).parent == tmp_path / "own" / "slow"
    assert row(file, cache=None, options={"folder": str(tmp_path / "own")}).outcome == "hit"
    assert [one.state for one in manage.look(tmp_path / "own").rows] == ["sound"]
    assert manage.look().rows == ()


def test_a_changed_weight_of_the_same_size_under_the_same_name_misses(slow, file):
    row(file)
    contents = onnx.load(file)
    weights = np.frombuffer(contents.graph.initializer[0].raw_data, np.float32).copy()
    weights[0] += 1
    contents.graph.initializer[0].raw_data = weights.tobytes()
    before = file.stat().st_size
    onnx.save(contents, file)
    assert file.stat().st_size == before
    found = row(file)
    assert (found.outcome, found.reason) == ("built", "the model changed")
    assert builds(slow) == 2


def test_changed_external_data_alone_misses(slow, tmp_path):
    file = tmp_path / "e.onnx"
    onnx.save(onnx.load_from_string(mlp()), file, save_as_external_data=True, location="w.bin", size_threshold=0)
    assert row(file).outcome == "built"
    assert row(file).outcome == "hit"
    data = tmp_path / "w.bin"
    data.write_bytes(data.read_bytes()[:-4] + np.float32(1.5).tobytes())
    found = row(file)
    assert (found.outcome, found.reason) == ("built", "external data 'w.bin' changed")


def test_a_model_of_another_name_with_the_same_contents_hits(slow, file, tmp_path):
    row(file)
    assert row(file.rename(tmp_path / "renamed.onnx")).outcome == "hit"
    assert row(mlp()).outcome == "hit"


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"options": {"level": 3}}, "option level changed: not set -> 3"),
        ({"session_options": {"enable_mem_pattern": False}}, "session option enable_mem_pattern changed: .*False"),
        ({"session_options": {"config": {"session.disable_prepacking": True}}}, "session.disable_prepacking changed"),
        ({"session_options": {"free_dimension_overrides": {"batch": 2}}}, "free dimension batch changed: .* -> 2"),
    ],
)
def test_a_changed_option_misses_and_the_report_says_which(slow, file, keys, reason):
    row(file)
    found = row(file, **keys)
    assert found.outcome == "built"
    assert re.search(reason, found.reason)
    assert row(file, **keys).outcome == "hit"


def test_what_is_only_logged_or_profiled_does_not_miss(slow, file):
    row(file)
    assert row(file, session_options={"log_severity_level": 2, "logid": "x"}).outcome == "hit"


def test_a_changed_version_misses(slow, file, monkeypatch):
    row(file)
    monkeypatch.setenv("SLOW_VERSION", "slow 2")
    found = row(file)
    assert (found.outcome, found.reason) == ("built", "what it was compiled with (1) changed: slow 1 -> slow 2")
    assert {one.state for one in manage.look().rows} == {"stale", "sound"}


def test_another_onnx_runtime_misses(slow, file, tmp_path, monkeypatch):
    """The version is read from the installed distributions: one more of them is another installation."""
    row(file)
    information = tmp_path / "other" / "ort_nightly-9.9.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: ort-nightly\nVersion: 9.9\n")
    monkeypatch.syspath_prepend(tmp_path / "other")
    found = row(file)
    assert found.outcome == "built"
    assert found.reason.startswith("ONNX Runtime changed: ")
    assert found.reason.endswith("ort-nightly 9.9")


PARTS = st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=6)


@given(PARTS, PARTS)
def test_the_key_changes_exactly_when_a_part_changes(one, other):
    assert (store.key_of(one) == store.key_of(other)) == (one == other)
    assert store.key_of(dict(reversed(one.items()))) == store.key_of(one)


@given(PARTS, st.text(max_size=8), st.text(max_size=8))
def test_why_an_entry_missed_names_what_changed(parts, name, value):
    old = {"model": "d", **{f"option {key}": text for key, text in parts.items()}}
    new = old | {f"option {name}": value}
    known = store.CacheEntry(Path(), "slow", "/m", 1, None, old, (), 0.0, 0.0)
    told = why_missed(new, "/m", [known])
    assert told == ("" if new == old else f"option {name} changed: {old.get(f'option {name}', 'not set')} -> {value}")


@given(st.sampled_from(["level", "properties", "entries", "free", "device", "before"]))
def test_every_setting_of_a_session_is_part_of_the_key(changed):
    class Plain(Provider):
        name = "plain"
        ort_name = "PlainExecutionProvider"
        caching = Caching(compiles="opening")

    class Other(Plain):
        name = "other"

    model = read_model(mlp())
    plain = ConfiguredProvider(Plain(), Plain.options(extra={"level": "1"}))
    usual = Settings({"enable_mem_reuse": True}, {"a": "1"}, {"batch": 1})
    candidate = {
        "level": ConfiguredProvider(plain.provider, Plain.options(extra={"level": "2"})),
        "device": ConfiguredProvider(plain.provider, plain.options, "GPU"),
    }.get(changed, plain)
    settings = {
        "properties": Settings({"enable_mem_reuse": False}, {"a": "1"}, {"batch": 1}),
        "entries": Settings({"enable_mem_reuse": True}, {"a": "2"}, {"batch": 1}),
        "free": Settings({"enable_mem_reuse": True}, {"a": "1"}, {"batch": 2}),
    }.get(changed, usual)
    before = [ConfiguredProvider(Other())] if changed == "before" else []
    first = parts_of(model, plain, [], usual, Warmup())
    assert store.key_of(first) == store.key_of(parts_of(model, plain, [], usual, Warmup()))
    assert store.key_of(first) != store.key_of(parts_of(model, candidate, before, settings, Warmup()))


def test_what_is_compiled_is_kept_where_a_graph_was_asked_for_and_cannot_be_captured(slow):
    fixed = mlp(batch=2)
    assert row(fixed).outcome == "built"
    with opened(fixed, cuda_graph=True) as session:
        assert session.report.graph is not None
        assert session.report.graph.obstacles
        assert [one.outcome for one in session.report.cache] == ["hit"]
    assert len(manage.look().rows) == 1


# -- two at once, and builds that never end


@pytest.mark.slow
def test_two_processes_at_once_build_it_once(slow, file):
    started = [child(file, wait=False, SLOW_SECONDS="1.5") for _ in range(3)]
    outcomes = sorted(json.loads(one.communicate(timeout=60)[0])[0] for one in started)
    assert outcomes == ["built", "hit", "hit"]
    assert builds(slow) == 1


def test_two_threads_at_once_build_it_once(slow, file, monkeypatch):
    monkeypatch.setenv("SLOW_SECONDS", "0.3")
    outcomes: list[str] = []
    together(lambda _: outcomes.append(row(file).outcome), 3)
    assert sorted(outcomes) == ["built", "hit", "hit"]


def test_a_killed_build_leaves_nothing_broken(slow, file):
    dying = child(file, wait=False, SLOW_SECONDS="60")
    until(lambda: builds(slow) == 1)
    (found,) = manage.look().rows
    assert found.state == "being built"
    assert manage.prune(everything=True).removed == ()
    dying.send_signal(signal.SIGKILL)
    dying.wait()
    dying.stdout.close()
    (found,) = manage.look(thorough=True).rows
    assert found.state == "unfinished"
    with epkit.open(file, "slow") as session:
        assert session.report.cache[0].outcome == "miss"
    assert row(file).outcome == "built"
    assert row(file).outcome == "hit"
    assert (store.files_of(entry(row(file))) / "compiled.bin").read_text() == "compiled"


def test_an_unfinished_build_is_pruned(slow, file):
    folder = entry(row(file))
    (folder / "manifest.json").unlink()
    assert [one.state for one in manage.prune().removed] == ["unfinished"]
    assert not folder.exists()


def test_who_waits_too_long_goes_on_without(slow, file, monkeypatch):
    folder = entry(row(file))
    store.remove(folder)
    monkeypatch.setattr("epkit.session.cache.session_cache.WAIT_SECONDS", 0.1)
    with store.locked(folder, 1):
        found = row(file)
    assert found.outcome == "failed"
    assert "another process is building it" in found.reason
    assert builds(slow) == 1


def test_a_folder_that_options_name_is_never_used_behind_the_manifest(slow, file, tmp_path, monkeypatch):
    """A provider's own cache there may know nothing of the weights, as TensorRT's in ONNX Runtime does not."""
    options = {"folder": str(tmp_path / "own")}
    folder = entry(row(file, options=options))
    store.remove(folder)
    monkeypatch.setattr("epkit.session.cache.session_cache.WAIT_SECONDS", 0.1)
    with store.locked(folder, 1):
        assert row(file, options=options).outcome == "failed"
    assert [*(tmp_path / "own").glob("*.bin")] == []
    assert builds(slow) == 1


# -- what is damaged


def spoil(folder: Path, how: str) -> None:
    place = store.files_of(folder) / "compiled.bin"
    match how:
        case "cut off":
            place.write_text("comp")
        case "changed":
            place.write_text("COMPILED")
        case "empty":
            place.write_text("")
        case "missing":
            place.unlink()
        case "added to":
            (store.files_of(folder) / "more.bin").write_text("more")
        case "manifest cut off":
            text = (folder / "manifest.json").read_text()
            (folder / "manifest.json").write_text(text[: len(text) // 2])
        case "manifest of another version":
            text = (folder / "manifest.json").read_text()
            (folder / "manifest.json").write_text(text.replace("epkit.compiled/", "epkit.compiled/9"))
        case "manifest without files":
            (folder / "manifest.json").write_text(json.dumps({"schema": store.SCHEMA}))


DAMAGE = ["cut off", "changed", "empty", "missing", "added to", "manifest cut off", "manifest without files"]
DAMAGE += ["manifest of another version"]


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_entry_is_not_started_from_and_is_built_anew(slow, file, how):
    spoil(entry(row(file)), how)
    assert manage.look(thorough=True).exit_code == 1
    with epkit.open(file, "slow") as session:
        assert session.report.cache[0].outcome == "miss"
    assert row(file).outcome == "built"
    assert row(file).outcome == "hit"
    assert manage.look(thorough=True).exit_code == 0


@pytest.mark.parametrize("how", DAMAGE)
def test_prune_removes_what_is_damaged(slow, file, how):
    folder = entry(row(file))
    spoil(folder, how)
    assert [one.state for one in manage.prune().removed] == ["damaged"]
    assert not folder.exists()


def test_a_change_that_keeps_size_and_time_is_found_by_verify(slow, file):
    place = store.files_of(entry(row(file))) / "compiled.bin"
    before = place.stat()
    place.write_text("COMPILED")
    os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert [one.state for one in manage.look().rows] == ["sound"]
    assert [one.state for one in manage.look(thorough=True).rows] == ["damaged"]


def test_files_that_were_copied_elsewhere_are_read_once_more_and_taken(slow, file):
    place = store.files_of(entry(row(file))) / "compiled.bin"
    os.utime(place, (1, 1))
    assert row(file).outcome == "hit"


def test_an_entry_from_which_no_session_opens_is_removed_and_costs_no_provider(slow, file, monkeypatch):
    monkeypatch.setenv("SLOW_WRITES", "poison")
    folder = entry(row(file))
    found = row(file)  # opening fails with what was kept, and succeeds without
    assert found.outcome == "failed"
    assert found.reason.startswith("opening with it failed: ")
    assert not folder.exists()
    monkeypatch.delenv("SLOW_WRITES")
    assert row(file).outcome == "built"


def test_a_model_that_does_not_open_leaves_nothing_behind(slow, file):
    contents = onnx.load(file)
    contents.graph.node[0].op_type = "Bogus"
    broken = file.with_name("broken.onnx")
    onnx.save(contents, broken)
    for _ in range(2):
        with pytest.raises(ModelError):
            opened(broken)
    assert manage.look().rows == ()


def test_a_model_that_changes_while_it_is_compiled_is_not_kept(slow, file, monkeypatch):
    monkeypatch.setenv("SLOW_SECONDS", "1")

    def change() -> None:
        until(lambda: builds(slow) == 1)
        file.write_bytes(mlp(width=8))

    thread = threading.Thread(target=change)
    thread.start()
    try:
        with opened(file) as session:
            (found,) = session.report.cache
    finally:
        thread.join()
    assert (found.outcome, found.reason) == ("failed", "the model changed while it was compiled")
    assert manage.look().rows == ()


# -- room


def test_what_was_used_longest_ago_makes_room(slow, tmp_path, monkeypatch):
    models = [tmp_path / f"{width}.onnx" for width in (4, 5, 6)]
    for number, path in enumerate(models):
        path.write_bytes(mlp(width=number + 4))
    first, second = (entry(row(path)) for path in models[:2])
    os.utime(second / "manifest.json", (1, 1))
    os.utime(first / "manifest.json", (2, 2))
    assert row(models[1]).outcome == "hit"  # now the first was used longest ago
    monkeypatch.setenv("EPKIT_CACHE_LIMIT", f"{2 * len('compiled')}")
    third = entry(row(models[2]))
    assert [one.exists() for one in (first, second, third)] == [False, True, True]
    monkeypatch.setenv("EPKIT_CACHE_LIMIT", "1B")
    assert len(manage.prune().removed) == 2


def test_a_limit_that_is_no_number_of_bytes_is_an_error_before_anything_is_built(slow, file, monkeypatch):
    monkeypatch.setenv("EPKIT_CACHE_LIMIT", "much")
    with says(ConfigError):
        opened(file)
    assert builds(slow) == 0


def test_a_cache_folder_that_cannot_be_written_costs_the_cache_alone(slow, file, tmp_path, monkeypatch):
    (tmp_path / "taken").write_text("a file")
    monkeypatch.setenv("EPKIT_CACHE_DIR", str(tmp_path / "taken"))
    found = row(file)
    assert found.outcome == "failed"
    assert found.reason.startswith("nothing can be kept: ")
    with epkit.open(file, "slow") as session:
        assert session.report.cache[0].outcome == "miss"


@pytest.mark.parametrize("everything", [True, False])
def test_prune_leaves_alone_what_is_not_epkits_in_a_folder_that_it_is_given(slow, file, tmp_path, everything):
    folder = tmp_path / "own"
    mine = entry(row(file, options={"folder": str(folder)}))
    theirs = [
        folder / "slow" / "precious",
        folder / "work" / "thesis",
        folder / "slow" / ("0" * 32),
        folder / ".gone-x",
    ]
    theirs += [folder / "slow" / ".gone-fishing"]
    for one in theirs:
        one.mkdir(parents=True)
        (one / "text.txt").write_text("years of work")
    assert len(manage.look(folder).rows) == 1
    manage.prune(folder, everything=everything)
    assert mine.exists() is not everything
    assert [(one / "text.txt").exists() for one in theirs] == [True] * len(theirs)


def test_prune_stale_removes_what_other_versions_built(slow, file, monkeypatch):
    old = row(file)
    monkeypatch.setenv("SLOW_VERSION", "slow 2")
    new = row(file)
    done = manage.prune(stale=True)
    assert [one.folder for one in done.removed] == [old.folder]
    assert [one.folder for one in done.rows] == [new.folder]


# -- digests


def test_a_digest_is_remembered_while_the_file_stays_as_it_is(slow, file, monkeypatch):
    os.utime(file, (1, 1))
    monkeypatch.setattr(digest, "SETTLED_SECONDS", -1.0)
    first = digest.digest_file(file)
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("the file was read again"))
    assert digest.digest_file(file) == first
    monkeypatch.undo()


def test_the_digest_of_a_file_that_was_just_changed_is_not_remembered(slow, file):
    first = digest.digest_file(file)
    state = file.stat()
    file.write_bytes(mlp(width=4).ljust(state.st_size)[: state.st_size])
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert digest.digest_file(file) != first
    assert list((Path(os.environ["EPKIT_CACHE_DIR"]) / "digests").iterdir()) == []


def test_a_damaged_memory_of_a_digest_is_no_memory(slow, file, monkeypatch):
    monkeypatch.setattr(digest, "SETTLED_SECONDS", -1.0)
    first = digest.digest_file(file)
    for memory in (Path(os.environ["EPKIT_CACHE_DIR"]) / "digests").iterdir():
        memory.write_text("{")
    assert digest.digest_file(file) == first


# -- explain and the commands


def test_explain_says_what_would_be_started_from_and_builds_nothing(slow, file):
    def told() -> Any:
        (found,) = epkit.explain(file, "t", config=config()).cache
        return found

    assert told().outcome == "miss"
    assert builds(slow) == 0
    built = row(file)
    assert (told().outcome, told().folder) == ("hit", built.folder)


def test_a_target_without_a_provider_that_compiles_cannot_be_compiled(slow, file):
    with says(ConfigError) as error:
        compilation.compile(file, "cpu")
    assert "slow" in error.value.hint


def test_compile_says_no_when_nothing_could_be_kept(slow, file, tmp_path, monkeypatch):
    (tmp_path / "taken").write_text("a file")
    monkeypatch.setenv("EPKIT_CACHE_DIR", str(tmp_path / "taken"))
    done = epkit.compile(file, "slow")
    assert (done.exit_code, done.cache[0].outcome) == (1, "failed")


# -- TensorRT, as data: it has never run on a GPU


def sent(folder: str, **options: object) -> dict[str, str]:
    tensorrt = TensorRT()
    given_folder = tensorrt.caching.with_dir(TensorRTOptions.model_validate(options), 0, Path(folder))
    return tensorrt.to_ort_options(given_folder, 0)


def test_tensorrt_keeps_its_engines_where_it_is_told():
    assert sent("/c/k/files", trt_fp16_enable=True) == {
        "trt_fp16_enable": "True",
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": "/c/k/files",
        "device_id": "0",
    }


def test_tensorrt_keeps_the_prefix_and_kernel_times_where_the_user_has_them():
    options = {"trt_engine_cache_enable": True, "trt_engine_cache_path": "engines", "trt_engine_cache_prefix": "p"}
    told = sent("/c", **options, trt_timing_cache_enable=True)
    assert (told["trt_engine_cache_path"], told["trt_engine_cache_prefix"]) == ("/c", "p")
    assert told["trt_timing_cache_path"] == "engines"
    assert sent("/c", trt_timing_cache_enable=True, trt_timing_cache_path="t")["trt_timing_cache_path"] == "t"
    assert sent("/c", extra={"trt_engine_cache_path": "x"})["trt_engine_cache_path"] == "/c"


@pytest.mark.parametrize(
    ("options", "folder"),
    [
        ({}, None),
        ({"trt_engine_cache_enable": True}, ""),
        ({"trt_engine_cache_enable": True, "trt_engine_cache_path": "engines"}, "engines"),
        ({"extra": {"trt_engine_cache_enable": "1"}}, ""),
        ({"trt_engine_cache_enable": False}, None),
    ],
)
def test_tensorrt_asks_for_a_cache_where_its_option_does(options, folder):
    assert TensorRT().caching.requested_dir(TensorRTOptions.model_validate(options)) == folder


def test_tensorrts_own_cache_is_off_unless_epkit_gives_it_a_folder():
    options = TensorRTOptions(trt_engine_cache_enable=True, trt_engine_cache_path="engines")
    assert ConfiguredProvider(TensorRT(), options).sent == {"trt_engine_cache_enable": "False"}
    tied = TensorRTOptions(trt_engine_cache_enable=True, trt_int8_enable=True, trt_int8_calibration_table_name="t")
    assert ConfiguredProvider(TensorRT(), tied).sent["trt_engine_cache_enable"] == "True"


@pytest.mark.parametrize(
    "options",
    [
        {"trt_int8_enable": True, "trt_int8_calibration_table_name": "table"},
        {"trt_dump_ep_context_model": True},
    ],
)
def test_what_ties_tensorrt_to_its_own_folder_is_not_kept_elsewhere(options):
    assert "ignore the weights" in TensorRT().caching.check(TensorRTOptions.model_validate(options))
    assert TensorRT().caching.check(TensorRTOptions()) == ""


def test_engines_of_retrained_weights_under_the_same_file_name_lie_in_another_folder(tmp_path):
    def folder(contents: bytes) -> Path:
        path = tmp_path / "same.onnx"
        path.write_bytes(contents)
        candidate = ConfiguredProvider(TensorRT(), TensorRTOptions(trt_engine_cache_enable=True))
        return shelf(candidate.provider) / store.key_of(
            parts_of(read_model(path), candidate, [], Settings({}, {}), Warmup())
        )

    retrained = onnx.load_from_string(mlp())
    retrained.graph.initializer[0].raw_data = bytes(len(retrained.graph.initializer[0].raw_data))
    assert folder(mlp()) == folder(mlp())
    assert folder(mlp()) != folder(retrained.SerializeToString())


@pytest.mark.parametrize(("batch", "same"), [("batch", False), (2, True)])
def test_engines_for_other_shapes_lie_in_another_folder_where_inputs_are_dynamic(batch, same):
    model, candidate = read_model(mlp(batch=batch)), ConfiguredProvider(TensorRT(), TensorRTOptions())
    plain = parts_of(model, candidate, [], Settings({}, {}), Warmup())
    shaped = parts_of(model, candidate, [], Settings({}, {}), Warmup(shapes=({"x": (2, 16)},)))
    assert (plain == shaped) is same
    assert parts_of(model, candidate, [], Settings({}, {}), Warmup(runs=5)) == plain


def test_what_the_gpu_is_belongs_to_tensorrts_engines():
    told: Sequence[str] = TensorRT().caching.fingerprint(0)
    assert told == TensorRT().caching.fingerprint(0)
    assert any(one.startswith("CUDA") for one in told)
