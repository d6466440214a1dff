"""What is run before the first request, and why."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import identity, mlp, model, value
from onnx import helper
from texts import says

import epkit
from epkit.config.schema import Warmup
from epkit.errors import ConfigError
from epkit.model.file import TensorInfo
from epkit.model.sample_inputs import choose_shapes
from epkit.provider import Devices, Provider, WarmupNeed
from epkit.session.warmup import MOST_RUNS, MOST_SECONDS, enough, plan_warmup

IMAGES = (TensorInfo("image", "float32", ("batch", 3, None, 8)), TensorInfo("scale", "float32", ("batch",)))


def provider(name: str, need: WarmupNeed, arena: Literal["cpu", "gpu"] | None = None) -> Provider:
    made = Provider()
    made.name, made.warmup, made.devices = name, need, Devices(arena=arena)
    return made


needs = st.builds(
    WarmupNeed,
    runs=st.integers(0, 3),
    shapes=st.sampled_from(["each", "first"]),
    steady=st.booleans(),
    why=st.just("w"),
)
providers = st.lists(st.tuples(needs, st.sampled_from([None, "cpu", "gpu"])), min_size=1, max_size=3).map(
    lambda drawn: [provider(f"p{index}", need, arena) for index, (need, arena) in enumerate(drawn)]
)
sizes = st.integers(1, 64)
wishes = st.one_of(
    st.builds(Warmup, batches=st.lists(sizes, min_size=1, max_size=5)),
    st.builds(
        Warmup,
        shapes=st.lists(st.fixed_dictionaries({"image": st.tuples(sizes, st.just(3), sizes, st.just(8))}), min_size=1),
    ),
)


def elements(shapes):
    return sum(math.prod(shape) for shape in shapes.values())


@given(wishes, providers, st.none() | st.integers(1, 5))
def test_every_declared_shape_is_planned_once_with_a_reason_and_a_bound(wanted, chain, runs):
    wanted = wanted.model_copy(update={"runs": runs})
    planned = plan_warmup(IMAGES, wanted, chain)
    found = [one.shapes["image"] for one in planned.runs]
    declared = [(size, 3, 64, 8) for size in wanted.batches] + [tuple(one["image"]) for one in wanted.shapes]
    assert sorted(found) == sorted(set(declared))
    for one in planned.runs:
        assert one.shapes["scale"] == one.shapes["image"][:1]
        assert one.why
        assert 2 <= one.runs <= one.most <= max(one.runs, MOST_RUNS)
        if runs is not None:
            assert one.runs == one.most == runs + 1


@given(wishes, providers, st.booleans())
def test_an_arena_wants_the_largest_shape_first_or_if_it_shrinks_the_smallest(wanted, chain, shrinks):
    planned = plan_warmup(IMAGES, wanted, chain, shrinks=shrinks)
    found = [elements(one.shapes) for one in planned.runs]
    if any(one.devices.arena for one in chain):
        assert found == sorted(found, reverse=not shrinks)
        assert len(found) == 1 or f"the {'smallest' if shrinks else 'largest'} shape first" in planned.why
    else:
        declared = [(size, 3, 64, 8) for size in wanted.batches] + [tuple(one["image"]) for one in wanted.shapes]
        assert [one.shapes["image"] for one in planned.runs] == list(dict.fromkeys(declared))


@given(wishes, providers)
def test_a_provider_that_pays_once_is_served_by_the_first_shape_and_one_that_pays_for_each_by_every(wanted, chain):
    first, *others = plan_warmup(IMAGES, wanted, chain).runs
    assert set(first.providers) == {one.name for one in chain if one.warmup.runs}
    for run in others:
        payers = [one for one in chain if one.warmup.runs and one.warmup.shapes == "each"]
        assert set(run.providers) == {one.name for one in payers}
        assert run.runs == max((one.warmup.runs for one in payers), default=1) + 1


@given(providers)
def test_without_wishes_there_is_one_shape_and_no_more_runs_than_the_providers_need(chain):
    planned = plan_warmup(IMAGES, Warmup(), chain)
    most = max(one.warmup.runs for one in chain)
    if most == 0:
        assert planned.runs == ()
        assert planned.why == "no provider needs it"
        return
    (one,) = planned.runs
    assert one.shapes == {"image": (1, 3, 64, 8), "scale": (1,)}
    assert one.runs == most + 1
    assert any("assumed batch = 1, image[2] = 64" in note for note in planned.notes)


@given(st.lists(st.floats(1e-6, 10), max_size=30), st.integers(1, 6), st.integers(0, 20))
def test_runs_end_within_their_bounds(seconds, runs, more):
    done: list[float] = []
    for one in seconds:
        if enough(done, runs, runs + more):
            break
        done.append(one)
    assert len(done) <= runs + more
    assert sum(done[:-1]) <= MOST_SECONDS or len(done) <= runs
    if enough(done, runs, runs + more):
        assert len(done) >= runs


@pytest.mark.parametrize(
    ("seconds", "at_rest"),
    [
        ([0.9, 0.3, 0.1], False),  # still falling
        ([0.9, 0.3, 0.1, 0.105, 0.102], True),
        ([0.9, 0.1, 0.13, 0.12, 0.14], True),  # noisy, and no faster for three runs
        ([0.9, 0.3, 0.15, 0.12, 0.1], False),
        ([0.9, 0.91], False),
        ([4, 2], True),  # enough is enough
    ],
)
def test_steady_is_three_runs_that_agree_or_that_no_longer_fall(seconds, at_rest):
    assert enough(seconds, 2, 99) is at_rest


@pytest.mark.needs("openvino")
def test_the_bundled_providers_run_no_oftener_than_they_say():
    with epkit.open(mlp(), "cpu") as session:
        (row,) = session.report.warmup
        assert (row.runs, row.steady) == (2, None)
    with epkit.open(mlp(), "openvino") as session:
        assert session.report.warmup[0].runs == 3


def target(**warmup: object) -> dict[str, object]:
    return {"targets": {"t": {"provider": "cpu", "warmup": warmup}}}


def test_batch_sizes_are_run_and_their_cost_is_reported():
    with epkit.open(mlp(), "t", config=target(batches=[1, 4, 16])) as session:
        rows = session.report.warmup
        assert [row.shapes for row in rows] == [{"x": (16, 16)}, {"x": (4, 16)}, {"x": (1, 16)}]
        assert all(row.runs == 2 and row.first_s > 0 and row.steady_s and row.why for row in rows)
        peaks = [row.peak_bytes for row in rows]
        if None not in peaks:
            assert peaks == sorted(peaks)
            assert all(row.grew_bytes >= 0 for row in rows)
        assert not any("assumed" in note for note in session.report.notes)


def test_explain_shows_the_runs_without_opening():
    told = epkit.explain(mlp(), "t", config=target(batches=[1, 4, 16]))
    assert told.warmup_why.startswith("3 shapes, 2 runs each: cpu: the first run allocates the arena")
    assert "the largest shape first" in told.warmup_why
    with epkit.open(mlp(), "t", config=target(batches=[1, 4, 16])) as session:
        assert [one.shapes for one in told.warmup] == [one.shapes for one in session.report.warmup]
    told = epkit.explain(mlp(), "t", config=target(runs=0))
    assert (told.warmup, told.warmup_why) == ((), "none: the target says runs = 0")
    assert any("assumed batch = 1" in note for note in epkit.explain(mlp(), "cpu").notes)


def test_a_size_that_a_session_option_settles_is_not_guessed_by_explain():
    told = epkit.explain(mlp(), "cpu", session_options={"free_dimension_overrides": {"batch": 3}})
    assert told.warmup[0].shapes == {"x": (3, 16)}


@pytest.mark.parametrize(
    ("contents", "keys", "told"),
    [
        (mlp(batch=2), {}, r"warmup.batches: the model has no input whose first dimension is dynamic.*x \[2, 16\]"),
        (mlp(), {"shapes": [{"x": [1, 16]}]}, "batches and shapes both say the size of the batch"),
        (mlp(), {"dimensions": {"batch": 2}}, "warmup.batches: the size of batch is set already"),
        (mlp(), {"batches": [0]}, "warmup.batches.0"),
    ],
)
def test_batch_sizes_that_contradict_the_model_or_the_target_are_config_errors(contents, keys, told):
    for call in (epkit.open, epkit.explain):
        with says(ConfigError):
            call(contents, "t", config=target(**{"batches": [1, 2]} | keys))


def test_batch_sizes_that_contradict_a_session_option_are_a_config_error():
    with says(ConfigError):
        epkit.open(
            mlp(),
            "t",
            config=target(batches=[1, 2]),
            session_options={"free_dimension_overrides": {"batch": 3}},
        )


def test_a_dimension_without_a_name_is_sized_by_its_place():
    with epkit.open(identity(shape=[None, 2]), "t", config=target(dimensions={"x[0]": 5})) as session:
        assert session.report.warmup[0].shapes == {"x": (5, 2)}
    with epkit.open(identity(shape=[None, 2]), "t", config=target(batches=[3])) as session:
        assert session.report.warmup[0].shapes == {"x": (3, 2)}


@given(st.integers(1, 9), st.integers(1, 9))
def test_a_given_shape_settles_its_dimensions_in_the_other_inputs(batch, width):
    found = choose_shapes(IMAGES, {"image": [batch, 3, width, 8]})
    assert found.shapes == {"image": (batch, 3, width, 8), "scale": (batch,)}
    assert found.assumed == ()


def test_two_inputs_of_which_one_shape_is_given_are_warmed_up_together():
    add = model(
        [helper.make_node("Mul", ["a", "b"], ["y"])],
        [value("a", ["n", 2]), value("b", ["n", 2])],
        [value("y", ["n", 2])],
    )
    with epkit.open(add, "t", config=target(shapes=[{"a": [5, 2]}])) as session:
        assert session.report.warmup[0].shapes == {"a": (5, 2), "b": (5, 2)}


STEADY = """
from epkit.hookspecs import hookimpl
from epkit.provider import Devices, Provider, WarmupNeed
class Acme(Provider):
    name = "acme"
    ort_name = "CPUExecutionProvider"
    warmup = WarmupNeed(runs=2, shapes="each", why="its clock rises", steady=True)
@hookimpl
def epkit_providers():
    return [Acme()]
"""


def test_a_provider_that_wants_steady_runs_gets_them_within_bounds_and_the_report_says_whether(install):
    install("acme", STEADY)
    with epkit.open(mlp(), "acme") as session:
        (row,) = session.report.warmup
    assert 3 <= row.runs <= MOST_RUNS
    assert row.steady in (True, False)
    assert f"until steady, at most {MOST_RUNS} runs" in row.why
    with epkit.open(mlp(), "acme", config={}) as session:
        np.testing.assert_array_equal(session.run(np.zeros((1, 16), np.float32))["y"], np.zeros((1, 16)))
    told = epkit.explain(mlp(), "acme")
    assert told.warmup[0].most == MOST_RUNS


def test_a_need_that_is_wrong_is_a_broken_plugin(install):
    install("acme", STEADY.replace("    warmup", '    devices = Devices(arena="npu")\n    warmup'))
    row = next(row for row in epkit.providers().rows if row.name == "acme")
    assert row.status == "broken"
    assert "'cpu', 'gpu' or None" in row.reason
