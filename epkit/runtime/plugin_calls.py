"""Call the methods of a plugin's provider, and turn what they raise into a PluginError that names the method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from epkit.errors import EpkitError, PluginError
from epkit.provider import Availability, Concurrency, Device, FoundDevice, Provider, Unusable, Usable

Answer = TypeVar("Answer")


def call_plugin(method: Callable[..., Answer], *arguments: object) -> Answer:
    """Call a method of a provider; raises PluginError for whatever it raises that is not epkit's own."""
    try:
        return method(*arguments)
    except EpkitError:
        raise
    except (Exception, SystemExit) as error:
        name = getattr(method, "__qualname__", repr(method))
        raise PluginError(f"{name} raised {type(error).__name__}: {error}", hint="tell the plugin's author") from error


def hint_for(provider: Provider, cause: str) -> str:
    """Return the provider's hint for a cause; empty if it has none or raises."""
    try:
        return str(provider.hint(cause) or "")
    except (Exception, SystemExit):  # noqa: BLE001 - the cause is what counts
        return ""


def probe_availability(provider: Provider) -> Availability:
    """Call the provider's probe; an error in it becomes an Unusable."""
    try:
        answer = provider.probe()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - foreign code
        return Unusable(f"its probe raised {type(error).__name__}: {error}", transient=True)
    if isinstance(answer, Usable | Unusable):
        return answer
    return Unusable(f"its probe answered {answer!r} where Usable or Unusable belongs", hint="tell the plugin's author")


def library_path(provider: Provider) -> Path | None:
    """Return the plugin library of a provider; None for one that is built into ONNX Runtime."""
    return None if provider.library is None else call_plugin(provider.library.path)


def preload_paths(provider: Provider) -> Sequence[Path]:
    """List the libraries that must be in the process before the provider's own."""
    return () if provider.library is None else call_plugin(provider.library.preload)


def chosen_devices(provider: Provider, found: Sequence[FoundDevice], device: Device | None) -> Sequence[FoundDevice]:
    """Choose among the devices that ONNX Runtime lists under the provider's very name."""
    return call_plugin(provider.devices.choose, [one for one in found if one.ort_name == provider.ort_name], device)


def concurrency_of(provider: Provider) -> Concurrency:
    """Return how many runs may be under way at once; for a plugin library the least, until it is declared otherwise."""
    return provider.limits.concurrency or ("free" if provider.library is None else "per-process")


def validates_output_shape(provider: Provider) -> bool:
    """Whether it refuses an output buffer of another shape; a plugin library does not, until it is declared."""
    declared = provider.limits.validates_output_shape
    return provider.library is None if declared is None else declared


def compile_fingerprint(provider: Provider, device: Device | None) -> Sequence[str]:
    """List what makes compiled files stale: what its caching lists, else what its probe depends on."""
    return provider.caching.fingerprint(device) or provider.fingerprint()
