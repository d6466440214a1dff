"""A new plugin: what `epkit new-plugin` writes installs, is found, passes the kit, and goes without a trace."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
from capabilities import needs
from hypothesis import given
from hypothesis import strategies as st
from texts import says

import epkit
from epkit import wheels
from epkit.cli import main
from epkit.discovery import scaffold
from epkit.errors import ConfigError

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial" / "epkit-acme"
OPENVINO = "onnxruntime-ep-openvino"


class Place:
    """An environment of its own, which sees what this one has installed; nothing in it comes from the network."""

    def __init__(self, folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        self.python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
        self.site = next(folder.glob("**/site-packages"))
        here = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
        adding = "; ".join(f"site.addsitedir({path!r})" for path in dict.fromkeys(here))
        (self.site / "here.pth").write_text(f"import site; {adding}\n")
        self.before = self.files()

    def files(self) -> set[Path]:
        return {path for path in self.site.rglob("*") if "__pycache__" not in path.parts}

    def pip(self, *words: str) -> None:
        quiet = ["--quiet", "--disable-pip-version-check", "--python", str(self.python)]
        subprocess.run([sys.executable, "-m", "pip", *quiet, *words], check=True)

    def install(self, directory: Path) -> None:
        self.pip("install", "--no-index", "--no-deps", "--no-build-isolation", str(directory))

    def run(self, *words: str, cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
        everything = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environ}
        return subprocess.run(
            [self.python, "-m", *words], capture_output=True, text=True, check=False, cwd=cwd, env=everything
        )

    def row(self, name: str, **environ: str) -> dict[str, str] | None:
        """Return the row of a provider in `epkit providers`."""
        rows = json.loads(self.run("epkit", "providers", "--json", **environ).stdout)["providers"]
        return next((row for row in rows if row["name"] == name), None)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "place")


@pytest.mark.slow
def test_an_author_goes_the_whole_way(empty, place, capfd, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["epkit", "new-plugin", "acme"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    assert "next: pip install --editable epkit-acme && epkit providers acme" in capfd.readouterr().out

    place.install(empty / "epkit-acme")
    row = place.row("acme")
    assert row is not None
    assert (row["status"], row["distribution"]) == ("unusable", "epkit-acme 0.1.0")
    assert (row["ort_name"], row["reason"]) == ("AcmeExecutionProvider", "onnxruntime-acme is not installed")
    assert row["hint"]

    kit = place.run("pytest", "epkit-acme", "-p", "no:cacheprovider", cwd=empty)
    assert kit.returncode == 0, kit.stdout
    assert "not proven here: onnxruntime-acme is not installed" in kit.stdout

    disabled = place.row("acme", EPKIT_DISABLE_PLUGINS="acme")
    assert disabled is not None
    assert disabled["status"] == "disabled"

    place.pip("uninstall", "--yes", "epkit-acme")
    assert place.files() == place.before
    assert place.row("acme") is None


@needs("openvino", "an Intel CPU")
def test_the_plugin_of_the_guide_installs_and_is_usable(place):
    place.install(TUTORIAL)
    row = place.row("acme")
    assert row is not None
    assert (row["status"], row["ort_name"]) == ("usable", "OpenVINOExecutionProvider")


def test_the_plugin_of_the_guide_is_one_that_was_written_and_filled_in(empty):
    epkit.new_plugin("acme", library=OPENVINO)
    written = {path.relative_to(empty / "epkit-acme") for path in (empty / "epkit-acme").rglob("*.*") if path.is_file()}
    filled_in = {Path("epkit_acme/provider.py"), Path("epkit_acme/options.py"), Path("pyproject.toml")}
    for file in written - filled_in:
        assert (TUTORIAL / file).read_text() == (empty / "epkit-acme" / file).read_text(), file
    assert all((TUTORIAL / file).is_file() for file in filled_in)


@pytest.mark.slow
def test_what_is_written_is_as_its_own_linters_want_it(empty):
    for name in ("acme", "xnnpack", "a" * 40):
        epkit.new_plugin(name)
    epkit.new_plugin("acme", library=OPENVINO, output_dir="library")
    for command in (["ruff", "check"], ["ruff", "format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", *command, ".", TUTORIAL], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout
    path = os.pathsep.join(filter(None, sys.path))
    for directory in ("epkit-acme", "library", TUTORIAL):
        done = subprocess.run(
            [sys.executable, "-m", "mypy", "--no-error-summary", "--cache-dir", empty / "cache"],
            cwd=directory,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert done.returncode == 0, done.stdout


def test_a_directory_that_is_there_is_never_written_into(empty):
    (empty / "epkit-acme").mkdir()
    with says(ConfigError) as error:
        epkit.new_plugin("acme")
    assert "--output-dir" in error.value.hint
    assert list((empty / "epkit-acme").iterdir()) == []
    (empty / "file").write_text("")
    with says(ConfigError):
        epkit.new_plugin("acme", output_dir="file/below")
    assert epkit.new_plugin("acme", output_dir=empty / "new" / "one").directory == str(empty / "new" / "one")


@pytest.mark.parametrize("name", ["", "Acme", "9acme", "ac me", "acme-", "-acme", "a--b", "a_b", "é", "../x", "a" * 41])
def test_a_name_that_cannot_be_is_refused_and_nothing_is_written(empty, name):
    with says(ConfigError) as error:
        epkit.new_plugin(name)
    proposed = error.value.hint.removeprefix("epkit new-plugin ")
    assert [one.name for one in empty.iterdir()] == [".git"]
    assert epkit.new_plugin(proposed).name == proposed


def test_a_name_that_is_taken_is_pointed_out(empty, install):
    install("other", "raise SystemExit", distribution="acme-tools")
    assert "'other' is a provider of acme-tools here" in epkit.new_plugin("other").notes[0]
    assert "epkit-openvino is installed already" in epkit.new_plugin("openvino").notes[0]
    with says(ConfigError):
        epkit.new_plugin("cuda")


@functools.cache
def _openvino() -> scaffold._Kind:
    return scaffold._describe_library(OPENVINO)


@given(name=st.from_regex(r"[a-z][a-z0-9]{0,9}(-[a-z0-9]{1,9}){0,2}", fullmatch=True), library=st.booleans())
def test_every_name_gives_files_that_can_be_read(name, library):
    kind = _openvino() if library else scaffold._describe_built_in(name)
    files = scaffold._render(name, kind)
    for place, text in files.items():
        assert "$" not in text
        if place.endswith(".py"):
            compile(text, place, "exec")
    points = tomllib.loads(files["pyproject.toml"])["project"]["entry-points"]["epkit"]
    assert points == {name: f"epkit_{name.replace('-', '_')}"}


@pytest.mark.parametrize("name", ["none", "true", "provider", "options", "usable", "path", "sequence", "test"])
def test_a_class_takes_no_name_that_its_module_needs(empty, name, monkeypatch):
    epkit.new_plugin(name, library=OPENVINO)
    monkeypatch.syspath_prepend(empty / f"epkit-{name}")
    package = __import__(f"epkit_{name}")
    (provider,) = package.epkit_providers()
    assert (provider.name, provider.ort_name) == (name, "OpenVINOExecutionProvider")
    for module in [module for module in sys.modules if module.partition(".")[0] == package.__name__]:
        monkeypatch.delitem(sys.modules, module)


def test_a_provider_that_onnx_runtime_knows_is_called_as_it_is_there(empty):
    told = epkit.new_plugin("xnnpack")
    assert told.ort_name == "XnnpackExecutionProvider"
    assert told.notes[0].endswith("; guessed: onnxruntime-xnnpack")
    told = epkit.new_plugin("acme")
    assert told.notes[0].endswith("; guessed: AcmeExecutionProvider, libacme.so.1, onnxruntime-acme")


def _wheel(folder: Path, module: str, source: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Install a wheel with a plugin library; returns its name."""
    (folder / module).mkdir()
    (folder / module / "__init__.py").write_text(source, encoding="utf-8")
    name = f"wheel-of-{module.replace('_', '-')}"
    information = folder / f"{name.replace('-', '_')}-2.3.4.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.3.4\n")
    (information / "RECORD").write_text(f"{module}/__init__.py,,\n{module}/lib/x.so,,\n")
    monkeypatch.syspath_prepend(folder)
    return name


def test_the_facts_of_a_wheel_are_read_without_importing_it_here(empty, monkeypatch):
    library = wheels.shared_library("swift")
    source = (
        "import os, pathlib\n"
        "print('hello')\n"
        "os.environ['ACME_WAS_HERE'] = '1'\n"
        f"def get_library_path(): return str(pathlib.Path(__file__).parent / 'lib' / {library!r})\n"
        "def get_ep_name(): return 'SwiftExecutionProvider'\n"
        "def get_ep_names(): return ['SwiftExecutionProvider', 'SlowExecutionProvider']\n"
    )
    wheel = _wheel(empty, "swift_ep", source, monkeypatch)
    told = epkit.new_plugin("swift", library=wheel)
    assert (told.ort_name, told.library) == ("SwiftExecutionProvider", wheel)
    assert any("SlowExecutionProvider" in note for note in told.notes)
    provider = (empty / "epkit-swift" / "epkit_swift" / "provider.py").read_text()
    assert '_LIBRARY = "lib/" + wheels.shared_library("swift")' in provider
    assert '_MODULE = "swift_ep"' in provider
    assert f'"{wheel}>=2.3"' in (empty / "epkit-swift" / "pyproject.toml").read_text()
    assert "swift_ep" not in sys.modules
    assert "ACME_WAS_HERE" not in os.environ


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("raise OSError('libcuda.so.1 is not there')", "raised OSError: libcuda.so.1 is not there"),
        ("import os; os.abort()", "crashed (SIGABRT)"),
        ("raise SystemExit(3)", "raised SystemExit: 3"),
    ],
)
def test_a_wheel_that_cannot_be_asked_gives_guesses_and_says_so(empty, monkeypatch, source, cause):
    wheel = _wheel(empty, "stubborn_ep", source, monkeypatch)
    (note,) = epkit.new_plugin("stubborn", library=wheel).notes
    assert cause in note
    assert "are guesses" in note


def test_a_wheel_that_is_not_installed_gives_guesses_and_says_so(empty):
    told = epkit.new_plugin("rtx", library="onnxruntime-ep-nv-tensorrt-rtx")
    assert told.ort_name == "NvTensorRTRTXExecutionProvider"
    assert "onnxruntime-ep-nv-tensorrt-rtx is not installed: module onnxruntime_ep_nv_tensorrt_rtx" in told.notes[0]


@pytest.mark.parametrize(
    ("library", "fault"),
    [("numpy", "brings no plugin library"), ("x==1", "the name of a wheel"), ("./x.whl", "the name of a wheel")],
)
def test_what_is_no_plugin_library_is_refused_and_nothing_is_written(empty, library, fault):
    with says(ConfigError):
        epkit.new_plugin("acme", library=library)
    assert [one.name for one in empty.iterdir()] == [".git"]


def test_the_command_answers_in_json(empty, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["epkit", "new-plugin", "acme", "--output-dir", "here", "--json"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    told = json.loads(capfd.readouterr().out)
    assert (told["schema"], told["name"], told["directory"]) == ("epkit.new-plugin/1", "acme", "here")
    assert all((empty / "here" / file).is_file() for file in told["files"])
    assert sorted(path for path in (empty / "here").rglob("*") if path.is_file()) == sorted(
        empty / "here" / file for file in told["files"]
    )
