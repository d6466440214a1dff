from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from texts import says

from epkit.config import file as config
from epkit.config import layers
from epkit.errors import ConfigError, UnknownTarget


def write(folder: Path, text: str, name: str = "epkit.toml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def load(folder: Path, source=None, **environ: str) -> config.Config:
    return config.load(source, environ=environ, directory=folder)


def test_the_nearest_file_up_to_the_project_root_is_taken(tmp_path):
    write(tmp_path, 'default = "outside"')
    project = tmp_path / "project"
    (project / ".git").mkdir(parents=True)
    inner = project / "a" / "b"
    inner.mkdir(parents=True)
    assert load(inner).place == "no epkit.toml"
    write(project, 'default = "root"')
    assert load(inner).default.value == "root"
    write(project / "a", 'default = "nearer"')
    found = load(inner)
    assert (found.default.value, found.named) == ("nearer", False)


def test_a_pyproject_ends_the_search_and_may_hold_the_config(tmp_path):
    write(tmp_path, 'default = "outside"')
    write(tmp_path / "p", '[project]\nname = "x"', "pyproject.toml")
    assert load(tmp_path / "p").default is None
    write(tmp_path / "p", '[tool.epkit]\ndefault = "inside"', "pyproject.toml")
    assert load(tmp_path / "p").default.value == "inside"


def test_a_broken_pyproject_that_says_nothing_of_epkit_is_not_our_business(tmp_path):
    write(tmp_path, "[project\n", "pyproject.toml")
    assert load(tmp_path).targets == {}


def test_the_argument_comes_before_the_environment_and_that_before_the_search(tmp_path):
    write(tmp_path, 'default = "found"')
    one, two = write(tmp_path / "1", 'default = "one"'), write(tmp_path / "2", 'default = "two"')
    assert load(tmp_path, EPKIT_CONFIG=str(one)).default.value == "one"
    assert load(tmp_path, two, EPKIT_CONFIG=str(one)).default.value == "two"
    assert load(tmp_path, {"default": "call"}, EPKIT_CONFIG=str(one)).default.value == "call"


def test_a_syntax_error_names_file_line_and_column(tmp_path):
    write(tmp_path, 'default = "gpu"\n[targets.gpu\nprovider = "cuda"\n')
    with says(ConfigError):
        load(tmp_path)
    write(tmp_path, "default = ")
    with says(ConfigError):
        load(tmp_path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('defualt = "gpu"', "unknown key 'defualt'"),
        ("default = 3", "default must be the name of a target"),
        ('automatic = "tensorrt"', "automatic must be a list"),
        ("targets = 3", "targets must hold tables"),
        ("[targets]\ngpu = 3", "targets must hold tables"),
    ],
)
def test_a_wrong_shape_is_an_error_that_names_the_key(text, told, tmp_path):
    write(tmp_path, text)
    with says(ConfigError):
        load(tmp_path)


def test_a_misspelt_top_key_suggests_the_nearest(tmp_path):
    write(tmp_path, "[target.gpu]\n")
    with pytest.raises(ConfigError) as told:
        load(tmp_path)
    assert "did you mean 'targets'" in told.value.hint


def test_files_that_cannot_be_read_are_errors(tmp_path):
    with says(ConfigError):
        load(tmp_path, tmp_path / "none.toml")
    with says(ConfigError):
        load(tmp_path, tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'default = "\xe9"')
    with says(ConfigError):
        load(tmp_path, tmp_path / "latin.toml")


def test_extends_merges_tables_and_replaces_lists():
    found = config.load(
        {
            "targets": {
                "a": {
                    "provider": "cuda",
                    "fallback": ["x"],
                    "options": {"p": 1, "q": 2},
                    "session_options": {"s": {"t": 1}},
                },
                "b": {"extends": "a", "fallback": ["y"], "options": {"q": 3}, "session_options": {"s": {"u": 2}}},
            }
        },
        environ={},
    )
    merged = layers.plain(found.target("b"))
    assert merged["options"] == {"p": 1, "q": 3}
    assert merged["fallback"] == ["y"]
    assert merged["session_options"] == {"s": {"t": 1, "u": 2}}


def test_options_and_device_are_inherited_only_by_the_same_provider():
    written = {
        "a": {"provider": "cuda", "device": 1, "options": {"p": 1}},
        "b": {"extends": "a", "provider": "openvino"},
        "c": {"extends": "a", "provider": "cuda"},
    }
    found = config.load({"targets": written}, environ={})
    assert layers.plain(found.target("b")) == {"provider": "openvino"}
    assert layers.plain(found.target("c"))["options"] == {"p": 1}


def test_extends_in_a_circle_is_an_error_that_shows_the_circle():
    found = config.load({"targets": {"a": {"extends": "b"}, "b": {"extends": "c"}, "c": {"extends": "a"}}}, environ={})
    with says(ConfigError):
        found.target("a")
    itself = config.load({"targets": {"a": {"extends": "a"}}}, environ={})
    with says(ConfigError):
        itself.target("a")


def test_extending_what_does_not_exist_suggests_the_nearest():
    found = config.load({"targets": {"a": {"extends": "bese"}, "base": {"provider": "cpu"}}}, environ={})
    with pytest.raises(UnknownTarget) as told:
        found.target("a")
    assert "did you mean 'base'" in told.value.hint


def test_the_environment_overrides_one_key_and_says_so():
    environ = {
        "EPKIT_TARGETS__SMALL_REQUESTS__DEVICE": "2",
        "EPKIT_TARGETS__small_requests__options__trt_fp16_enable": "true",
        "EPKIT_TARGETS__SMALL_REQUESTS__SESSION_OPTIONS": "{ config = { 'session.intra_op.allow_spinning' = '0' } }",
        "EPKIT_TARGETS__SMALL_REQUESTS__PROVIDER": "tensorrt",
    }
    written = {"small-requests": {"provider": "cuda", "device": 0, "session_options": {"logid": "x"}}}
    found = config.load({"targets": written}, environ=environ)
    table = found.target("small-requests")
    assert layers.plain(table) == {
        "provider": "tensorrt",
        "device": 2,
        "options": {"trt_fp16_enable": True},
        "session_options": {"logid": "x", "config": {"session.intra_op.allow_spinning": "0"}},
    }
    assert layers.origin_of(table, ["device"]) == "environment EPKIT_TARGETS__SMALL_REQUESTS__DEVICE"
    assert layers.origin_of(table, ["session_options", "logid"]).startswith("call: targets.small-requests")


def test_the_environment_cannot_override_what_is_not_there():
    with says(UnknownTarget) as told:
        config.load({"targets": {"gpu": {"provider": "cuda"}}}, environ={"EPKIT_TARGETS__GUP__DEVICE": "1"})
    assert "did you mean 'gpu'" in told.value.hint
    with says(ConfigError):
        config.load({"targets": {"gpu": {}}}, environ={"EPKIT_TARGETS__GPU": "1"})


def test_the_default_may_come_from_the_environment():
    found = config.load({"default": "a"}, environ={"EPKIT_DEFAULT": "b"})
    assert (found.default.value, found.default.origin) == ("b", "environment EPKIT_DEFAULT")


_TABLES = st.recursive(
    st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from("abc"), _TABLES, max_size=3),
    st.dictionaries(st.sampled_from("abc"), _TABLES, max_size=3),
)
def test_merging_keeps_every_value_of_the_upper_table_with_its_origin(below, above):
    merged = layers.merge(layers.table_of(below, "below"), layers.table_of(above, "above"))
    for path, value in layers.walk(layers.table_of(above, "above")):
        at = merged
        for key in path:
            at = at[key]
        assert at == value
    untouched = [path for path, value in layers.walk(merged) if value.origin.startswith("below")]
    for path in untouched:
        assert not any(path[: len(over)] == over for over, _ in layers.walk(layers.table_of(above, "above")))


def test_a_process_without_a_home_finds_its_config(tmp_path, monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    write(tmp_path, 'default = "here"')
    assert load(tmp_path).default.value == "here"


@pytest.mark.parametrize("written", [{1: 2}, {"targets": {1: {"provider": "cpu"}}}])
def test_a_key_that_is_no_text_is_an_error(written):
    with says(ConfigError):
        config.load(written, environ={})


def test_an_empty_name_is_no_file():
    with says(ConfigError):
        config.load("", environ={})


def test_options_for_a_provider_that_a_target_drops_go_with_it():
    parent = {"provider": "tensorrt", "fallback": ["cuda"], "options_for": {"cuda": {"use_tf32": True}}}
    written = {"a": parent, "b": {"extends": "a", "provider": "cuda", "fallback": []}}
    table = layers.plain(config.load({"targets": written}, environ={}).target("b"))
    assert table["options_for"] == {}
