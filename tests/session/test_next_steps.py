"""What people hand over by mistake: each error says what to type instead, or it is accepted."""

from __future__ import annotations

import io
import json
import mmap
import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from models import identity, mlp, model, value
from onnx import TensorProto, helper, numpy_helper

import epkit
from epkit.errors import ConfigError, EpkitError, InputError, ModelError, UnknownTarget

node = helper.make_node
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 64\n" + " " * 64


def with_weights_in(location: str, folder: Path) -> Path:
    """Write a model whose weights lie in another file, which is not written."""
    weights = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    for key, text in (("location", location), ("length", "64")):
        weights.external_data.add(key=key, value=text)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "m.onnx"
    shapes = [value("x", ["n", 4])], [value("y", ["n", 4])]
    file.write_bytes(model([node("MatMul", ["x", "w"], ["y"])], *shapes, [weights]))
    return file


def weights_at(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(np.ones(16, np.float32).tobytes())
    return file


def hint_of(kind: type[EpkitError], *given: object, **more: object) -> str:
    with pytest.raises(kind) as error:
        epkit.open(*given, **more)
    return error.value.hint


def test_a_link_to_a_model_names_the_file_whose_folder_has_the_weights(tmp_path):
    real = with_weights_in("w.bin", tmp_path / "real")
    weights_at(tmp_path / "real" / "w.bin")
    link = tmp_path / "link.onnx"
    link.symlink_to(real)
    hint = hint_of(ModelError, link, "cpu")
    assert str(real) in hint
    epkit.open(real, "cpu").close()


def test_a_path_as_windows_writes_it_names_the_copy_that_mends_it(tmp_path):
    file = with_weights_in("sub\\w.bin", tmp_path)
    weights_at(tmp_path / "sub" / "w.bin")
    hint = hint_of(ModelError, file, "cpu")
    os.system(hint.partition(": ")[2])
    epkit.open(file, "cpu").close()


def test_weights_that_are_linked_from_elsewhere_name_the_copy_that_mends_them(tmp_path):
    file = with_weights_in("w.bin", tmp_path / "m")
    (tmp_path / "m" / "w.bin").symlink_to(weights_at(tmp_path / "elsewhere" / "w.bin"))
    hint = hint_of(ModelError, file, "cpu")
    os.system(hint.partition(": ")[2])
    epkit.open(file, "cpu").close()


@pytest.mark.parametrize("where", ["above", "absolute"])
def test_weights_outside_the_models_folder_name_the_call_that_mends_them(tmp_path, where):
    outside = weights_at(tmp_path / "w.bin")
    location = "../w.bin" if where == "above" else str(outside)
    hint = hint_of(ModelError, with_weights_in(location, tmp_path / "m"), "cpu")
    assert "save_as_external_data" in hint


@pytest.mark.parametrize("size", [len(POINTER), 43])
def test_a_pointer_of_git_lfs_is_never_taken_for_weights(tmp_path, size):
    file = with_weights_in("w.bin", tmp_path)
    (tmp_path / "w.bin").write_text(POINTER[:size])
    assert hint_of(ModelError, file, "cpu") == "git lfs pull"


def test_weights_that_are_few_are_read_all_the_same(tmp_path):
    file = with_weights_in("w.bin", tmp_path)
    weights_at(tmp_path / "w.bin")
    with epkit.open(file, "cpu") as session:
        assert session.run(np.ones((1, 4), np.float32))["y"].tolist() == [[4, 4, 4, 4]]


def test_what_holds_a_model_names_the_call_that_gives_its_bytes(tmp_path):
    contents = mlp()
    (tmp_path / "m.onnx").write_bytes(contents)
    with (tmp_path / "m.onnx").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        for held in (
            io.BytesIO(contents),
            onnx.load_from_string(contents),
            file,
            mapped,
            bytearray(contents),
            memoryview(contents),
            np.frombuffer(contents, np.uint8),
        ):
            told = hint_of(ConfigError, held, "cpu")
            assert eval(told, {"model": held}) == contents


def test_an_address_names_the_download():
    assert hint_of(ModelError, "https://example.org/m.onnx", "cpu") == "curl -LO https://example.org/m.onnx"
    assert hint_of(ModelError, "s3://bucket/m.onnx", "cpu")


def test_a_home_that_no_shell_has_expanded_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert str(tmp_path / "m.onnx") in hint_of(ModelError, "~/m.onnx", "cpu")


def test_a_models_format_goes_by_its_suffix_and_the_error_says_so(tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "a.ort")
    onnxruntime.InferenceSession(mlp(), options, providers=["CPUExecutionProvider"])
    for wrong, contents in (("b.onnx", (tmp_path / "a.ort").read_bytes()), ("c.ort", mlp())):
        (tmp_path / wrong).write_bytes(contents)
        other = ".ort" if wrong.endswith(".onnx") else ".onnx"
        assert other in hint_of(ModelError, tmp_path / wrong, "cpu")


@pytest.mark.parametrize("opset", [1, 5])
def test_an_opset_that_is_too_old_names_the_conversion(opset):
    old = model(
        [node("Relu", ["x"], ["y"], consumed_inputs=[0])], [value("x", ["n"])], [value("y", ["n"])], opset=opset, ir=3
    )
    assert "convert_version" in hint_of(ModelError, old, "cpu")


def test_a_domain_without_a_version_names_the_call_that_adds_one():
    strange = model([node("Foo", ["x"], ["y"], domain="acme")], [value("x", ["n"])], [value("y", ["n"])])
    assert "make_opsetid('acme', 1)" in hint_of(ModelError, strange, "cpu")


def test_session_options_of_onnx_runtime_name_what_to_write_instead():
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    told = hint_of(ConfigError, mlp(), "cpu", session_options=options)
    written = eval(told.partition("session_options=")[2].removesuffix(")"))
    assert written == {"intra_op_num_threads": 1, "graph_optimization_level": "ORT_ENABLE_BASIC"}
    epkit.open(mlp(), "cpu", session_options=written).close()


def test_a_providers_name_of_onnx_runtime_names_the_one_here():
    assert "'cpu'" in hint_of(UnknownTarget, mlp(), "CPUExecutionProvider")
    assert "'cuda'" in hint_of(UnknownTarget, mlp(), "CUDAExecutionProvider")
    assert 'epkit.open(model, "cuda")' in hint_of(ConfigError, mlp(), ["CUDAExecutionProvider", "CPUExecutionProvider"])
    chain = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    assert "fallback = ['cuda']" in hint_of(ConfigError, mlp(), chain)


def test_a_key_in_the_wrong_place_names_the_right_one():
    entry = {"session.intra_op.allow_spinning": "0"}
    assert "config" in hint_of(ConfigError, mlp(), "cpu", session_options=entry)
    for table in (entry, {"intra_op_num_threads": 2}):
        config = {"targets": {"t": {"provider": "cpu", **table}}}
        assert "session_options" in hint_of(ConfigError, mlp(), "t", config=config)


def test_a_path_is_as_good_as_a_text(tmp_path):
    epkit.open(mlp(), "cpu", session_options={"optimized_model_filepath": tmp_path / "a.onnx"}).close()
    config = {
        "targets": {"t": {"provider": "cpu", "session_options": {"optimized_model_filepath": tmp_path / "b.onnx"}}}
    }
    epkit.open(mlp(), "t", config=config).close()
    assert (tmp_path / "a.onnx").is_file()
    assert (tmp_path / "b.onnx").is_file()


@pytest.mark.parametrize(
    ("contents", "given"),
    [
        (identity(shape=[]), np.ones(1, np.float32)),
        (identity(shape=["n"]), np.ones((1, 3), np.float32)),
        (identity(shape=["batch", 3]), np.ones(3, np.float32)),
        (identity(shape=[3, 1]), np.ones((1, 3, 1), np.float32)),
    ],
)
def test_a_rank_that_is_off_by_dimensions_of_one_names_what_mends_it(contents, given):
    with epkit.open(contents, "cpu") as session:
        with pytest.raises(InputError) as error:
            session.run(given)
        mended = error.value.hint.rpartition(": ")[2]
        array = eval(mended if mended.startswith("array") else f"array{mended}", {"array": given})
        assert session.run(array)["y"].size == given.size


def test_a_rank_that_nothing_mends_is_told_without_advice():
    with epkit.open(identity(shape=["n"]), "cpu") as session, pytest.raises(InputError) as error:
        session.run(np.ones((2, 3), np.float32))
    assert error.value.hint == ""


def sequence() -> bytes:
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, ["n"]))
    inputs, outputs = [helper.make_value_info("s", kind)], [helper.make_value_info("t", kind)]
    return model([node("Identity", ["s"], ["t"])], inputs, outputs)


def mapped() -> bytes:
    number = helper.make_tensor_type_proto(TensorProto.FLOAT, [1])
    inputs = [helper.make_value_info("m", helper.make_map_type_proto(TensorProto.INT64, number))]
    cast = node("CastMap", ["m"], ["y"], domain="ai.onnx.ml", cast_to="TO_FLOAT", map_form="SPARSE", max_map=4)
    return model([cast], inputs, [value("y", [1, 4])], domains=["ai.onnx.ml"])


def test_a_sequence_that_was_written_is_read_again(command, empty):
    (empty / "m.onnx").write_bytes(sequence())
    np.savez(empty / "s.npz", np.ones(2, np.float32), np.zeros(3, np.float32))
    assert command("run", "m.onnx", "-t", "cpu", "--input", "s=s.npz", "--output-dir", "out")[0] == 0
    code, out, _ = command("run", "m.onnx", "-t", "cpu", "--input", "s=out/t.npz", "--json")
    assert (code, json.loads(out)["outputs"]["t"]["shape"]) == (0, [2])
    assert epkit.compare("m.onnx", ["cpu", "cpu"], inputs={"s": "out/t.npz"}, seeds=1).agree


def test_a_map_is_read_from_json(command, empty):
    (empty / "m.onnx").write_bytes(mapped())
    (empty / "m.json").write_text('{"1": 0.5, "3": 2}')
    assert command("run", "m.onnx", "-t", "cpu", "--input", "m=m.json", "--output-dir", "out")[0] == 0
    assert np.load(empty / "out" / "y.npy").tolist() == [[0, 0.5, 0, 2]]
    code, _, err = command("run", "m.onnx", "-t", "cpu")
    assert code == 2
    assert "--input m=FILE.json" in err


@pytest.mark.parametrize("wrong", ["", "[1, 2]", '{"a": 1}', "[" * 5000])
def test_json_that_is_no_map_is_an_error_of_the_input(command, empty, wrong):
    (empty / "m.onnx").write_bytes(mapped())
    (empty / "m.json").write_text(wrong)
    code, out, err = command("run", "m.onnx", "-t", "cpu", "--input", "m=m.json")
    assert (code, out) == (2, "")
    assert "hint" in err
