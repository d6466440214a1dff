"""What is installed with epkit: the package and the plugins that it brings, and nothing that is there for the tests."""

from __future__ import annotations

import zipfile
from pathlib import Path, PurePosixPath

import broken_plugins
import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> set[PurePosixPath]:
    """Build the wheel, and return the files in it."""
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("wheel")), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        return {PurePosixPath(name) for name in archive.namelist()}


def test_every_module_of_epkit_is_in_the_wheel(files):
    modules = {PurePosixPath(file.relative_to(ROOT)) for file in (ROOT / "epkit").rglob("*.py")}
    assert modules <= files


def test_no_plugin_that_breaks_a_promise_is_in_the_wheel(files):
    (folder,) = broken_plugins.__path__
    broken = {file.name for file in Path(folder).glob("*.py")} - {"__init__.py"}
    assert broken
    assert [file for file in files if file.name in broken or "broken" in file.as_posix()] == []


def test_the_wheel_has_epkit_and_the_plugins_that_come_with_it_and_nothing_else(files):
    packages = {file.parts[0] for file in files if not file.parts[0].endswith(".dist-info")}
    assert packages == {"epkit", "epkit_cpu", "epkit_cuda", "epkit_tensorrt", "epkit_faulty"}
