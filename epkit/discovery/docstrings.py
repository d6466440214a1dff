"""Which sentence stands under each field of a model, in its source?

Read when somebody asks. Reading them whenever a model is made would cost every program a tenth of a second.
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
    """Return the text under each field by the field's name, empty where none is; a `description` counts before it."""
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if issubclass(kind, BaseModel) and kind is not BaseModel:
            found |= _written(kind)
    return {name: field.description or found.get(name, "") for name, field in model.model_fields.items()}


def _written(kind: type) -> Mapping[str, str]:
    try:
        source = inspect.getsource(kind)
    except (OSError, TypeError):  # made by a program, or its source is not there
        return {}
    tree = ast.parse(f"if True:\n{source}" if source[:1].isspace() else source)
    definition = next(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    found = {}
    for node, below in pairwise(definition.body):
        match node, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = inspect.cleandoc(text)
    return found
