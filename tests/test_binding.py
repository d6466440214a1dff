"""Bindings on the CPU and on OpenVINO: right numbers in every way, on memory that is whose the docstrings say."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import light, mlp
from running import (
    DTYPES,
    FEEDS,
    MODELS,
    NOT_BINDABLE,
    ROUNDS,
    WAYS,
    by_bind,
    check_in_threads,
    check_joining,
    check_runs,
    floats,
    joining,
)

import epkit

PROVIDERS = ("cpu", "openvino")
# OpenVINO takes an input of unknown rank for a scalar, and refuses the others.
CASES = [(provider, name) for provider in PROVIDERS for name in MODELS if (provider, name) != ("openvino", "unknown rank")]


@pytest.fixture(scope="module")
def opened():
    """Open each model once for each provider."""
    sessions: dict[tuple[str, bytes], epkit.Session] = {}

    def _opened(provider: str, contents: bytes) -> epkit.Session:
        if (provider, contents) not in sessions:
            config = {"targets": {"t": {"provider": provider}}}  # what it cannot take goes to the CPU
            sessions[provider, contents] = epkit.open(contents, "t", config=config)
        return sessions[provider, contents]

    yield _opened
    for session in sessions.values():
        session.close()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("provider", "name"), CASES)
def test_every_way_gives_what_plain_onnx_runtime_gives(opened, provider, name, way):
    session = opened(provider, MODELS[name])
    check_runs(WAYS[way](session), MODELS[name], FEEDS[name])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("provider", "name"), [("cpu", "shufflenet"), ("cpu", "squeezenet"), ("openvino", "shufflenet")])
def test_real_networks_come_out_the_same_in_every_way(opened, provider, name, way):
    contents = light(name).read_bytes()
    session = opened(provider, contents)
    shape = [one if isinstance(one, int) else 1 for one in session.inputs[0].shape]
    feeds = [{session.inputs[0].name: floats(*shape, seed=seed)} for seed in (0, 1)]
    check_runs(WAYS[way](session), contents, feeds)


@pytest.mark.parametrize("way", ["run", "bind"])
@pytest.mark.parametrize("provider", PROVIDERS)
@settings(max_examples=40)
@given(dtype=st.sampled_from(sorted(DTYPES)), rounds=ROUNDS)
def test_every_plain_type_and_any_shape_come_through(opened, provider, way, dtype, rounds):
    check_joining(WAYS[way](opened(provider, joining(dtype))), dtype, rounds)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_two_sessions_and_eight_threads_give_right_numbers(opened, provider, way):
    pair = [(opened(provider, contents), contents) for contents in (mlp(), mlp("N"))]
    check_in_threads(pair, WAYS[way], turns=20)


@pytest.mark.parametrize("name", NOT_BINDABLE)
def test_what_cannot_be_bound_is_run_and_said(opened, name):
    session = opened("cpu", MODELS[name])
    with session.bind(FEEDS[name][0]) as binding:
        binding.run()
        assert all("cannot bind" in one.why for one in binding.copies)
        assert binding.copies or name == "sequence in"
    assert by_bind(session)(FEEDS[name][0]).keys() == {one.name for one in session.outputs}
