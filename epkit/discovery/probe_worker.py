"""Prove one provider in a child process, where a crash or a hang is a result too.

Calls the plugin's own probe, then runs a tiny model on that provider alone, and checks the placement and the outputs.
"""

from __future__ import annotations

import traceback

from epkit._system.process import Parent
from epkit._system.text import describe_error
from epkit.discovery.proof import proof_of
from epkit.discovery.registry import Plugin, load
from epkit.errors import EpkitError
from epkit.provider import Availability, Device, Proof, Provider, Unusable, Usable
from epkit.runtime import api, create
from epkit.runtime.configured import ConfiguredProvider
from epkit.runtime.plugin_calls import hint_for, probe_availability


def main() -> None:
    """Answer one request: `{"plugin", "value", "provider", "device", "seconds"}`."""
    parent = Parent()
    request = parent.receive()
    if request is None:
        return
    parent.exit_with_parent()
    parent.set_time_limit(float(str(request["seconds"])))
    plugin = Plugin(str(request["plugin"]), str(request["value"]), "", "")
    device = request["device"]
    assert device is None or isinstance(device, int | str)
    answer = _answer(plugin, str(request["provider"]), device)
    match answer:
        case Usable(detail, note):
            parent.send({"usable": True, "detail": detail, "note": note})
        case Unusable(reason, hint, transient):
            parent.send({"usable": False, "reason": reason, "hint": hint, "transient": transient})
    parent.exit()


def _answer(plugin: Plugin, name: str, device: Device | None) -> Availability:
    try:
        provider = next(provider for provider in load(plugin) if provider.name == name)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - foreign code
        traceback.print_exc()
        return Unusable(f"its plugin raised {type(error).__name__}: {error}", transient=True)
    answer = probe_availability(provider)
    if isinstance(answer, Unusable):
        return answer
    # Errors from here on are transient: a busy device, no free memory.
    try:
        api.enable_log()
        _prove(provider, device)
    except create.OpenFault as fault:
        return Unusable(fault.cause, hint_for(provider, fault.cause) or fault.hint, transient=True)
    except EpkitError as error:
        return Unusable(error.message, error.hint, transient=True)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - foreign code
        traceback.print_exc()
        return Unusable(describe_error(error), hint_for(provider, str(error)), transient=True)
    return answer


def _prove(provider: Provider, device: Device | None) -> None:
    """Run the tiny model on `provider` alone; raises OpenFault if placement or outputs are wrong."""
    import numpy as np

    proof: Proof = proof_of(provider)
    entries = {"session.record_ep_graph_assignment_info": "1"}
    if provider.ort_name != api.CPU_ORT_NAME:
        entries["session.disable_cpu_ep_fallback"] = "1"
    session = create.create_session(
        proof.model,
        [ConfiguredProvider(provider, provider.options(), device)],
        create.Settings(properties={"log_severity_level": 3}, entries=entries),
    )
    takers = {ort_name for ort_name, _ in create.get_assignments(session)}
    if takers != {provider.ort_name}:
        raise create.OpenFault(f"it took no node of a tiny model; {', '.join(sorted(takers)) or 'nobody'} did")
    value = np.array(proof.input, dtype=np.float32).reshape(proof.input_shape)
    (output,) = session.run(None, {session.get_inputs()[0].name: value})
    if not np.allclose(np.ravel(output), proof.output, rtol=1e-2, atol=1e-2):
        raise create.OpenFault(f"it computed {np.ravel(output).tolist()} where {list(proof.output)} is right")


if __name__ == "__main__":
    main()
