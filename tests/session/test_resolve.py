from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epkit.config.target import Target
from epkit.provider import Provider, Unusable, Usable
from epkit.runtime.configured import ConfiguredProvider
from epkit.runtime.placement import count_nodes, describe_others
from epkit.session.plan import resolve


def provider(name: str, ort_name: str | None = None) -> Provider:
    return type(name, (Provider,), {"name": name, "ort_name": ort_name or f"{name}EP"})()


def chain(*names: str) -> tuple[ConfiguredProvider, ...]:
    return tuple(ConfiguredProvider(provider(*name.split("="))) for name in names)


NO = Unusable("not here", hint="buy one")


def test_all_usable_providers_are_opened_in_order():
    plan = resolve(Target("t", "", chain("a", "b", "c")), {"a": Usable(), "b": NO, "c": Usable()})
    assert [candidate.name for candidate in plan.chain] == ["a", "c"]
    assert [(step.decision, step.reason, step.hint) for step in plan.steps][1] == ("unusable", "not here", "buy one")
    assert plan.refusal is None


@pytest.mark.parametrize("promise", [{"strict": True}, {"min_placement": 0.5}])
def test_a_target_that_requires_its_first_provider_is_refused_without_it(promise):
    plan = resolve(Target("t", "", chain("a", "cpu"), **promise), {"a": NO, "cpu": Usable()})
    assert plan.refusal is not None
    assert plan.refusal.candidate.name == "a"
    assert resolve(Target("t", "", chain("a", "cpu"), **promise), {"a": Usable(), "cpu": Usable()}).refusal is None


def test_a_chain_without_any_usable_provider_is_refused():
    assert resolve(Target("t", "", chain("a", "b"), cpu=False), {"a": NO, "b": NO}).refusal is not None


def test_the_first_of_a_runtime_provider_wins_and_the_later_says_so():
    plan = resolve(Target("t", "", chain("a=X", "b=X", "cpu")), {"a": Usable(), "b": Usable(), "cpu": Usable()})
    assert [step.decision for step in plan.steps] == ["open", "same runtime provider", "open"]
    assert "same runtime provider as a" in plan.steps[1].reason


def test_an_unusable_first_leaves_the_runtime_provider_to_the_later():
    plan = resolve(Target("t", "", chain("a=X", "b=X")), {"a": NO, "b": Usable()})
    assert [candidate.name for candidate in plan.chain] == ["b"]


@given(st.lists(st.booleans(), min_size=1, max_size=6), st.booleans())
def test_every_candidate_has_one_step_in_order_and_only_usable_ones_are_opened(usable, strict):
    names = [f"p{index}" for index in range(len(usable))]
    answers = {name: Usable() if yes else NO for name, yes in zip(names, usable, strict=True)}
    plan = resolve(Target("t", "", chain(*names), strict=strict), answers)
    assert [step.candidate.name for step in plan.steps] == names
    assert [candidate.name for candidate in plan.chain] == [n for n, yes in zip(names, usable, strict=True) if yes]
    assert (plan.refusal is None) == (usable[0] if strict else any(usable))


def test_placement_counts_nodes_by_provider():
    assigned = [("CUDAEP", ["Conv", "Relu"]), ("CPUEP", ["TopK"]), ("CUDAEP", ["Conv"])]
    placed = count_nodes(assigned, {"CUDAEP": "cuda", "CPUEP": "cpu"})
    assert (placed["cuda"].nodes, placed["cuda"].share) == (3, 0.75)
    assert dict(placed["cuda"].operators) == {"Conv": 2, "Relu": 1}
    assert list(placed) == ["cuda", "cpu"]
    assert describe_others(placed, "cuda") == "TopK on cpu"


def test_a_model_without_nodes_has_no_placement():
    assert count_nodes([], {"CPUEP": "cpu"}) == {}


def test_a_provider_outside_the_chain_keeps_its_runtime_name():
    assert list(count_nodes([("OtherEP", ["Conv"])], {"CPUEP": "cpu"})) == ["OtherEP"]


@given(st.lists(st.tuples(st.sampled_from(["A", "B", "C"]), st.lists(st.sampled_from(["x", "y"]), max_size=4))))
def test_shares_add_up_to_one(assigned):
    placed = count_nodes(assigned, {"A": "a", "B": "b"})
    assert sum(share.nodes for share in placed.values()) == sum(len(operators) for _, operators in assigned)
    assert not placed or abs(sum(share.share for share in placed.values()) - 1) < 1e-9
