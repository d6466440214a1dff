"""Run a case on plain ONNX Runtime or on epkit, in a process of its own.

The `plain` arm is ONNX Runtime as a person would use it by hand: session options with the provider added, one
InferenceSession, one `run` with the arrays of the case. Nothing of epkit is in it but what the provider's plugin says
of how it is added. The `epkit` arm opens and runs the case as `epkit.open` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from epkit._system.process import Parent
from epkit.errors import EpkitError
from epkit.testing.onnx_suite.cases import SuiteCase
from epkit.testing.onnx_suite.examples import difference, examples
from epkit.testing.onnx_suite.runners import LONGEST_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from epkit.discovery.registry import Registry
    from epkit.provider import Provider

Run: TypeAlias = Callable[[Mapping[str, Any]], Sequence[Any]]
Placed: TypeAlias = dict[str, object]
Open: TypeAlias = Callable[[str], AbstractContextManager[tuple[Run, Placed]]]


def main() -> None:
    """Serve until the parent goes."""
    parent = Parent()
    message = parent.receive()
    if message is None:
        return
    arm = _arm(str(message["arm"]), str(message["provider"]))
    parent.send({"ready": True})
    while (message := parent.receive()) is not None:
        parent.set_time_limit(LONGEST_SECONDS)
        outcome = judged(arm, SuiteCase.of(cast("dict[str, Any]", message["case"])))
        parent.set_time_limit(None)
        parent.send(outcome)


def judged(open_model: Open, case: SuiteCase) -> dict[str, object]:
    """Open and run one case; `words` say what went wrong, and are empty when nothing did."""
    stage, words = "reading", ""
    placed: Placed = {}
    try:
        wanted = examples(case)
        stage = "opening"
        with open_model(case.model) as (run, placed):
            for example in wanted:
                stage = "running"
                outputs = run(example.inputs)
                stage = "outputs"
                words = words or difference(case, example, outputs)
    except Exception as error:  # noqa: BLE001 - whatever is raised is the answer
        message = error.message if isinstance(error, EpkitError) else str(error)
        words = " ".join(f"{type(error).__name__}: {message}".split())
    return {"stage": stage if words else "passed", "words": words, **placed}


def _arm(name: str, provider: str) -> Open:
    from epkit.discovery.registry import discover

    registry = discover()
    return _plain(registry.get(provider)) if name == "plain" else _epkit(provider, registry)


def _plain(provider: Provider) -> Open:
    from epkit.runtime import api
    from epkit.runtime.configured import encode_options
    from epkit.runtime.plugin_calls import chosen_devices

    runtime = api.load()
    api.prepare(provider)
    chosen = []
    if provider.library is not None:
        every = runtime.get_ep_devices()
        chosen = [every[device.index] for device in chosen_devices(provider, api.list_devices(provider), None)]
    sent = encode_options(provider, provider.options(), None)

    @contextmanager
    def open_model(model: str) -> Iterator[tuple[Run, Placed]]:
        options = runtime.SessionOptions()
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        provider.add(runtime, options, sent, chosen)
        session = runtime.InferenceSession(model, sess_options=options, enable_fallback=0)
        parts = [(part.ep_name, len(part.get_nodes())) for part in session.get_provider_graph_assignment_info()]
        took = sum(count for name, count in parts if name == provider.ort_name)
        yield (lambda inputs: session.run(None, inputs)), {"took": took, "nodes": sum(count for _, count in parts)}

    return open_model


def _epkit(provider: str, registry: Registry) -> Open:
    from dataclasses import replace

    from epkit.session.opening import open_plan
    from epkit.session.request import OpenRequest, plan_target

    # With a fallback, as the plain arm has one: ONNX Runtime gives the CPU what the provider does not take.
    request = OpenRequest("", "suite", config={"targets": {"suite": {"provider": provider}}})
    target = request.read_target(registry)
    planned = plan_target(target, registry)

    @contextmanager
    def open_model(file: str) -> Iterator[tuple[Run, Placed]]:
        model = replace(request, model=file).read_model(target)
        with open_plan(model, planned.plan, planned.answers) as opened:
            placed = opened.report.placement
            first = opened.report.tried[0]
            yield (
                lambda inputs: list(opened.run(inputs).values()),
                {
                    "took": placed[provider].nodes if provider in placed else 0,
                    "nodes": sum(share.nodes for share in placed.values()),
                    "left": first.reason if first.outcome.startswith("failed") else "",
                },
            )

    return open_model


if __name__ == "__main__":
    main()
