from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import warm
from capabilities import SECOND, needs
from texts import says

from epkit.discovery import probe, probe_cache, registry
from epkit.errors import ConfigError
from epkit.provider import Unusable, Usable

PLUGIN = """
import os, sys, time, ctypes, signal, subprocess
from pathlib import Path
from epkit.hookspecs import hookimpl
from epkit.provider import Provider, SelfTest, Usable, Unusable

class Acme(Provider):
    name = "acme"
    ort_name = "AcmeExecutionProvider"
    self_test = SelfTest(timeout_s={seconds})

    def probe(self):
        {body}

    def fingerprint(self):
        return [os.environ.get("ACME", "")]

    def hint(self, cause):
        return "apt install acme"

@hookimpl
def epkit_providers():
    return [Acme()]
"""


@pytest.fixture
def ask(install, tmp_path, monkeypatch):
    """Install a provider whose probe is `body`, and ask for it with a cache of its own."""
    monkeypatch.setenv("EPKIT_CACHE_DIR", str(tmp_path / "cache"))

    def _ask(body: str, *, seconds: float = 20.0, **arguments) -> probe.Answer:
        install("acme", PLUGIN.format(body=body, seconds=seconds))
        return again(**arguments)

    def again(**arguments) -> probe.Answer:
        found = registry.discover()
        return probe.ask([(found.providers["acme"], None)], found, **arguments)["acme"]

    _ask.again = again
    return _ask


FAULTS = {
    "segfault": ("ctypes.string_at(0)", "crashed (SIGSEGV)", True),
    "abort": ("os.abort()", "crashed (SIGABRT)", True),
    "exit": ("os._exit(7)", "exit code 7", True),
    "system exit": ("raise SystemExit(4)", "its probe raised SystemExit: 4", True),
    "raise": ("raise OSError('the driver is asleep')", "the driver is asleep", True),
    "junk": ("return True", "answered True", False),
    "none": ("pass", "answered None", False),
    "liar": ("return Usable('all fine')", "AcmeExecutionProvider", True),
    "truthful": ("return Unusable('no card', hint='buy one')", "no card", False),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_probe_is_an_answer(fault, ask, capfd):
    body, told, transient = FAULTS[fault]
    answer = ask(body)
    assert isinstance(answer.availability, Unusable)
    assert told in answer.availability.reason
    assert answer.availability.transient is transient
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("cause", ["", "the card is on fire"])
def test_the_last_words_before_a_crash_are_no_warning(ask, cause):
    warning = "2026-11-21 08:03:03 [W:onnxruntime:Default, config_options.cc:45 Add] It will be overwritten"
    answer = ask(f"print('\\x1b[31m{cause}\\x1b[m\\n{warning}', flush=True); os.abort()")
    assert isinstance(answer.availability, Unusable)
    assert answer.availability.reason == "its proof crashed (SIGABRT)" + (f": {cause}" if cause else "")


def test_a_probe_that_hangs_is_ended_with_everything_it_started(ask, tmp_path, monkeypatch):
    marker = tmp_path / "grandchild"
    monkeypatch.setenv("MARKER", str(marker))
    body = "p = subprocess.Popen(['sleep', '600']); Path(os.environ['MARKER']).write_text(str(p.pid)); time.sleep(600)"
    started = time.monotonic()
    answer = ask(body, seconds=3)
    assert isinstance(answer.availability, Unusable)
    assert "did not answer in time" in answer.availability.reason
    assert time.monotonic() - started < 60
    pid = int(marker.read_text())
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]:
            break
        time.sleep(0.05)
    else:
        pytest.fail("the grandchild is still alive")


def test_what_a_probe_prints_reaches_nobody(ask, capfd):
    body = "print('noise'); os.write(1, b'raw noise'); os.write(2, b'more noise'); return Unusable('no card')"
    assert ask(body).availability == Unusable("no card")
    assert capfd.readouterr() == ("", "")


def test_the_cause_that_is_only_logged_is_in_the_reason_with_the_command_that_mends_it(ask):
    log = (
        "[E:onnxruntime:, bridge.cc:1 Get] Failed to load library libacme.so with error: "
        "libfoo.so.9: cannot open shared object file: No such file"
    )
    answer = ask(f"os.write(2, {log.encode()!r} + bytes([10])); return Usable()")
    assert isinstance(answer.availability, Unusable)
    assert "libfoo.so.9: cannot open shared object file" in answer.availability.reason
    assert answer.availability.hint == "apt install acme"


COUNTED = "Path(os.environ['COUNT']).open('a').write('x'); return Unusable('no card', transient={transient})"


@pytest.fixture
def count(tmp_path, monkeypatch):
    file = tmp_path / "count"
    file.write_text("")
    monkeypatch.setenv("COUNT", str(file))
    return lambda: len(file.read_text())


def test_a_stable_answer_is_remembered_until_what_it_depends_on_changes(ask, count, monkeypatch):
    ask(COUNTED.format(transient=False))
    again = ask.again()
    assert again.remembered
    assert again.availability == Unusable("no card")
    assert count() == 1
    ask.again(refresh=True)
    assert count() == 2
    monkeypatch.setenv("ACME", "new driver")
    ask.again()
    assert count() == 3


def test_a_passing_cause_is_forgotten_within_minutes(ask, count, tmp_path):
    ask(COUNTED.format(transient=True))
    assert ask.again().remembered
    (file,) = (tmp_path / "cache" / "probe").glob("*.json")
    kept = json.loads(file.read_text())
    file.write_text(json.dumps(kept | {"at": kept["at"] - probe_cache.TRANSIENT_SECONDS - 1}))
    assert not ask.again().remembered
    assert count() == 2


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"usable": true}', '{"at": "x", "usable": true, "transient": false}']
)
def test_a_damaged_memory_is_no_memory(damage, ask, count, tmp_path):
    ask(COUNTED.format(transient=False))
    (file,) = (tmp_path / "cache" / "probe").glob("*.json")
    file.write_text(damage)
    assert not ask.again().remembered
    assert count() == 2


def test_a_cache_that_cannot_be_written_is_a_note_and_no_obstacle(ask, count, tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("EPKIT_CACHE_DIR", str(blocked))
    answer = ask(COUNTED.format(transient=False))
    assert answer.availability == Unusable("no card")
    assert "not remembered" in answer.note
    ask.again()
    assert count() == 2


@pytest.mark.slow
def test_many_processes_prove_once(ask, count):
    ask(COUNTED.format(transient=False).replace("return", "time.sleep(0.5); return"), refresh=True)
    cache = Path(os.environ["EPKIT_CACHE_DIR"])
    for file in (cache / "probe").glob("*.json"):
        file.unlink()
    code = (
        "from epkit.discovery import probe; from epkit.discovery import registry; r = registry.discover(); "
        "print(probe.ask([(r.providers['acme'], None)], r)['acme'].availability.reason)"
    )
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    runs = [
        subprocess.Popen([warm.PYTHON, "-c", code], stdout=subprocess.PIPE, env=environ, text=True) for _ in range(4)
    ]
    assert [run.communicate()[0].strip() for run in runs] == ["no card"] * 4
    assert count() == 2


def test_quick_trusts_the_cheap_part_and_starts_no_process(ask, monkeypatch):
    monkeypatch.setenv("EPKIT_PROBE", "quick")
    answer = ask("return Usable(str(os.getpid()))")
    assert answer.availability == Usable(str(os.getpid()))
    assert not answer.proven


def test_an_unknown_probe_mode_is_an_error(monkeypatch):
    monkeypatch.setenv("EPKIT_PROBE", "qick")
    with says(ConfigError):
        probe.ask([], registry.discover())


def test_a_fingerprint_that_raises_only_costs_the_memory(install, monkeypatch, tmp_path):
    monkeypatch.setenv("EPKIT_CACHE_DIR", str(tmp_path / "cache"))
    source = PLUGIN.format(body="return Unusable('no card')", seconds=20).replace(
        'return [os.environ.get("ACME", "")]', "raise ValueError('no')"
    )
    install("acme", source)
    found = registry.discover()
    answer = probe.ask([(found.providers["acme"], None)], found)["acme"]
    assert answer.availability == Unusable("no card")
    assert "fingerprint" in answer.note


def test_the_working_directory_does_not_shadow_what_the_proof_imports(ask, tmp_path, monkeypatch):
    trap = tmp_path / "trap"
    trap.mkdir()
    for name in ("numpy.py", "onnxruntime.py", "epkit.py", "json.py"):
        (trap / name).write_text("raise RuntimeError('imported from the working directory')")
    monkeypatch.chdir(trap)
    assert ask("return Unusable('no card')").availability == Unusable("no card")


@needs(SECOND)
def test_the_real_providers_of_this_machine_answer_truthfully(monkeypatch):
    found = registry.discover()
    answers = probe.ask([(provider, None) for provider in found.providers.values()], found)
    assert answers["cpu"].usable
    assert answers[SECOND].usable
    assert answers[SECOND].proven
    for name in ("cuda", "tensorrt"):
        match answers[name].availability:
            case Unusable(reason, hint):
                assert "cannot open shared object file" in reason
                assert "pip install" in hint
            case Usable(detail):
                assert detail


def test_the_cause_that_onnx_runtime_only_logs_is_found_by_the_proof(install, tmp_path, monkeypatch):
    """A plugin that believes in CUDA: what ONNX Runtime raises names no library, what it logs does."""
    found = registry.discover()
    if probe.ask([(found.providers["cuda"], None)], found)["cuda"].usable:
        pytest.skip("this machine has CUDA")
    monkeypatch.setenv("EPKIT_CACHE_DIR", str(tmp_path / "cache"))
    source = """
from epkit.hookspecs import hookimpl
from epkit.provider import Usable
from epkit_cuda.provider import Cuda
class Believer(Cuda):
    name = "believer"
    def probe(self):
        return Usable("surely")
    def prepare(self, runtime):
        pass
@hookimpl
def epkit_providers():
    return [Believer()]
"""
    install("believer", source)
    found = registry.discover()
    answer = probe.ask([(found.providers["believer"], None)], found)["believer"].availability
    assert isinstance(answer, Unusable)
    assert re.match(r"lib\w+\.so\.\d+: cannot open shared object file", answer.reason), answer.reason
    assert "pip install" in answer.hint


def test_an_interrupt_does_not_wait_for_a_proof_that_hangs(install, tmp_path, monkeypatch):
    monkeypatch.setenv("EPKIT_CACHE_DIR", str(tmp_path / "cache"))
    install("acme", PLUGIN.format(body="time.sleep(600)", seconds=300))
    found = registry.discover()
    timer = threading.Timer(1.5, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        probe.ask([(found.providers["acme"], None)], found)
    assert time.monotonic() - started < 60
    assert not list((tmp_path / "cache" / "probe").glob("*.json"))


def test_an_edited_plugin_is_asked_anew_though_its_version_is_the_same(ask, count, tmp_path):
    ask(COUNTED.format(transient=False))
    assert ask.again().remembered
    (file,) = tmp_path.glob("site-*/plugin_*.py")
    os.utime(file, (1, 1))
    assert not ask.again().remembered
    assert count() == 2
