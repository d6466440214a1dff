"""A model may be opened in a process of its own first: what crashes or hangs there does no harm here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import warm
from capabilities import COMPILER, SECOND, needs
from hypothesis import given
from hypothesis import strategies as st
from models import mlp, model, value
from onnx import helper
from processes import alive
from texts import says

import epkit
from epkit.config.file import load
from epkit.config.schema import LONGEST_ISOLATED
from epkit.config.target import read
from epkit.discovery.registry import discover
from epkit.errors import ConfigError, ModelError, ProviderDropped
from epkit.session.isolation import WORKER
from epkit.session.request import strictly

WITNESS = """
import json, os
from epkit.hookspecs import hookimpl
from epkit.provider import Devices, Options, Provider

class WitnessOptions(Options):
    level: int | None = None
    words: tuple[str, ...] = ()

class Witness(Provider):
    name = "witness"
    ort_name = "CPUExecutionProvider"
    options = WitnessOptions
    devices = Devices(option="device_id")

    def add(self, runtime, session_options, sent, devices):
        self.seen = {
            "sent": dict(sent),
            "threads": session_options.intra_op_num_threads,
            "spinning": session_options.get_session_config_entry("session.intra_op.allow_spinning"),
        }

    def open(self, model, options, create):
        with open(os.environ["WITNESSED"], "a") as file:
            told = {"pid": os.getpid(), "model": len(model) if isinstance(model, bytes) else "path", **self.seen}
            file.write(json.dumps(told) + "\\n")
        return create()

@hookimpl
def epkit_providers():
    return [Witness()]
"""


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPKIT_PLUGINS", "epkit_faulty,epkit_faulty.openvino")


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    yield
    assert alive(WORKER) == []


def chain(*names: str, **keys: object) -> dict[str, object]:
    return {"targets": {"t": {"provider": names[0], "fallback": list(names[1:]), "isolate_open": True, **keys}}}


def rows(session: epkit.Session) -> dict[str, str]:
    return {row.provider: row.reason or row.outcome for row in session.report.tried}


# -- what the child is given


@pytest.fixture
def witnessed(install, tmp_path, monkeypatch):
    install("witness", WITNESS)
    file = tmp_path / "witnessed"
    monkeypatch.setenv("WITNESSED", str(file))
    monkeypatch.setenv("EPKIT_PROBE", "quick")
    return lambda: [json.loads(line) for line in file.read_text().splitlines()]


def test_the_child_opens_with_what_is_given_in_the_call(witnessed, monkeypatch):
    config = chain("witness", device=3, options={"words": ["a", "b"]}, session_options={"intra_op_num_threads": 2})
    contents = mlp(width=256)  # more than a pipe holds
    with epkit.open(
        contents,
        "t",
        options={"level": np.float64(7)},
        session_options={"config": {"session.intra_op.allow_spinning": False}},
        config=config,
    ) as session:
        session.run(np.ones((1, 256), np.float32))
    there, here = witnessed()
    assert there.pop("pid") != here.pop("pid") == os.getpid()
    assert there == here
    assert here == {
        "sent": {"level": "7", "words": "a,b", "device_id": "3"},
        "threads": 2,
        "spinning": "0",
        "model": len(contents),
    }


def test_the_child_opens_with_what_the_file_and_the_environment_say(witnessed, empty, monkeypatch):
    (empty / "m.onnx").write_bytes(mlp())
    (empty / "epkit.toml").write_text(
        '[targets.base]\nprovider = "witness"\nisolate_open = true\noptions = { level = 1 }\n'
        'session_options = { config = { "session.intra_op.allow_spinning" = false } }\n'
        '[targets.t]\nextends = "base"\n'
    )
    monkeypatch.setenv("EPKIT_TARGETS__T__OPTIONS__level", "5")
    with epkit.open("m.onnx", "t"):
        there, here = witnessed()
    assert there.pop("pid") != here.pop("pid")
    assert there == here
    assert (here["sent"], here["model"]) == ({"level": "5"}, "path")


@needs(SECOND)
def test_weights_beside_a_model_are_found_from_the_working_directory(empty):
    weights = onnx.load_from_string(mlp())
    onnx.save(weights, empty / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    for contents in ("m.onnx", Path("m.onnx").read_bytes()):
        with epkit.open(contents, "t", config=chain(SECOND)) as session:
            assert session.report.provider == SECOND


def test_the_report_says_what_it_cost_and_explain_who_asked_for_it():
    with epkit.open(mlp(), "t", config=chain("cpu")) as session:
        assert session.report.seconds["isolated"] > session.report.seconds["open"] > 0
    with epkit.open(mlp(), "t", config=chain("cpu", isolate_open=False)) as session:
        assert "isolated" not in session.report.seconds
    (shown,) = [one for one in epkit.explain(mlp(), "t", config=chain("cpu")).effective if one.key == "isolate_open"]
    assert (shown.value, shown.origin) == (True, "call: targets.t.isolate_open")


def test_observers_hear_of_one_opening(tmp_path):
    (tmp_path / "m.onnx").write_bytes(mlp())
    code = f"import epkit; epkit.open('m.onnx', 't', config={chain('cpu')}).close()"
    environ = {**os.environ, "EPKIT_EVENTS": str(tmp_path / "events")}
    subprocess.run([warm.PYTHON, "-c", code], cwd=tmp_path, env=environ, check=True)
    told = [json.loads(line) for line in (tmp_path / "events").read_text().splitlines()]
    assert len({one["pid"] for one in told}) == 1
    assert [one["event"] for one in told].count("opened") == 1


def test_processes_that_are_apart_already_start_no_further_one():
    target = read("t", load(chain("cpu")), discover())
    assert target.isolate_open is True
    assert strictly(target).isolate_open is False


# -- what goes wrong


@pytest.mark.slow
@needs(SECOND)
def test_each_fault_of_a_chain_is_told_apart(faulty):
    config = chain("faulty-creation-fails", "faulty-creation-crashes", "faulty-nan", SECOND)
    with epkit.open(mlp(), "t", config=config) as session:
        assert session.report.provider == SECOND
        told = rows(session)
    assert told["faulty-creation-fails"] == "faulty-creation-fails opens no model but that of its proof"
    assert told["faulty-creation-crashes"] == "opening it in a process of its own crashed (SIGSEGV)"
    assert told["faulty-nan"] == "output 'y' holds NaN"


@pytest.mark.slow
@needs(SECOND)
def test_a_provider_is_not_blamed_for_the_crash_of_a_later_one(faulty):
    for keys in ({}, {"strict": True}, {"cpu": False}):
        with epkit.open(mlp(), "t", config=chain(SECOND, "faulty-creation-crashes", **keys)) as session:
            assert session.report.provider == SECOND
            told = rows(session)
        assert told[SECOND].startswith("took 3 nodes")
        assert told["faulty-creation-crashes"] == "opening it in a process of its own crashed (SIGSEGV)"


@needs(SECOND)
def test_an_ordinary_fault_is_found_here(faulty):
    unknown = model([helper.make_node("Bogus", ["x"], ["y"])], [value("x", [1])], [value("y", [1])])
    for config in (chain("cpu"), chain(SECOND), chain(SECOND, strict=True), chain(SECOND, cpu=False)):
        with says(ModelError):
            epkit.open(unknown, "t", config=config)
    with says(ProviderDropped):
        epkit.open(mlp(), "t", config=chain("faulty-creation-fails", strict=True))


def test_what_not_even_the_cpu_opens_in_time_is_the_models_fault():
    for names in (["cpu"], ["openvino"]):
        with says(ModelError) as error:
            epkit.open(mlp(), "t", config=chain(*names, isolate_open=0.001))
        assert error.value.exit_code == 4


def test_what_cannot_be_told_to_another_process_is_an_error(install, monkeypatch):
    """It would be opened here without having been opened there."""
    source = WITNESS.replace("level: int | None = None", "level: typing.Callable = None").replace(
        "import json", "import typing, json"
    )
    install("witness", source)
    monkeypatch.setenv("EPKIT_PROBE", "quick")
    monkeypatch.setenv("WITNESSED", os.devnull)
    with says(ConfigError):
        epkit.open(mlp(), "t", options={"level": print}, config=chain("witness"))


def test_without_a_process_to_start_it_is_an_error(monkeypatch):
    monkeypatch.setenv("EPKIT_PROBE", "quick")
    monkeypatch.setattr(sys, "executable", "")
    with says(ConfigError) as error:
        epkit.open(mlp(), "t", config=chain("cpu"))
    assert error.value.hint == "leave isolate_open out of the target"


# -- the cache


@needs(COMPILER)
def test_the_child_fills_the_cache_and_the_session_starts_from_it(monkeypatch, tmp_path):
    monkeypatch.setenv("EPKIT_CACHE_DIR", str(tmp_path))
    for _ in range(2):
        with epkit.open(mlp(), "t", config=chain(COMPILER, cache=True)) as session:
            (row,) = session.report.cache
            assert row.outcome == "hit"
            session.run(np.ones((1, 16), np.float32))
    report = epkit.compile(mlp(4), "t", config=chain(COMPILER))
    assert [row.outcome for row in report.cache] == ["hit"]


@needs(COMPILER)
def test_a_crash_leaves_no_unfinished_entry_and_no_lock(faulty, monkeypatch, tmp_path):
    monkeypatch.setenv("EPKIT_CACHE_DIR", str(tmp_path))
    config = chain("faulty-openvino-creation-crashes", "faulty-openvino-nan", COMPILER, cache=True)
    with epkit.open(mlp(), "t", config=config) as session:
        assert session.report.provider == COMPILER
    assert {one.parent.name for one in tmp_path.glob("compiled/*/*") if one.is_dir()} == {COMPILER}


# -- nothing is left


HANGING = """
import sys
import epkit
config = {"targets": {"t": {"provider": "faulty-creation-hangs", "isolate_open": True}}}
epkit.open(open(sys.argv[1], "rb").read(), "t", config=config)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "interrupted"])
def test_the_child_goes_with_its_parent_even_while_it_hangs(faulty, how, tmp_path):
    """It keeps the interpreter's lock meanwhile, so that no thread of it can notice."""
    (tmp_path / "m.onnx").write_bytes(mlp())
    parent = subprocess.Popen([sys.executable, "-c", HANGING, tmp_path / "m.onnx"], stderr=subprocess.PIPE)
    try:
        ends = time.monotonic() + 90
        while not (found := alive(WORKER, parent.pid)) and time.monotonic() < ends:
            assert parent.poll() is None, parent.communicate()
            time.sleep(0.05)
        (child,) = found
        while not stands_still(child):
            assert time.monotonic() < ends
        parent.send_signal(signal.SIGKILL if how == "killed" else signal.SIGINT)
        _, err = parent.communicate(timeout=60)
        assert how == "killed" or b"KeyboardInterrupt" in err
        while child in alive(WORKER, 0) and time.monotonic() < ends:
            time.sleep(0.05)
        assert child not in alive(WORKER, 0)
    finally:
        parent.kill()
        parent.wait()


def stands_still(process: int) -> bool:
    """Whether a process has done something, and then nothing for a while: that it hangs, not that it still starts."""

    def ticks() -> int:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11])

    before = ticks()
    time.sleep(2)
    return ticks() == before > 10


# -- the value

REGISTRY = discover(environ={})


@given(
    st.one_of(
        st.booleans(), st.integers(-5, 10**6), st.floats(), st.text(max_size=3), st.none(), st.just([]), st.just({})
    )
)
def test_isolate_open_is_true_or_false_or_seconds(given_):
    config = chain("cpu", isolate_open=given_)
    number = isinstance(given_, int | float) and not isinstance(given_, bool)
    if isinstance(given_, bool) or (number and 0 < given_ <= LONGEST_ISOLATED):
        held = read("t", load(config, environ={}), REGISTRY).isolate_open
        assert held == given_
        assert isinstance(held, bool) == isinstance(given_, bool)
    else:
        with pytest.raises(ConfigError, match="isolate_open"):
            read("t", load(config, environ={}), REGISTRY)
