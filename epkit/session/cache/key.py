"""List what a compiled model depends on, and how two of them differ.

Everything is a text under a name that a person understands: together they are the key under which it is kept, and one
by one they say why nothing was found.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from epkit import wheels
from epkit.model import digest as digests
from epkit.model.file import Model
from epkit.provider import Provider
from epkit.runtime.configured import encode_options
from epkit.runtime.plugin_calls import call_plugin, compile_fingerprint
from epkit.session.cache import store

if TYPE_CHECKING:
    from epkit.config.schema import Warmup
    from epkit.runtime.configured import ConfiguredProvider
    from epkit.runtime.create import Settings

FORMAT = "1"

# Of the properties of SessionOptions, those that say what is logged or written, not what is compiled.
_UNRELATED = frozenset(
    {"enable_profiling", "logid", "log_severity_level", "log_verbosity_level", "optimized_model_filepath"}
    | {"profile_file_prefix"}
)
# Named last, and only where nothing else differs: it follows from the options.
_SENT = "what is sent"
_UNTOLD = 60
COMPILED_WITH = "what it was compiled with"
"""How the parts begin that the provider names."""


def parts_of(
    model: Model,
    candidate: ConfiguredProvider,
    before: Sequence[ConfiguredProvider],
    settings: Settings,
    warmup: Warmup,
) -> dict[str, str]:
    """Return everything that the compiled form of a model depends on, by what a person calls it."""
    provider, options = candidate.provider, candidate.options
    written = options.written() | options.extra
    # What names the folder depends on nothing, and nothing depends on it.
    own = set(written) - set(_sent_names(candidate, written))
    parts = digests.digest_files(model)
    parts |= {f"option {name}": str(value) for name, value in written.items() if name not in own}
    parts |= {name: _stamps(str(written[name])) for name in provider.options.native_options if name in written}
    parts |= {
        f"session option {name}": str(value) for name, value in settings.properties.items() if name not in _UNRELATED
    }
    parts |= {f"session option config.{key}": value for key, value in settings.entries.items()}
    parts |= {f"free dimension {key}": str(size) for key, size in settings.free_dimensions.items()}
    parts |= {f"free dimension of {key}": str(size) for key, size in settings.free_dimensions_by_denotation.items()}
    parts |= {f"custom operators {library}": _stamps(library) for library in settings.custom_ops}
    parts |= versions(provider, candidate.device)
    dynamic = any(
        tensor.shape is None or not all(isinstance(size, int) for size in tensor.shape) for tensor in model.inputs
    )
    if provider.caching.compiles == "shapes" and dynamic:
        parts["warm-up"] = warmup.model_dump_json(exclude={"runs"})
    return parts | {
        "provider": f"{candidate.name} ({provider.ort_name})",
        "device": str(candidate.device),
        "the providers before it": json.dumps([[candidate.name, candidate.sent] for candidate in before]),
        _SENT: json.dumps(sent_with(candidate, Path("files")), sort_keys=True),
    }


def versions(provider: Provider, device: int | str | None) -> dict[str, str]:
    """Return the parts that this machine and what is installed on it contribute."""
    return {
        "epkit's cache format": FORMAT,
        "ONNX Runtime": _runtime_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    } | {f"{COMPILED_WITH} ({at})": message for at, message in enumerate(call_plugin(_texts, provider, device), 1)}


def why_missed(parts: Mapping[str, str], path: str, there: Sequence[store.CacheEntry]) -> str:
    """Say why none of the entries that are there is the one that is wanted: how the nearest one differs."""
    own = [
        entry
        for entry in there
        if (path and entry.model == path) or (parts and entry.parts.get("model") == parts["model"])
    ]
    if not own:
        return "nothing was built for this model"
    if not parts:
        return "the model changed"
    nearest = min(own, key=lambda entry: (len(list(_differing(entry.parts, parts))), -entry.made))
    message = list(_differing(nearest.parts, parts))
    return "; ".join(message[:3]) + (f"; and {len(message) - 3} more" if len(message) > 3 else "")


def _differing(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    """Say of each part how it differs."""
    names = [name for name in dict.fromkeys((*new, *old)) if old.get(name) != new.get(name)]
    for name in names:
        was, now = old.get(name, "not set"), new.get(name, "not set")
        if name == _SENT and len(names) > 1:
            continue
        subject = "the model" if name == "model" else name
        digest = name == "model" or name.startswith("external data")
        short = not digest and len(was) <= _UNTOLD and len(now) <= _UNTOLD
        yield f"{subject} changed" + (f": {was} -> {now}" if short else "")


def _texts(provider: Provider, device: int | str | None) -> list[str]:
    return [str(part) for part in compile_fingerprint(provider, device)]


def sent_with(candidate: ConfiguredProvider, files: Path) -> dict[str, str]:
    """Return what a provider is sent when it keeps what it compiles in `files`."""
    provider = candidate.provider
    options = call_plugin(provider.caching.with_dir, candidate.options, candidate.device, files)
    return encode_options(provider, options, candidate.device)


def _sent_names(candidate: ConfiguredProvider, written: Mapping[str, object]) -> list[str]:
    """Return the names of the options that stay as they are written when a folder for the cache is put in."""
    options = call_plugin(candidate.provider.caching.with_dir, candidate.options, candidate.device, Path("files"))
    kept_options = options.written() | options.extra
    return [name for name, value in written.items() if kept_options.get(name) == value]


def _runtime_version() -> str:
    installed = ", ".join(f"{name} {version}" for name, version in sorted(wheels.runtimes().items()))
    return installed or _stamps(wheels.origin("onnxruntime"))


def _stamps(files: str) -> str:
    """Return the sizes and times of files, whose paths are separated by semicolons."""
    stamps = []
    for name in filter(None, files.split(";")):
        try:
            state = Path(name).stat()
            stamps.append(f"{name} {state.st_size} {state.st_mtime_ns}")
        except OSError:
            stamps.append(f"{name} absent")
    return "; ".join(stamps)
