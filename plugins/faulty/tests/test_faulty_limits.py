"""Limits that accelerators have and the CPU has not, shown on any machine: types, operators, one node for a model."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import numpy as np
import onnxruntime
import pytest
from epkit_faulty.disguise import CPU, refuse, rename, takers
from epkit_faulty.limits import LIMITS
from epkit_faulty.over import over_cpu
from models import identity, mlp, model, value
from onnx import TensorProto, helper, numpy_helper

import epkit
from epkit.errors import ConfigError, InputError, ProviderDropped, RunTimeout, SessionClosed

INT64 = [value("x", ["N"], TensorProto.INT64)], [value("y", ["N"], TensorProto.INT64)]


@pytest.fixture(scope="module", autouse=True)
def _asked_for(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Load the faulty providers, and share their proofs, which cost seconds each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EPKIT_PLUGINS", "epkit_faulty")
        patch.setenv("EPKIT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        for name in ("EPKIT_CONFIG", "EPKIT_DEFAULT", "EPKIT_PROBE"):
            patch.delenv(name, raising=False)
        yield


def interrupted() -> bytes:
    """Build a model whose second node is refused: an operator of ONNX Runtime's own domain."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Inverse", ["r"], ["i"], domain="com.microsoft"),
        helper.make_node("Add", ["i", "i"], ["y"]),
    ]
    return model(nodes, [value("x", [2, 2])], [value("y", [2, 2])], domains=["com.microsoft"])


def only_refused() -> bytes:
    node = helper.make_node("Inverse", ["x"], ["y"], domain="com.microsoft")
    return model([node], [value("x", [2, 2])], [value("y", [2, 2])], domains=["com.microsoft"])


def slow() -> bytes:
    """Build a model of many nodes that takes some tenths of a second for many rows."""
    weight = numpy_helper.from_array(np.eye(768, dtype=np.float32), "w")
    nodes = [helper.make_node("MatMul", [f"h{turn}", "w"], [f"h{turn + 1}"]) for turn in range(40)]
    return model(nodes, [value("h0", ["N", 768])], [value("h40", ["N", 768])], [weight])


def chain(*names: str, **keys: object) -> dict[str, object]:
    return {"targets": {"t": {"provider": names[0], "fallback": list(names[1:]), **keys}}}


def outcomes(session: epkit.Session) -> dict[str, str]:
    return {row.provider: row.outcome for row in session.report.tried}


def test_every_limit_is_offered_under_its_name():
    assert {f"faulty-{limit.kind}" for limit in LIMITS} < {provider.name for provider in over_cpu()}


@pytest.mark.parametrize("kind", [limit.kind for limit in LIMITS])
def test_what_no_limit_touches_is_taken_whole_and_comes_out_right(kind):
    x = np.linspace(-1, 1, 32, dtype=np.float32).reshape(2, 16)
    with epkit.open(mlp(), "cpu") as session:
        wanted = session.run(x)["y"]
    with epkit.open(mlp(), f"faulty-{kind}") as session:
        assert session.report.placement.keys() == {f"faulty-{kind}"}
        for _ in range(3):
            np.testing.assert_array_equal(session.run(x)["y"], wanted)
        with session.bind(x) as binding:
            for _ in range(3):
                np.testing.assert_array_equal(binding.run(x)["y"], wanted)


# -- narrowed types


@pytest.mark.parametrize(
    ("dtype", "number", "array"),
    [
        ("int64", TensorProto.INT64, np.array([2**31])),
        ("int64", TensorProto.INT64, np.array([-(2**35)])),
        ("uint64", TensorProto.UINT64, np.array([2**40], np.uint64)),
        ("float64", TensorProto.DOUBLE, np.array([1e300])),
    ],
)
def test_numbers_that_a_narrower_type_cannot_hold_are_refused(dtype, number, array):
    with epkit.open(identity(number), "faulty-narrow") as session:
        assert any(dtype in note and "faulty-narrow" in note for note in session.report.notes)
        for _ in range(2):
            with pytest.raises(InputError):
                session.run(array)
            np.testing.assert_array_equal(session.run(array // array)["y"], array // array)


def test_what_overflows_a_narrower_type_in_between_comes_out_wrong():
    contents = model([helper.make_node("Add", ["x", "x"], ["y"])], *INT64)
    half = np.array([2**30, 1])
    for way in ("run", "bind"):
        with epkit.open(contents, "faulty-narrow") as session:
            found = session.run(half) if way == "run" else session.bind(half).run()
            assert found["y"].tolist() == [-(2**31), 2]
    third = np.array([1 / 3])
    with epkit.open(identity(TensorProto.DOUBLE), "faulty-narrow") as session:
        assert session.run(third)["y"].tolist() == [float(np.float32(1 / 3))]


def test_numbers_edited_in_place_are_held_to_what_the_narrower_type_holds():
    contents = model([helper.make_node("Add", ["x", "x"], ["y"])], *INT64)
    array = np.ones(300_000, np.int64)
    with epkit.open(contents, "faulty-narrow") as session, session.bind(array) as binding:
        binding.run()
        array[-1] = 2**40
        with pytest.raises(InputError):
            binding.run()
        array[-1] = 2
        assert binding.run()["y"][-1] == 4


def test_a_provider_that_narrows_and_takes_no_node_refuses_nothing():
    with epkit.open(identity(TensorProto.INT64), "t", config=chain("faulty-none", "faulty-narrow")) as session:
        assert session.run(np.array([2**40]))["y"].tolist() == [2**40]


# -- types that cannot be carried


def test_a_model_with_text_is_not_opened_on_a_provider_that_cannot_carry_it():
    texts = identity(TensorProto.STRING)
    with pytest.raises(ProviderDropped) as error:
        epkit.open(texts, "faulty-no-text")
    assert "'x'" in error.value.message
    with epkit.open(texts, "t", config=chain("faulty-no-text")) as session:
        assert outcomes(session) == {"faulty-no-text": "failed to open", "cpu": "active"}
        assert session.run(["a", "b"])["y"].tolist() == ["a", "b"]


# -- refused operators: a model split in two


def test_the_report_says_who_took_which_nodes():
    with epkit.open(interrupted(), "t", config=chain("faulty-refuses")) as session:
        report = session.report
        assert report.provider == "faulty-refuses"
        assert report.placement["faulty-refuses"].nodes == 2
        assert dict(report.placement["cpu"].operators) == {"com.microsoft.Inverse": 1}
        assert outcomes(session) == {"faulty-refuses": "active", "cpu": "active"}
        assert "66.7 %" in report.summary()
        np.testing.assert_allclose(session.run(np.eye(2, dtype=np.float32))["y"], 2 * np.eye(2))


def test_what_is_refused_is_the_next_providers_in_the_chain():
    with epkit.open(interrupted(), "t", config=chain("faulty-refuses", "faulty-none", cpu=False)) as session:
        placed = {name: share.nodes for name, share in session.report.placement.items()}
        assert placed == {"faulty-refuses": 2, "faulty-none": 1}
        assert outcomes(session) == {"faulty-refuses": "active", "faulty-none": "active"}


def test_min_placement_names_the_operators_that_were_refused():
    with pytest.raises(ProviderDropped) as error:
        epkit.open(interrupted(), "t", config=chain("faulty-refuses", min_placement=1.0))
    assert "com.microsoft.Inverse" in error.value.message
    with epkit.open(interrupted(), "t", config=chain("faulty-refuses", min_placement=0.5)) as session:
        assert session.report.provider == "faulty-refuses"


def test_where_the_cpu_is_forbidden_a_refused_operator_is_an_error():
    with pytest.raises(ProviderDropped) as error:
        epkit.open(interrupted(), "t", config=chain("faulty-refuses", cpu=False))
    assert "com.microsoft.Inverse" in error.value.message
    with epkit.open(mlp(), "t", config=chain("faulty-refuses", cpu=False)) as session:
        assert set(session.report.placement) == {"faulty-refuses"}


def test_a_provider_that_refuses_every_node_took_none():
    with pytest.raises(ProviderDropped):
        epkit.open(only_refused(), "faulty-refuses")
    with epkit.open(only_refused(), "t", config=chain("faulty-refuses")) as session:
        assert session.report.provider == "cpu"
        assert outcomes(session) == {"faulty-refuses": "registered, took no node", "cpu": "active"}


def test_which_operators_are_refused_is_an_option():
    with epkit.open(interrupted(), "faulty-refuses", options={"operators": ["Relu", "Add"]}) as session:
        assert dict(session.report.placement["cpu"].operators) == {"Relu": 1, "Add": 1}
    with epkit.open(interrupted(), "faulty-refuses", options={"operators": []}) as session:
        assert session.report.placement.keys() == {"faulty-refuses"}
    with pytest.raises(ConfigError):
        epkit.open(interrupted(), "faulty-refuses", options={"operators": "Relu"})


@pytest.mark.parametrize("disguised", [True, False])
def test_a_session_whose_record_was_changed_goes_when_nobody_holds_it(disguised):
    given = onnxruntime.SessionOptions()
    given.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = onnxruntime.InferenceSession(interrupted(), given, providers=[CPU])
    if disguised:
        rename(session, "FaultyExecutionProvider")
    assert refuse(session, "FaultyExecutionProvider" if disguised else CPU, ["com.microsoft.Inverse"])
    assert takers(session) == ({"FaultyExecutionProvider", CPU} if disguised else {CPU})
    held = weakref.ref(session)
    gc.disable()
    try:
        del session
        assert held() is None
    finally:
        gc.enable()


# -- one node that no time limit stops

BIG = np.ones((1200, 768), np.float32)
SMALL = BIG[:1]
ONE_THREAD = {"intra_op_num_threads": 1}


WAYS = {
    "run": lambda session: session.run(BIG, timeout=0.02),
    "run_async": lambda session: asyncio.run(session.run_async(BIG, timeout=0.02)),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_takes_too_long_goes_on_and_closing_waits_for_it(way):
    session = epkit.open(slow(), "faulty-one-node", session_options=ONE_THREAD)
    np.testing.assert_array_equal(session.run(SMALL)["h40"], SMALL)
    with pytest.raises(RunTimeout) as error:
        WAYS[way](session)
    assert error.value.hint
    running = session._caller.active_runs.running
    assert running, "the caller was let go, the run was not"
    np.testing.assert_array_equal(session.run(SMALL)["h40"], SMALL)
    session.close()
    assert not running
    with pytest.raises(SessionClosed):
        session.run(SMALL, timeout=1)


def test_a_run_within_its_time_gives_what_a_run_gives():
    with epkit.open(slow(), "faulty-one-node") as session:
        np.testing.assert_array_equal(session.run(SMALL, timeout=600)["h40"], SMALL)
        np.testing.assert_array_equal(asyncio.run(session.run_async(SMALL, timeout=600))["h40"], SMALL)
