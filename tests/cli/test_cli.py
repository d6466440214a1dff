"""The commands, as a person or another program types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from capabilities import SECOND, needs
from models import identity, light, mlp, model, value
from onnx import TensorProto, helper


@pytest.fixture
def epkit(command):
    return command


@pytest.fixture
def model_file(empty: Path) -> Path:
    (empty / "m.onnx").write_bytes(mlp())
    return empty / "m.onnx"


def test_the_command_is_installed_and_speaks_plain_text_in_a_pipe():
    done = subprocess.run(
        [sys.executable, "-m", "epkit", "providers"], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.splitlines()[0].split()[:2] == ["provider", "status"]
    assert "\x1b" not in done.stdout
    assert done.stderr == ""


@needs(SECOND)
def test_providers_lists_every_plugin_as_json(epkit, install, monkeypatch):
    install("broken", "import nothing_of_that_name")
    install("off", "raise SystemExit")
    monkeypatch.setenv("EPKIT_DISABLE_PLUGINS", "off")
    code, out, err = epkit("providers", "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["schema"]
    rows = {row["name"]: row for row in told["providers"]}
    assert all({"name", "ort_name", "plugin", "status", "reason", "hint"} <= set(row) for row in rows.values())
    assert (rows["cpu"]["status"], rows["cpu"]["ort_name"]) == ("usable", "CPUExecutionProvider")
    assert rows[SECOND]["status"] == "usable"
    assert rows["broken"]["status"] == "broken"
    assert "nothing_of_that_name" in rows["broken"]["reason"]
    assert rows["off"]["status"] == "disabled"
    for name in ("cuda", "tensorrt"):
        if rows[name]["status"] == "unusable":
            assert rows[name]["reason"]
            assert "pip install" in rows[name]["hint"]


def test_providers_with_a_name_shows_its_options(epkit):
    code, out, _ = epkit("providers", "tensorrt")
    assert code == 0
    assert "trt_fp16_enable" in out
    code, out, _ = epkit("providers", "cuda", "--json")
    options = {one["name"]: one for one in json.loads(out)["providers"][0]["options"]}
    assert options["cudnn_conv_algo_search"]["type"] == '"EXHAUSTIVE" | "HEURISTIC" | "DEFAULT"'
    code, _, err = epkit("providers", "cudda")
    assert code == 2
    assert "did you mean 'cuda'" in err


@needs(SECOND)
def test_run_writes_outputs_and_the_report(epkit, model_file, tmp_path):
    array = np.linspace(0, 1, 32, dtype=np.float32).reshape(2, 16)
    np.save(tmp_path / "x.npy", array)
    outputs = {}
    for provider in ("cpu", SECOND):
        folder = tmp_path / provider
        code, out, err = epkit(
            "run", model_file, "-t", provider, "--input", f"x={tmp_path / 'x.npy'}", "--output-dir", folder, "--json"
        )
        assert (code, err) == (0, "")
        told = json.loads(out)
        assert told["schema"]
        assert told["outputs"] == {"y": {"shape": [2, 16], "dtype": "float32"}}
        report = told["report"]
        assert report["provider"] == provider
        assert report["placement"][provider]["share"] == 1
        assert report["placement"][provider]["nodes"] == 3
        assert report["tried"][0] == {
            "provider": provider,
            "outcome": "active",
            "reason": report["tried"][0]["reason"],
            "hint": "",
        }
        outputs[provider] = np.load(folder / "y.npy")
    np.testing.assert_allclose(outputs["cpu"], outputs[SECOND], rtol=1e-4, atol=1e-6)


def test_run_makes_up_inputs_and_says_so(epkit, model_file):
    code, out, err = epkit("run", model_file, "-t", "cpu")
    assert (code, err) == (0, "")
    assert out.startswith("cpu takes 100 % of 3 nodes")
    assert "generated: x" in out


def test_a_fallback_is_said_and_a_strict_target_is_refused(epkit, model_file):
    (model_file.parent / "epkit.toml").write_text(
        '[targets.gpu]\nprovider = "tensorrt"\nfallback = ["cuda"]\n[targets.must]\nextends = "gpu"\nstrict = true\n'
    )
    code, out, err = epkit("run", model_file, "-t", "gpu", "--json")
    tried = json.loads(out)["report"]["tried"]
    if tried[0]["outcome"] != "unusable":
        pytest.skip("this machine has TensorRT")
    assert (code, err) == (0, "")
    assert [row["provider"] for row in tried] == ["tensorrt", "cuda", "cpu"]
    assert all("cannot open shared object file" in row["reason"] for row in tried[:2])
    code, out, err = epkit("run", model_file, "-t", "must")
    assert (code, out) == (3, "")
    assert "tensorrt is not usable on this machine: lib" in err
    assert "hint: pip install" in err
    code, out, _ = epkit("run", model_file, "-t", "must", "--json")
    assert code == 3
    assert json.loads(out)["error"]["type"] == "ProviderUnavailable"
    assert epkit("run", model_file, "-t", "cuda")[0] == 3


@needs("openvino")
def test_min_placement_is_exit_3_and_names_the_operator(epkit, empty):
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Inverse", ["r"], ["y"], domain="com.microsoft"),
    ]
    contents = model(nodes, [value("x", [2, 2])], [value("y", [2, 2])], domains=["com.microsoft"])
    (empty / "m.onnx").write_bytes(contents)
    (empty / "epkit.toml").write_text('[targets.all]\nprovider = "openvino"\nmin_placement = 1.0\n')
    code, _, err = epkit("run", "m.onnx", "-t", "all")
    assert code == 3
    assert "com.microsoft.Inverse" in err
    assert epkit("run", "m.onnx", "-t", "openvino")[0] == 0


@needs("openvino")
def test_explain_gives_plan_origins_and_a_script_that_does_the_same(epkit, model_file, tmp_path):
    (model_file.parent / "epkit.toml").write_text(
        '[targets.t]\nprovider = "openvino"\noptions = { NUM_STREAMS = 1 }\n'
        'session_options = { graph_optimization_level = "ORT_ENABLE_BASIC" }\n'
    )
    code, out, err = epkit("explain", model_file, "-t", "t", "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["schema"]
    assert [row["provider"] for row in told["plan"]] == ["openvino", "cpu"]
    rows = {row["key"]: row for row in told["effective"]}
    assert rows["session_options.graph_optimization_level"]["value"] == "ORT_ENABLE_BASIC"
    assert rows["session_options.graph_optimization_level"]["origin"].endswith(
        "epkit.toml: targets.t.session_options.graph_optimization_level"
    )
    script = tmp_path / "plain.py"
    script.write_text(told["script"])
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "OpenVINOExecutionProvider ['MatMul', 'Relu', 'MatMul']" in done.stdout
    assert "import onnxruntime" in epkit("explain", model_file)[1]


def test_inspect_tells_what_is_in_the_model(epkit):
    code, out, _ = epkit("inspect", light("squeezenet"))
    assert code == 0
    assert "data_0" in out
    assert "Conv" in out
    assert json.loads(epkit("inspect", light("squeezenet"), "--json")[1])["schema"]


def test_doctor_names_the_runtime_and_every_provider(epkit):
    code, out, _ = epkit("doctor", "--json")
    told = json.loads(out)
    topics = {one["topic"] for one in told["findings"]}
    assert {"ONNX Runtime", "provider cpu", "provider cuda", "cache"} <= topics
    assert code == (1 if any(one["state"] == "problem" for one in told["findings"]) else 0)


# -- bad input: each its own error and exit code, no traceback, nothing left behind


def _files(folder: Path) -> None:
    """Put everything that the cases below name into one folder."""
    whole = mlp()
    (folder / "good.onnx").write_bytes(whole)
    (folder / "truncated.onnx").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.onnx").write_bytes(b"")
    (folder / "page.onnx").write_text("<!DOCTYPE html><html></html>")
    (folder / "folder").mkdir()
    for name, change in (
        ("ir", lambda loaded: setattr(loaded, "ir_version", 99)),
        ("opset", lambda loaded: setattr(loaded.opset_import[0], "version", 99)),
    ):
        loaded = onnx.load_from_string(whole)
        change(loaded)
        (folder / f"{name}.onnx").write_bytes(loaded.SerializeToString())
    bogus = model([helper.make_node("Bogus", ["x"], ["y"])], [value("x", [1])], [value("y", [1])])
    (folder / "bogus.onnx").write_bytes(bogus)
    loaded = onnx.load_from_string(whole)
    onnx.save(loaded, folder / "external.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    (folder / "w.bin").unlink()
    (folder / "ids.onnx").write_bytes(identity(TensorProto.INT64, ["N"]))
    np.save(folder / "ok.npy", np.zeros((1, 16), np.float32))
    np.save(folder / "rank.npy", np.zeros(16, np.float32))
    np.save(folder / "dims.npy", np.zeros((1, 17), np.float32))
    np.save(folder / "double.npy", np.zeros((1, 16), np.float64))
    np.save(folder / "halves.npy", np.array([1.5]))
    np.save(folder / "pickle.npy", np.array([object()]), allow_pickle=True)
    (folder / "text.npy").write_text("not an array")
    (folder / "broken.toml").write_text("[targets.t\n")
    (folder / "misspelt.toml").write_text('[targets.t]\nprovidr = "cpu"\n')
    (folder / "top.toml").write_text('[target.t]\nprovider = "cpu"\n')
    (folder / "circle.toml").write_text('[targets.a]\nextends = "b"\n[targets.b]\nextends = "a"\n')
    (folder / "provider.toml").write_text('[targets.t]\nprovider = "cudda"\n')
    (folder / "option.toml").write_text('[targets.t]\nprovider = "cuda"\noptions = { gpu_memory_limit = 1 }\n')
    (folder / "range.toml").write_text(
        '[targets.t]\nprovider = "tensorrt"\noptions = { trt_builder_optimization_level = 9 }\n'
    )
    (folder / "session.toml").write_text('[targets.t]\nprovider = "cpu"\nsession_options = { intra_op_threads = 1 }\n')
    (folder / "entry.toml").write_text(
        '[targets.t]\nprovider = "cpu"\nsession_options = { config = { "session.intra_op.alow_spinning" = "0" } }\n'
    )


BAD = {
    "no such model": ("run gud.onnx -t cpu", 4, "gud.onnx", "good.onnx"),
    "a directory": ("run folder -t cpu", 4, "director", ""),
    "truncated": ("run truncated.onnx -t cpu", 4, "truncated", ""),
    "empty": ("run empty.onnx -t cpu", 4, "empty", ""),
    "not ONNX at all": ("run page.onnx -t cpu", 4, "page.onnx", ""),
    "IR version too new": ("run ir.onnx -t cpu", 4, "IR version", "older onnx"),
    "opset too new": ("run opset.onnx -t cpu", 4, "opset", "opset"),
    "unknown operator": ("run bogus.onnx -t cpu", 4, "Bogus", ""),
    "external data missing": ("run external.onnx -t cpu", 4, "w.bin", ""),
    "inspect no such model": ("inspect gud.onnx", 4, "gud.onnx", "good.onnx"),
    "explain a directory": ("explain folder", 4, "director", ""),
    "wrong input name": ("run good.onnx -t cpu --input z=ok.npy", 2, "no input 'z'", "x"),
    "wrong rank": ("run good.onnx -t cpu --input x=rank.npy", 2, "wants float32 [batch, 16], got float32 [16]", ""),
    "wrong dimension": ("run good.onnx -t cpu --input x=dims.npy", 2, "got float32 [1, 17]", ""),
    "wrong dtype": ("run good.onnx -t cpu --input x=double.npy", 2, "got float64 [1, 16]", "cast"),
    "lossy": ("run ids.onnx -t cpu --input x=halves.npy", 2, "int64", ""),
    "no such input file": ("run good.onnx -t cpu --input x=none.npy", 2, "none.npy", ""),
    "input not an array": ("run good.onnx -t cpu --input x=text.npy", 2, "text.npy", "numpy.save"),
    "input that is a pickle": ("run good.onnx -t cpu --input x=pickle.npy", 2, "pickle.npy", ""),
    "input given twice": ("run good.onnx -t cpu --input x=ok.npy --input x=ok.npy", 2, "twice", ""),
    "unknown target": ("run good.onnx -t cpuu", 2, "'cpuu'", "did you mean 'cpu'"),
    "unknown provider": ("run good.onnx -t t --config provider.toml", 2, "'cudda'", "did you mean 'cuda'"),
    "unknown option": (
        "run good.onnx -t t --config option.toml",
        2,
        "gpu_memory_limit",
        "did you mean 'gpu_mem_limit'",
    ),
    "out of range": ("run good.onnx -t t --config range.toml", 2, "trt_builder_optimization_level", ""),
    "unknown session key": ("run good.onnx -t t --config session.toml", 2, "intra_op_threads", "intra_op_num_threads"),
    "unknown config entry": ("run good.onnx -t t --config entry.toml", 2, "alow_spinning", "allow_spinning"),
    "circle": ("run good.onnx -t a --config circle.toml", 2, "a -> b -> a", ""),
    "config syntax": ("run good.onnx -t t --config broken.toml", 2, "broken.toml, line 1, column 11", ""),
    "misspelt key": ("run good.onnx -t t --config misspelt.toml", 2, "misspelt.toml", "did you mean 'provider'"),
    "misspelt top key": ("explain good.onnx --config top.toml", 2, "'target'", "did you mean 'targets'"),
    "no such config": ("run good.onnx --config none.toml", 2, "none.toml", ""),
    "output folder is a file": ("run good.onnx -t cpu --output-dir good.onnx", 2, "good.onnx", ""),
    "unknown command": ("rnu good.onnx", 2, "did you mean 'run'", ""),
    "unknown flag": ("run good.onnx --trget cpu", 2, "--trget", ""),
    "bench an unknown target": ("bench good.onnx -t cpu -t cud", 2, "'cud'", "did you mean 'cuda'"),
    "bench no such model": ("bench gud.onnx -t cpu", 4, "gud.onnx", ""),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_a_sentence_and_an_exit_code(case, epkit, empty):
    _files(empty)
    before = sorted(empty.rglob("*"))
    line, code, told, hint = BAD[case]
    left, out, err = epkit(*line.split())
    assert (left, out) == (code, ""), err
    assert told in err
    assert hint in err
    assert "Traceback" not in err
    assert sorted(empty.rglob("*")) == before


CRASHING = """
import ctypes, time
from epkit.hookspecs import hookimpl
from epkit.provider import Provider, SelfTest
class Acme(Provider):
    name = "acme"
    ort_name = "AcmeExecutionProvider"
    self_test = SelfTest(timeout_s=3)
    def probe(self):
        {body}
@hookimpl
def epkit_providers():
    return [Acme()]
"""


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("ctypes.string_at(0)", "crashed (SIGSEGV)"),
        pytest.param("time.sleep(600)", "did not answer in time", marks=pytest.mark.slow),
    ],
)
def test_a_plugin_that_crashes_or_hangs_in_its_probe_is_unusable(
    body, told, epkit, install, model_file, tmp_path, monkeypatch
):
    monkeypatch.setenv("EPKIT_CACHE_DIR", str(tmp_path / "cache"))
    install("acme", CRASHING.format(body=body))
    code, out, err = epkit("run", model_file, "-t", "acme")
    assert (code, out) == (3, "")
    assert told in err
    code, out, _ = epkit("providers", "--json")
    row = next(row for row in json.loads(out)["providers"] if row["name"] == "acme")
    assert (code, row["status"]) == (0, "unusable")


@needs(SECOND)
def test_an_unwritable_cache_is_no_obstacle_and_the_doctor_says_so(epkit, model_file, monkeypatch):
    blocked = model_file.parent / "blocked"
    blocked.write_text("")
    monkeypatch.setenv("EPKIT_CACHE_DIR", str(blocked))
    code, out, err = epkit("run", model_file, "-t", SECOND, "--json")
    assert (code, err) == (0, "")
    assert any("not remembered" in note for note in json.loads(out)["report"]["notes"])
    code, out, _ = epkit("doctor")
    assert code == 1
    assert "EPKIT_CACHE_DIR" in out


@pytest.mark.slow
def test_without_onnx_runtime_every_command_says_so_in_one_sentence(tmp_path):
    """A path entry that hides onnxruntime stands in for an environment without it."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import sys, importlib.machinery\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'onnxruntime': raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Hide())\n"
    )
    (tmp_path / "m.onnx").write_bytes(mlp())
    environ = os.environ | {"PYTHONPATH": str(hidden)}
    for words, code in (
        (["run", "m.onnx"], 3),
        (["explain", "m.onnx"], 3),
        (["bench", "m.onnx"], 3),
        (["providers"], 0),
        (["doctor"], 1),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "epkit", *words],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, (words, done.stderr)
        assert "ONNX Runtime is not installed" in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
