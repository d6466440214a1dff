"""A model in ORT format says little of itself, and ONNX Runtime not where its nodes run: unknown is not none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from models import mlp
from texts import says

import epkit
from epkit.errors import ConfigError, ProviderDropped


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a model of 16 columns in ORT format."""
    path = tmp_path_factory.mktemp("ort") / "model.ort"
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 4
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(mlp(), options)
    return path


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load the providers that fail on purpose."""
    monkeypatch.setenv("EPKIT_PLUGINS", "epkit_faulty")


def opened(model: Path, **table: object) -> epkit.Session:
    return epkit.open(str(model), "t", config={"targets": {"t": table}})


def test_the_report_says_that_the_placement_is_not_known_and_warm_up_runs(converted):
    with epkit.open(converted, "cpu", config={}) as session:
        report = session.report
        assert report.placement_unknown
        assert report.provider is None
        assert "fold" not in report.summary()
        assert not any("fold" in note for note in report.notes)
        assert [row.outcome for row in report.tried] == ["registered"]
        assert report.warmup
        assert json.loads(json.dumps(report.as_json()))["placement_unknown"] == report.placement_unknown
        x = np.ones((2, 16), np.float32)
        wanted = onnxruntime.InferenceSession(converted).run(None, {"x": x})[0]
        np.testing.assert_array_equal(session.run(x)["y"], wanted)


def test_the_placement_of_a_plain_model_is_known():
    with epkit.open(mlp(), "cpu", config={}) as session:
        assert session.report.placement_unknown == ""


DEMANDS = {
    "strict": {"provider": "faulty-no-node", "strict": True},
    "share": {"provider": "faulty-no-node", "min_placement": 1.0},
    "no cpu": {"provider": "faulty-none", "cpu": False},
}


@pytest.mark.parametrize("name", DEMANDS)
def test_what_is_asked_of_the_placement_is_refused_where_it_is_not_known(converted, name, faulty):
    with says(ProviderDropped) as error:
        opened(converted, **DEMANDS[name])
    assert error.value.hint


def test_strict_demands_on_the_cpu_alone_need_no_record(converted):
    opened(converted, provider="cpu", strict=True, min_placement=1.0).close()


def test_a_faulty_provider_is_not_taken_for_one_that_agrees(converted, faulty):
    comparison = epkit.compare(converted, ["cpu", "faulty-wrong"], config={})
    assert not comparison.agree
    assert comparison.rows[1].fault is not None


def test_faults_are_rehearsed_where_nobody_knows_who_took_nodes(converted, faulty):
    x = np.ones((2, 16), np.float32)
    with opened(converted, provider="faulty-wrong", warmup={"runs": 0}) as session:
        assert not np.array_equal(session.run(x)["y"], onnxruntime.InferenceSession(converted).run(None, {"x": x})[0])


WRONG = {
    "free dimensions": {"session_options": {"free_dimension_overrides": {"bach": 2}}},
    "dimensions": {"warmup": {"dimensions": {"bach": 2}}},
    "shapes": {"warmup": {"shapes": [{"w": [2, 16]}]}},
}


@pytest.mark.parametrize("name", WRONG)
def test_names_are_held_to_the_inputs_once_they_are_known(converted, name):
    with pytest.raises(ConfigError) as error:
        opened(converted, provider="cpu", **WRONG[name])
    assert error.value.hint


def test_sizes_that_onnx_runtime_does_not_fix_in_ort_format_are_pointed_out(converted):
    with opened(converted, provider="cpu", session_options={"free_dimension_overrides": {"batch": 2}}) as session:
        assert any("free_dimension_overrides" in note for note in session.report.notes)


def test_inspecting_it_prints_no_zeros(converted, command, empty):
    code, out, _ = command("inspect", converted, "--json")
    told = json.loads(out)
    assert code == 0
    for key in ("ir_version", "operators", "nodes", "parameters", "weight_bytes", "inputs", "outputs", "opsets"):
        assert told[key] is None, key
    assert told["file_bytes"] == converted.stat().st_size
    code, out, _ = command("inspect", converted)
    assert code == 0
    assert "0 parameters" not in out
    assert "version 0" not in out
    assert "ORT format" in out


def test_explaining_it_takes_nothing_for_none(converted, command, empty):
    code, out, _ = command("explain", converted, "-t", "cpu", "--json")
    told = json.loads(out)
    assert code == 0
    assert told["graph"]["obstacles"]
    assert not told["warmup_why"].startswith("none")


def test_batch_sizes_of_unknown_inputs_are_an_error_that_says_so(converted):
    config = {"targets": {"t": {"provider": "cpu", "warmup": {"batches": [2]}}}}
    with says(ConfigError):
        epkit.compare(converted, ["cpu", "t"], config=config)


DIRECTLY = "session.use_ort_model_bytes_directly"
WEIGHTS = "session.use_ort_model_bytes_for_initializers"


def test_weights_that_would_point_into_bytes_which_are_gone_are_refused(converted):
    with says(ConfigError) as error:
        epkit.open(
            converted.read_bytes(), "cpu", config={}, session_options={"config": {DIRECTLY: True, WEIGHTS: True}}
        )
    assert error.value.hint


@pytest.mark.parametrize("keys", [[DIRECTLY], [WEIGHTS], [DIRECTLY, WEIGHTS]])
def test_weights_that_stay_are_used_where_they_are(converted, keys):
    model = converted if len(keys) == 2 else converted.read_bytes()
    x = np.ones((2, 16), np.float32)
    wanted = onnxruntime.InferenceSession(converted).run(None, {"x": x})[0]
    with epkit.open(model, "cpu", config={}, session_options={"config": dict.fromkeys(keys, True)}) as session:
        np.testing.assert_array_equal(session.run(x)["y"], wanted)
