"""Pair a provider with its validated options, and encode them for ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from epkit.errors import PluginError
from epkit.provider import Device, Options, Provider
from epkit.runtime.plugin_calls import call_plugin

CPU = "cpu"


@dataclass(frozen=True, slots=True)
class ConfiguredProvider:
    """One provider of a chain, with what it will be given."""

    provider: Provider
    options: Options = field(default_factory=Options)
    device: Device | None = None
    captures: bool = False
    """Whether its options ask for graph capture; the engine sets that option, where the model can be captured."""

    @property
    def name(self) -> str:
        """The provider's name."""
        return self.provider.name

    @property
    def sent(self) -> dict[str, str]:
        """The options as ONNX Runtime gets them, without a cache that they ask for: that is epkit's to give."""
        provider, options = self.provider, self.options
        if call_plugin(provider.caching.requested_dir, options) is not None and not call_plugin(
            provider.caching.check, options
        ):
            options = call_plugin(provider.caching.with_dir, options, self.device, None)
        return encode_options(provider, options, self.device)


def encode_options(provider: Provider, options: Options, device: Device | None) -> dict[str, str]:
    """Return what ONNX Runtime gets for these options, and for those that right results need and nobody set."""
    missing = find_missing_options(provider, options, device)
    if missing:
        options = options.model_copy(update={"extra": {**missing, **options.extra}})
    sent = call_plugin(provider.to_ort_options, options, device)
    if not isinstance(sent, Mapping):
        message = f"{type(provider).__name__}.to_ort_options returned {sent!r} where names and texts belong"
        raise PluginError(message, hint="tell the plugin's author")
    return dict(sent)


def find_missing_options(provider: Provider, options: Options, device: Device | None) -> dict[str, str]:
    """Return the options that right results need and that the user did not set."""
    needed = call_plugin(provider.always_sent, device)
    return {name: text for name, text in needed.items() if name not in options.written() | options.extra}
