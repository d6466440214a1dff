"""Targets that agree, differ and fail: real processes, real models, and providers that compute something else."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from capabilities import SECOND, needs
from models import light, mlp, model, value
from onnx import TensorProto, helper, numpy_helper
from processes import alive
from texts import says

import epkit
from epkit.errors import ConfigError, InputError, ModelError, RunError, UnknownTarget
from epkit.parity import divergence as tracing
from epkit.parity.divergence import Tensors, groups
from epkit.parity.process import WORKER
from epkit.parity.result import Comparison, Row


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hold every comparison to leave no process and no file."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    yield
    assert alive(WORKER) == []
    assert list(scratch.iterdir()) == []


TWISTED = """
import os, signal
from pathlib import Path

from epkit.hookspecs import hookimpl
from epkit.provider import Provider
from epkit.runtime.session_wrapper import SessionWrapper

class Twisted(Provider):
    name = {name!r}
    ort_name = "CPUExecutionProvider"

    def open(self, model, options, create):
        {open}

class Around(SessionWrapper):
    def around(self, run):
        {around}

def other(model, create, old, new):
    "Open the model with some of its bytes replaced."
    from onnxruntime import InferenceSession
    options = create().get_session_options()
    if isinstance(model, bytes):
        return InferenceSession(model.replace(old, new), options)
    file = Path(model).with_name("twisted.onnx")
    file.write_bytes(Path(model).read_bytes().replace(old, new))
    return InferenceSession(str(file), options)

@hookimpl
def epkit_providers():
    return [Twisted()]
"""


@pytest.fixture
def twist(install: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Install the CPU under another name, twisted; returns the name."""
    monkeypatch.setenv("EPKIT_PROBE", "quick")  # a proof would find out

    def _twist(name: str = "twisted", *, open: str = "return Around(create())", around: str = "return run()") -> str:
        install(name, TWISTED.format(name=name, open=open, around=around))
        return name

    return _twist


def replaced(old: bytes, new: bytes) -> str:
    return f"return other(model, create, {old!r}, {new!r})"


def number(one: float) -> bytes:
    return struct.pack("<f", one)


def row(found: Comparison) -> Row:
    (other,) = [one for one in found.rows if one.target != found.reference]
    assert other.fault is None, other.fault
    return other


# They agree


@needs(SECOND)
def test_cpu_and_openvino_agree_on_every_set_of_inputs(empty: Path):
    found = epkit.compare(light("shufflenet"), ["cpu", SECOND], seeds=3)
    assert (found.agree, found.exit_code, found.reference, found.seeds) == (True, 0, "cpu", (0, 1, 2))
    other = row(found)
    assert (other.verdict, other.provider, other.divergence, other.conditioning) == ("agree", SECOND, None, None)
    assert len({run.inputs_sha256 for run in other.runs}) == 3
    (output,) = other.runs[0].agreement.outputs
    assert output.metrics.argmax_of == 1
    document = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert document["schema"] == "epkit.compare/1"
    assert document["rows"][1]["runs"][2]["agreement"]["outputs"][0]["max_ulp"] is not None


def test_inputs_from_files_are_one_set_and_so_are_integers(empty: Path, tmp_path: Path):
    file = tmp_path / "x.npy"
    np.save(file, np.ones((2, 16), np.float32))
    found = epkit.compare(mlp(), ["cpu", "cpu"], inputs={"x": str(file)})
    assert (found.agree, found.seeds, found.notes, found.model) == (True, (0,), (), "given as bytes")
    assert found.inputs[0]["origin"] == str(file)
    whole = model([helper.make_node("Neg", ["x"], ["y"])], *([value(n, [3], TensorProto.INT64)] for n in "xy"))
    found = epkit.compare(whole, ["cpu", "cpu"], seeds=2)
    assert found.seeds == (0,)
    assert "integers" in found.notes[0]


# They differ


@pytest.mark.slow
def test_the_first_tensor_that_differs_is_named_with_its_node(empty: Path, twist: Callable[..., str]):
    name = twist(open=replaced(b"Relu", b"Selu"))
    found = epkit.compare(mlp(), ["cpu", name], seeds=2)
    other = row(found)
    assert (found.exit_code, other.verdict) == (1, "differ")
    where, measured = other.divergence, other.conditioning
    assert (where.tensor, where.operator, where.compared, where.reproduced) == ("r", "Relu", 2, True)
    assert where.reads == {"h": 0.0}
    assert where.metrics.share > 0.1
    assert "the first tensor that differs is r, of Relu" in where.told
    assert 0 < measured.share("y") < 1e-5
    assert measured.share("r") > 0
    assert "so in 2 of 2 sets of inputs" in other.told
    json.dumps(found.as_json(), allow_nan=False)


def test_a_provider_that_is_wrong_on_purpose_is_found(empty: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EPKIT_PLUGINS", "epkit_faulty")
    other = row(epkit.compare(mlp(), ["cpu", "faulty-wrong"], seeds=1))
    assert (other.verdict, other.divergence.tensor, other.divergence.reads) == ("differ", "h", {})


@pytest.mark.slow
def test_a_difference_that_is_gone_with_more_outputs_comes_of_fusing(empty: Path, twist: Callable[..., str]):
    name = twist(around="found = run()\n        return [one * 2 for one in found] if len(found) == 1 else found")
    other = row(epkit.compare(mlp(), ["cpu", name], seeds=1))
    assert other.verdict == "differ"
    assert (other.divergence.tensor, other.divergence.reproduced, other.divergence.compared) == ("", False, 3)
    assert "fusing" in other.divergence.told


@pytest.mark.slow
def test_a_tensor_that_a_target_refuses_as_an_output_is_skipped_and_the_others_are_compared(
    empty: Path, twist: Callable[..., str]
):
    opening = "made = other(model, create, b'Relu', b'Selu')\n        "
    refusing = "if 'r' in [one.name for one in made.get_outputs()]: raise ValueError('not r')\n        return made"
    other = row(epkit.compare(mlp(), ["cpu", twist(open=opening + refusing)], seeds=1))
    where = other.divergence
    assert (where.tensor, where.skipped, where.compared, where.reproduced) == ("y", ("r",), 2, True)


@pytest.mark.slow
def test_tensors_come_in_groups_of_a_bounded_size_and_the_first_still_is_the_first(
    empty: Path, twist: Callable[..., str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tracing, "GROUP_BYTES", 64)
    opened: list[int] = []
    run = tracing.run
    monkeypatch.setattr(tracing, "run", lambda *given: opened.append(1) or run(*given))
    other = row(epkit.compare(mlp(), ["cpu", twist(open=replaced(b"Relu", b"Selu"))], seeds=1))
    assert other.divergence.tensor == "r"
    assert len(opened) == 1 + 2 * 2, "described once; h alone, then r, on both targets"
    sized = {name: {"dtype": "float32", "shape": [8]} for name in "abc"}
    found = Tensors(b"", dict.fromkeys("abcy"), frozenset("y"), {**sized, "y": {"dtype": "float32", "shape": [99]}})
    assert list(groups(found)) == [["a", "b"], ["c", "y"]]


@pytest.mark.slow
def test_a_model_with_external_data_is_looked_into(empty: Path, tmp_path: Path, twist: Callable[..., str]):
    loaded = onnx.load_from_string(mlp(width=64))
    folder = tmp_path / "external"
    folder.mkdir()
    onnx.save(loaded, folder / "m.onnx", save_as_external_data=True, location="weights", size_threshold=0)
    found = epkit.compare(folder / "m.onnx", ["cpu", twist(open=replaced(b"Relu", b"Selu"))], seeds=1)
    assert row(found).divergence.tensor == "r"
    assert row(found).conditioning.share("y") > 0


# The model amplifies


def cancelling(by: float) -> bytes:
    """Build y = (x + by) - by."""
    constants = [numpy_helper.from_array(np.float32(one), name) for one, name in ((by, "a"), (-by, "b"))]
    nodes = [helper.make_node("Add", ["x", "a"], ["t"]), helper.make_node("Add", ["t", "b"], ["y"])]
    return model(nodes, [value("x", [64])], [value("y", [64])], constants)


@pytest.mark.slow
def test_a_difference_that_rounding_alone_explains_is_agreement_as_far_as_the_model_allows(
    empty: Path, twist: Callable[..., str]
):
    off = np.float32(1000.0) + 40 * np.spacing(np.float32(1000.0))
    name = twist(open=replaced(number(1000.0), number(off)))
    found = epkit.compare(cancelling(1000.0), ["cpu", name], seeds=2)
    other = row(found)
    assert (other.verdict, found.exit_code) == ("agree", 0), other.told
    (output,) = other.runs[0].agreement.outputs
    assert 1e-3 < output.metrics.share < output.allowed
    assert "as far as this model allows" in other.told
    assert (other.divergence.tensor, other.conditioning.amplified > 100) == ("y", True)
    held = epkit.compare(cancelling(1000.0), ["cpu", name], seeds=1, tolerance=0.001)
    assert (row(held).verdict, held.exit_code) == ("differ", 1), "a tolerance that was given is kept"


@pytest.mark.slow
def test_outputs_that_rounding_alone_makes_arbitrary_are_ill_conditioned(empty: Path, twist: Callable[..., str]):
    off = np.nextafter(np.float32(1e6), np.float32(np.inf))
    found = epkit.compare(cancelling(1e6), ["cpu", twist(open=replaced(number(1e6), number(off)))], seeds=1)
    other = row(found)
    assert (other.verdict, found.exit_code) == ("ill-conditioned", 1)
    assert other.divergence.tensor == "y"
    assert other.divergence.reads["t"] < 1e-6
    assert other.conditioning.amplified > 1e4


@pytest.mark.slow
def test_a_fault_before_the_model_amplifies_it_is_a_difference(empty: Path, twist: Callable[..., str]):
    contents = onnx.load_from_string(cancelling(1e6))
    contents.graph.node[0].input[0] = "u"
    contents.graph.node.insert(0, helper.make_node("Relu", ["x"], ["u"]))
    name = twist(open=replaced(b"Relu", b"Selu"))
    other = row(epkit.compare(contents.SerializeToString(), ["cpu", name], seeds=1))
    assert (other.verdict, other.divergence.tensor) == ("differ", "u")


@pytest.mark.slow
@needs("openvino")
def test_squeezenet_on_openvino_differs_since_its_softmax_amplifies_rounding(empty: Path):
    found = epkit.compare(light("squeezenet"), ["cpu", "openvino"], seeds=8)
    other = row(found)
    assert (other.verdict, found.exit_code) == ("ill-conditioned", 1)
    where = other.divergence
    assert (where.tensor, where.operator, where.reproduced) == ("softmaxout_1", "Softmax", True)
    assert 0 < where.reads["r65"] < 1e-5
    assert other.conditioning.amplified > 1e5
    agreed = [run.agreement.agree for run in other.runs]
    assert any(agreed), "some inputs agree by luck"
    assert not all(agreed)


# Targets that fail


@pytest.mark.slow
def test_a_target_that_crashes_is_a_row_and_the_others_are_compared(empty: Path, twist: Callable[..., str]):
    crashes = twist("crashes", around="os.kill(os.getpid(), signal.SIGSEGV)")
    fails = twist("fails", around="raise RuntimeError('out of memory')")
    same = twist("same")
    found = epkit.compare(mlp(), ["cpu", crashes, fails, same], seeds=1)
    rows = {one.target: one for one in found.rows}
    assert "SIGSEGV" in rows["crashes"].fault.reason
    assert rows["crashes"].fault.exit_code == 3
    assert (rows["fails"].fault.kind, rows["fails"].fault.exit_code) == ("RunError", 4)
    assert rows["same"].verdict == "agree"
    assert (found.agree, found.exit_code) == (False, 4)
    found = epkit.compare(mlp(), [crashes, same, "cpu"], seeds=1)
    assert (found.reference, found.rows[2].verdict, found.exit_code) == ("same", "agree", 3)
    json.dumps(found.as_json(), allow_nan=False)


@pytest.mark.slow
def test_a_target_that_hangs_is_ended(empty: Path, twist: Callable[..., str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("epkit.parity.process.LIMIT_S", 20.0)
    name = twist(around="signal.pause()")
    found = epkit.compare(mlp(), ["cpu", name], seeds=1)
    assert "in time" in found.rows[1].fault.reason
    assert found.exit_code == 3


@pytest.mark.slow
def test_what_is_wrong_with_the_request_or_the_model_is_an_error(empty: Path, tmp_path: Path):
    for targets in ([], ["cpu"], "cpu"):
        with says(ConfigError):
            epkit.compare(mlp(), targets)
    with says(ConfigError):
        epkit.compare(mlp(), ["cpu", "cpu"], seeds=0)
    with pytest.raises(UnknownTarget):
        epkit.compare(mlp(), ["cpu", "openvin"])
    with says(ModelError):
        epkit.compare(tmp_path / "no.onnx", ["cpu", "cpu"])
    with says(InputError):
        epkit.compare(mlp(), ["cpu", "cpu"], inputs={"x": "no.npy"})
    unknown = model([helper.make_node("Nothing", ["x"], ["y"])], [value("x", [2])], [value("y", [2])])
    with says(ModelError):
        epkit.compare(unknown, ["cpu", "cpu"])
    missing = model(
        [helper.make_node("Gather", ["d", "i"], ["y"])],
        [value("d", [1]), value("i", [1], TensorProto.INT64)],
        [value("y", [1])],
    )
    with pytest.raises(RunError):
        epkit.compare(missing, ["cpu", "cpu"])


def test_sessions_that_want_other_inputs_are_not_compared(empty: Path):
    sizes = {name: {"free_dimension_overrides": {"batch": size}} for name, size in (("one", 1), ("eight", 8))}
    config = {"targets": {name: {"provider": "cpu", "session_options": one} for name, one in sizes.items()}}
    found = epkit.compare(mlp(width=8), ["one", "eight"], config=config, seeds=1)
    assert "other inputs" in row(found).told
    assert found.exit_code == 1


# The command


@pytest.mark.slow
def test_the_command_says_where_two_targets_part_and_exits_with_1(empty: Path, command, twist: Callable[..., str]):
    (empty / "m.onnx").write_bytes(mlp())
    name = twist(open=replaced(b"Relu", b"Selu"))
    code, out, err = command("compare", "m.onnx", "-t", "cpu", "-t", name, "--seeds", 1)
    assert (code, err) == (1, "")
    assert "the first tensor that differs is r, of Relu" in out
    assert "one rounding step" in out
    code, out, _ = command("compare", "m.onnx", "-t", "cpu", "-t", "cuda", "--json")
    assert code == 3
    assert json.loads(out)["rows"][1]["fault"]["status"] == "unusable"


@needs(SECOND)
def test_outputs_that_runs_have_saved_are_compared_by_their_folders(empty: Path, command):
    (empty / "m.onnx").write_bytes(mlp())
    for target in ("cpu", SECOND):
        assert command("run", "m.onnx", "-t", target, "--output-dir", target)[0] == 0
    code, out, _ = command("compare", "cpu", SECOND)
    assert code == 0
    assert "agrees with cpu" in out
    y = np.load("openvino/y.npy")
    np.save("openvino/y.npy", y * np.float32(1.005))
    assert command("compare", "cpu", SECOND)[0] == 1
    assert command("compare", "cpu", SECOND, "--tolerance", "images")[0] == 0
    assert command("compare", "cpu", SECOND, "--tolerance", "imags")[0] == 2
    assert command("compare", "a", "b", "c")[0] == 2
    assert command("compare", "m.onnx")[0] == 2
