"""What does ONNX Runtime say in an exception?

Its classes do not tell a model's fault from a provider's, so only the text counts.
"""

from __future__ import annotations

import re

# "/onnxruntime_src/core/graph/model.cc:256 onnxruntime::Model::Model(onnx::ModelProto&&, int) " in front of a sentence.
_SOURCE = re.compile(r"/\S+\.(?:cc|cpp|cu|h|hpp):\d+ (?:[^()]*\((?:[^()]|\([^()]*\))*\)(?: const)? )?")


def cause(error: BaseException) -> str:
    """Return the text of an exception on one line, without codes and places in ONNX Runtime's source."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error).strip())
    return " ".join(_SOURCE.sub(" ", text).split()) or type(error).__name__
