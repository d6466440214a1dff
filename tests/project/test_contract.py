"""What plugins rely on stays: members of the contract are added with a default, and never removed or changed."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import FunctionType

from epkit import hookspecs, provider, provider_parts
from epkit.provider import Options, Provider

RECORDED = Path(__file__).with_name("contract.txt")
"""One member a line; `python tests/project/test_contract.py` writes it anew, for a reviewer to see what has changed."""

NEEDED = {"Provider.name", "Provider.ort_name", "Unusable.reason", "GraphCapture.option"} | {
    f"Proof.{name}" for name in ("model", "input", "output", "input_shape")
}
"""All that a plugin must say. What epkit says to it (FoundDevice) is another matter."""


def members() -> dict[str, str]:
    """Return each member of the contract with what a plugin may rely on: its parameters, or its default."""
    found = {
        f"Provider.{name}": _default(name)
        for name in {**Provider.__annotations__, **vars(Provider)}
        if not name.startswith("_")
    }
    found["Options.written"] = _signature(Options.written)
    found |= {f"Options.{name}": repr(field.default) for name, field in Options.model_fields.items()}
    found |= {f"Options.{name}": repr(getattr(Options, name)) for name in ("native_options", "writing_options")}
    homes = (provider.__name__, provider_parts.__name__)
    for kind in (one for one in vars(provider).values() if is_dataclass(one) and one.__module__ in homes):
        found |= {f"{kind.__name__}.{field.name}": _field(field) for field in fields(kind)}
        methods = {name: value for name, value in vars(kind).items() if isinstance(value, FunctionType)}
        found |= {f"{kind.__name__}.{name}": _signature(value) for name, value in methods.items() if name[0] != "_"}
    hooks = {name: hook for name, hook in vars(hookspecs).items() if name.startswith("epkit_")}
    return found | {name: _signature(hook) for name, hook in hooks.items()}


def _default(name: str) -> str:
    if not hasattr(Provider, name):
        return "needed"
    value = inspect.getattr_static(Provider, name)
    if isinstance(value, FunctionType):
        return _signature(value)
    return "property" if isinstance(value, property) else getattr(value, "__name__", None) or repr(value)


def _signature(function: object) -> str:
    assert isinstance(function, FunctionType)
    return f"({', '.join(str(one).partition(':')[0] for one in inspect.signature(function).parameters.values())})"


def _field(field: object) -> str:
    default, factory = getattr(field, "default", MISSING), getattr(field, "default_factory", MISSING)
    return "needed" if default is MISSING and factory is MISSING else repr(default if factory is MISSING else factory())


def _recorded() -> dict[str, str]:
    return dict(line.split(" ", 1) for line in RECORDED.read_text(encoding="utf-8").splitlines())


def test_no_member_of_the_contract_is_removed_or_changed():
    found, recorded = members(), _recorded()
    changed = {name: (told, found.get(name, "gone")) for name, told in recorded.items() if found.get(name) != told}
    assert not changed, "plugins rely on these: deprecate first, and add beside them (docs/writing-a-plugin.md)"


def test_every_member_of_the_contract_is_recorded():
    new = {name: told for name, told in members().items() if name not in _recorded()}
    assert not new, f"plugins will rely on these: python tests/project/{Path(__file__).name} records them"


def test_what_is_added_has_a_default():
    needed = {name for name, told in members().items() if told == "needed" and not name.startswith("FoundDevice.")}
    assert needed == NEEDED, "plugins that do not know it would be broken: give it a default"


def test_the_smallest_plugin_is_a_name_and_what_onnx_runtime_calls_it():
    kind = type("Acme", (Provider,), {"name": "acme", "ort_name": "AcmeExecutionProvider"})
    acme = kind()
    for name in members():
        owner, _, member = name.partition(".")
        if owner == "Provider":
            getattr(acme, member)


if __name__ == "__main__":
    RECORDED.write_text("".join(f"{name} {told}\n" for name, told in members().items()), encoding="utf-8")
