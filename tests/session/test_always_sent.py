"""An option without which results are wrong is sent unless the user sets it, and `explain` says who does."""

from __future__ import annotations

import pytest
from models import mlp

import epkit
from epkit.provider import Options, Provider
from epkit.runtime.configured import ConfiguredProvider
from epkit.session.cache.key import sent_with

SOURCE = '''
from typing import Literal
from epkit.hookspecs import hookimpl
from epkit.provider import Options, Provider

SENT = []

class AcmeOptions(Options):
    """Options of acme."""

    sticky: Literal["0", "1"] | None = None
    """Whether results are kept (0 is always sent: with 1 they may be those of an earlier run)."""
    depth: int | None = None
    """How deep it looks."""

class Acme(Provider):
    name, ort_name = "acme", "CPUExecutionProvider"
    options = AcmeOptions

    def always_sent(self, device):
        return {"sticky": "0"}

    def add(self, runtime, session_options, sent, devices):
        SENT.append(dict(sent))
        super().add(runtime, session_options, sent, devices)

@hookimpl
def epkit_providers():
    return [Acme()]
'''


@pytest.fixture
def acme(install, empty, monkeypatch):
    """Install the provider; opening trusts its probe."""
    install("acme", SOURCE)
    monkeypatch.setenv("EPKIT_PROBE", "quick")
    from epkit.discovery.registry import discover

    return discover().get("acme")


def settings(**options: object) -> dict[str, tuple[object, str]]:
    target = {"provider": "acme", "options": options} if options else {"provider": "acme"}
    told = epkit.explain(mlp(), "t", config={"targets": {"t": target}})
    return {one.key: (one.value, one.origin) for one in told.effective}


def test_it_is_sent_where_the_user_says_nothing_and_explain_says_who_does(acme):
    value, origin = settings(depth=3)["acme.sticky"]
    assert value == "0"
    assert origin.startswith("the plugin")
    assert "'sticky': '0'" in epkit.explain(mlp(), "acme").script


def test_what_the_user_sets_takes_its_place_and_has_its_own_origin(acme):
    assert settings(sticky="1")["acme.sticky"] == ("1", "call: targets.t.options.sticky")
    value, origin = settings(extra={"sticky": "1"})["acme.sticky"]
    assert value == "1"
    assert "extra" in origin


@pytest.mark.parametrize(("options", "sent"), [({}, {"sticky": "0"}), ({"sticky": "1"}, {"sticky": "1"})])
def test_a_session_is_opened_with_it(acme, options, sent):
    with epkit.open(mlp(), "acme", options=options) as session:
        assert session.report.provider == "acme"
    import sys

    module = sys.modules[type(acme).__module__]
    assert module.SENT[-1] == sent


def test_what_is_compiled_knows_it(tmp_path):
    class Kind(Provider):
        name, ort_name = "acme", "X"

        def always_sent(self, device):
            return {"sticky": "0"}

    assert sent_with(ConfiguredProvider(Kind()), tmp_path) == {"sticky": "0"}
    assert sent_with(ConfiguredProvider(Kind(), Options(extra={"sticky": "1"})), tmp_path) == {"sticky": "1"}


def test_a_provider_that_needs_none_sends_none():
    assert Provider().always_sent(None) == {}
