"""What epkit reads of a model file: the same as onnx, and one clear error for everything that is no model."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from texts import says

from epkit.errors import ConfigError, ModelError
from epkit.model.digest import digest_model
from epkit.model.file import Model, TensorInfo, parse_ort_type, read_model

LIGHT = sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("*.onnx"))

FLOAT_2N = helper.make_tensor_type_proto(TensorProto.FLOAT, [2, None, "n"])


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: Sequence[onnx.TensorProto] = (),
    *,
    opset: int = 17,
    ir_version: int = 8,
    more: Sequence[onnx.OperatorSetIdProto] = (),
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    return helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs, weights),
        ir_version=ir_version,
        opset_imports=[helper.make_opsetid("", opset), *more],
        functions=functions,
        producer_name="tests",
    )


def identity(
    dtype: int = TensorProto.FLOAT, shape: Sequence[int | str | None] = ("n",), *, opset: int = 17, ir_version: int = 8
) -> bytes:
    x, y = (helper.make_tensor_value_info(name, dtype, shape) for name in "xy")
    node = helper.make_node("Identity", ["x"], ["y"])
    return bytes(model([node], [x], [y], opset=opset, ir_version=ir_version).SerializeToString())


def branches() -> onnx.ModelProto:
    """A model with an If in an If, a function, a constant, an operator of ai.onnx.ml and one of another domain."""
    one = numpy_helper.from_array(np.ones((2, 3), np.float32), "one")
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)

    def body(nodes: list[onnx.NodeProto], weights: Sequence[onnx.TensorProto] = ()) -> onnx.GraphProto:
        return helper.make_graph(nodes, "body", [], [helper.make_tensor_value_info("b", 1, None)], weights)

    inner = helper.make_node(
        "If",
        ["c"],
        ["b"],
        then_branch=body([helper.make_node("Constant", [], ["b"], value=one)]),
        else_branch=body([helper.make_node("Relu", ["one"], ["b"])], [one]),
    )
    other = body([helper.make_node("Abs", ["x"], ["b"])])
    nodes = [
        helper.make_node("If", ["c"], ["a"], then_branch=body([inner]), else_branch=other),
        helper.make_node("Scaler", ["a"], ["s"], domain="ai.onnx.ml", scale=[2.0], offset=[0.0]),
        helper.make_node("Twice", ["s"], ["t"], domain="mine"),
        helper.make_node("FusedGelu", ["t"], ["y"], domain="com.microsoft"),
    ]
    twice = helper.make_function(
        "mine",
        "Twice",
        ["i"],
        ["o"],
        [helper.make_node("Add", ["i", "i"], ["h"]), helper.make_node("Identity", ["h"], ["o"])],
        [helper.make_opsetid("", 17)],
    )
    inputs = [helper.make_tensor_value_info("c", TensorProto.BOOL, []), helper.make_tensor_value_info("x", 1, ["n", 3])]
    more = [
        helper.make_opsetid("ai.onnx.ml", 3),
        helper.make_opsetid("mine", 1),
        helper.make_opsetid("com.microsoft", 1),
    ]
    return model(nodes, inputs, [y], more=more, functions=[twice])


BRANCHES = bytes(branches().SerializeToString())


def with_external_data(folder: Path) -> Path:
    """Two weights of 4,096 and 64 bytes in one file beside the model."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1024]) for name in "xy")
    nodes = [helper.make_node("Add", ["x", "w"], ["s"]), helper.make_node("Concat", ["s", "v"], ["y"], axis=0)]
    weights = [numpy_helper.from_array(np.ones(size, np.float32), name) for name, size in (("w", 1024), ("v", 16))]
    path = folder / "outside.onnx"
    onnx.save(model(nodes, [x], [y], weights), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    return path


# what onnx says of the same model


def value_of(info: onnx.ValueInfoProto) -> TensorInfo:
    tensor = info.type.tensor_type
    dtype = str(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    if not tensor.HasField("shape"):
        return TensorInfo(info.name, dtype, None)
    dims = (d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in tensor.shape.dim)
    return TensorInfo(info.name, dtype, tuple(dims))


def nodes_of(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from nodes_of(graph.node)


def tensors_of(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from [attribute.t] if attribute.HasField("t") else []
            for body in (attribute.g, *attribute.graphs):
                yield from tensors_of(body)


def assert_same(found: Model, proto: onnx.ModelProto) -> None:
    graph = proto.graph
    initializers = {one.name for one in graph.initializer}
    nodes = [*nodes_of(graph.node), *(node for function in proto.functions for node in nodes_of(function.node))]
    arrays = [numpy_helper.to_array(one) for one in tensors_of(graph)]
    names = (n.op_type if n.domain in ("", "ai.onnx") else f"{n.domain}.{n.op_type}" for n in nodes)
    outputs = {one.name for one in graph.output}
    assert found.ir_version == proto.ir_version
    assert found.opsets == {one.domain or "ai.onnx": one.version for one in proto.opset_import}
    assert found.producer == f"{proto.producer_name} {proto.producer_version}".strip()
    assert found.inputs == tuple(value_of(one) for one in graph.input if one.name not in initializers)
    assert found.outputs == tuple(value_of(one) for one in graph.output)
    assert found.operators == Counter(names)
    assert found.parameters == sum(one.size for one in arrays)
    assert found.weight_bytes == sum(one.nbytes for one in arrays)
    assert [one.name for one in found.intermediates] == [
        name for node in graph.node if node.op_type != "Constant" for name in node.output if name not in outputs
    ]


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.stem)
def test_a_real_model_reads_as_onnx_reads_it(path: Path) -> None:
    found = read_model(path)
    assert_same(found, onnx.load(path))
    assert (found.source, found.size, found.format) == (path, path.stat().st_size, "onnx")


def test_there_are_nine_real_models() -> None:
    assert len(LIGHT) == 9


def test_subgraphs_functions_constants_and_other_domains_read_as_onnx_reads_them() -> None:
    found = read_model(BRANCHES)
    assert_same(found, branches())
    assert found.has_control_flow
    assert found.operators["If"] == 2
    assert found.operators["ai.onnx.ml.Scaler"] == 1
    assert found.operators["Add"] == 1
    assert found.parameters == 12
    assert not read_model(identity()).has_control_flow


def test_a_path_may_be_text_a_path_or_bytes_and_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(BRANCHES)
    by_path, by_bytes = read_model(path), read_model(BRANCHES)
    assert read_model(str(path)) == by_path
    assert by_bytes.inputs == by_path.inputs
    assert by_bytes.source == BRANCHES
    assert by_path.source == path


@pytest.mark.parametrize(
    ("kind", "dtype", "shape"),
    [
        (helper.make_sequence_type_proto(FLOAT_2N), "sequence(float32)", None),
        (helper.make_optional_type_proto(FLOAT_2N), "optional(float32)", (2, None, "n")),
        (
            helper.make_optional_type_proto(helper.make_sequence_type_proto(FLOAT_2N)),
            "optional(sequence(float32))",
            None,
        ),
        (helper.make_map_type_proto(TensorProto.INT64, FLOAT_2N), "map(int64, float32)", None),
        (
            helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.STRING, FLOAT_2N)),
            "sequence(map(string, float32))",
            None,
        ),
        (helper.make_sparse_tensor_type_proto(TensorProto.FLOAT, [2, 3]), "sparse_tensor(float32)", (2, 3)),
        (helper.make_tensor_type_proto(TensorProto.STRING, []), "string", ()),
        (helper.make_tensor_type_proto(TensorProto.FLOAT, None), "float32", None),
        (helper.make_tensor_type_proto(TensorProto.FLOAT, [-1, "", 0]), "float32", (None, None, 0)),
        (onnx.TypeProto(), "undefined", None),
    ],
)
def test_every_kind_of_type_is_read(kind: onnx.TypeProto, dtype: str, shape: tuple[int | str | None, ...]) -> None:
    x = helper.make_value_info("x", kind)
    assert read_model(model([], [x], []).SerializeToString()).inputs == (TensorInfo("x", dtype, shape),)


@pytest.mark.parametrize("number", [n for n in TensorProto.DataType.values() if n])
def test_every_element_type_of_onnx_has_its_name_and_size(number: int) -> None:
    name = TensorProto.DataType.Name(number).lower()
    expected = {"float": "float32", "double": "float64"}.get(name, name)
    weight = TensorProto(name="w", data_type=number, dims=[3, 5])
    found = read_model(model([], [helper.make_tensor_value_info("x", number, [3])], [], [weight]).SerializeToString())
    assert found.inputs[0].dtype == expected
    bits = {4: 4, 2: 2}.get(int(name.removeprefix("u").removeprefix("int") or 0) if "int" in name else 0)
    bits = bits or (4 if name == "float4e2m1" else 8 * helper.tensor_dtype_to_np_dtype(number).itemsize)
    assert found.weight_bytes == (0 if name == "string" else (15 * bits + 7) // 8)


@pytest.mark.parametrize("number", [n for n in range(1, 21) if n not in (14, 15)])
def test_types_are_named_as_those_that_onnx_runtime_tells(number: int) -> None:
    source = identity(number, opset=22, ir_version=10)
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    told = session.get_inputs()[0]
    assert read_model(source).inputs == (TensorInfo(told.name, parse_ort_type(told.type), tuple(told.shape)),)


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        ("tensor(float)", "float32"),
        ("tensor(double)", "float64"),
        ("tensor(float8e4m3fn)", "float8e4m3fn"),
        ("tensor(int4)", "int4"),
        ("seq(tensor(float))", "sequence(float32)"),
        ("map(int64,tensor(float))", "map(int64, float32)"),
        ("seq(map(string,tensor(double)))", "sequence(map(string, float64))"),
        ("optional(seq(tensor(float)))", "optional(sequence(float32))"),
        ("sparse_tensor(float)", "sparse_tensor(float32)"),
        ("opaque(ours,thing)", "opaque(ours,thing)"),
        ("", ""),
    ],
)
def test_the_types_of_onnx_runtime_are_translated(text: str, dtype: str) -> None:
    assert parse_ort_type(text) == dtype


def test_an_initializer_that_is_also_an_input_need_not_be_given() -> None:
    x, w = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xw")
    weight = numpy_helper.from_array(np.ones(2, np.float32), "w")
    found = read_model(model([helper.make_node("Add", ["x", "w"], ["y"])], [x, w], [], [weight]).SerializeToString())
    assert [one.name for one in found.inputs] == ["x"]


def test_sparse_and_string_weights_are_counted() -> None:
    proto = model([], [], [], [numpy_helper.from_array(np.array(["ab", "cde"], object), "names")])
    values = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    indices = helper.make_tensor("", TensorProto.INT64, [2], [0, 5])
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [8]))
    found = read_model(proto.SerializeToString())
    assert found.weight_bytes == 5 + 2 * 4 + 2 * 8


def test_a_version_that_is_too_new_is_read_and_not_judged() -> None:
    found = read_model(identity(opset=99, ir_version=99))
    assert (found.ir_version, found.opsets) == (99, {"ai.onnx": 99})


def test_a_model_in_ort_format_is_told_by_its_mark(tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "m.ort")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(identity(), options, providers=["CPUExecutionProvider"])
    found = read_model(tmp_path / "m.ort")
    assert found == Model(tmp_path / "m.ort", (tmp_path / "m.ort").stat().st_size, "ort")


def test_a_file_above_two_gigabytes_is_read_without_its_weights(tmp_path: Path) -> None:
    raw = 5 * 2**29
    weight = field(2, 1) + field(1, raw // 4) + field(8, b"w") + b"\x4a" + varint(raw)
    graph = field(11, field(1, b"x")) + b"\x2a" + varint(len(weight) + raw) + weight
    head = field(1, 8) + field(8, field(2, 17)) + b"\x3a" + varint(len(graph) + raw) + graph
    with (tmp_path / "big.onnx").open("wb") as file:
        file.write(head)
        file.truncate(len(head) + raw)
    found = read_model(tmp_path / "big.onnx")
    assert (found.size, found.weight_bytes, found.parameters) == (len(head) + raw, raw, raw // 4)


def test_reading_a_model_loads_no_heavy_module() -> None:
    heavy = {"numpy", "onnx", "onnxruntime", "pydantic", "google.protobuf"}
    code = f"import sys, epkit.model; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout.strip() == b"set()"


# external data


def test_external_data_is_found_beside_the_model(tmp_path: Path) -> None:
    found = read_model(with_external_data(tmp_path))
    assert found.weight_bytes == 4096 + 64
    assert [(one.path, one.bytes) for one in found.external] == [
        (tmp_path / "w.bin", (tmp_path / "w.bin").stat().st_size)
    ]


def test_external_data_of_bytes_is_looked_for_in_the_working_directory_or_the_folder_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = with_external_data(tmp_path).read_bytes()
    with says(ModelError):
        read_model(source)
    assert read_model(source, folder=tmp_path).external[0].bytes >= 4160
    monkeypatch.chdir(tmp_path)
    assert read_model(source).external[0].bytes >= 4160


def test_missing_external_data_is_a_model_error_that_names_file_and_tensor(tmp_path: Path) -> None:
    path = with_external_data(tmp_path)
    (tmp_path / "w.bin").unlink()
    with says(ModelError) as caught:
        read_model(path)
    assert caught.value.hint == "put 'w.bin' beside the model"
    (tmp_path / "w.bin").mkdir()
    with says(ModelError):
        read_model(path)


def test_external_data_that_is_too_short_is_a_model_error(tmp_path: Path) -> None:
    path = with_external_data(tmp_path)
    os.truncate(tmp_path / "w.bin", 4100)
    with says(ModelError):
        read_model(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("offset", "-4"), ("length", "many"), ("offset", "9" * 5000), ("location", "a\0b"), ("location", "a" * 5000)],
)
def test_a_place_of_external_data_that_makes_no_sense_is_a_model_error(tmp_path: Path, key: str, value: str) -> None:
    path = with_external_data(tmp_path)
    proto = onnx.load(path, load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        entry.value = value if entry.key == key else entry.value
    path.write_bytes(proto.SerializeToString())
    with says(ModelError):
        read_model(path)


def test_the_digest_of_one_file_is_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(BRANCHES)
    assert digest_model(BRANCHES) == digest_model(tmp_path / "m.onnx") == hashlib.sha256(BRANCHES).hexdigest()
    assert digest_model(read_model(BRANCHES)) == digest_model(BRANCHES)


def test_the_digest_changes_with_the_external_data_but_not_with_the_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = (with_external_data(tmp_path / name) for name in "ab")
    assert digest_model(first) == digest_model(second)
    with (tmp_path / "b/w.bin").open("r+b") as file:
        file.write(b"\x01")
    assert digest_model(first) != digest_model(second)


def test_a_model_that_went_away_has_no_digest(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(BRANCHES)
    found = read_model(tmp_path / "m.onnx")
    (tmp_path / "m.onnx").unlink()
    with says(ModelError):
        digest_model(found)


# what is no model


def test_no_such_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "resnet50.onnx").write_bytes(BRANCHES)
    with says(ModelError) as caught:
        read_model(tmp_path / "resnet5.onnx")
    assert caught.value.hint == f"did you mean '{tmp_path / 'resnet50.onnx'}'?"
    assert caught.value.exit_code == 4
    with says(ModelError) as caught:
        read_model(tmp_path / "quite another")
    assert caught.value.hint == "check the path"


def test_no_such_folder_is_said(tmp_path: Path) -> None:
    with says(ModelError):
        read_model(tmp_path / "nowhere" / "m.onnx")


def test_a_directory_is_a_model_error_that_names_the_models_in_it(tmp_path: Path) -> None:
    with says(ModelError):
        read_model(tmp_path)
    (tmp_path / "m.onnx").write_bytes(BRANCHES)
    with pytest.raises(ModelError) as caught:
        read_model(tmp_path)
    assert caught.value.hint == "name a file in it: m.onnx"


def test_an_empty_file_is_a_model_error(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").touch()
    with says(ModelError):
        read_model(tmp_path / "m.onnx")


def test_empty_bytes_are_a_model_error() -> None:
    with says(ModelError):
        read_model(b"")


@pytest.mark.parametrize("path", [os.devnull, "a\0b", "a" * 5000, f"{__file__}/m.onnx"])
def test_a_path_that_cannot_be_a_file_is_a_model_error(path: str) -> None:
    with says(ModelError):
        read_model(path)


def test_a_file_that_may_not_be_read_is_a_model_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "m.onnx").write_bytes(BRANCHES)
    monkeypatch.setattr(Path, "open", refuse)
    with says(ModelError) as caught:
        read_model(tmp_path / "m.onnx")
    assert caught.value.hint.startswith("ls -l")


@pytest.mark.parametrize("wrong", [None, 3, bytearray(BRANCHES), memoryview(BRANCHES), onnx.ModelProto()])
def test_what_is_neither_path_nor_bytes_is_a_config_error(wrong: object) -> None:
    with says(ConfigError):
        read_model(wrong)  # type: ignore[arg-type]


def zipped(path: Path) -> bytes:
    with zipfile.ZipFile(path / "x.zip", "w") as archive:
        archive.writestr("data.pkl", b"x")
    return (path / "x.zip").read_bytes()


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (b"hello world\n", "a text file"),
        ("Größe und Länge\n".encode() * 100, "a text file"),
        (b"\n\n<!DOCTYPE html><html><body>404", "an HTML page"),
        (b"<?xml version='1.0'?><net/>", "an XML file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS"),
        (b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'}", "a NumPy array"),
        (b"\x80\x02}q\x00.", "a Python pickle"),
        (b"\x1c\0\0\0TFL3" + bytes(64), "a TensorFlow Lite model"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "an HDF5 file"),
        (b"\x40\0\0\0\0\0\0\0{" + b'"weight":{}}', "a safetensors file"),
        (b"GGUF\x03\0\0\0", "a GGUF model"),
        (b"ftrt\0\0\0\0", "an engine of TensorRT"),
    ],
)
def test_a_file_of_another_kind_is_called_by_its_name(source: bytes, kind: str) -> None:
    with says(ModelError) as caught:
        read_model(source)
    assert caught.value.hint


def test_a_zip_archive_is_called_by_its_name(tmp_path: Path) -> None:
    with says(ModelError):
        read_model(zipped(tmp_path))


def test_a_message_of_another_kind_is_not_an_onnx_model() -> None:
    weight = numpy_helper.from_array(np.ones(100, np.float32), "w")
    with says(ModelError):
        read_model(weight.SerializeToString())


def test_a_model_without_graph_or_operator_sets_is_a_model_error() -> None:
    proto = branches()
    proto.ClearField("graph")
    with says(ModelError):
        read_model(proto.SerializeToString())
    proto = branches()
    del proto.opset_import[:]
    with says(ModelError):
        read_model(proto.SerializeToString())


def test_half_a_download_is_truncated(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(BRANCHES[: len(BRANCHES) // 2])
    with says(ModelError) as caught:
        read_model(tmp_path / "m.onnx")
    assert caught.value.hint == "copy, download or export it again"


def test_every_truncation_is_a_model_error_or_a_whole_model() -> None:
    whole = []
    for length in range(len(BRANCHES)):
        with suppress(ModelError):
            read_model(BRANCHES[:length])
            whole.append(length)
    assert whole
    for length in whole:
        assert onnx.load_model_from_string(BRANCHES[:length]).graph == branches().graph


@given(st.binary(max_size=4096))
@settings(deadline=None)
def test_random_bytes_are_a_model_error(source: bytes) -> None:
    with pytest.raises(ModelError):
        read_model(source)


@given(st.lists(st.tuples(st.integers(0, len(BRANCHES) - 1), st.integers(0, 255)), min_size=1, max_size=8))
@settings(deadline=None, max_examples=300)
def test_flipped_bytes_give_a_model_or_a_model_error(flips: list[tuple[int, int]]) -> None:
    damaged = bytearray(BRANCHES)
    for place, value in flips:
        damaged[place] = value
    with suppress(ModelError):
        assert isinstance(read_model(bytes(damaged)), Model)


# bytes that were made to hurt


def varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def hostile(graph: bytes) -> bytes:
    return field(1, 8) + field(7, graph) + field(8, field(2, 17))


def test_graphs_nested_deeper_than_python_recurses_are_read() -> None:
    graph = b""
    for _ in range(2000):
        graph = field(1, field(4, b"If") + field(5, field(6, graph)))
    assert read_model(hostile(graph)).operators == {"If": 2000}


def test_types_nested_without_end_are_a_model_error() -> None:
    kind = b""
    for _ in range(2000):
        kind = field(4, field(1, kind))
    with says(ModelError):
        read_model(hostile(field(11, field(2, kind))))


@pytest.mark.parametrize("dimensions", [field(1, 2**63 - 1) * 10_000, field(1, 2**64 - 1), field(1, b"\x02" * 65)])
def test_a_tensor_of_impossible_dimensions_is_a_model_error(dimensions: bytes) -> None:
    with says(ModelError):
        read_model(hostile(field(5, dimensions + field(2, 1) + field(8, b"w"))))


def test_a_value_of_impossible_rank_is_a_model_error() -> None:
    shape = field(1, field(1, 2**62)) * 1000
    with says(ModelError):
        read_model(hostile(field(11, field(2, field(1, field(2, shape))))))


@pytest.mark.parametrize(
    "tail", [b"\xff" * 11, b"\x0b", b"\x00\x00", b"\x3f", b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"]
)
def test_bytes_that_are_no_field_are_a_model_error(tail: bytes) -> None:
    with pytest.raises(ModelError):
        read_model(hostile(b"") + tail)


def test_a_field_of_another_wire_type_is_stepped_over_as_protobuf_does() -> None:
    noise = b"\x39" + bytes(8) + b"\x3d" + bytes(4) + field(99, 1) + field(98, b"new")
    assert read_model(noise + hostile(b"")).ir_version == 8
    assert onnx.load_model_from_string(noise + hostile(b"")).ir_version == 8
