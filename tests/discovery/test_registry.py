from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from texts import says

from epkit.discovery import registry
from epkit.errors import PluginError, UnknownTarget

HEALTHY = """
from epkit.hookspecs import hookimpl
from epkit.provider import Provider, Usable

class Healthy(Provider):
    name = "{name}"
    ort_name = "CPUExecutionProvider"

@hookimpl
def epkit_providers():
    return [Healthy()]
"""

BROKEN = {
    "import": ("import no_such_module_anywhere", "no_such_module_anywhere"),
    "syntax": ("def epkit_providers(:", "SyntaxError"),
    "exits": ("raise SystemExit(3)", "SystemExit"),
    "raises": (HEALTHY.replace("return [Healthy()]", "raise RuntimeError('no licence')"), "no licence"),
    "yields-then-raises": (
        HEALTHY.replace("return [Healthy()]", "yield Healthy(); raise OSError('halfway')"),
        "halfway",
    ),
    "unknown-hook": (HEALTHY.replace("def epkit_providers", "def epkit_provider"), "epkit_provider"),
    "wrong-arguments": (HEALTHY.replace("epkit_providers()", "epkit_providers(engine)"), "engine"),
    "no-hook": ("x = 1", "implements no hook"),
    "class": (HEALTHY.replace("[Healthy()]", "[Healthy]"), "returned the class Healthy"),
    "text": (HEALTHY.replace("[Healthy()]", "['cpu']"), "a str, which is not"),
    "bare-object": (HEALTHY.replace("[Healthy()]", "Healthy()"), "where a list of providers belongs"),
    "nothing": (HEALTHY.replace("return [Healthy()]", "return []"), "no provider"),
    "none": (HEALTHY.replace("return [Healthy()]", "return None"), "no provider"),
    "nameless": (HEALTHY.replace('name = "{name}"\n', "\n"), "name is None"),
    "shouting": (HEALTHY.replace("{name}", "NVIDIA GPU"), "lower-case"),
    "attribute-raises": (
        HEALTHY.replace(
            'name = "{name}"\n', "\n    @property\n    def name(self): raise ValueError('no name today')\n"
        ),
        "no name today",
    ),
    "option-required": (
        HEALTHY.replace(
            "class Healthy(Provider):",
            "from epkit.provider import Options\nclass Card(Options):\n    card: int\n\n"
            "class Healthy(Provider):\n    options = Card",
        ),
        "Card.card has no default",
    ),
    "taken": (HEALTHY.replace("{name}", "cpu"), "taken by the plugin 'cpu' of epkit"),
    "taken-by-outsider": (HEALTHY.replace("{name}", "aaa"), "taken by the plugin 'aaa'"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_plugin_is_a_row_between_healthy_ones(fault, install):
    source, told = BROKEN[fault]
    install("aaa", HEALTHY.format(name="aaa"), distribution="aaa")
    install("mmm", source.replace("{name}", "mmm"), distribution="mmm")
    install("zzz", HEALTHY.format(name="zzz"), distribution="zzz")

    found = registry.discover()

    rows = {entry.name: entry for entry in found.entries}
    assert {"cpu", "cuda", "tensorrt", "aaa", "zzz"} <= set(found.providers)
    assert rows["mmm"].status == "broken"
    assert told in rows["mmm"].reason
    assert rows["mmm"].hint
    assert "\n" not in rows["mmm"].reason


@pytest.mark.parametrize("fault", ["import", "class", "taken"])
def test_strict_plugins_raise_for_their_author(fault, install, monkeypatch):
    install("mmm", BROKEN[fault][0].replace("{name}", "mmm"))
    monkeypatch.setenv("EPKIT_STRICT_PLUGINS", "1")
    with says(PluginError):
        registry.discover()


def test_two_providers_of_one_name_in_one_plugin_are_one_provider_and_one_row(install):
    install("twice", HEALTHY.format(name="twice").replace("[Healthy()]", "[Healthy(), Healthy()]"))
    entries = [entry for entry in registry.discover().entries if entry.name == "twice"]
    assert [entry.status for entry in entries] == ["ready", "broken"]


def test_a_disabled_plugin_is_a_row_and_is_not_imported(install, monkeypatch):
    install("crasher", "import os; os._exit(9)")
    monkeypatch.setenv("EPKIT_DISABLE_PLUGINS", "other, crasher")
    found = registry.discover()
    row = next(entry for entry in found.entries if entry.name == "crasher")
    assert (row.status, row.plugin.distribution) == ("disabled", "acme-crasher")
    assert "EPKIT_DISABLE_PLUGINS" in row.hint
    assert "crasher" not in found.providers


def test_an_unknown_provider_suggests_the_nearest():
    with says(UnknownTarget) as told:
        registry.discover().get("cudda")
    assert "did you mean 'cuda'" in told.value.hint


def test_where_a_name_is_unknown_since_a_plugin_is_broken_the_error_says_so(install):
    install("acme", "raise OSError('no licence')")
    with says(UnknownTarget):
        registry.discover().get("acme-gpu")


def test_a_bundled_plugin_wins_its_name_whatever_is_installed_first(install):
    install("aaaa", HEALTHY.format(name="cuda"), distribution="aaaa")
    found = registry.discover()
    plugin = found.plugin("cuda")
    assert plugin is not None
    assert plugin.distribution == "epkit"


def test_discovery_imports_neither_onnxruntime_nor_numpy():
    code = (
        "import sys; from epkit.discovery import registry; registry.discover(); "
        "print([m for m in ('numpy', 'onnxruntime') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_import_epkit_and_help_stay_light():
    heavy = "('pydantic', 'numpy', 'onnxruntime', 'rich', 'pluggy')"
    for code in (
        "import epkit",
        "import sys; sys.argv = ['epkit', '--help']; from epkit.cli import app; app(standalone_mode=False)",
        "import sys; sys.argv = ['epkit', '--version']; from epkit.cli import app; app(standalone_mode=False)",
        "import epkit; dir(epkit); epkit.__version__",
    ):
        check = f"{code}\nimport sys; print('loaded', [m for m in {heavy} if m in sys.modules])"
        done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
        assert done.stdout.strip().endswith("loaded []"), code


GROUPS = """
from epkit.provider import Caching, Limits, SelfTest

class Misspelt(Caching):
    def requestet_dir(self, options): return None

class Ineffective(Caching):
    compiles = "opening"
"""
STRAYED = {
    "environment": ('environment = ("ORT_*")', "environment is 'ORT_*'; it must be a tuple of texts"),
    "concurrency": ('limits = Limits(concurrency="per_process")', "limits.concurrency is 'per_process'"),
    "warmup": ("warmup = None", "warmup is None; it must be a WarmupNeed"),
    "rank": ('rank = "first"', "rank is 'first'"),
    "self_test_timeout_s": ("self_test = SelfTest(timeout_s=0)", "self_test.timeout_s is 0"),
    "library": ('def library(self): return "/opt/acme.so"', "it must be a PluginLibrary object, or None"),
    "a former member": (
        'compiles = "opening"',
        "no member of the contract any more; write caching = Caching(compiles",
    ),
    "a misspelt member": (
        "def fingerprints(self): return ()",
        "is no member of the contract; write fingerprint, or _",
    ),
    "a misspelt method of a group": (
        "caching = Misspelt()",
        "Misspelt.requestet_dir is no member of the contract",
    ),
    "data of a group in its class": ("caching = Ineffective()", "has no effect there; write Ineffective(compiles=...)"),
}


@pytest.mark.parametrize("attribute", STRAYED)
def test_an_attribute_of_the_wrong_type_breaks_the_plugin_and_nothing_else(attribute, install):
    line, told = STRAYED[attribute]
    install(
        "astray",
        GROUPS + HEALTHY.format(name="astray").replace('    ort_name = "CPU', f'    {line}\n    ort_name = "CPU'),
    )
    entry = registry.discover().entry("astray")
    assert entry.status == "broken"
    assert told in entry.reason


def test_a_distribution_without_metadata_is_no_obstacle(install, tmp_path):
    folder = install("nameless", HEALTHY.format(name="nameless"))
    for file in folder.glob("*.dist-info/METADATA"):
        file.unlink()
    assert "nameless" in registry.discover().providers


def test_what_a_plugin_prints_while_it_is_imported_reaches_nobody(install, capsys):
    install("chatty", "print('hello')\n" + HEALTHY.format(name="chatty"))
    assert "chatty" in registry.discover().providers
    assert capsys.readouterr().out == ""


def test_threads_that_discover_at_once_leave_stdout_as_it_was_and_silence_nobody_else(install, capsys):
    # Before, the first to begin put back what it had found, and the last put back what the first had put there.
    install("chatty", "import time\nprint('hidden')\ntime.sleep(0.5)\n" + HEALTHY.format(name="chatty"))
    before = sys.stdout
    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(registry.discover) for _ in range(40)]
        time.sleep(0.2)
        print("kept")  # noqa: T201 - what this thread says
    assert all("chatty" in one.result().providers for one in found)
    assert sys.stdout is before
    assert capsys.readouterr().out == "kept\n"


def test_a_ready_provider_is_found_before_a_broken_plugin_of_its_name(install):
    install("aaa", "raise ValueError", distribution="aaa")
    install("aaa", HEALTHY.format(name="aaa"), distribution="bbb")
    assert registry.discover().entry("aaa").status == "ready"


# -- modules that are named, not installed


def test_a_module_that_epkit_plugins_names_is_a_plugin(monkeypatch, tmp_path):
    (tmp_path / "named_plugin.py").write_text(
        "from epkit.hookspecs import hookimpl\nfrom epkit.provider import Provider\n"
        "class Named(Provider):\n    name = 'named'\n    ort_name = 'NamedExecutionProvider'\n"
        "@hookimpl\ndef epkit_providers():\n    return [Named()]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = registry.discover(environ={"EPKIT_PLUGINS": "named_plugin, "})
    assert found.get("named").ort_name == "NamedExecutionProvider"
    assert found.plugin("named").distribution == "EPKIT_PLUGINS"
    assert "named" not in registry.discover(environ={}).providers
    disabled = registry.discover(environ={"EPKIT_PLUGINS": "named_plugin", "EPKIT_DISABLE_PLUGINS": "named_plugin"})
    assert disabled.entry("named_plugin").status == "disabled"


def test_a_module_that_is_named_and_not_there_is_a_row():
    row = registry.discover(environ={"EPKIT_PLUGINS": "no_such_plugin"}).entry("no_such_plugin")
    assert row.status == "broken"
    assert "no_such_plugin" in row.reason
    assert "EPKIT_PLUGINS" in row.hint


def test_a_module_that_is_named_and_installed_is_loaded_once(install):
    (module,) = install("twice", HEALTHY.format(name="twice"), distribution="twice").glob("*.py")
    found = registry.discover(environ={"EPKIT_PLUGINS": module.stem}, strict=True)
    rows = [(entry.name, entry.plugin.distribution) for entry in found.entries if entry.plugin.value == module.stem]
    assert rows == [("twice", "twice")]


@pytest.mark.parametrize("written", ["my-plugin", "./my_plugin", "one;other", "one two", ":", ".my_plugin"])
def test_what_cannot_be_a_module_is_a_row_that_says_so(written):
    row = registry.discover(environ={"EPKIT_PLUGINS": written}).entry(written)
    assert (row.status, row.reason) == ("broken", f"{written!r} is not the name of a module")
    assert "comma" in row.hint
