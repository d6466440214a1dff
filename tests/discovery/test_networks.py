"""A provider names the kinds of network that it is for: by these it is proven, and held to promises."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from sample_models import MAKE, session

from epkit.discovery import probe_worker
from epkit.discovery.proof import ATTENTION, CONVOLUTION, MLP, OF, proof_of
from epkit.model.file import read_model
from epkit.provider import Network, Proof, Provider, SelfTest
from epkit.runtime.create import OpenFault
from epkit.testing import samples

pytest_plugins = ["pytester"]

KINDS = get_args(Network)


def provider(*networks: Network, proof: Proof | None = None, **members: object) -> Provider:
    names = {
        "name": "acme",
        "ort_name": "CPUExecutionProvider",
        "self_test": SelfTest(networks=networks or SelfTest().networks, proof=proof),
    }
    kind: type[Provider] = type("Acme", (Provider,), names | members)
    return kind()


def without(operator: bytes) -> dict[str, object]:
    """Take no model with an operator, as a provider does that is for another kind of network."""

    def open(self, model, options, create):
        if operator in model:
            raise RuntimeError(f"no {operator.decode()} here")
        return create()

    return {"open": open}


def test_a_provider_that_names_nothing_is_for_what_all_were_until_now():
    acme = provider()
    plain: Provider = type("Acme", (Provider,), {"name": "acme", "ort_name": "CPUExecutionProvider"})()
    assert plain.self_test.networks == ("convolutions", "mlp")
    assert proof_of(plain) is CONVOLUTION
    assert [one.name for one in samples.networks("float32", plain)] == ["float32.convolutions", "float32.mlp"]
    assert proof_of(acme) is CONVOLUTION


def test_the_proof_is_of_the_first_kind_unless_the_plugin_brings_its_own():
    assert proof_of(provider("mlp", "attention")) is MLP
    assert proof_of(provider("attention")) is ATTENTION
    assert proof_of(provider("attention", proof=MLP)) is MLP


@pytest.mark.parametrize(
    ("kind", "made"), [("convolutions", "convolution"), ("mlp", "perceptron"), ("attention", "attention")]
)
def test_each_proof_is_what_its_generator_makes_and_gives_its_numbers_on_the_cpu(kind, made):
    proof = OF[kind]
    assert proof.model == MAKE[made]()
    x = np.array(proof.input, np.float32).reshape(proof.input_shape)
    (y,) = session(proof.model).run(None, {"x": x})
    assert tuple(y.ravel().tolist()) == proof.output
    assert read_model(proof.model).opsets == {"ai.onnx": 13}


def test_a_provider_without_convolutions_is_proven_by_what_it_is_for():
    with pytest.raises(OpenFault):
        probe_worker._prove(provider("convolutions", **without(b"Conv")), None)
    for kind in ("mlp", "attention"):
        probe_worker._prove(provider(kind, **without(b"Conv")), None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("claim", ["float32", "dynamic-shapes", "retrained"])
def test_there_is_a_model_of_each_kind_and_a_provider_gets_no_other(kind, claim):
    (only,) = samples.networks(claim, provider(kind))
    assert only.network == kind
    others = [one.network for one in samples.of(claim, provider(kind)) if one.network]
    assert others == [kind]


def test_what_is_claimed_is_tried_where_there_is_no_model_of_the_kind():
    assert [one.name for one in samples.of("float16", provider("attention"))] == ["float16.mlp"]
    assert [one.name for one in samples.of("int64", provider("attention"))] == ["int64.sum"]


@pytest.mark.parametrize("kind", KINDS)
def test_retrained_models_are_the_same_network_with_other_numbers(kind):
    (old,), (new,) = (samples.networks(claim, provider(kind)) for claim in ("float32", "retrained"))
    assert old.inputs == new.inputs
    feed = old.feed()
    (first,), (second,) = (samples.wanted(one, feed).values() for one in (old, new))
    assert first.shape == second.shape
    assert np.abs(first - second).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mlp", "attention"])
def test_the_kit_passes_a_provider_that_is_for_one_kind(kind, install, pytester, monkeypatch):
    name = f"only-{kind}"
    source = f"""
from epkit.hookspecs import hookimpl
from epkit.provider import Provider, SelfTest

class Only(Provider):
    name, ort_name, self_test = {name!r}, "CPUExecutionProvider", SelfTest(networks=({kind!r},))
    capabilities = frozenset({{"float32", "dynamic-shapes"}})

    def open(self, model, options, create):
        if b"Conv" in (model if isinstance(model, bytes) else open(model, "rb").read()):
            raise RuntimeError("no Conv here")
        return create()

@hookimpl
def epkit_providers():
    return [Only()]
"""
    pytester.makepyfile(only_kit=source)
    monkeypatch.syspath_prepend(pytester.path)
    monkeypatch.setenv("EPKIT_PLUGINS", "only_kit")
    pytester.makepyfile(
        test_it="""
        from only_kit import Only
        from epkit.testing import ProviderConformance

        class TestIt(ProviderConformance):
            provider = Only
        """
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:benchmark", "-p", "no:hypothesispytest")
    outcomes = result.parseoutcomes()
    assert "failed" not in outcomes, result.outlines
    (line,) = [line for line in result.outlines if line.startswith(f"{name}: ")]
    assert "broken" not in line
    assert "not proven" not in line
