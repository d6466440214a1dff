"""Whoever asks is told what happens; whoever does not pays nothing."""

from __future__ import annotations

import gc
import json
import logging
import os
import subprocess
import sys
import time

import numpy as np
import onnxruntime
import pytest
from capabilities import COMPILER, needs
from models import mlp
from running import WAYS, check_runs
from texts import says
from together import together

import epkit
from epkit.errors import ConfigError, RunError
from epkit.runtime import events

FEED = {"x": np.ones((1, 16), np.float32)}
CHAIN = {"targets": {"chain": {"provider": "ghost", "warmup": {"dimensions": {"batch": 2}}}}}

GHOST = """
from epkit.hookspecs import hookimpl
from epkit.provider import Provider, Unusable, Usable

class Ghost(Provider):
    name = "ghost"
    ort_name = "GhostExecutionProvider"

    def probe(self):
        return PROBE

@hookimpl
def epkit_providers():
    return [Ghost()]
"""


@pytest.fixture
def seen():
    found = []
    with epkit.observe(found.append):
        yield found


def of(kind, found):
    return [one for one in found if isinstance(one, kind)]


def test_opening_and_running_are_told_in_their_order(seen):
    with epkit.open(mlp(), "cpu") as session:
        session.run(FEED)
        session.run(FEED)
    kinds = [type(one) for one in seen]
    assert kinds == [events.Probed, events.WarmedUp, events.Opened, events.Ran, events.Ran]
    probed, warmed, opened, *runs = seen
    assert (probed.provider, probed.usable) == ("cpu", True)
    assert warmed.shapes == {"x": (1, 16)}
    assert (opened.target, opened.provider, opened.nodes) == ("cpu", "cpu", {"cpu": 3})
    assert {one.session for one in runs} == {opened.session}
    assert all(one.seconds > 0 and not one.error for one in runs)


def test_a_provider_that_is_given_up_is_told_with_its_reason(seen, install, monkeypatch):
    install("ghost", GHOST.replace("PROBE", "Usable()"))
    monkeypatch.setenv("EPKIT_PROBE", "quick")
    epkit.open(mlp(), "chain", config=CHAIN).close()
    (dropped,) = of(events.Dropped, seen)
    assert (dropped.target, dropped.provider, dropped.outcome) == ("chain", "ghost", "failed to open")
    assert "GhostExecutionProvider" in dropped.reason


def test_a_provider_that_the_machine_lacks_is_told_with_its_hint(seen, install):
    install("ghost", GHOST.replace("PROBE", "Unusable('no ghost here', hint='knock')"))
    epkit.open(mlp(), "chain", config=CHAIN).close()
    (ghost,) = [one for one in of(events.Probed, seen) if one.provider == "ghost"]
    assert (ghost.usable, ghost.reason, ghost.hint) == (False, "no ghost here", "knock")
    assert of(events.Dropped, seen) == []


@needs(COMPILER)
def test_hits_and_misses_of_the_cache_are_told(seen, tmp_path, monkeypatch):
    monkeypatch.setenv("EPKIT_CACHE_DIR", str(tmp_path))
    file = tmp_path / "model.onnx"
    file.write_bytes(mlp())
    config = {"targets": {"kept": {"provider": COMPILER, "cache": True}}}
    for _ in range(2):
        epkit.open(file, "kept", config=config).close()
    assert [(one.provider, one.outcome) for one in of(events.Cached, seen)] == [
        (COMPILER, "built"),
        (COMPILER, "hit"),
    ]


@pytest.mark.parametrize("way", WAYS)
def test_a_session_that_is_watched_gives_the_same_results_in_every_way(seen, way):
    contents = mlp()
    feeds = [{"x": np.full((rows, 16), rows, np.float32)} for rows in (1, 1, 2, 400, 1)]
    with epkit.open(contents, "cpu") as session:
        check_runs(WAYS[way](session), contents, feeds)
    assert len(of(events.Ran, seen)) >= len(feeds)


def test_a_run_that_fails_is_told_with_its_error(seen):
    from models import model, value
    from onnx import helper

    contents = model(
        [helper.make_node("Add", ["a", "b"], ["y"])], [value("a", ["N"]), value("b", ["M"])], [value("y", None)]
    )
    with epkit.open(contents, "cpu") as session, pytest.raises(RunError):
        session.run({"a": np.ones(2, np.float32), "b": np.ones(3, np.float32)})
    (run,) = of(events.Ran, seen)
    assert "Add" in run.error


def test_every_run_of_every_thread_is_told_once(seen):
    with epkit.open(mlp(), "cpu") as session:
        together(lambda _: [session.run(FEED) for _ in range(50)], 4)
    assert len(of(events.Ran, seen)) == 200


def test_a_session_that_nobody_watches_is_onnx_runtimes_own():
    with epkit.open(mlp(), "cpu") as session:
        assert type(session._caller.session) is onnxruntime.InferenceSession
        found = []
        with epkit.observe(found.append):
            session.run(FEED)
        assert found == []


def test_an_observer_that_was_stopped_is_told_nothing_more():
    found = []
    observation = epkit.observe(found.append)
    with epkit.open(mlp(), "cpu") as session:
        observation.stop()
        told = len(found)
        session.run(FEED)
    assert len(found) == told
    assert not events.has_observers()


def test_an_observer_that_fails_is_called_no_more_and_harms_no_run(seen, caplog):
    def broken(event):
        raise OSError("the disk is full")

    with caplog.at_level(logging.ERROR, "epkit"), epkit.observe(broken), epkit.open(mlp(), "cpu") as session:
        session.run(FEED)
        session.run(FEED)
    assert len(caplog.records) == 1
    assert "broken" in caplog.text
    assert "the disk is full" in caplog.text
    assert len(of(events.Ran, seen)) == 2


# -- kept as lines of JSON


def test_events_are_kept_as_lines_of_json(tmp_path):
    file = tmp_path / "events.jsonl"
    with epkit.observe(events.JsonLines(file)), epkit.open(mlp(), "cpu") as session:
        session.run(FEED)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [one["event"] for one in lines] == ["probed", "warmed-up", "opened", "ran"]
    assert lines[2]["nodes"] == {"cpu": 3}
    assert {"event", "at", "pid", "session", "provider", "seconds", "error"} == lines[3].keys()


def test_a_program_is_watched_by_setting_a_variable(tmp_path):
    file = tmp_path / "events.jsonl"
    (tmp_path / "model.onnx").write_bytes(mlp())
    import os

    for _ in range(2):  # and the second appends
        done = subprocess.run(
            [sys.executable, "-m", "epkit", "run", str(tmp_path / "model.onnx"), "-t", "cpu", "--json"],
            env=os.environ | {"EPKIT_EVENTS": str(file), "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
    assert json.loads(done.stdout)
    kinds = [json.loads(line)["event"] for line in file.read_text().splitlines()]
    assert kinds == ["probed", "warmed-up", "opened", "ran"] * 2


def test_a_variable_that_is_set_no_more_is_heeded(tmp_path, monkeypatch):
    file = tmp_path / "events.jsonl"
    monkeypatch.setenv("EPKIT_EVENTS", str(file))
    epkit.open(mlp(), "cpu").close()
    told = file.read_text()
    assert told
    monkeypatch.delenv("EPKIT_EVENTS")
    epkit.open(mlp(), "cpu").close()
    assert file.read_text() == told
    assert not events.has_observers()


def test_a_file_that_cannot_be_written_is_an_error_that_names_the_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("EPKIT_EVENTS", str(tmp_path / "no" / "events.jsonl"))
    with says(ConfigError):
        epkit.open(mlp(), "cpu")


def test_the_file_of_an_observer_is_closed_with_it(tmp_path):
    lines = events.JsonLines(tmp_path / "events.jsonl")
    file = lines._file
    os.fstat(file)
    del lines
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)


def test_an_observer_that_opens_and_runs_sessions_is_not_told_of_its_own():
    found = []

    def measures(event):
        found.append(event)
        with epkit.open(mlp(), "cpu") as other:
            other.run(FEED)

    with epkit.observe(measures), epkit.open(mlp(), "cpu") as session:
        session.run(FEED)
    assert [type(one).__name__ for one in found] == ["Probed", "WarmedUp", "Opened", "Ran"]


def test_threads_that_begin_at_once_keep_each_event_once(monkeypatch, tmp_path):
    made = []

    class Slow(events.JsonLines):
        def __init__(self, file):
            made.append(file)
            time.sleep(0.05)
            super().__init__(file)

    monkeypatch.setattr(events, "JsonLines", Slow)
    environ = {"EPKIT_EVENTS": str(tmp_path / "events.jsonl")}
    together(lambda _: events.start_log(environ))
    events._logs.pop(environ["EPKIT_EVENTS"]).stop()
    assert len(made) == 1
