"""What does ONNX Runtime say in an exception?

Its classes do not tell a model's fault from a provider's, so only the text counts.
"""

from __future__ import annotations

import re

from epkit.errors import EpkitError

# "/onnxruntime_src/core/graph/model.cc:256 onnxruntime::Model::Model(onnx::ModelProto&&, int) " in front of a sentence.
_SOURCE = re.compile(
    r"/\S+\.(?:cc|cpp|cu|h|hpp):\d+ (?:[^()]*\((?:[^()]|\([^()]*\))*\)(?: const)? (?:\[with [^\]]*\] )?)?"
)
# " ; GPU=0 ; hostname=vm ; file=... ; line=355 ; expr=cudaSetDevice(0); " behind one of CUDA's.
_CUDA = re.compile(r" ; GPU=-?\d+ ; hostname=\S* ; file=.*? ; line=\d+ ; expr=(.*?);? *$", re.DOTALL)


def cause(error: BaseException) -> str:
    """Return the text of an exception on one line, without codes and places in ONNX Runtime's source."""
    text = re.sub(
        r"^\[ONNXRuntimeError\] : \d+ : \w+ : ",
        "",
        (error.message if isinstance(error, EpkitError) else str(error)).strip(),
    )
    text = _CUDA.sub(r", in \1", _SOURCE.sub(" ", text))
    return " ".join(text.split()) or type(error).__name__
