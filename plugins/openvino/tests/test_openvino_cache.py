"""What OpenVINO compiles is kept and started from; its EP-context models are checked before they are opened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import warm
from capabilities import needs
from epkit_openvino import processor
from epkit_openvino.options import OpenVinoOptions
from epkit_openvino.provider import OpenVino
from models import light, mlp
from onnx import helper
from texts import says
from tiers import slow_but
from together import together

import epkit
from epkit.errors import ConfigError, ModelError, ProviderDropped
from epkit.model.file import read_model
from epkit.runtime import create
from epkit.session.cache import manage, store
from epkit.session.report import CacheRow

CHILD = """
import json, sys, epkit
import numpy as np
with epkit.open(sys.argv[1], "t", config=json.loads(sys.argv[2])) as session:
    (row,) = session.report.cache
    print(json.dumps([row.outcome, row.reason, float(session.run(np.ones((1, 16), np.float32))["y"].sum())]))
"""
FEED = np.ones((1, 16), np.float32)

pytestmark = needs("openvino")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPKIT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("EPKIT_PROBE", "quick")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    path.write_bytes(mlp())
    return path


def target(**keys: object) -> dict[str, Any]:
    return {"targets": {"t": {"provider": "openvino", "cache": True, "strict": True, **keys}}}


def row(model: Path, **keys: object) -> CacheRow:
    with epkit.open(model, "t", config=target(**keys)) as session:
        (found,) = session.report.cache
        return found


def child(model: Path, *, paths: tuple[str, ...] = (), **keys: object) -> list[Any]:
    arguments = [warm.PYTHON, "-c", CHILD, str(model), json.dumps(target(**keys))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*paths, *sys.path])}
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, timeout=120, check=True)
    return list(json.loads(done.stdout))


def test_a_second_process_starts_from_the_blob_and_computes_the_same(file):
    outcome, _, first = child(file)
    assert outcome == "built"
    outcome, reason, second = child(file)
    assert (outcome, reason, second) == ("hit", "", first)
    (blob,) = store.files_of(Path(row(file).folder)).iterdir()
    assert blob.suffix == ".blob"


def test_two_processes_at_once_build_it_once(tmp_path):
    outcomes: list[str] = []
    model = tmp_path / "squeezenet.onnx"
    model.write_bytes(light("squeezenet").read_bytes())
    code = CHILD.split("    print")[0]
    code += "    print(json.dumps([row.outcome]))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}

    def work(_: int) -> None:
        arguments = [warm.PYTHON, "-c", code, str(model), json.dumps(target())]
        done = subprocess.run(arguments, capture_output=True, text=True, env=environment, timeout=120, check=True)
        outcomes.extend(json.loads(done.stdout))

    together(work, 3)
    assert sorted(outcomes) == ["built", "hit", "hit"]


def test_changed_external_data_misses_and_computes_with_the_new(tmp_path):
    file = tmp_path / "e.onnx"
    contents = onnx.load_from_string(mlp())
    onnx.save(contents, file, save_as_external_data=True, location="w.bin", size_threshold=0)
    _, _, old = child(file)
    data = tmp_path / "w.bin"
    data.write_bytes((np.frombuffer(data.read_bytes(), np.float32) * 2).tobytes())
    outcome, reason, new = child(file)
    assert (outcome, reason) == ("built", "external data 'w.bin' changed")
    assert new == pytest.approx(4 * old, rel=1e-4)


def test_a_changed_option_misses(file):
    row(file)
    found = row(file, options={"NUM_STREAMS": 2})
    assert (found.outcome, found.reason) == ("built", "option NUM_STREAMS changed: not set -> 2")


def test_another_version_of_the_wheel_misses(file, tmp_path):
    """Its version is read from the metadata of the distribution, here from another that comes first."""
    row(file)
    information = tmp_path / "newer" / "onnxruntime_ep_openvino-99.1.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime-ep-openvino\nVersion: 99.1\n")
    outcome, reason, _ = child(file, paths=(str(tmp_path / "newer"),))
    assert outcome == "built"
    assert "onnxruntime-ep-openvino 99.1" in reason
    assert child(file)[0] == "hit"


def test_cache_dir_is_kept_safe_below_the_folder_that_it_names(file, tmp_path):
    options = {"CACHE_DIR": str(tmp_path / "blobs")}
    assert row(file, cache=None, options=options).outcome == "built"
    found = row(file, cache=None, options=options)
    assert found.outcome == "hit"
    assert Path(found.folder).parent == tmp_path / "blobs" / "openvino"
    assert [*(tmp_path / "blobs").glob("*.blob")] == []
    with says(ConfigError):
        row(file, cache=False, options=options)


COMMON = """
import json, os, sys, epkit
from pathlib import Path

def outcome(**keys):
    written = {"targets": {"t": {"provider": "openvino", "cache": True} | keys}}
    with epkit.open(sys.argv[1], "t", config=written) as session:
        return session.report.cache[0].outcome

place = Path(os.environ["EPKIT_CACHE_DIR"])
os.environ["EPKIT_CACHE_DIR"] = str(place / "first")
outcome(cache=None)  # everything is imported while it still can be: the interpreter may lie in root's home
if os.geteuid() == 0:
    os.chown(place, 65534, 65534)
    os.seteuid(65534)
os.environ["EPKIT_CACHE_DIR"] = str(place / "mine")
found = [outcome(), outcome()]
for folder in (place / "mine").rglob("*"):
    if folder.is_dir():
        folder.chmod(0o555)
found += [outcome(), outcome(options={"NUM_STREAMS": 2})]
for folder in (place / "mine").rglob("*"):
    if folder.is_dir():
        folder.chmod(0o755)
print(json.dumps(found))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are others on Windows")
def test_whoever_may_only_read_the_cache_starts_from_it_and_builds_nothing():
    """OpenVINO writes blobs that their owner may only read."""
    with tempfile.TemporaryDirectory(prefix="epkit-test-") as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "m.onnx").write_bytes(mlp())
        cache = Path(folder) / "cache"
        cache.mkdir()
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "EPKIT_CACHE_DIR": str(cache)}
        arguments = [warm.PYTHON, "-c", COMMON, f"{folder}/m.onnx"]
        done = subprocess.run(arguments, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["built", "hit", "hit", "failed"]


def flipped(blob: Path, position: int) -> None:
    contents = bytearray(blob.read_bytes())
    contents[position] ^= 0x40
    blob.write_bytes(bytes(contents))


DAMAGES = ("cut off", "empty", "flipped in the weights", "flipped in the header", "garbage")


@pytest.mark.parametrize("damage", slow_but(DAMAGES, "cut off", "flipped in the weights"))
def test_a_damaged_blob_is_never_loaded(file, damage):
    """OpenVINO compiles anew where it notices; a bit that flipped in the weights it does not notice, and uses."""
    _, _, right = child(file)
    (blob,) = store.files_of(Path(row(file).folder)).iterdir()
    size = blob.stat().st_size
    match damage:
        case "cut off":
            blob.write_bytes(blob.read_bytes()[: size // 2])
        case "empty":
            blob.write_bytes(b"")
        case "flipped in the weights":
            for position in range(size // 3, 2 * size // 3, 7):
                flipped(blob, position)
        case "flipped in the header":
            flipped(blob, 5)
        case _:
            blob.write_bytes(bytes(range(256)) * 4)
    outcome, _, result = child(file)
    assert outcome == "built"
    assert result == right
    assert child(file)[0] == "hit"


def test_what_openvino_itself_refuses_is_said_and_removed(file):
    """The manifest vouches for a file that OpenVINO does not take: it compiles anew, and that is no hit."""
    folder = Path(row(file).folder)
    found = store.read(folder)
    assert found is not None
    (blob,) = store.files_of(folder).iterdir()
    blob.write_bytes(b"something else")
    store.seal(found)
    found_now = row(file)
    assert found_now.outcome == "failed"
    assert "compiled anew" in found_now.reason
    assert not folder.exists()
    assert row(file).outcome == "built"


def test_what_is_compiled_depends_on_the_processor_s_maker_and_vector_instructions(tmp_path, monkeypatch):
    facts = tmp_path / "cpuinfo"
    facts.write_text("vendor_id\t: GenuineIntel\nflags\t\t: fpu avx512f sse4_1 avx2\n")
    monkeypatch.setattr(processor, "CPUINFO", facts)
    assert processor.instructions() == "GenuineIntel avx2 avx512f sse4_1"
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "none")
    assert isinstance(processor.instructions(), str)
    monkeypatch.undo()
    assert OpenVino().caching.fingerprint(None) == OpenVino().caching.fingerprint("CPU")
    assert OpenVino().caching.fingerprint(None) != OpenVino().caching.fingerprint("GPU")


def test_the_folder_takes_the_place_of_cache_dir_wherever_it_was_written():
    for written in ({"CACHE_DIR": "x"}, {"extra": {"CACHE_DIR": "x"}}, {}):
        options = OpenVino().caching.with_dir(OpenVinoOptions.model_validate(written), None, Path("/c"))
        assert json.loads(OpenVino().to_ort_options(options, None)["load_config"])["CPU"]["CACHE_DIR"] == "/c"
        assert "CACHE_DIR" not in str(OpenVino().to_ort_options(OpenVino().caching.with_dir(options, None, None), None))


# -- EP-context models


@pytest.fixture
def context(file: Path, tmp_path: Path) -> Path:
    done = epkit.compile(file, "openvino", output=tmp_path / "out.onnx")
    assert done.exit_code == 0
    return tmp_path / "out.onnx"


def test_a_compiled_model_opens_by_itself_and_computes_the_same(file, context):
    with epkit.open(file, "openvino") as plain, epkit.open(context, "openvino") as session:
        assert session.report.provider == "openvino"
        assert [(one.outcome, one.reason) for one in session.report.cache] == [("off", "the model is compiled already")]
        np.testing.assert_allclose(session.run(FEED)["y"], plain.run(FEED)["y"], rtol=1e-5)
    assert sorted(one.name for one in context.parent.glob("out*")) == [
        "out.onnx",
        "out_OpenVINOExecutionProvider.bin",
    ]
    assert [*context.parent.glob(".epkit-*")] == []


def test_a_compiled_model_and_what_it_names_can_be_moved_together(context, tmp_path):
    place = tmp_path / "elsewhere"
    place.mkdir()
    for one in context.parent.glob("out*"):
        one.rename(place / one.name)
    with epkit.open(place / "out.onnx", "openvino") as session:
        assert session.report.provider == "openvino"
    (place / "out_OpenVINOExecutionProvider.bin").unlink()
    with says(ModelError):
        epkit.open(place / "out.onnx", "openvino")


def test_what_is_there_is_not_replaced_unless_forced(file, context):
    before = context.read_bytes()
    with says(ConfigError) as error:
        epkit.compile(file, "openvino", output=context)
    assert "--force" in error.value.hint
    context.unlink()
    with says(ConfigError):
        epkit.compile(file, "openvino", output=context)
    assert epkit.compile(file, "openvino", output=context, force=True).exit_code == 0
    assert len(context.read_bytes()) == len(before)


def test_the_original_is_never_replaced(file):
    before = file.read_bytes()
    with says(ConfigError):
        epkit.compile(file, "openvino", output=file.parent / "." / "m.onnx", force=True)
    assert file.read_bytes() == before


def test_a_model_of_which_nothing_can_be_compiled_writes_nothing(tmp_path):
    x = helper.make_tensor_value_info("x", onnx.TensorProto.STRING, [2])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.STRING, [2])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, tmp_path / "text.onnx")
    with says(ProviderDropped):
        epkit.compile(tmp_path / "text.onnx", "openvino", output=tmp_path / "out.onnx")
    assert [*tmp_path.glob("out*")] == []


def test_a_compiler_is_told_the_whole_path_of_its_file(file, tmp_path, monkeypatch):
    told: list[Path] = []

    def compile_to(model: object, candidates: object, settings: object, to: Path) -> None:
        told.append(to)
        to.write_bytes(b"compiled")

    # Told a relative path, TensorRT-RTX writes its folder into the model too, which then cannot be opened elsewhere.
    # OpenVINO does not, so what it is told is looked at, not what it writes.
    monkeypatch.setattr(create, "compile_model", compile_to)
    monkeypatch.chdir(tmp_path)
    assert epkit.compile(file, "openvino", output="out.onnx").files == {"out.onnx": 8}
    assert told[0].is_absolute()


@pytest.mark.parametrize("name", [None, "cpu"])
def test_another_provider_refuses_a_compiled_model_and_names_its_own(context, name):
    with says(ModelError) as error:
        epkit.open(context, name)
    assert "-t openvino" in error.value.hint


def test_a_compiled_model_of_another_version_is_refused_before_it_is_opened(context):
    contents = onnx.load(context, load_external_data=False)
    (information,) = [one for one in contents.metadata_props if one.key.startswith("ep_compatibility_info")]
    information.value = information.value.replace("ov=20", "ov=19")
    onnx.save(contents, context)
    for open_or_explain in (epkit.open, epkit.explain):
        with says(ModelError) as error:
            open_or_explain(context, "openvino")
        assert "epkit compile" in error.value.hint
    with says(ModelError):
        epkit.open(context.read_bytes(), "openvino", session_options={"config": folder_of(context)})


def folder_of(model: Path) -> dict[str, str]:
    return {"session.model_external_initializers_file_folder_path": str(model.parent)}


def test_a_compiled_model_is_not_compiled_again(context):
    with says(ModelError):
        epkit.compile(context, "openvino")


def test_what_a_model_was_compiled_for_is_read_from_its_file(context, file):
    found = read_model(context)
    assert found.compiled_for == ("OpenVINOExecutionProvider",)
    assert [one.path.name for one in found.external] == ["out_OpenVINOExecutionProvider.bin"]
    assert read_model(file).compiled_for == ()


def test_everything_that_is_kept_is_listed(file):
    row(file)
    (found,) = manage.look(thorough=True).rows
    assert (found.provider, found.model, found.state) == ("openvino", str(file), "sound")
    assert "onnxruntime-ep-openvino" in found.built_with
