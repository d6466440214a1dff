"""A plugin whose own code fails, or exits, is a row and a sentence that names the method; epkit goes on."""

from __future__ import annotations

import pytest

from epkit.discovery import probe
from epkit.discovery.probe import Answer
from epkit.discovery.registry import discover
from epkit.provider import Unusable

SOURCE = """
import sys
from epkit.errors import ProviderUnavailable
from epkit.hookspecs import hookimpl
from epkit.provider import PluginLibrary, Provider, Usable

class Library(PluginLibrary):
    def path(self):
        return Acme().find()

class Acme(Provider):
    name = "acme"
    ort_name = "AcmeExecutionProvider"

    {method}

@hookimpl
def epkit_providers():
    return [Acme()]
"""


LIBRARY = "library = Library()\n\n    def find(self): "


def ask(method: str, install, **environ: str) -> Answer:
    install("acme", SOURCE.format(method=method))
    registry = discover()
    return probe.ask([(registry.get("acme"), None)], registry, environ=environ)["acme"]


@pytest.mark.parametrize(
    ("method", "reason", "hint"),
    [
        (
            LIBRARY + "raise OSError('no disk')",
            "Library.path raised OSError: no disk",
            "plugin's author",
        ),
        (
            LIBRARY + "raise ProviderUnavailable('no wheel', hint='pip install it')",
            "no wheel",
            "pip install",
        ),
        ("def prepare(self, runtime): raise OSError('no driver')", "Acme.prepare raised OSError: no driver", "author"),
        ("def prepare(self, runtime): sys.exit(3)", "Acme.prepare raised SystemExit: 3", "author"),
        (
            "def to_ort_options(self, options, device): raise KeyError('x')",
            "Acme.to_ort_options raised KeyError: 'x'",
            "author",
        ),
        (
            "def to_ort_options(self, options, device): return None",
            "Acme.to_ort_options returned None where names and texts",
            "author",
        ),
        (
            "def add(self, *_): pass\n    def open(self, model, options, create): create",
            "Acme.open returned None",
            "create()",
        ),
        ("def probe(self): sys.exit(3)", "its probe raised SystemExit: 3", ""),
    ],
)
def test_the_answer_names_the_method_that_failed_and_keeps_the_hint_apart(method, reason, hint, install):
    found = ask(method, install).availability
    assert isinstance(found, Unusable)
    assert found.reason.startswith(reason)
    assert "hint:" not in found.reason
    assert hint in found.hint


@pytest.mark.parametrize("does", ["sys.exit(1)", "return None", "raise OSError('x')"])
def test_a_fingerprint_that_fails_or_exits_is_a_note_and_nobody_else_suffers(does, install):
    answer = ask(f"def fingerprint(self): {does}", install)
    assert "the fingerprint of acme raised" in answer.note


def test_a_probe_that_exits_does_not_end_the_process_that_asks_it_quickly(install):
    found = ask("def probe(self): sys.exit(3)", install, EPKIT_PROBE="quick").availability
    assert isinstance(found, Unusable)
    assert "SystemExit" in found.reason
