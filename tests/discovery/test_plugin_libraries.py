"""A wheel whose module names no library: `epkit new-plugin --library` finds the library, and reads its names."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

import epkit
from epkit import wheels
from epkit.errors import ConfigError

FILE = wheels.shared_library("onnxruntime_providers_webgpu")
LIBRARY = wheels.library("onnxruntime_ep_webgpu", FILE)

needs_a_library = pytest.mark.skipif(
    LIBRARY is None or not LIBRARY.is_file(), reason="no plugin library is installed that stands alone in a folder"
)


@pytest.fixture
def wheel(empty, monkeypatch):
    """Install wheels of the name `bare-ep`: a module, and files below it that stand for its libraries."""

    def _wheel(source: str = "", version: str = "1.2.3", **libraries: bytes | Path) -> str:
        site = empty / "site"
        module, information = site / "bare_ep", site / f"bare_ep-{version}.dist-info"
        for folder in (module / "lib", information):
            folder.mkdir(parents=True)
        (module / "__init__.py").write_text(source)
        listed = ["bare_ep/__init__.py"]
        for stem, contents in libraries.items():
            file = module / "lib" / wheels.shared_library(stem)
            if isinstance(contents, Path):
                file.symlink_to(contents)
            else:
                file.write_bytes(contents)
            listed.append(file.relative_to(site).as_posix())
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: bare-ep\nVersion: {version}\n")
        (information / "RECORD").write_text("".join(f"{line},,\n" for line in listed))
        monkeypatch.syspath_prepend(site)
        importlib.invalidate_caches()
        return "bare-ep"

    return _wheel


def provider(folder: Path) -> str:
    return (folder / "epkit-bare" / "epkit_bare" / "provider.py").read_text()


@needs_a_library
@pytest.mark.parametrize("source", ["", "raise OSError('no driver')"], ids=["says nothing", "cannot be imported"])
def test_a_library_that_the_module_does_not_name_is_found_with_the_names_of_its_devices(
    wheel, empty, monkeypatch, source
):
    monkeypatch.setenv("ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER", "1")
    told = epkit.new_plugin("bare", library=wheel(source, a=b"\x7fELF CreateEpFactories", webgpu=LIBRARY))
    assert told.ort_name == "WebGpuExecutionProvider"
    assert '_LIBRARY = "lib/" + wheels.shared_library("webgpu")' in provider(empty)
    assert not any("guess" in note for note in told.notes)
    assert "bare_ep" not in sys.modules


@needs_a_library
def test_a_library_without_a_device_here_is_found_and_its_name_is_a_guess(wheel, empty, monkeypatch):
    monkeypatch.delenv("ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER", raising=False)
    told = epkit.new_plugin("bare", library=wheel(webgpu=LIBRARY))
    if not any("no device" in note for note in told.notes):
        pytest.skip("this machine has a device for it")
    assert '_LIBRARY = "lib/" + wheels.shared_library("webgpu")' in provider(empty)
    assert f"{told.ort_name} is a guess" in told.notes


def test_a_library_that_onnx_runtime_does_not_take_is_a_guess_that_says_why(wheel):
    told = epkit.new_plugin("bare", library=wheel(broken=b"\x7fELF CreateEpFactories"))
    assert "cannot be registered" in told.notes[0]


def test_libraries_that_export_nothing_of_the_kind_are_no_plugin_libraries(wheel):
    with pytest.raises(ConfigError) as refused:
        epkit.new_plugin("bare", library=wheel(plain=b"\x7fELF", empty=b""))
    assert refused.value.hint


def test_a_runtime_of_its_own_is_no_plugin_library_though_its_providers_are():
    (runtime,) = wheels.runtimes()
    with pytest.raises(ConfigError):
        epkit.new_plugin("bare", library=runtime)


@pytest.mark.parametrize(
    ("version", "oldest"), [("0.1.0.dev6", ">=0.1.0.dev6"), ("2.3rc1", ">=2.3rc1"), ("1.2.3.post1", ">=1.2")]
)
def test_a_plugin_takes_the_version_that_it_was_written_with(wheel, empty, version, oldest):
    source = "def get_library_path(): return __file__\ndef get_ep_name(): return 'BareExecutionProvider'\n"
    epkit.new_plugin("bare", library=wheel(source, version))
    assert f'"bare-ep{oldest}"' in (empty / "epkit-bare" / "pyproject.toml").read_text()
