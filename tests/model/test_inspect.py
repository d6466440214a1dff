"""What `epkit inspect` tells of a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from epkit.errors import ModelError
from epkit.model import sample
from epkit.model.file import read_model
from epkit.model.inspect import MemoryEstimate, inspect

Shape = Sequence[int | str | None]


def model(
    inputs: dict[str, Shape | None], nodes: Sequence[onnx.NodeProto], *, opset: int = 17, ir_version: int = 8
) -> onnx.ModelProto:
    """The output `y` is float32 [n, 8]; the weight `w` is float32 [4, 8]."""
    weight = numpy_helper.from_array(np.ones((4, 8), np.float32), "w")
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8])
    graph = helper.make_graph(nodes, "g", given, [y], [weight])
    return helper.make_model(graph, ir_version=ir_version, opset_imports=[helper.make_opsetid("", opset)])


def product(*, opset: int = 17, ir_version: int = 8) -> onnx.ModelProto:
    """Two inputs that share a dimension, and two intermediate tensors of which one is declared."""
    nodes = [
        helper.make_node("Add", ["x", "b"], ["s"]),
        helper.make_node("MatMul", ["s", "w"], ["m"]),
        helper.make_node("Relu", ["m"], ["y"]),
    ]
    proto = model({"x": ["n", 4], "b": [None, 4]}, nodes, opset=opset, ir_version=ir_version)
    proto.graph.value_info.append(helper.make_tensor_value_info("m", TensorProto.FLOAT16, ["n", 8]))
    return proto


PRODUCT = bytes(product().SerializeToString())


def test_the_sample_is_described() -> None:
    found = inspect(sample.path())
    assert found.model == read_model(sample.path())
    assert found.dynamic == {"batch": ("image",)}
    assert found.memory is not None
    assert found.memory.declared == found.memory.computed > 50
    assert found.memory.inputs == 3 * 128 * 128 * 4
    assert found.notes == ("1 dynamic dimension (batch): give sizes with warmup.shapes",)


def test_a_dynamic_dimension_names_the_inputs_that_use_it_and_one_without_name_its_place() -> None:
    shapes: dict[str, Shape | None] = {"x": ["n", 4], "b": ["n", "m", None], "c": [None, 2], "d": None, "e": []}
    found = inspect(model(shapes, []).SerializeToString())
    assert found.dynamic == {"n": ("x", "b"), "m": ("b",), "b[2]": ("b",), "c[0]": ("c",)}
    assert "4 dynamic dimensions (n, m, b[2], c[0]): give sizes with warmup.shapes" in found.notes
    assert "the input 'd' declares no rank: any shape is accepted" in found.notes


def test_the_memory_estimate_is_what_is_declared_and_says_what_it_covers() -> None:
    memory = inspect(PRODUCT).memory
    assert memory == MemoryEstimate(
        weights=128, inputs=16 + 16, outputs=32, intermediates=16, at_once=16, declared=1, computed=2
    )
    assert memory.total == 208
    assert memory.covers == (
        "weights + inputs + outputs + those alive at once of 1 of 2 intermediate tensors with declared shapes, "
        "dynamic dimensions as 1"
    )


def test_the_memory_estimate_names_what_it_cannot_know() -> None:
    proto = model({"d": None}, [])
    texts = helper.make_tensor_type_proto(TensorProto.STRING, [2])
    proto.graph.input.append(helper.make_value_info("t", texts))
    proto.graph.input.append(helper.make_value_info("s", helper.make_sequence_type_proto(texts)))
    memory = inspect(proto.SerializeToString()).memory
    assert memory is not None
    assert memory.unknown == ("d", "t", "s")
    assert memory.covers.startswith("weights + inputs + outputs, without d, t, s + ")


def test_small_element_types_are_counted_in_bits() -> None:
    proto = model({}, [])
    proto.graph.input.append(helper.make_tensor_value_info("q", TensorProto.INT4, [3, 5]))
    memory = inspect(proto.SerializeToString()).memory
    assert memory is not None
    assert memory.inputs == 8


def test_a_model_without_a_node_says_that_no_provider_will_run() -> None:
    assert "it has no node: no provider will run anything" in inspect(model({}, []).SerializeToString()).notes


def test_bodies_of_control_flow_are_said_to_be_left_out() -> None:
    body = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["b"])], "b", [], [helper.make_empty_tensor_value_info("b")]
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    found = inspect(model({"x": [2, 8]}, [node]).SerializeToString())
    assert found.model.operators == {"Relu": 2, "If": 1}
    assert any("If, Loop or Scan" in one for one in found.notes)


@pytest.mark.parametrize(
    ("opset", "ir_version", "note"),
    [(17, 13, ""), (17, 14, "IR version 14 is newer than"), (26, 13, ""), (27, 13, "opset 27 is newer than")],
)
def test_what_is_too_new_for_the_installed_onnx_runtime_is_what_it_refuses(
    opset: int, ir_version: int, note: str
) -> None:
    source = product(opset=opset, ir_version=ir_version).SerializeToString()
    notes = [one for one in inspect(source).notes if "newer" in one]
    if note:
        assert [one.startswith(note) for one in notes] == [True]
        with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.Fail):
            onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    else:
        assert notes == []


def test_a_model_in_ort_format_is_said_to_tell_nothing() -> None:
    found = inspect(b"\x14\0\0\0ORTM" + bytes(32))
    assert found.memory is None
    assert found.as_json()["memory_estimate"] is None
    assert "ORT format" in found.notes[0]


def test_the_json_holds_everything(tmp_path: Path) -> None:
    onnx.save(product(), tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    found = json.loads(json.dumps(inspect(tmp_path / "m.onnx").as_json()))
    assert found["schema"] == "epkit.inspect/1"
    assert found["path"] == str(tmp_path / "m.onnx")
    assert found["inputs"] == [
        {"name": "x", "dtype": "float32", "shape": ["n", 4]},
        {"name": "b", "dtype": "float32", "shape": [None, 4]},
    ]
    assert found["outputs"] == [{"name": "y", "dtype": "float32", "shape": ["n", 8]}]
    assert found["dynamic_dimensions"] == {"n": ["x"], "b[0]": ["b"]}
    assert (found["opsets"], found["ir_version"]) == ({"ai.onnx": 17}, 8)
    assert (found["operators"], found["nodes"]) == ({"Add": 1, "MatMul": 1, "Relu": 1}, 3)
    assert (found["parameters"], found["weight_bytes"]) == (32, 128)
    assert found["external_data"] == [{"path": str(tmp_path / "w.bin"), "bytes": (tmp_path / "w.bin").stat().st_size}]
    assert found["memory_estimate"]["total"] == 208
    assert found["file_bytes"] == (tmp_path / "m.onnx").stat().st_size
    assert inspect(PRODUCT).as_json()["path"] is None


def test_what_cannot_be_read_cannot_be_inspected() -> None:
    with pytest.raises(ModelError):
        inspect(b"no model")


@given(st.integers(0, len(PRODUCT) - 1), st.integers(0, 255))
@settings(deadline=None, max_examples=200)
def test_a_flipped_byte_gives_an_inspection_or_a_model_error(place: int, value: int) -> None:
    damaged = bytearray(PRODUCT)
    damaged[place] = value
    try:
        found = inspect(bytes(damaged))
    except ModelError:
        return
    json.dumps(found.as_json())
