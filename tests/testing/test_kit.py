"""Does the conformance kit find what is wrong with a plugin, and nothing else?"""

from __future__ import annotations

import importlib
import os
import pkgutil
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import broken_plugins
import numpy as np
import pytest
from tiers import slow_but

from epkit._system.process import Parent
from epkit.provider import Caching, Capability, Devices, Options, Provider
from epkit.testing import ProviderConformance, samples, subject, worker
from epkit.testing.promise import Broken, NotClaimed

pytest_plugins = ["pytester"]

MAKE = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "make_testing_models.py"))
QUIET = ("-p", "no:cacheprovider", "-p", "no:benchmark", "-p", "no:hypothesispytest", "-rfs")

BROKEN = {
    "imports_numpy": ("importing it loads nothing heavy", "importing it imports numpy", "the function that needs it"),
    "prints": ("importing it prints nothing", "printed 'Acme accelerator 1.0'", "detail of the probe's answer"),
    "probe_raises": ("the probe answers and never raises", "FileNotFoundError", "return Unusable(reason, hint)"),
    "not_in_this_build": ("the probe is truthful", "its proof failed", "let probe() look for what is missing"),
    "says_nothing_to_do": ("the probe is truthful", "does not say what to do", "the command that mends it"),
    "undocumented": ("every option is documented", "'allow_spinning' has no sentence", "below it"),
    "takes_anything": ("an unknown option is refused", "'no_such_option'", "leave its model_config alone"),
    "sends_defaults": ("what is unset is not sent", "allow_spinning = '0' though nobody", "options.written() only"),
    "sends_what_cannot_be_set": (
        "what is always sent may be set otherwise",
        "'sticky', which is none of its options",
        "add sticky to its options",
    ),
    "runs_on_the_cpu": ("a tiny model really runs on it", "gave no node of a tiny model", "must add it, or fail"),
    "overbooked": (
        "eight threads on two sessions get their own numbers",
        "the card has four places, and all are taken",
        "it declares concurrency 'free': declare \"per-session\" or \"per-process\"",
    ),
    "forgets_the_folder": (
        "what it compiles is kept in the folder it is given",
        "sends 'nothing'",
        "with the folder as the place of what is compiled",
    ),
    "never_stale": (
        "what is compiled goes stale with what compiled it",
        "['the Acme compiler'] for other versions and other files too",
        "list the version of what compiles",
    ),
    "name_taken": ("it is found under its own name", "'cpu' is taken by the plugin 'cpu'", "choose another name"),
    "starts_cold": ("the first request is steady", "the first request took 3", "WarmupNeed with more than runs=0"),
}  # fmt: skip
"""By module: the promise that it breaks, and what is said of it and of the mend."""

ACME = """
from epkit.hookspecs import hookimpl
from epkit.provider import Provider, Unusable

class Acme(Provider):
    name = "acme"
    ort_name = "AcmeExecutionProvider"
    capabilities = frozenset({"float32"})

    def probe(self):
        return Unusable("no /dev/acme0", hint="sudo modprobe acme")

@hookimpl
def epkit_providers():
    return [Acme()]
"""


def run_kit(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, module: str, provider: str, *arguments: str
) -> pytest.RunResult:
    """Run the whole kit on a provider of a module that is not installed."""
    monkeypatch.setenv("EPKIT_PLUGINS", module)
    pytester.makepyfile(
        test_it=f"""
        from {module} import {provider}
        from epkit.testing import ProviderConformance

        class TestIt(ProviderConformance):
            provider = {provider}
        """
    )
    return pytester.runpytest_inprocess(*QUIET, *arguments)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no alarms")
def test_the_time_limit_of_a_promise_ends_with_it(monkeypatch):
    """The process waits for the next promise as long as it takes."""
    left = []

    class Asked(Parent):
        def __init__(self):
            self._requests = iter([{"seconds": 60.0}, None])

        def receive(self):
            left.append(signal.getitimer(signal.ITIMER_REAL)[0])
            return next(self._requests)

        def send(self, message):
            pass

        def exit(self):
            pass

    def outcome(request):
        left.append(signal.getitimer(signal.ITIMER_REAL)[0])
        return {"outcome": "kept"}

    monkeypatch.setattr(worker, "Parent", Asked)
    monkeypatch.setattr(worker, "_outcome", outcome)
    try:
        worker.main()
    finally:
        signal.alarm(0)
    waiting, trying, waiting_again = left
    assert trying > waiting == waiting_again == 0


def test_every_broken_plugin_is_tried():
    assert {module.name for module in pkgutil.iter_modules(broken_plugins.__path__)} == set(BROKEN)


QUICK = ("imports_numpy", "probe_raises", "not_in_this_build", "says_nothing_to_do", "runs_on_the_cpu", "name_taken")


@pytest.mark.parametrize("module", slow_but(BROKEN, *QUICK))
def test_a_broken_plugin_breaks_one_promise_and_is_told_which_and_what_mends_it(module, pytester, monkeypatch):
    promise, found, mend = BROKEN[module]
    name = f"broken_plugins.{module}"
    result = run_kit(pytester, monkeypatch, name, "Broken")
    failed = [line for line in result.outlines if line.startswith("FAILED")]
    assert [line.split("::")[2].split(" ")[0] for line in failed] == [f"test_{promise.replace(' ', '_').lower()}"], (
        result.outlines
    )
    (told,) = [line for line in result.outlines if f'breaks the promise "{promise}": ' in line and "FAILED" not in line]
    provider = importlib.import_module(name).Broken.name
    assert told.startswith(f"{provider} breaks the promise")
    assert found in told
    hint = result.outlines[result.outlines.index(told) + 1]
    assert hint.startswith("  hint: ")
    assert mend in hint
    assert any(line.startswith(f"{provider}: ") and ", 1 broken" in line for line in result.outlines)


def test_what_cannot_be_tried_here_is_not_proven_and_the_summary_says_why(pytester, monkeypatch):
    pytester.makepyfile(acme_kit=ACME)
    monkeypatch.syspath_prepend(pytester.path)
    result = run_kit(pytester, monkeypatch, "acme_kit", "Acme")
    assert result.ret == 0
    (line,) = [line for line in result.outlines if line.startswith("acme: ")]
    assert "not proven here: no /dev/acme0 (sudo modprobe acme); not claimed: " in line
    skipped = [line for line in result.outlines if line.startswith("SKIPPED")]
    assert all(": not proven: " in line for line in skipped)
    required = pytester.runpytest_inprocess(*QUIET, "--epkit-require-proven", "-k", "float32 or float16 or probe")
    required.assert_outcomes(passed=4, failed=1, skipped=1)
    required.stdout.fnmatch_lines(["*--epkit-require-proven is given: no /dev/acme0 (sudo modprobe acme)*"])


def test_a_provider_that_keeps_nothing_by_itself_does_not_claim_that_it_does():
    class Keeps(Provider):
        name, ort_name, caching = "keeps", "CPUExecutionProvider", Caching(compiles="opening")

    class Unfinished(Caching):
        def check(self, options: Options) -> str:
            return "it is finished when the session is closed"

    class KeepsNothing(Keeps):
        caching = Unfinished(compiles="opening")

    subject.Subject(Keeps).claims("compiling")
    with pytest.raises(NotClaimed, match="compiling"):
        subject.Subject(KeepsNothing).claims("compiling")


LIAR = """
import os, threading, time
from collections.abc import Mapping
from pydantic import ConfigDict
from epkit.hookspecs import hookimpl
from epkit.provider import Options, Provider
from epkit.runtime.session_wrapper import SessionWrapper

class Fragile(SessionWrapper):
    def around(self, run):
        if threading.active_count() > 4:
            os.abort()
        return run()

class Crashes(Provider):
    name = "crashes"
    ort_name = "CPUExecutionProvider"

    def open(self, model, options, create):
        return Fragile(create())

class Slow(SessionWrapper):
    def around(self, run):
        if threading.active_count() > 2:
            time.sleep(600)
        return run()

class Hangs(Provider):
    name = "hangs"
    ort_name = "CPUExecutionProvider"

    def open(self, model, options, create):
        return Slow(create())

class Probing(Provider):
    name = "crashes-in-its-probe"
    ort_name = "CPUExecutionProvider"

    def probe(self):
        os.abort()

@hookimpl
def epkit_providers():
    return [Crashes(), Hangs(), Probing()]
"""


@pytest.mark.parametrize(
    ("provider", "promise", "ending"),
    [
        ("Crashes", "threads_on_two", "crashed (SIGABRT)"),
        pytest.param("Hangs", "threads_on_two", "did not answer in time", marks=pytest.mark.slow),
        ("Probing", "probe_answers", "in which probe() was asked crashed (SIGABRT)"),
    ],
)
def test_what_crashes_or_hangs_is_a_broken_promise_and_the_next_one_is_tried(
    provider, promise, ending, pytester, monkeypatch
):
    monkeypatch.setattr(subject, "PROOFS", 0.3)
    pytester.makepyfile(liar_kit=LIAR)
    monkeypatch.syspath_prepend(pytester.path)
    result = run_kit(pytester, monkeypatch, "liar_kit", provider, "-k", f"{promise} or documented or outlive")
    result.assert_outcomes(failed=1, passed=2 - (provider == "Probing"), skipped=int(provider == "Probing"))
    (told,) = [line for line in result.outlines if "breaks the promise" in line and "FAILED" not in line]
    assert ending in told


class Acceptable(Options):
    allow_spinning: bool | None = None
    """Whether threads spin (true)."""


class Several(Options):
    """Options that are wrong in one way or another."""

    allow_spinning: Any = None
    """Whatever (none)."""


class Listed(Options):
    affinities: tuple[int, ...] | None = None
    """Cores (all)."""


class Unread(Options):
    no_library_has_heard_of_this: bool | None = None
    """Nothing (none)."""


def _of(options: type[Options] = Acceptable, **declared: object) -> Provider:
    return type("Acme", (Provider,), {"name": "acme", "ort_name": "Acme", "options": options, **declared})()


def _part(base: type, **members: object) -> type:
    return type("Part", (base,), members)


def _encode(sent: object) -> Callable[..., object]:
    return lambda self, options, device: sent if options.written() else {}


@pytest.mark.parametrize(
    ("provider", "name", "found"),
    [
        (_of(Several), "a_wrong_value_is_refused", "'allow_spinning' accepted"),
        (
            _of(to_ort_options=_encode({"allow_spinning": True})),
            "options_are_sent_as_text_under_their_names",
            "as a bool",
        ),
        (_of(to_ort_options=_encode({"spinning": "1"})), "options_are_sent_as_text_under_their_names", "leaves out"),
        (_of(to_ort_options=_encode(None)), "options_are_sent_as_text_under_their_names", "to_ort_options() raised"),
        (
            _of(Listed, to_ort_options=_encode({"affinities": "(1, 1)"})),
            "options_are_sent_as_text_under_their_names",
            "[1, 1] as Python writes it",
        ),
        (_of(Unread), "options_that_onnx_runtime_would_ignore_are_refused", "'no_library_has_heard_of_this'"),
        (
            _of(devices=_part(Devices, check=lambda self, device: "")()),
            "a_device_that_makes_no_sense_is_refused",
            "-1 was accepted",
        ),
        (
            _of(devices=_part(Devices, check=lambda self, device: "is nothing")(kinds=("CPU",))),
            "a_device_that_makes_no_sense_is_refused",
            "'CPU' is nothing, but it is declared",
        ),
        (
            _of(caching=_part(Caching, with_dir=lambda self, options, device, folder: Acceptable())("opening")),
            "every_other_option_goes_into_what_it_compiles",
            "caching.with_dir() drops allow_spinning = True",
        ),
    ],
)
def test_what_is_wrong_with_options_is_found(provider, name, found):
    with pytest.raises(Broken) as broken:
        body_of(name)(held(provider))
    assert found in broken.value.found
    assert broken.value.mend


SOUND = {
    "loaded": [], "environment": [], "logging": [], "raised": "", "answer": "", "usable": False, "reason": "no card",
    "hint": "buy one", "seconds": 0.1, "fingerprints": [["a"], ["a"]],
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "name", "found"),
    [
        ({"environment": ["PATH"]}, "importing_it_changes_no_environment_and_no_logging", "PATH"),
        ({"logging": ["root"]}, "importing_it_changes_no_environment_and_no_logging", "root"),
        ({"answer": "True"}, "the_probe_answers_and_never_raises", "returned True"),
        ({"seconds": 3.0}, "the_probe_is_quick", "3.0 s"),
        ({"loaded": ["torch"]}, "the_probe_loads_nothing_heavy", "imports torch"),
        ({"reason": ""}, "the_probe_is_truthful", "no reason"),
        ({"fingerprints": [["a", "1"], ["a", "2"]]}, "the_fingerprint_holds_still", "'1', then '2'"),
        ({"fingerprints": ["raised OSError: x", []]}, "the_fingerprint_holds_still", "raised OSError"),
        ({"fingerprints": [["a"], ["a", "b"]]}, "the_fingerprint_holds_still", "then"),
    ],
)
def test_what_an_interpreter_went_through_is_judged(change, name, found):
    for facts, sound in ((SOUND, True), ({**SOUND, **change}, False)):
        promises = held(_of())
        promises.subject.examined = subject.Examined(facts, facts, "")
        if sound:
            body_of(name)(promises)
        else:
            with pytest.raises(Broken) as broken:
                body_of(name)(promises)
            assert found in broken.value.found


def body_of(name: str) -> Callable[..., None]:
    return getattr(ProviderConformance, f"test_{name}").__wrapped__


def held(provider: Provider) -> ProviderConformance:
    promises = type("Held", (ProviderConformance,), {})()
    type(promises).subject = subject.Subject(provider)
    return promises


WRONG = """
import numpy as np
from epkit.hookspecs import hookimpl
from epkit.provider import Devices, Limits, Provider
from epkit.runtime.session_wrapper import SessionWrapper

class Off(SessionWrapper):
    def run(self, names, feed, options=None):
        found = super().run(names, feed, options)
        # Right for the model of the proof, whose outputs are four.
        return [one * one.dtype.type(2) if one.dtype.kind == "f" and one.size != 4 else one for one in found]

class Wrong(Provider):
    name = "wrong"
    ort_name = "CPUExecutionProvider"
    capabilities = frozenset({"float32", "strings", "data-shapes"})
    # Runs side by side would be lent bindings, which give the right numbers.
    limits = Limits(unsupported_types=("string",), concurrency="per-session")
    devices = Devices(memory="acme")

    def open(self, model, options, create):
        return Off(create())

@hookimpl
def epkit_providers():
    return [Wrong()]
"""


@pytest.mark.slow
def test_wrong_numbers_false_claims_and_a_wrong_place_are_found(pytester, monkeypatch):
    pytester.makepyfile(wrong_kit=WRONG)
    monkeypatch.syspath_prepend(pytester.path)
    chosen = "agree or texts or binding_is_where or results_outlive or really_runs or documented"
    result = run_kit(pytester, monkeypatch, "wrong_kit", "Wrong", "-k", chosen)
    told = {line.split('"')[1]: line.split('": ')[1] for line in result.outlines if line.startswith("wrong breaks")}
    assert "through run: " in told["float32 models agree with the CPU"]
    assert "cannot carry string tensors" in told["texts come through"]
    assert "where devices.memory_device() says acme:0" in told["a binding is where it says"]
    assert set(told) - {"outputs agree with the CPU", "results outlive the binding and the session"} == {
        "float32 models agree with the CPU", "texts come through", "a binding is where it says"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("right", "found", "tolerances", "agrees"),
    [
        (np.ones(3), np.ones(3) + 1e-7, {}, False),  # float32 for float64
        (np.ones(3, np.float32), np.float32([1, 1, 1.0005]), {}, True),
        (np.ones(3, np.float32), np.float32([1, 1, 1.005]), {}, False),
        (np.ones(3, np.float32), np.float32([1, 1, 1.005]), {"float32": 0.01}, True),
        (np.ones(3, np.float32), np.float32([1, 1, np.nan]), {"float32": 0.01}, False),
        (np.ones(3, np.float32), np.ones(3), {}, False),
        (np.ones(3, np.float32), np.ones((3, 1), np.float32), {}, False),
        (np.array([1, 2]), np.array([1, 2]), {}, True),
        (np.array([1, 2]), np.array([1, 3]), {}, False),
        (np.array(["a"], object), np.array(["b"], object), {}, False),
    ],
)
def test_numbers_agree_within_what_their_type_allows(right, found, tolerances, agrees):
    told = samples.apart("y", right, found, tolerances)
    assert (told == "") == agrees, told


def test_tests_without_promises_have_no_summary(pytester):
    pytester.makepyfile("def test_nothing(): pass")
    assert "promises of providers" not in pytester.runpytest_inprocess(*QUIET).stdout.str()


def test_the_models_are_what_their_generator_makes_byte_for_byte():
    made = MAKE["models"]()
    assert {file.stem: file.read_bytes() for file in samples.MODELS.glob("*.onnx")} == made


def test_every_capability_has_a_model_and_a_promise():
    promises = [getattr(ProviderConformance, name) for name in dir(ProviderConformance) if name.startswith("test_")]
    for capability in get_args(Capability):
        assert samples.of(capability), capability
        assert [one for one in promises if one.claim == capability], capability


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("pass", "the class of the test has no `provider`"),
        ("provider = 'cpu'", "`provider` is 'cpu', where a class of epkit.provider.Provider belongs"),
        ("provider = dict", "`provider` is <class 'dict'>"),
        ("provider = Picky", "Picky() raised TypeError"),
        ("provider = Leaves", "Leaves() raised SystemExit: 3"),
        ("provider = Cpu; target = ['device']", "`target` is ['device'], where a mapping belongs"),
        ("provider = Cpu; tolerances = 0.1", "`tolerances` is 0.1, where a mapping belongs"),
    ],
)
def test_a_class_that_names_no_provider_is_told_so_once_and_nothing_else_fails(body, told, pytester):
    pytester.makepyfile(
        test_it=f"""
        import sys
        from epkit.provider import Provider
        from epkit.testing import ProviderConformance
        from epkit_cpu.provider import Cpu

        class Picky(Provider):
            name, ort_name = "picky", "CPUExecutionProvider"

            def __init__(self, card):
                pass

        class Leaves(Provider):
            name, ort_name = "leaves", "CPUExecutionProvider"

            def __init__(self):
                sys.exit(3)

        class TestIt(ProviderConformance):
            {body}
        """
    )
    result = pytester.runpytest_inprocess(*QUIET)
    outcomes = result.parseoutcomes()
    assert outcomes.pop("failed") == 1
    assert outcomes.keys() == {"skipped"}
    (line,) = [line for line in result.outlines if line.startswith("TestIt breaks the promise")]
    assert told in line
    assert "Traceback" not in str(result.stdout)


TROUBLED = """
from pathlib import Path
from epkit.hookspecs import hookimpl
from epkit.provider import Caching, Devices, Provider
import os, time

class TroubledCaching(Caching):
    pass

class TroubledDevices(Devices):
    pass

class Troubled(Provider):
    name, ort_name = "troubled", "CPUExecutionProvider"
    caching = TroubledCaching(compiles="opening")
    devices = TroubledDevices()

    {body}

@hookimpl
def epkit_providers():
    return [Troubled()]
"""


@pytest.mark.parametrize(
    ("body", "promise", "told", "mend"),
    [
        (
            "TroubledCaching.with_dir = lambda self, options, device, folder: None",
            "every_other",
            "caching.with_dir() returned None",
            "model_copy",
        ),
        (
            "TroubledCaching.with_dir = lambda self, *_: (_ for _ in ()).throw(OSError('x'))",
            "every_other",
            "OSError: x",
            "traceback",
        ),
        ("TroubledDevices.check = lambda self, device: {}[device]", "makes_no_sense", "KeyError: -1", "traceback"),
        ("def fingerprint(self): return None", "holds_still", "fingerprint() returned None", "return texts"),
        (
            "def fingerprint(self): raise SystemExit(3)",
            "holds_still",
            "fingerprint() raised SystemExit",
            "return texts",
        ),
    ],
)
def test_what_a_method_of_the_provider_does_wrong_is_one_broken_promise(
    body, promise, told, mend, pytester, monkeypatch
):
    pytester.makepyfile(troubled_kit=TROUBLED.format(body=body))
    monkeypatch.syspath_prepend(pytester.path)
    monkeypatch.delitem(sys.modules, "troubled_kit", raising=False)
    result = run_kit(pytester, monkeypatch, "troubled_kit", "Troubled", "-k", promise)
    result.assert_outcomes(failed=1)
    (line,) = [line for line in result.outlines if line.startswith("troubled breaks the promise")]
    assert told in line
    assert mend in result.outlines[result.outlines.index(line) + 1]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the child ends at its time limit")
def test_a_probe_that_hangs_ends_with_the_test_run_that_asked_it(pytester, monkeypatch):
    pid = pytester.path / "pid"
    hangs = f"def probe(self): Path({str(pid)!r}).write_text(str(os.getpid())); time.sleep(600)"
    pytester.makepyfile(
        troubled_hang=TROUBLED.format(body=hangs),
        test_it="""
        from troubled_hang import Troubled
        from epkit.testing import ProviderConformance

        class TestIt(ProviderConformance):
            provider = Troubled
        """,
    )
    monkeypatch.syspath_prepend(pytester.path)
    monkeypatch.setenv("EPKIT_PLUGINS", "troubled_hang")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    run = subprocess.Popen([sys.executable, "-m", "pytest", "-q", "-k", "answers"], stdout=subprocess.DEVNULL)
    wait_for(lambda: pid.exists() and pid.read_text())
    run.kill()
    run.wait()
    wait_for(lambda: not alive(int(pid.read_text())))


def wait_for(condition: Callable[[], object]) -> None:
    ends = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether a process is there, and not merely waiting to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
