"""Does the bundle for GPU machines hold what it must, and come out of its pieces as it went in?"""

from __future__ import annotations

import importlib.metadata
import platform
import runpy
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_bundle.py"


@pytest.fixture(scope="module")
def bundle() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


@pytest.mark.skipif((sys.platform, platform.machine()) != ("linux", "x86_64"), reason="it is made where its wheels run")
def test_what_epkit_imports_is_in_it_in_the_versions_that_are_installed_here(bundle):
    names = bundle["names"](["epkit[gpu]", "pytest"], "3.12")
    assert {"onnxruntime-gpu", "pydantic-core", "pluggy", "click", "rich", "pytest", "iniconfig"} <= set(names)
    assert not {"numpy", "protobuf", "hypothesis", "onnxruntime-ep-openvino", "colorama"} & set(names)
    assert all(importlib.metadata.version(name) == version for name, version in names.items())
    assert "numpy" in bundle["names"](["numpy"], "3.12")  # asked for


def test_a_wheel_that_is_stored_holds_the_same_files(bundle, tmp_path):
    wheel = tmp_path / "acme-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("acme/__init__.py", "x = 1\n" * 1000)
        archive.writestr("acme-1.0.dist-info/RECORD", "")
    compressed = wheel.stat().st_size
    bundle["store"](wheel)
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("acme/__init__.py") == b"x = 1\n" * 1000
        assert archive.namelist() == ["acme/__init__.py", "acme-1.0.dist-info/RECORD"]
    assert wheel.stat().st_size > compressed
    assert list(tmp_path.iterdir()) == [wheel]


def test_the_pieces_joined_are_the_whole(bundle, tmp_path):
    whole = bytes(range(256)) * 10
    archive = tmp_path / "bundle"
    archive.write_bytes(whole)
    split = bundle["split"]
    split.__globals__["PIECE"] = 1000
    pieces = split(archive, tmp_path)
    assert [piece.stat().st_size for piece in pieces] == [1000, 1000, 560]
    assert len({piece.parent for piece in pieces}) == 3
    assert b"".join(piece.read_bytes() for piece in sorted(pieces, key=lambda one: one.name)) == whole


def test_the_commands_name_every_piece_and_the_script_no_package_index(bundle):
    pieces = [Path(f"{number:02}/piece.{number:02}") for number in range(5)]
    assert ".gpu/00 to .gpu/03" in bundle["commands"](pieces)
    assert "://" not in SCRIPT.read_text(encoding="utf-8")
