from __future__ import annotations

import contextlib

import pytest
from capabilities import needs
from hypothesis import given
from hypothesis import strategies as st
from texts import says

from epkit.config import file as config
from epkit.config import schema, target
from epkit.discovery import registry
from epkit.errors import ConfigError, UnknownTarget


@pytest.fixture(scope="module")
def installed():
    return registry.discover()


@pytest.fixture
def read(installed):
    def _read(name=None, written=None, **arguments):
        return target.read(name, config.load(written or {}, environ={}), installed, **arguments)

    return _read


def names(wanted):
    return [candidate.name for candidate in wanted.chain]


def test_a_bare_provider_is_strict_with_the_cpu_beside_it(read):
    wanted = read("cuda")
    assert names(wanted) == ["cuda", "cpu"]
    assert wanted.strict
    assert names(read("cpu")) == ["cpu"]


def test_a_target_falls_back_along_its_chain_and_ends_on_the_cpu(read):
    table = {"provider": "tensorrt", "fallback": ["cuda"]}
    assert names(read("gpu", {"targets": {"gpu": table}})) == ["tensorrt", "cuda", "cpu"]
    assert names(read("gpu", {"targets": {"gpu": table | {"cpu": False}}})) == ["tensorrt", "cuda"]


def test_without_a_target_the_default_is_taken_and_without_one_the_automatic_chain(read):
    written = {"default": "gpu", "targets": {"gpu": {"provider": "tensorrt"}}}
    assert read(None, written).name == "gpu"
    wanted = read(None)
    assert (wanted.name, names(wanted)) == ("automatic", ["cuda", "cpu"])
    assert "tensorrt" in wanted.why
    assert not wanted.strict


def test_outside_plugins_are_automatic_only_when_a_config_lists_them(read, install):
    source = """
from epkit.hookspecs import hookimpl
from epkit.provider import Provider
class Pushy(Provider):
    name = "pushy"
    ort_name = "PushyExecutionProvider"
    automatic = True
    rank = 1
@hookimpl
def epkit_providers():
    return [Pushy()]
"""
    install("pushy", source)
    found = registry.discover()
    assert names(target.read(None, config.load({}, environ={}), found)) == ["cuda", "cpu"]
    listed = config.load({"automatic": ["pushy", "tensorrt"]}, environ={})
    assert names(target.read(None, listed, found)) == ["pushy", "tensorrt", "cuda", "cpu"]


def test_the_device_goes_to_those_of_the_chain_that_have_such_a_device(read):
    table = {"provider": "tensorrt", "fallback": ["cuda"], "device": 1}
    chain = read("t", {"targets": {"t": table}}).chain
    assert [candidate.sent.get("device_id") for candidate in chain] == ["1", "1", None]


def test_options_reach_the_provider_they_were_written_for(read):
    table = {
        "provider": "tensorrt",
        "fallback": ["cuda"],
        "options": {"trt_fp16_enable": True},
        "options_for": {"cuda": {"cudnn_conv_algo_search": "HEURISTIC", "extra": {"brand_new": "7"}}},
    }
    tensorrt, cuda, cpu = read("t", {"targets": {"t": table}}).chain
    assert tensorrt.sent == {"trt_fp16_enable": "True"}
    assert cuda.sent == {"cudnn_conv_algo_search": "HEURISTIC", "brand_new": "7"}
    assert cpu.sent == {}


def test_the_call_is_laid_over_the_target(read):
    table = {"provider": "cuda", "options": {"use_tf32": True}, "session_options": {"intra_op_num_threads": 2}}
    wanted = read("t", {"targets": {"t": table}}, options={"use_tf32": False}, session_options={"logid": "x"})
    assert wanted.first.sent == {"use_tf32": "0"}
    assert wanted.session_options.properties() == {"intra_op_num_threads": 2, "logid": "x"}


WRONG = {
    "unknown key": ({"provider": "cpu", "fallbck": []}, "unknown key 'fallbck'", "did you mean 'fallback'"),
    "no provider": ({"strict": True}, "provider", ""),
    "unknown provider": ({"provider": "cudda"}, "no provider is named 'cudda'", "did you mean 'cuda'"),
    "unknown fallback": ({"provider": "cuda", "fallback": ["tensort"]}, "'tensort'", "did you mean 'tensorrt'"),
    "unknown option": (
        {"provider": "tensorrt", "options": {"trt_fp16": True}},
        "no such option of tensorrt",
        "did you mean 'trt_fp16_enable'",
    ),
    "option out of range": (
        {"provider": "tensorrt", "options": {"trt_builder_optimization_level": 9}},
        "trt_builder_optimization_level",
        "",
    ),
    "option of the wrong enum": (
        {"provider": "cuda", "options": {"cudnn_conv_algo_search": "Heuristic"}},
        "cudnn_conv_algo_search",
        "HEURISTIC",
    ),
    "options of the cpu": ({"provider": "cpu", "options": {"use_arena": "1"}}, "no such option of cpu", ""),
    "unknown session option": (
        {"provider": "cpu", "session_options": {"intra_op_threads": 1}},
        "no such session option",
        "did you mean 'intra_op_num_threads'",
    ),
    "unknown config key": (
        {"provider": "cpu", "session_options": {"config": {"session.intra_op.alow_spinning": "0"}}},
        "session.intra_op.alow_spinning",
        "did you mean 'session.intra_op.allow_spinning'",
    ),
    "session value out of range": (
        {"provider": "cpu", "session_options": {"intra_op_num_threads": -1}},
        "intra_op",
        "",
    ),
    "key epkit owns": (
        {"provider": "cpu", "session_options": {"config": {"session.disable_cpu_ep_fallback": "1"}}},
        "cpu = false",
        "",
    ),
    "min_placement out of range": ({"provider": "cuda", "min_placement": 1.5}, "min_placement", ""),
    "min_placement of nothing": ({"provider": "cuda", "min_placement": 0}, "min_placement", ""),
    "strict as text": ({"provider": "cuda", "strict": "yes"}, "strict", ""),
    "options_for a stranger": ({"provider": "cpu", "options_for": {"cuda": {}}}, "not in its chain", ""),
    "options_for the first": (
        {"provider": "cuda", "options_for": {"cuda": {"use_tf32": True}}},
        "first provider",
        "under options",
    ),
    "cpu without cpu": ({"provider": "cpu", "cpu": False}, "cpu = false", ""),
    "cpu listed and forbidden": ({"provider": "cuda", "fallback": ["cpu"], "cpu": False}, "cpu = false", ""),
    "after the cpu": ({"provider": "cpu", "fallback": ["cuda"]}, "never get a node", "put cuda before cpu"),
    "twice": ({"provider": "cuda", "fallback": ["cuda"]}, "twice", ""),
    "negative device": ({"provider": "cuda", "device": -1}, "device", ""),
    "device of the cpu": ({"provider": "cpu", "device": 0}, "device", ""),
    "property of another device": (
        {"provider": "openvino", "options": {"NPU_TURBO": True}},
        "no property of the CPU",
        "",
    ),
    "unknown device": ({"provider": "openvino", "device": "TPU"}, "CPU, GPU, NPU", ""),
    "warm-up of the wrong type": ({"provider": "cpu", "warmup": {"shapes": [{"x": [-1]}]}}, "warmup.shapes", ""),
    "warm-up key": ({"provider": "cpu", "warmup": {"shape": []}}, "warmup.shape", "did you mean 'shapes'"),
}


OF_OPENVINO = ("property of another device", "unknown device")


@pytest.mark.parametrize(
    "fault", [pytest.param(one, marks=needs("plugin openvino")) if one in OF_OPENVINO else one for one in WRONG]
)
def test_a_wrong_target_is_an_error_before_anything_is_probed(fault, read):
    table, told, hint = WRONG[fault]
    with pytest.raises(ConfigError) as error:
        read("t", {"targets": {"t": table}})
    assert told in error.value.message, error.value.message
    assert hint in error.value.hint, error.value.hint
    assert error.value.exit_code == 2
    assert "\n" not in error.value.message


def test_the_error_names_the_file_and_the_key(read, installed, tmp_path):
    file = tmp_path / "epkit.toml"
    file.write_text('[targets.gpu]\nprovider = "tensorrt"\noptions = { trt_fp16 = true }\n')
    with pytest.raises(ConfigError) as error:
        target.read("gpu", config.load(file, environ={}), installed)
    assert "epkit.toml" in error.value.message
    assert "targets.gpu.options.trt_fp16" in error.value.message


def test_a_misspelt_key_is_found_in_targets_that_are_not_used(read):
    with says(ConfigError):
        read("cpu", {"targets": {"other": {"provder": "cpu"}}})


def test_a_target_may_not_take_a_providers_name(read):
    with says(ConfigError):
        read("cuda", {"targets": {"cuda": {"provider": "cpu"}}})


def test_an_unknown_target_suggests_targets_and_providers(read):
    with pytest.raises(UnknownTarget) as error:
        read("smal", {"targets": {"small": {"provider": "cpu"}}})
    assert "did you mean 'small'" in error.value.hint
    assert "cuda" in error.value.hint
    with pytest.raises(UnknownTarget):
        read(None, {"default": "nowhere"})
    with pytest.raises(UnknownTarget):
        read(None, {"automatic": ["nobody"]})


RISKY = {
    "trt_extra_plugin_lib_paths": 'options = { trt_extra_plugin_lib_paths = "evil.so" }',
    "trt_engine_decryption_lib_path": 'options = { extra = { trt_engine_decryption_lib_path = "evil.so" } }',
    "custom_ops_libraries": 'session_options = { custom_ops_libraries = ["ops.so"] }',
    "optimized_model_filepath": 'session_options = { optimized_model_filepath = "model.onnx" }',
    "profile_file_prefix": 'session_options = { enable_profiling = true, profile_file_prefix = "../x" }',
    "ep.context_file_path": 'session_options = { config = { "ep.context_enable" = 1, "ep.context_file_path" = "x" } }',
    "session.collect_node_memory_stats_to_file": (
        'session_options = { extra = { "session.collect_node_memory_stats_to_file" = "x" } }'
    ),
}


@pytest.mark.parametrize("key", RISKY)
@pytest.mark.parametrize("head", ["[targets.t]", "[targets.base]"])
def test_a_file_that_was_found_may_not_load_native_code_or_name_files_to_write(key, head, installed, empty):
    file, extends = empty / "epkit.toml", '[targets.t]\nextends = "base"\n' if "base" in head else ""
    file.write_text(f'{head}\nprovider = "tensorrt"\n{RISKY[key]}\n{extends}')
    with pytest.raises(ConfigError) as error:
        target.read("t", config.load(environ={}, directory=empty), installed)
    assert key in error.value.message
    assert "--config epkit.toml" in error.value.hint
    for named in (config.load(file, environ={}), config.load(environ={"EPKIT_CONFIG": str(file)})):
        assert target.read("t", named, installed).chain


def test_what_the_call_or_the_environment_says_is_not_the_found_files(installed, empty):
    (empty / "epkit.toml").write_text('[targets.t]\nprovider = "cpu"\n')
    environ = {"EPKIT_TARGETS__T__SESSION_OPTIONS__profile_file_prefix": "mine"}
    found = config.load(environ=environ, directory=empty)
    assert target.read("t", found, installed, session_options={"custom_ops_libraries": ["ops.so"]}).chain


def test_a_disabled_provider_in_a_chain_is_a_row_with_its_reason(monkeypatch, install):
    monkeypatch.setenv("EPKIT_DISABLE_PLUGINS", "openvino")
    written = {"targets": {"t": {"provider": "openvino", "options": {"ANYTHING": 1}, "device": "CPU"}}}
    wanted = target.read("t", config.load(written, environ={}), registry.discover())
    assert "disabled" in wanted.first.provider.probe().reason


@given(
    st.dictionaries(
        st.sampled_from([*schema.TargetTable.model_fields, "nonsense"]),
        st.none()
        | st.booleans()
        | st.integers()
        | st.text(max_size=5)
        | st.lists(st.text(max_size=3), max_size=2)
        | st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=3), max_size=2),
        max_size=5,
    )
)
def test_whatever_is_written_is_a_target_or_a_config_error(table):
    found = registry.discover()
    with contextlib.suppress(ConfigError):
        assert target.read("t", config.load({"targets": {"t": table}}, environ={}), found).chain
