"""What every test stands on: a cache of its own, real models, and plugins that are really installed."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import texts
import warm
from capabilities import skip_unless_there
from hypothesis import HealthCheck, settings

from epkit.cli import main

# They are epkit's own processes: ONNX Runtime tells nobody of them.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# The machines are small and noisy: promises are tested, not milliseconds.
settings.register_profile("epkit", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("epkit")

# A job in the background of a shell is started deaf to Ctrl-C, and so is all that it starts; some tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("epkit's own tests")
    group.addoption("--cold", action="store_true", help="start every process from nothing, rather than by a fork")
    group.addoption("--update-texts", action="store_true", help="write tests/texts/ anew, in one process")


def pytest_configure(config: pytest.Config) -> None:
    """Keep the user's cache and configuration out; proofs are shared by the whole session, since each costs seconds.

    A plugin that is disabled stays so: this is how the tests are run without one.
    """
    patch = pytest.MonkeyPatch()
    folder = tempfile.TemporaryDirectory(prefix="epkit-tests-", ignore_cleanup_errors=True)
    patch.setenv("EPKIT_CACHE_DIR", folder.name)
    for name in ("EPKIT_CONFIG", "EPKIT_DEFAULT", "EPKIT_PROBE", "EPKIT_STRICT_PLUGINS"):
        patch.delenv(name, raising=False)
    config.add_cleanup(patch.undo)
    if config.getoption("update_texts"):
        texts.start_update()
        config.add_cleanup(texts.finish_update)
    config.add_cleanup(folder.cleanup)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Keep what was imported and collected out of the garbage collector's way: many tests ask it for a full turn."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine cannot show, before any fixture asks for it."""
    skip_unless_there(item)


@pytest.fixture(scope="session", autouse=True)
def _warm_processes(pytestconfig: pytest.Config) -> Iterator[None]:
    """Fork epkit's processes from one that has imported what they import."""
    with contextlib.nullcontext() if pytestconfig.getoption("cold") else warm.warm():
        yield


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Install a plugin as a distribution of its own: an entry point and a module, found like any other."""

    def _install(name: str, source: str, *, distribution: str | None = None) -> Path:
        distribution = distribution or f"acme-{name}"
        folder = tmp_path / f"site-{distribution}"
        information = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
        information.mkdir(parents=True)
        module = f"plugin_{name.replace('-', '_')}_{abs(hash(str(tmp_path)))}"
        (folder / f"{module}.py").write_text(source, encoding="utf-8")
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text(f"[epkit]\n{name} = {module}\n")
        monkeypatch.syspath_prepend(folder)
        monkeypatch.delitem(sys.modules, module, raising=False)
        return folder

    return _install


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Run `epkit` with these words in this process; returns its exit code, stdout and stderr."""

    def _command(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["epkit", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capfd.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, out, err

    return _command


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty project, where no config file is found."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / ".git").mkdir()
    monkeypatch.chdir(folder)
    return folder
