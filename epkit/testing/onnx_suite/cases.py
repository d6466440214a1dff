"""List the cases that the onnx package brings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KINDS = ("node", "simple", "pytorch-operator", "pytorch-converted", "light")
"""`light` are the architectures that the onnx package files under "real": their weights are made up."""


@dataclass(frozen=True, slots=True)
class SuiteCase:
    """One model, the folder with its inputs and expected outputs, and how close an output must come."""

    kind: str
    name: str
    model: str
    folder: str
    """Empty for a light model, whose inputs are made up."""
    rtol: float
    atol: float

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> SuiteCase:
        """Make one from what `dataclasses.asdict` gave."""
        return cls(**fields)


def cases() -> list[SuiteCase]:
    """List all cases, by kind and name; raises ImportError without the onnx package. Opens no model."""
    from onnx.backend.test.loader import DATA_DIR, load_model_tests

    found = []
    for kind in KINDS:
        for test in load_model_tests(kind="real" if kind == "light" else kind):
            if test.model_dir is not None:
                model, folder = Path(test.model_dir, "model.onnx"), test.model_dir
            elif test.url is not None and "/data/light/" in test.url:
                model, folder = Path(DATA_DIR, "light", Path(test.url).name), ""
            else:
                continue  # a model to download
            found.append(SuiteCase(kind, test.name, str(model), folder, test.rtol, test.atol))
    return sorted(found, key=lambda case: (KINDS.index(case.kind), case.name))
