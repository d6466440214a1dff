from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
from pathlib import Path

import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from pydantic import ValidationError

from epkit.config.ort_config_keys import WRITE_INSTEAD, ConfigEntries
from epkit.config.session_options import SessionOptions
from epkit.discovery.docstrings import sentences

KEYS = {str(field.alias): name for name, field in ConfigEntries.model_fields.items()}

ENUMS = {
    "execution_mode": onnxruntime.ExecutionMode,
    "execution_order": onnxruntime.ExecutionOrder,
    "graph_optimization_level": onnxruntime.GraphOptimizationLevel,
}

PROPERTIES: dict[str, tuple[object, ...]] = {
    "enable_cpu_mem_arena": (True, False),
    "enable_mem_pattern": (True, False),
    "enable_mem_reuse": (True, False),
    "enable_profiling": (True, False),
    "use_deterministic_compute": (True, False),
    "use_per_session_threads": (True, False),
    "execution_mode": tuple(onnxruntime.ExecutionMode.__members__),
    "execution_order": tuple(onnxruntime.ExecutionOrder.__members__),
    "graph_optimization_level": tuple(onnxruntime.GraphOptimizationLevel.__members__),
    "intra_op_num_threads": (0, 3, 128),
    "inter_op_num_threads": (0, 3, 128),
    "log_severity_level": (0, 1, 2, 3, 4),
    "log_verbosity_level": (0, 7),
    "logid": ("", "mine"),
    "optimized_model_filepath": ("there.onnx",),
    "profile_file_prefix": ("mine_",),
}

EXAMPLES: dict[str, tuple[object, ...]] = {
    "session.intra_op_thread_affinities": ("1", "1,2", "1-2"),
    "session.node_partition_config_file": ("partition.json",),
    "session.model_external_initializers_file_folder_path": ("weights",),
    "session.collect_node_memory_stats_to_file": ("stats.csv",),
    "session.resource_cuda_partitioning_settings": (",", "4000000,"),
    "session.max_shape_override": ("x:[8,2]", "x : [ 8, 2 ]"),
    "session.layer_assignment_settings": ("cpu(a)", "gpu(=a,b);cpu(c)"),
    "session.name_based_layer_assignment": ("cpu(a)",),
    "optimization.disable_specified_optimizers": ("ConstantFolding,MatMulAddFusion",),
    "optimization.minimal_build_optimizations": ("apply",),
    "session.graph_optimizations_loop_level": (0, "1", 2),
    "session.qdq_matmulnbits_accuracy_level": (0, "4"),
    "session.qdq_matmulnbits_block_size": (-1, 0, "32"),
    "session.load_model_format": ("ONNX",),
    "session.save_model_format": ("ONNX", "ORT"),
    "session.optimized_model_external_initializers_file_name": ("weights.bin",),
    "ep.context_file_path": ("context.onnx",),
    "ep.context_node_name_prefix": ("a_",),
    "ep.context_model_external_initializers_file_name": ("context.bin",),
    "ep.context_source_model_path": ("model.onnx",),
    "session.moe_expert_counter_alpha": (0.5, "0.25", 0),
    "session.moe_expert_counter_beta": (0.05, "1e-2", 0),
    "session.gqa_value_layout": ("BNSH",),
    "ep.cuda.fpa_intb_gemv_paired_k": ("1",),
    "ep.cuda.fpa_intb_profile_m": ("1", "1,8,64"),
}

# Keys of other builds: the library that reads them is not in this wheel.
ELSEWHERE = {
    "mlas.enable_gemm_fastmath_arm64_bfloat16": "builds for Arm",
    "ep.context_node_name_prefix": "Qualcomm's provider",
}


def model() -> bytes:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], name="a")], "g", value[:1], value[1:])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


MODEL = model()


def options(**written: object) -> SessionOptions:
    return SessionOptions.model_validate(written)


def of_config(**written: object) -> SessionOptions:
    return options(config=written)


def real(written: SessionOptions) -> onnxruntime.SessionOptions:
    made = onnxruntime.SessionOptions()
    made.log_severity_level = 4
    for name, value in written.properties().items():
        setattr(made, name, ENUMS[name].__members__[value] if name in ENUMS else value)
    for key, text in written.entries().items():
        made.add_session_config_entry(key, text)
    for name, size in written.free_dimension_overrides.items():
        made.add_free_dimension_override_by_name(name, size)
    return made


def values_of(key: str) -> tuple[object, ...]:
    """Values to try for a config key: its examples, or yes and no, or numbers, whichever its field takes."""
    if key in EXAMPLES:
        return EXAMPLES[key]
    for values in ((True, False, "0", "1", 0, 1, "TRUE", "false"), (1, "7", 64)):
        try:
            for value in values:
                ConfigEntries.model_validate({key: value})
        except ValidationError:
            continue
        return values
    return ("text",)


def faults(written: object) -> list[tuple[str, tuple[object, ...]]]:
    with pytest.raises(ValidationError) as caught:
        SessionOptions.model_validate(written)
    return [(fault["msg"], fault["loc"]) for fault in caught.value.errors()]


def test_every_property_of_onnx_runtime_is_known_and_none_is_made_up():
    made = onnxruntime.SessionOptions()
    theirs = {name for name in dir(made) if not name.startswith("_") and not callable(getattr(made, name))}
    assert theirs == set(PROPERTIES)
    ours = set(options(**{name: values[0] for name, values in PROPERTIES.items()}).properties())
    assert ours == theirs


@pytest.mark.parametrize("name", PROPERTIES)
def test_a_property_that_was_set_reads_back_from_onnx_runtime(name: str):
    for value in PROPERTIES[name]:
        read = getattr(real(options(**{name: value})), name)
        assert (read.name if name in ENUMS else read) == value


def test_what_is_unset_stays_unset():
    assert options().properties() == {}
    assert options().entries() == {}
    assert options(intra_op_num_threads=None, config={"session.set_denormal_as_zero": None}) == options()


@pytest.mark.parametrize("key", KEYS)
def test_a_config_entry_arrives_as_text_and_a_session_opens_with_it(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    beside: dict[str, object] = {"session.enable_moe_expert_counting": True} if ".moe_expert_counter" in key else {}
    (tmp_path / "state.txt").write_text("moe_expert_state 1\n")
    (tmp_path / "model.onnx").write_bytes(MODEL)
    values = ("state.txt",) if key == "session.moe_expert_counter_state_file" else values_of(key)
    for number, value in enumerate(values):
        written = options(config={key: value, **beside}, optimized_model_filepath=f"optimized{number}.onnx")
        text = written.entries()[key]
        assert isinstance(text, str)
        made = real(written)
        assert made.get_session_config_entry(key) == text
        if key == "session.intra_op_thread_affinities":
            made.intra_op_num_threads = 2
        onnxruntime.InferenceSession("model.onnx", made, enable_fallback=0)


def libraries() -> list[bytes]:
    folder = Path(onnxruntime.__file__).parent / "capi"
    binding = [path for path in folder.iterdir() if path.name.startswith("onnxruntime_pybind11_state")]
    found = [*binding, *folder.glob("*providers_cuda*")]
    spec = importlib.util.find_spec("onnxruntime_ep_openvino")
    if spec is not None and spec.origin is not None:
        found += Path(spec.origin).parent.glob("*providers_openvino_plugin.*")
    return [path.read_bytes() for path in found]


def test_the_keys_are_those_in_onnx_runtime_s_own_libraries():
    texts = libraries()
    missing = {key for key in KEYS if not any(key.encode() in text for text in texts)}
    assert missing <= set(ELSEWHERE)
    in_binding = {
        found
        for area in (b"\0session.", b"\0optimization.", b"\0mlas.", b"\0ep.", b"\0memory.")
        for found in strings(texts[0], area)
    }
    unknown = {found for found in in_binding if not found.endswith(".")} - set(KEYS) - set(WRITE_INSTEAD)
    assert unknown == set()
    assert len(in_binding) > 80


def strings(text: bytes, start: bytes) -> list[str]:
    found, at = [], text.find(start)
    while at >= 0:
        word = text[at + 1 : text.index(b"\0", at + 1)].decode(errors="replace")
        if word.isascii() and word.replace(".", "").replace("_", "").isalnum() and word.islower():
            found.append(word)
        at = text.find(start, at + 1)
    return found


def test_every_key_has_a_sentence():
    for model_class in (ConfigEntries, SessionOptions):
        for name, sentence in sentences(model_class).items():
            assert sentence.endswith("."), name


@given(
    written=st.dictionaries(
        st.one_of(st.sampled_from([*KEYS, *WRITE_INSTEAD]), st.text(max_size=40)),
        st.one_of(
            st.booleans(),
            st.integers(),
            st.floats(),
            st.text(),
            st.none(),
            st.lists(st.integers()),
            st.sampled_from("01"),
        ),
        max_size=4,
    )
)
def test_whatever_is_written_is_either_text_for_known_keys_or_an_error(written: dict[str, object]):
    try:
        entries = options(config=written).entries()
    except ValidationError:
        return
    assert set(entries) <= set(KEYS)
    assert set(entries) == {key for key, value in written.items() if value is not None}
    assert all(isinstance(text, str) and text for text in entries.values())
    assert not any(isinstance(value, float) and math.isnan(value) for value in written.values())
    real(options(config=written))


@pytest.mark.parametrize("key", [*WRITE_INSTEAD])
def test_a_key_that_belongs_elsewhere_says_what_to_write_instead(key: str):
    assert faults({"config": {key: "1"}}) == [(f"Value error, {WRITE_INSTEAD[key]}", ("config", key))]
    ((message, location),) = faults({"extra": {key: "1"}})
    assert (key in message, location) == (True, ("extra",))


@pytest.mark.parametrize(
    "key", ["session.intra_op.allow_spining", "session__dynamic_block_base", "session.disable_fallback", ""]
)
def test_an_unknown_key_is_an_error_at_that_key(key: str):
    with pytest.raises(ValidationError) as caught:
        options(config={key: "1"})
    (fault,) = caught.value.errors()
    assert (fault["type"], fault["loc"]) == ("extra_forbidden", ("config", key))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("session.intra_op.allow_spinning", "banana"),
        ("session.intra_op.allow_spinning", 2),
        ("session.intra_op.allow_spinning", 1.0),
        ("session.intra_op.spin_duration_us", "1.5"),
        ("session.intra_op.spin_duration_us", True),
        ("session.intra_op.spin_backoff_max", 0),
        ("session.dynamic_block_base", 2**31),
        ("session.function_expansion_node_limit", "0"),
        ("mlas.kleidiai.conv_igemm_max_work", "-1"),
        ("mlas.nchwc_pointwise_conv_max_input_channel_batch", "9" * 5000),
        ("session.graph_optimizations_loop_level", 3),
        ("session.qdq_matmulnbits_accuracy_level", "-1"),
        ("session.save_model_format", "ort"),
        ("session.gqa_value_layout", "x"),
        ("session.max_shape_override", "x"),
        ("session.layer_assignment_settings", "x"),
        ("session.resource_cuda_partitioning_settings", "x"),
        ("session.intra_op_thread_affinities", ""),
        ("session.intra_op_thread_affinities", "0"),
        ("session.intra_op_thread_affinities", "2-1"),
        ("session.intra_op_thread_affinities", "1; 2"),
        ("session.moe_expert_counter_alpha", "nan"),
        ("session.moe_expert_counter_alpha", -0.5),
        ("ep.context_file_path", ""),
        ("ep.context_file_path", "x" * 9000),
    ],
)
def test_a_value_that_makes_no_sense_is_an_error_at_its_key(key: str, value: object):
    assert [location for _, location in faults({"config": {key: value}})] == [("config", key)]


def test_a_value_that_epkit_refuses_would_have_ended_the_process():
    code = (
        "import sys, onnxruntime\n"
        "options = onnxruntime.SessionOptions()\n"
        "options.add_session_config_entry('mlas.kleidiai.conv_igemm_max_work', 'x')\n"
        "onnxruntime.InferenceSession(sys.stdin.buffer.read(), options)\n"
    )
    convolution = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 4, 4])],
        [onnx.helper.make_tensor("w", TensorProto.FLOAT, [1, 1, 1, 1], [2.0])],
    )
    made = helper.make_model(convolution, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    done = subprocess.run(
        [sys.executable, "-c", code], input=made.SerializeToString(), capture_output=True, check=False
    )
    assert done.returncode < 0
    assert faults({"config": {"mlas.kleidiai.conv_igemm_max_work": "x"}})


@pytest.mark.parametrize(
    "written",
    [
        {"intra_op_num_threads": -1},
        {"intra_op_num_threads": True},
        {"intra_op_num_threads": 2**31},
        {"log_severity_level": 5},
        {"execution_mode": "parallel"},
        {"optimized_model_filepath": ""},
        {"free_dimension_overrides": {"batch": 0}},
        {"free_dimension_overrides": {"": 1}},
        {"free_dimension_overrides": {"batch": True}},
        {"custom_ops_libraries": "ops.so"},
        {"extra": {"session.new": 1}},
        {"extra": {"": "1"}},
        {"extra": {"k" * 1025: "1"}},
        {"extra": {"k": "1" * 8193}},
        {"enable_mem_patern": True},
        {"config": []},
        {"intra_op_num_threads": 4, "config": {"session.intra_op_thread_affinities": "1;2"}},
        {"config": {"session.layer_assignment_settings": "cpu(a)", "session.name_based_layer_assignment": "cpu(a)"}},
        {"config": {"session.moe_expert_counter_alpha": 0.5}},
        {"config": {"session.enable_moe_expert_counting": True, "session.moe_expert_counter_alpha": 0.95}},
        {"config": {"optimization.minimal_build_optimizations": "save"}},
        {
            "config": {"optimization.minimal_build_optimizations": "save", "session.save_model_format": "ONNX"},
            "optimized_model_filepath": "x.ort",
        },
    ],
)
def test_what_onnx_runtime_would_refuse_or_misread_is_an_error(written: dict[str, object]):
    assert faults(written)


@pytest.mark.parametrize(
    ("threads", "affinities"), [(3, "1;2"), (3, "1,2;1-2"), (2, "1"), (1, "1"), (0, "1;2;3"), (None, "1")]
)
def test_affinities_name_every_thread_but_the_calling_one(threads: int | None, affinities: str):
    written = options(intra_op_num_threads=threads, config={"session.intra_op_thread_affinities": affinities})
    if threads:
        onnxruntime.InferenceSession(MODEL, real(written), enable_fallback=0)


def test_free_dimensions_are_fixed():
    session = onnxruntime.InferenceSession(
        MODEL, real(options(free_dimension_overrides={"batch": 3})), enable_fallback=0
    )
    assert session.get_inputs()[0].shape == [3, 2]


def test_extra_passes_on_what_epkit_does_not_know_and_wins():
    written = options(
        config={"session.set_denormal_as_zero": True},
        extra={"session.newer": "x", "session.set_denormal_as_zero": "0"},
    )
    assert written.entries() == {"session.set_denormal_as_zero": "0", "session.newer": "x"}
    assert real(written).get_session_config_entry("session.newer") == "x"


@pytest.mark.parametrize(
    ("written", "note"),
    [
        ({"inter_op_num_threads": 2}, "without execution_mode = ORT_PARALLEL"),
        ({"config": {"session.inter_op.allow_spinning": "0"}}, "without execution_mode = ORT_PARALLEL"),
        ({"profile_file_prefix": "x"}, "without enable_profiling = True"),
        ({"profile_file_prefix": "x", "enable_profiling": False}, "without enable_profiling = True"),
        ({"log_verbosity_level": 3}, "without log_severity_level = 0"),
        (
            {"config": {"session.intra_op.allow_spinning": False, "session.intra_op.spin_duration_us": 9}},
            "without session.intra_op.allow_spinning = 1",
        ),
        ({"config": {"session.save_model_format": "ORT"}}, "without optimized_model_filepath"),
        ({"config": {"ep.context_file_path": "x"}}, "without ep.context_enable = 1"),
        ({"use_per_session_threads": False}, "global thread pool"),
        ({"execution_order": "MEMORY_EFFICIENT"}, "built for training"),
        ({"execution_mode": "ORT_PARALLEL", "inter_op_num_threads": 2}, "cannot run in the child"),
        ({"config": {"session.set_denormal_as_zero": True}}, "only in the process's first session"),
    ],
)
def test_what_has_no_effect_by_itself_or_more_than_it_says_is_a_note(written: dict[str, object], note: str):
    (sentence,) = options(**written).notes()
    assert note in sentence


@pytest.mark.parametrize(
    "written",
    [
        {},
        {"profile_file_prefix": "x", "enable_profiling": True},
        {"config": {"session.intra_op.spin_duration_us": 9}},
        {"config": {"session.save_model_format": "ORT"}, "optimized_model_filepath": "x.ort"},
    ],
)
def test_what_has_an_effect_is_no_note(written: dict[str, object]):
    assert options(**written).notes() == ()


def test_a_note_of_failure_is_true():
    for written in ({"use_per_session_threads": False}, {"execution_order": "MEMORY_EFFICIENT"}):
        made = real(options(**written))
        with pytest.raises(Exception, match=r"EnvCreatedWithGlobalThreadPools|not enabled"):
            onnxruntime.InferenceSession(MODEL, made, enable_fallback=0)


def test_the_options_cannot_be_changed():
    with pytest.raises(ValidationError):
        options().intra_op_num_threads = 3  # type: ignore[misc]
