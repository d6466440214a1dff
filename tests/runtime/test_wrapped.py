"""A provider may stand around the opening of a session, and around its runs."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from models import mlp
from running import WAYS, check_runs
from texts import says

import epkit
from epkit.errors import ProviderDropped, ProviderUnavailable
from epkit.provider import Provider
from epkit.runtime import create
from epkit.runtime.configured import ConfiguredProvider

TALKER = """
from epkit.hookspecs import hookimpl
from epkit.provider import Provider
from epkit.runtime.session_wrapper import SessionWrapper

said = []

class Talking(SessionWrapper):
    def around(self, run):
        said.append("before")
        try:
            return run()
        finally:
            said.append("after")

class Talk(Provider):
    name = "talk"
    ort_name = "CPUExecutionProvider"

    def open(self, model, options, create):
        said.append("opening")
        return Talking(create())

@hookimpl
def epkit_providers():
    return [Talk()]
"""


@pytest.mark.parametrize("way", WAYS)
def test_what_stands_around_a_session_sees_every_run(install, way):
    install("talk", TALKER)
    contents = mlp()
    feeds = [{"x": np.full((rows, 16), rows, np.float32)} for rows in (1, 1, 2, 400, 1)]
    with epkit.open(contents, "talk") as session:
        assert session.report.provider == "talk"
        *_, module = [one for name, one in sys.modules.items() if name.startswith("plugin_talk")]
        assert module.said[0] == "opening"
        opened = len(module.said)
        check_runs(WAYS[way](session), contents, feeds)
        runs = module.said[opened:]
        assert len(runs) >= 2 * len(feeds)
        assert runs[::2] == ["before"] * (len(runs) // 2)
        assert runs[1::2] == ["after"] * (len(runs) // 2)


class Ghost(Provider):
    """Adds nothing to a session, so that ONNX Runtime's CPU takes every node."""

    ort_name = "GhostExecutionProvider"

    def __init__(self, name, trace):
        self.name = name
        self.trace = trace

    def add(self, runtime, session_options, sent, devices):
        self.trace.append(f"{self.name} is added")

    def open(self, model, options, create):
        self.trace.append(f"{self.name} begins")
        session = create()
        self.trace.append(f"{self.name} ends")
        return session


def test_the_first_provider_of_a_chain_stands_outermost():
    trace = []
    chain = [ConfiguredProvider(Ghost("first", trace)), ConfiguredProvider(Ghost("second", trace))]
    create.create_session(mlp(), chain, create.Settings({}, {}))
    adding, opening = trace[:2], trace[2:]
    assert adding == ["first is added", "second is added"]
    assert opening == ["first begins", "second begins", "second ends", "first ends"]


GHOST = """
from epkit.hookspecs import hookimpl
from epkit.provider import Provider

class Ghost(Provider):
    name = "ghost"
    ort_name = "GhostExecutionProvider"

    def add(self, runtime, session_options, sent, devices):
        pass

    def open(self, model, options, create):
        raise OSError("the card is gone")

@hookimpl
def epkit_providers():
    return [Ghost()]
"""


def test_what_fails_around_opening_drops_the_provider(install, monkeypatch):
    install("ghost", GHOST)
    monkeypatch.setenv("EPKIT_PROBE", "quick")
    with says(ProviderDropped):
        epkit.open(mlp(), "ghost")
    with epkit.open(mlp(), "either", config={"targets": {"either": {"provider": "ghost"}}}) as session:
        assert session.report.provider == "cpu"
        (dropped, _) = session.report.tried
        assert (dropped.provider, dropped.outcome) == ("ghost", "failed to open")
        assert "the card is gone" in dropped.reason


def test_what_fails_around_opening_fails_the_proof(install):
    install("ghost", GHOST)
    with says(ProviderUnavailable):
        epkit.open(mlp(), "ghost")


def test_a_provider_over_the_cpu_that_fails_is_not_the_models_fault(install, monkeypatch):
    install("talk", TALKER.replace("return Talking(create())", "raise OSError('the card is gone')"))
    monkeypatch.setenv("EPKIT_PROBE", "quick")
    with says(ProviderDropped):
        epkit.open(mlp(), "talk")


def test_the_next_of_two_providers_that_are_one_to_onnx_runtime_takes_over_from_one_that_fails(install, monkeypatch):
    install("talk", TALKER.replace("return Talking(create())", "raise OSError('the card is gone')"))
    install("other", TALKER.replace('name = "talk"', 'name = "other"'))
    monkeypatch.setenv("EPKIT_PROBE", "quick")
    config = {"targets": {"both": {"provider": "talk", "fallback": ["other"]}, "one": {"provider": "talk"}}}
    with epkit.open(mlp(), "both", config=config) as session:
        assert session.report.provider == "other"
        assert [(row.provider, row.outcome) for row in session.report.tried] == [
            ("talk", "failed to open"),
            ("other", "active"),
            ("cpu", "same runtime provider"),
        ]
    with epkit.open(mlp(), "one", config=config) as session:
        assert session.report.provider == "cpu"
        assert list(session.report.placement) == ["cpu"]
        assert session.run({"x": np.ones((1, 16), np.float32)})["y"].shape == (1, 16)
