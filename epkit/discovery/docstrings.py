"""Read the docstring under each field of a pydantic model from its source.

They are read on request: to read them whenever a model class is made would cost every program a tenth of a second.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from functools import cache
from itertools import pairwise

from pydantic import BaseModel


@cache
def sentences(model: type[BaseModel]) -> Mapping[str, str]:
    """Return the docstring of each field, by its name, or ""; the `description` of a field comes first."""
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if issubclass(kind, BaseModel) and kind is not BaseModel:
            found |= _docstrings(kind)
    return {name: field.description or found.get(name, "") for name, field in model.model_fields.items()}


def _docstrings(kind: type) -> Mapping[str, str]:
    try:
        source = inspect.getsource(kind)
    except (OSError, TypeError):  # generated, or without source
        return {}
    tree = ast.parse(f"if True:\n{source}" if source[:1].isspace() else source)
    definition = next(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    found = {}
    for node, below in pairwise(definition.body):
        match node, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = inspect.cleandoc(text)
    return found
