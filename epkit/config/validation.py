"""Describe what is wrong with a configuration.

pydantic finds the fault; this turns it into one sentence that names the place, the key, what would have been valid and
the nearest spelling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from epkit.config.layers import Table, origin_of, plain
from epkit.errors import ConfigError, nearest

Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], table: Table, where: str, path: Sequence[str] = (), *, subject: str = "key") -> Model:
    """Validate one table; the first fault is raised as a ConfigError that names place, key, choices and spelling."""
    try:
        return model.model_validate(plain(table))
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
    location = [str(part) for part in fault["loc"]]
    key = ".".join((*path, *location))
    origin = origin_of(table, location)
    context: Mapping[str, Any] = fault.get("ctx", {})
    known = _known_keys(model, location[:-1])
    if fault["type"] == "extra_forbidden":
        message = f"no such {subject}"
        hint = nearest(location[-1], known) if known != ["extra"] else "it has none; see session_options"
        if "." in location[-1] and "config" in known:
            hint = f'write it under config: config = {{ "{location[-1]}" = "..." }}'
    elif fault["type"] == "missing":
        message, hint, origin = "is missing", "", ""
    elif fault["type"] == "value_error":
        message, hint = str(context.get("error", fault["msg"])), ""
    elif fault["type"] == "literal_error":
        choices = str(context.get("expected", ""))
        near = nearest(
            str(fault["input"]), [c.strip("' ") for c in choices.replace(" or ", ", ").split(",")], what="one of"
        )
        message, hint = f"must not be {fault['input']!r}", near
    else:
        message = _lowered(fault["msg"]).replace("valid tuple", "list").replace("valid dictionary", "table")
        message, hint = f"{message}, not {fault['input']!r}", ""
    if not location:
        origin = ""  # the fault is in how the values go together
    place = origin if key and origin.endswith(key) else ": ".join(filter(None, (origin or where, key)))
    raise ConfigError(f"{place}: {message}", hint=hint)


def _known_keys(model: type[BaseModel], location: Sequence[str]) -> list[str]:
    """Return the keys that are valid at a place inside a model."""
    for part in location:
        inner = next((f.annotation for n, f in model.model_fields.items() if part in (n, f.alias)), None)
        nested = next((kind for kind in _types(inner) if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if nested is None:
            return []
        model = nested
    return [field.alias or name for name, field in model.model_fields.items()]


def _types(annotation: Any) -> tuple[Any, ...]:
    return (annotation, *getattr(annotation, "__args__", ()))


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]
