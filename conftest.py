"""The tests are epkit's own processes: ONNX Runtime tells nobody of them."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
