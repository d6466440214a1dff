"""What ONNX Runtime does silently ends, through epkit, in an error or in a line of the report.

Each test names the trap: what plain ONNX Runtime 1.31 does with the same request.
"""

from __future__ import annotations

import gc
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from capabilities import SECOND, needs
from hypothesis import given, settings
from hypothesis import strategies as st
from models import identity, light, mlp, model, value
from onnx import TensorProto, helper, numpy_helper
from texts import says
from together import together

import epkit
from epkit.discovery import registry
from epkit.discovery.probe import ask
from epkit.errors import (
    ConfigError,
    EpkitError,
    InputError,
    ModelError,
    ProviderUnavailable,
    RunError,
    RunTimeout,
    UnknownTarget,
)


def usable(name: str) -> bool:
    found = registry.discover()
    return ask([(found.providers[name], None)], found)[name].usable


@pytest.fixture(scope="module", autouse=True)
def _without_cuda():
    """The table is about a machine without the CUDA libraries; on any other, the GPU suite takes its place."""
    if usable("cuda"):
        pytest.skip("this machine has CUDA: nothing falls back here")


def target(provider: str, **keys: object) -> dict[str, object]:
    return {"targets": {"t": {"provider": provider, **keys}}}


# -- a machine without CUDA libraries


def test_tensorrt_cuda_cpu_opens_on_the_cpu_printing_an_error_to_stdout(capfd):
    with epkit.open(mlp(), "t", config=target("tensorrt", fallback=["cuda"])) as session:
        assert session.report.provider == "cpu"
        assert [(row.provider, row.outcome) for row in session.report.tried] == [
            ("tensorrt", "unusable"),
            ("cuda", "unusable"),
            ("cpu", "active"),
        ]
        assert all("cannot open shared object file" in row.reason for row in session.report.tried[:2])
    assert capfd.readouterr() == ("", "")


def test_a_cuda_session_opens_on_the_cpu_without_an_exception(capfd):
    with says(ProviderUnavailable):
        epkit.open(mlp(), "cuda")
    with epkit.open(mlp(), "t", config=target("cuda")) as session:
        assert session.report.provider == "cpu"
        assert session.report.tried[0].outcome == "unusable"
    assert capfd.readouterr() == ("", "")


def test_a_tensorrt_session_opens_on_the_cpu(capfd):
    with says(ProviderUnavailable):
        epkit.open(mlp(), "tensorrt")
    assert capfd.readouterr() == ("", "")


def test_no_provider_at_all_means_the_cpu_and_never_the_gpu():
    with epkit.open(mlp(), config={}) as session:
        assert "automatic chain is cuda, cpu" in session.report.why
        assert session.report.tried[0].outcome == "unusable"


def test_forbidding_the_cpu_is_only_noticed_when_the_session_is_created():
    with says(ProviderUnavailable):
        epkit.open(mlp(), "t", config=target("cuda", cpu=False))


def test_forbidding_the_cpu_and_listing_it_is_a_conflict():
    with says(ConfigError):
        epkit.open(mlp(), "t", config=target("cuda", fallback=["cpu"], cpu=False))


def test_an_unknown_provider_becomes_the_cpu():
    with says(UnknownTarget):
        epkit.open(mlp(), "CUDAExecutionProvidr")


def test_a_known_provider_that_this_build_lacks_becomes_the_cpu(install):
    source = """
from epkit.hookspecs import hookimpl
from epkit.provider import Provider
class Elsewhere(Provider):
    name = "elsewhere"
    ort_name = "DmlExecutionProvider"
@hookimpl
def epkit_providers():
    return [Elsewhere()]
"""
    install("elsewhere", source)
    with says(ProviderUnavailable):
        epkit.open(mlp(), "elsewhere")


@pytest.mark.parametrize(
    ("provider", "options"),
    [("cuda", {"cuda_mem_limit": 1}), ("cuda", {"gpu_mem_limit": "2GB"}), ("tensorrt", {"trt_fp16": True})],
)
def test_a_wrong_option_is_not_looked_at_while_libraries_are_missing(provider, options):
    with says(ConfigError):
        epkit.open(mlp(), provider, options=options)


def test_unknown_options_of_the_cpu_are_ignored():
    with says(ConfigError):
        epkit.open(mlp(), "cpu", options={"use_arena": "1"})


@needs("plugin openvino")
def test_unknown_options_of_openvino_are_ignored_and_echoed():
    with says(ConfigError):
        epkit.open(mlp(), "openvino", options={"nope": "1"})


@needs("plugin openvino")
def test_options_that_openvino_only_warns_about_are_refused():
    with says(ConfigError):
        epkit.open(mlp(), "openvino", options={"device_type": "NPU"})


@pytest.mark.parametrize("entry", [{"session.nonsense": "1"}, {"session.intra_op.allow_spinning": "banana"}])
def test_unknown_session_keys_and_nonsense_values_are_ignored(entry):
    with says(ConfigError):
        epkit.open(mlp(), "cpu", session_options={"config": entry})


def test_a_duplicate_provider_is_only_a_warning():
    with says(ConfigError):
        epkit.open(mlp(), "t", config=target("cuda", fallback=["cuda"]))
    with says(ConfigError):
        epkit.open(mlp(), "t", config=target("cpu", fallback=["cpu"]))


class OnTheGpu:
    """What a tensor on a GPU looks like from outside."""

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, **_):
        raise BufferError("on the GPU")


def test_buffers_on_a_device_that_no_provider_has_quietly_live_on_the_host():
    with epkit.open(identity(), "cpu") as session:
        with says(InputError):
            session.run(OnTheGpu())
        with says(InputError):
            session.bind(OnTheGpu())
        with says(InputError):
            session.bind([1.0], {"y": OnTheGpu()})
        with says(InputError):
            session.bind([1.0], device="cuda:0")
        assert type(session.run([1.0])["y"]) is np.ndarray


# -- more traps


def test_session_options_under_a_wrong_keyword_are_swallowed():
    with epkit.open(mlp(), "cpu", session_options={"intra_op_num_threads": 1, "logid": "mine"}) as session:
        applied = session._caller.session.get_session_options()
        assert (applied.intra_op_num_threads, applied.logid) == (1, "mine")
    with pytest.raises(TypeError):
        epkit.open(mlp(), "cpu", sess_options={"logid": "mine"})  # type: ignore[call-arg]


def _changed(change) -> bytes:
    loaded = onnx.load_from_string(mlp())
    change(loaded)
    return loaded.SerializeToString()


@pytest.mark.parametrize("chain", [("cpu",), ("tensorrt", "cuda")])
def test_an_operator_without_a_kernel_is_the_models_fault(chain):
    node = helper.make_node("Tan", ["x"], ["y"])
    contents = model([node], [value("x", [2], TensorProto.DOUBLE)], [value("y", [2], TensorProto.DOUBLE)])
    with says(ModelError):
        epkit.open(contents, "t", config=target(chain[0], fallback=list(chain[1:])))


def _type_error() -> bytes:
    node = helper.make_node("Add", ["x", "z"], ["y"])
    return model([node], [value("x", [1]), value("z", [1], TensorProto.INT64)], [value("y", [1])])


def _set_opset(loaded: onnx.ModelProto) -> None:
    loaded.opset_import[0].version = 99


MODELS = {
    "IR version too new": _changed(lambda loaded: setattr(loaded, "ir_version", 99)),
    "opset too new": _changed(_set_opset),
    "unknown operator": model([helper.make_node("Bogus", ["x"], ["y"])], [value("x", [1])], [value("y", [1])]),
    "type error": _type_error(),
    "empty": b"",
    "text": b"<html>not found</html>",
}


@pytest.mark.parametrize("fault", MODELS)
@pytest.mark.parametrize("chain", [("cpu",), ("openvino",), ("tensorrt", "cuda")])
def test_the_class_of_a_creation_error_does_not_say_whose_fault_it_is(fault, chain, capfd):
    with pytest.raises(ModelError) as error:
        epkit.open(MODELS[fault], "t", config=target(chain[0], fallback=list(chain[1:])))
    assert error.value.hint
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("chain", [("cpu",), ("openvino",)])
def test_missing_external_data_looks_like_any_other_failure(chain, tmp_path):
    loaded = onnx.load_from_string(mlp())
    onnx.save(loaded, tmp_path / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    with epkit.open(tmp_path / "m.onnx", chain[0]) as session:
        assert session.report.provider == chain[0]
    (tmp_path / "weights.bin").unlink()
    with says(ModelError):
        epkit.open(tmp_path / "m.onnx", chain[0])


def test_a_directory_is_an_invalid_protobuf(tmp_path):
    with says(ModelError):
        epkit.open(tmp_path, "cpu")


@settings(max_examples=25)
@given(st.binary(min_size=1, max_size=4096))
def test_random_bytes_are_a_model_error(contents):
    with pytest.raises(ModelError):
        epkit.open(contents, "cpu")


@settings(max_examples=40)
@given(st.integers(min_value=0, max_value=len(mlp()) - 1))
def test_every_truncation_is_a_model_error(length):
    with pytest.raises(ModelError):
        epkit.open(mlp()[:length], "cpu")


def test_a_chain_with_the_cpu_named_at_its_end_adds_it_once():
    with epkit.open(mlp(), "t", config=target("openvino", fallback=["cpu"])) as session:
        assert [row.provider for row in session.report.tried] == ["openvino", "cpu"]


@needs("openvino")
def test_openvino_stands_first_in_get_providers_even_where_it_has_no_node():
    """A model that folds to a constant."""
    constant = model([], [], [value("y", [1])], [numpy_helper.from_array(np.ones(1, np.float32), "y")])
    with epkit.open(constant, "openvino") as session:
        assert session._caller.session.get_providers()[0] == "OpenVINOExecutionProvider"
        assert session.report.provider is None
        assert session.report.placement == {}
        assert any("no node" in note for note in session.report.notes)
        np.testing.assert_array_equal(session.run({})["y"], [1])


@needs("openvino")
def test_openvino_with_the_cpu_beside_it_takes_a_whole_network_and_eight_threads(capfd):
    array = np.ones((1, 3, 224, 224), np.float32)
    with epkit.open(light("resnet50"), "openvino") as session:
        assert session.report.placement["openvino"].share == 1
        wanted = session.run(array)
        answers: list[bool] = []

        def work(_: int) -> None:
            same = [np.allclose(session.run(array)[name], wanted[name], rtol=1e-4, atol=1e-6) for name in wanted]
            answers.append(all(same))

        together(work)
    assert answers == [True] * 8
    assert capfd.readouterr() == ("", "")


def test_a_healthy_model_prints_warnings(capfd):
    with epkit.open(light("resnet50"), "cpu"):
        pass
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_small_floats_are_refused_or_come_back_as_raw_integers(dtype):
    numbers = {
        "bfloat16": TensorProto.BFLOAT16,
        "float8_e4m3fn": TensorProto.FLOAT8E4M3FN,
        "float8_e5m2": TensorProto.FLOAT8E5M2,
    }
    array = np.array([0.5, -2.0, 1.0], dtype=getattr(ml_dtypes, dtype))
    with epkit.open(identity(numbers[dtype], opset=19), "cpu") as session:
        (output,) = session.run(array).values()
    assert output.dtype == array.dtype
    np.testing.assert_array_equal(output.astype(np.float32), [0.5, -2.0, 1.0])


def test_sequences_and_maps_come_back_as_lists_and_dicts():
    split = model(
        [helper.make_node("SplitToSequence", ["x"], ["y"], keepdims=1)],
        [value("x", [2, 2])],
        [helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)],
    )
    with epkit.open(split, "cpu") as session:
        (output,) = session.run(np.ones((2, 2), np.float32)).values()
        assert isinstance(output, list)
        assert [one.shape for one in output] == [(1, 2), (1, 2)]
    zipmap = model(
        [helper.make_node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_strings=["a", "b"])],
        [value("x", [None, 2])],
        [
            helper.make_value_info(
                "y",
                helper.make_sequence_type_proto(
                    helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
                ),
            )
        ],
        domains=["ai.onnx.ml"],
    )
    with epkit.open(zipmap, "cpu") as session:
        assert session.run([[0.25, 0.75]])["y"] == [{"a": 0.25, "b": 0.75}]


def test_big_endian_arrays_are_read_as_garbage():
    with epkit.open(identity(), "cpu") as session:
        np.testing.assert_array_equal(session.run(np.array([1.5, 2.5], dtype=">f4"))["y"], [1.5, 2.5])


def test_none_is_accepted_and_dies_inside_a_kernel():
    with epkit.open(identity(), "cpu") as session, says(InputError):
        session.run({"x": None})


@needs("openvino")
def test_what_a_preparation_prints_reaches_stdout(install, capfd):
    source = """
import sys
from epkit.hookspecs import hookimpl
from epkit_openvino.provider import OpenVino
class Chatty(OpenVino):
    name = "chatty"
    def prepare(self, runtime):
        print("Failed to load libfoo.so")
        print("and more", file=sys.stderr)
@hookimpl
def epkit_providers():
    return [Chatty()]
"""
    install("chatty", source)
    with epkit.open(mlp(), "chatty") as session:
        assert session.report.provider == "chatty"
    assert capfd.readouterr() == ("", "")


@needs("plugin openvino")
def test_a_device_that_the_plugin_library_does_not_offer_becomes_another(tmp_path: Path):
    found = registry.discover()
    answer = ask([(found.providers["openvino"], "NPU")], found)["openvino"]
    if answer.usable:
        pytest.skip("this machine has an NPU")
    with says(ProviderUnavailable):
        epkit.open(mlp(), "t", config=target("openvino", device="NPU", strict=True))


# -- arrays, bindings and runs


TWO_INPUTS = model(
    [helper.make_node("Add", ["a", "b"], ["y"])], [value("a", ["N", 2]), value("b", ["N", 2])], [value("y", ["N", 2])]
)
WAYS = {
    "run": lambda session: session.run,
    "bind": lambda session: lambda feed: session.bind(feed).run(),
    "refill": lambda session: lambda feed: session.bind({"a": TABLE, "b": TABLE}).run(feed),
}
TABLE = np.arange(6, dtype=np.float32).reshape(3, 2)


@pytest.fixture(params=WAYS)
def way(request):
    return WAYS[request.param]


@pytest.fixture(params=["cpu", SECOND])
def adding(request):
    with epkit.open(TWO_INPUTS, request.param) as session:
        yield session


@pytest.mark.parametrize("array", [TABLE.T.copy().T, np.repeat(TABLE, 2, axis=1)[:, ::2], TABLE[::-1], TABLE[:, ::-1]])
def test_an_address_of_what_is_not_contiguous_is_read_as_if_it_were(adding, way, array):
    np.testing.assert_array_equal(way(adding)({"a": array, "b": TABLE})["y"], array + TABLE)


@pytest.mark.parametrize("wrong", [np.float64, np.int32, np.int8, np.uint32, np.complex64, bool])
def test_filling_a_buffer_checks_the_count_of_elements_alone(adding, way, wrong):
    """It takes int32's bits for float32, half of a float64, and reads past the end of an int8."""
    feed = {"a": TABLE.astype(wrong), "b": TABLE}
    if np.can_cast(wrong, np.float32):  # then it is converted
        np.testing.assert_array_equal(way(adding)(feed)["y"], feed["a"] + TABLE)
    else:
        with says(InputError):
            way(adding)(feed)


def test_lists_are_converted_silently(adding, way):
    np.testing.assert_array_equal(way(adding)({"a": TABLE.tolist(), "b": TABLE})["y"], 2 * TABLE)
    with says(InputError):
        way(adding)({"a": [[1.0], [1.0, 2.0]], "b": TABLE})


@pytest.mark.parametrize(
    ("feed", "told"),
    [
        ({"a": TABLE, "b": TABLE, "c": TABLE}, "no input 'c'"),
        ({"a": TABLE[0], "b": TABLE}, "input 'a' wants"),
        ({"a": TABLE[:, :1], "b": TABLE}, "input 'a' wants"),
        ({"a": TABLE, "b": None}, "None"),
    ],
)
def test_a_feed_that_does_not_fit_dies_in_one_of_four_exceptions(adding, way, feed, told):
    with says(InputError):
        way(adding)(feed)


def test_a_binding_without_an_input_crashes_the_process_on_webgpu(adding):
    """On the CPU and OpenVINO it is an error of the run, of two kinds."""
    for feed in ({}, {"a": TABLE}):
        with says(InputError):
            adding.run(feed)
        with says(InputError):
            adding.bind(feed)


def test_a_bound_array_is_kept_alive_by_nobody_where_its_address_was_given(adding):
    large = np.ones((20_000, 2), np.float32)
    binding = adding.bind({"a": large.copy(), "b": large[::-1]}, {"y": np.empty_like(large)})
    gc.collect()
    others = [np.full_like(large, 7) for _ in range(20)]
    for _ in range(2):
        np.testing.assert_array_equal(binding.run()["y"], 2 * large)
    del others


def test_an_output_that_is_bound_without_a_buffer_keeps_the_one_it_got_and_no_other_shape_fits(adding):
    first = adding.run({"a": TABLE, "b": TABLE})["y"]
    binding = adding.bind({"a": TABLE, "b": TABLE})
    for rows in (3, 1, 3, 2, 0):
        feed = {"a": TABLE[:rows], "b": TABLE[:rows] + rows}
        np.testing.assert_array_equal(binding.run(feed)["y"], 2 * TABLE[:rows] + rows)
        adding.run(feed)
    np.testing.assert_array_equal(first, 2 * TABLE)


@pytest.mark.parametrize("buffer", [np.empty((3, 2)), np.empty((2, 3), np.float32), np.empty((4, 2), np.float32)])
def test_an_output_buffer_that_does_not_fit_is_an_error_of_a_run_at_best(adding, buffer):
    with says(EpkitError):
        adding.bind({"a": TABLE, "b": TABLE}, {"y": buffer}).run()


def test_an_unknown_output_only_fails_at_the_run_and_none_at_all_too(adding):
    for outputs in (["nope"], []):
        with pytest.raises(InputError):
            adding.bind({"a": TABLE, "b": TABLE}, outputs)
        with pytest.raises(InputError):
            adding.run({"a": TABLE, "b": TABLE}, outputs)


@pytest.mark.parametrize("device", ["cuda:0", "cuda", "webgpu:0", "dml", "nowhere"])
def test_an_output_on_a_device_that_no_provider_has_quietly_comes_back_on_the_host(adding, device):
    with says(InputError):
        adding.bind({"a": TABLE, "b": TABLE}, device=device)


def test_read_only_arrays_scalars_and_empty_arrays_are_fine():
    frozen = np.frombuffer(TABLE.tobytes(), np.float32).reshape(3, 2)
    with epkit.open(identity(shape=None), "cpu") as session:
        for array in (frozen, np.float32(3), np.array(3, np.float32), np.empty((0, 3), np.float32)):
            for _ in range(3):
                assert session.run(array)["y"].shape == np.shape(array)
            np.testing.assert_array_equal(session.bind(array).run()["y"], array)


def test_a_zero_batch_can_break_a_model_that_reshapes():
    shape = numpy_helper.from_array(np.array([0, -1]), "s")
    contents = model(
        [helper.make_node("Reshape", ["x", "s"], ["y"])], [value("x", ["N", 2, 2])], [value("y", ["N", 4])], [shape]
    )
    with epkit.open(contents, "cpu") as session:
        empty = np.empty((0, 2, 2), np.float32)
        for run in (lambda: session.run(empty), lambda: session.bind(empty).run()):
            with says(RunError):
                run()
        np.testing.assert_array_equal(session.run(np.ones((1, 2, 2), np.float32))["y"], np.ones((1, 4)))


@pytest.mark.parametrize("texts", [["ä", "b"], np.array(["ä", "b"]), np.array(["ä".encode(), b"b"])])
def test_texts_cannot_be_bound_and_bytes_are_decoded_by_chance(texts):
    with epkit.open(identity(TensorProto.STRING), "cpu") as session:
        assert session.run(texts)["y"].tolist() == ["ä", "b"]
        assert session.bind(texts).run()["y"].tolist() == ["ä", "b"]
        for run in (session.run, session.bind):
            with says(InputError):
                run(np.array([b"\xff"]))


def test_four_bit_integers_have_no_array():
    contents = model(
        [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.INT8)],
        [value("x", ["N"], TensorProto.INT4)],
        [value("y", ["N"], TensorProto.INT8)],
        opset=21,
        ir=10,
    )
    given = np.array([-8, 7, 1], ml_dtypes.int4)
    with epkit.open(contents, "cpu") as session:
        assert session.run(given)["y"].tolist() == [-8, 7, 1]
        assert session.bind(given).run()["y"].tolist() == [-8, 7, 1]
    with says(ModelError):
        epkit.open(identity(TensorProto.INT4, opset=21), "cpu")


def test_one_binding_in_two_threads_raises_nothing_and_mixes_their_numbers():
    told: list[str] = []
    with epkit.open(mlp(), "cpu") as session, session.bind(np.ones((20_000, 16), np.float32)) as binding:

        def work(_: int) -> None:
            while not told:
                try:
                    binding.run()
                except RunError as error:
                    told.append(str(error))

        together(work, 2)
    assert "in another thread" in told[0]


@needs("openvino")
def test_nodes_of_branches_count_on_the_cpu_and_as_one_on_openvino():
    def branch(name: str, operator: str) -> onnx.GraphProto:
        return helper.make_graph([helper.make_node(operator, ["x"], ["z"])], name, [], [value("z", ["N"])])

    node = helper.make_node("If", ["c"], ["y"], then_branch=branch("yes", "Relu"), else_branch=branch("no", "Neg"))
    contents = model([node], [value("x", ["N"]), value("c", [], TensorProto.BOOL)], [value("y", ["N"])])
    for provider in ("cpu", "openvino"):
        with epkit.open(contents, provider) as session:
            assert session.report.provider == provider
            assert session.report.placement[provider].share == 1
            for chosen, wanted in ((True, [0, 2]), (False, [1, -2])):
                feed = {"x": np.array([-1, 2], np.float32), "c": np.array(chosen)}
                assert session.run(feed)["y"].tolist() == wanted
                assert session.bind(feed).run()["y"].tolist() == wanted


def endless() -> bytes:
    """Build a model that counts to "n"."""
    body = helper.make_graph(
        [helper.make_node("Add", ["v", "one"], ["w"]), helper.make_node("Identity", ["c"], ["d"])],
        "body",
        [value("i", [], TensorProto.INT64), value("c", [], TensorProto.BOOL), value("v", [1])],
        [value("d", [], TensorProto.BOOL), value("w", [1])],
    )
    return model(
        [helper.make_node("Loop", ["n", "", "zero"], ["y"], body=body)],
        [value("n", [], TensorProto.INT64)],
        [value("y", [1])],
        [
            numpy_helper.from_array(np.ones(1, np.float32), "one"),
            numpy_helper.from_array(np.zeros(1, np.float32), "zero"),
        ],
    )


def test_a_run_that_was_terminated_poisons_its_options(monkeypatch):
    """The next run with them ends at once, too: each run has options of its own."""
    monkeypatch.setattr("epkit.runtime.timeout._GRACE_S", 60.0)  # a busy machine may take its time
    with epkit.open(endless(), "cpu") as session:
        for _ in range(2):
            with says(RunTimeout):
                session.run(np.array(2**40), timeout=0.05)
            assert session.run(np.array(7), timeout=600)["y"].tolist() == [7]
            assert session.run(np.array(7))["y"].tolist() == [7]


@pytest.mark.slow
@needs("openvino")
def test_a_provider_that_made_one_node_of_a_model_is_not_terminated():
    weight = numpy_helper.from_array(np.eye(768, dtype=np.float32), "w")
    nodes = [helper.make_node("MatMul", [f"h{turn}", "w"], [f"h{turn + 1}"]) for turn in range(300)]
    contents = model(nodes, [value("h0", ["N", 768])], [value("h300", ["N", 768])], [weight])
    array = np.ones((500, 768), np.float32)
    with epkit.open(contents, "openvino") as session:
        with says(RunTimeout):
            session.run(array, timeout=0.02)
        np.testing.assert_array_equal(session.run(array)["h300"], array)
