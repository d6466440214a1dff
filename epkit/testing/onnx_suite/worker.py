"""What does one arm make of a case, in a process of its own?

The `plain` arm is ONNX Runtime as a person would use it by hand: session options with the provider added, one
InferenceSession, one `run` with the arrays of the case. Nothing of epkit is in it but what the provider's plugin says of
how it is added. The `epkit` arm opens and runs the case as `epkit.open` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from epkit._child import Parent
from epkit._foreign import asked
from epkit.errors import EpkitError
from epkit.testing.onnx_suite.cases import Case

if TYPE_CHECKING:
    from epkit.provider import Provider
    from epkit.registry import Registry
    from epkit.testing.onnx_suite.examples import Example

Run = Callable[[Mapping[str, Any]], Sequence[Any]]
Opened = tuple[Run, dict[str, object]]
Arm = Callable[[str], Opened]


def main() -> None:
    """Serve until the parent goes."""
    parent = Parent()
    told = parent.receive()
    if told is None:
        return
    arm = _arm(str(told["arm"]), str(told["provider"]))
    while told is not None:
        if "case" in told:
            parent.send(_judged(arm, Case.of(told["case"])))  # type: ignore[arg-type]
        told = parent.receive()


def _arm(name: str, provider: str) -> Arm:
    from epkit.registry import discover

    registry = discover()
    return _plain(registry.get(provider)) if name == "plain" else _epkit(provider, registry)


def _plain(provider: Provider) -> Arm:
    from epkit import _runtime

    runtime = _runtime.load()
    _runtime.prepare(provider)
    sent = asked(provider.encode, provider.options(), None)

    def open_model(model: str) -> Opened:
        options = runtime.SessionOptions()
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        if provider.library() is not None:
            found, every = _runtime.found_devices(provider), runtime.get_ep_devices()
            options.add_provider_for_devices([every[one.index] for one in provider.devices(found, None)], sent)
        else:
            options.add_provider(provider.ort_name, sent)
        session = runtime.InferenceSession(model, sess_options=options, enable_fallback=0)
        parts = session.get_provider_graph_assignment_info()
        counts = [(part.ep_name, len(part.get_nodes())) for part in parts]
        took = sum(count for name, count in counts if name == provider.ort_name)
        total = sum(count for _, count in counts)
        return (lambda inputs: session.run(None, inputs)), {"took": took, "nodes": total}

    return open_model


def _epkit(provider: str, registry: Registry) -> Arm:
    from epkit import config, model, session, target

    wanted = target.read("suite", config.load({"targets": {"suite": {"provider": provider}}}), registry)
    plan, answers = session.plan_for(wanted, registry)

    def open_model(file: str) -> Opened:
        contents = model.read(file)
        session.check_fit(contents, wanted)
        opened = session.open_plan(contents, plan, answers)
        report = opened.report
        placed = report.placement
        left = next((one.reason for one in report.tried if one.outcome.startswith("failed")), "")
        took = placed[provider].nodes if provider in placed else 0
        total = sum(share.nodes for share in placed.values())
        return (lambda inputs: list(opened.run(inputs).values())), {"took": took, "nodes": total, "left": left}

    return open_model


def _judged(arm: Arm, case: Case) -> dict[str, object]:
    """Open and run one case; `words` say what went wrong, and are empty when nothing did."""
    from epkit.testing.onnx_suite.examples import difference, examples

    placed: dict[str, object] = {}
    stage = "case"
    try:
        wanted: list[Example] = list(examples(case))
        stage = "open"
        run, placed = arm(case.model)
        for example in wanted:
            stage = "run"
            outputs = run(example.inputs)
            stage = "outputs"
            words = difference(case, example, outputs)
            if words:
                return {"stage": stage, "words": words, **placed}
    except Exception as error:  # noqa: BLE001 - whatever is raised is the answer
        return {"stage": stage, "words": _words(error), **placed}
    return {"stage": stage, "words": "", **placed}


def _words(error: Exception) -> str:
    told = error.message if isinstance(error, EpkitError) else str(error)
    return " ".join(f"{type(error).__name__}: {told}".split())


if __name__ == "__main__":
    main()
