"""`epkit compile` and `epkit cache`, as they are typed; OpenVINO compiles."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from capabilities import COMPILER, needs

from epkit.model import sample


@pytest.fixture(autouse=True)
def _own_cache(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPKIT_CACHE_DIR", str(empty / "cache"))
    monkeypatch.setenv("EPKIT_PROBE", "quick")
    shutil.copy(sample.path(), empty / "model.onnx")


@pytest.fixture
def epkit(command: Any) -> Any:
    def run(*words: str, code: int = 0) -> str:
        found, out, err = command(*words)
        assert found == code, err
        return out if code in (0, 1) else err

    return run


def document(text: str) -> dict[str, Any]:
    return dict(json.loads(text))


@needs(COMPILER)
def test_compile_then_run_then_list_then_prune(epkit):
    assert "cache: openvino built" in epkit("compile", "model.onnx", "-t", COMPILER)
    assert "cache: openvino hit" in epkit("compile", "model.onnx", "-t", COMPILER)
    assert "cache: openvino hit" in epkit("run", "model.onnx", "-t", COMPILER)
    assert "cache: openvino hit" in epkit("explain", "model.onnx", "-t", COMPILER)
    listed = epkit("cache", "list")
    assert "openvino  sound" in listed
    assert "1 compiled model in " in listed
    assert "removed 1 compiled model" in epkit("cache", "prune", "--all")
    assert "0 compiled models in " in epkit("cache", "list")
    assert "cache: openvino miss (nothing was built for this model)" in epkit("explain", "model.onnx", "-t", COMPILER)


@needs(COMPILER)
def test_every_document_is_json_with_its_schema(epkit):
    built = document(epkit("compile", "model.onnx", "-t", COMPILER, "--json"))
    assert built["schema"] == "epkit.compile/1"
    assert [one["outcome"] for one in built["cache"]] == ["built"]
    report = document(epkit("run", "model.onnx", "-t", COMPILER, "--json"))["report"]
    assert [one["outcome"] for one in report["cache"]] == ["hit"]
    told = document(epkit("explain", "model.onnx", "-t", COMPILER, "--json"))
    assert [one["outcome"] for one in told["cache"]] == ["hit"]
    for words in (("list",), ("verify",), ("prune", "--all")):
        found = document(epkit("cache", *words, "--json"))
        assert found["schema"] == "epkit.cache/1"
    assert len(found["removed"]) == 1
    assert found["freed_bytes"] == built["cache"][0]["bytes"]


@needs(COMPILER)
def test_verify_says_what_is_damaged_and_exits_with_1(epkit):
    folder = document(epkit("compile", "model.onnx", "-t", COMPILER, "--json"))["cache"][0]["folder"]
    assert "sound" in epkit("cache", "verify")
    (blob,) = (Path(folder) / "files").iterdir()
    blob.write_bytes(blob.read_bytes()[:-1])
    told = epkit("cache", "verify", code=1)
    assert "damaged" in told
    assert "epkit cache prune" in told
    assert "removed 1 compiled model" in epkit("cache", "prune")
    epkit("cache", "verify")


@needs(COMPILER)
def test_compile_writes_a_model_of_its_own(epkit, empty):
    told = epkit("compile", "model.onnx", "-t", COMPILER, "--output", "compiled.onnx")
    assert "wrote compiled.onnx" in told
    assert "openvino takes 100 %" in epkit("run", "compiled.onnx", "-t", COMPILER)
    assert "was compiled for openvino" in epkit("run", "compiled.onnx", "-t", "cpu", code=4)
    assert "is there already" in epkit("compile", "model.onnx", "-t", COMPILER, "--output", "compiled.onnx", code=2)
    assert "wrote compiled.onnx" in epkit(
        "compile", "model.onnx", "-t", COMPILER, "--output", "compiled.onnx", "--force"
    )
    assert "is missing" in epkit("compile", "model.onnx", "-t", COMPILER, "--output", "no/c.onnx", code=2)


def test_what_compiles_nothing_cannot_be_compiled(epkit):
    assert "has no provider that compiles" in epkit("compile", "model.onnx", "-t", "cpu", code=2)
    assert "is not usable" in epkit("compile", "model.onnx", "-t", "tensorrt", code=3)
    assert "is not usable" in epkit("compile", "model.onnx", "-t", "tensorrt", "--output", "c.onnx", code=3)
