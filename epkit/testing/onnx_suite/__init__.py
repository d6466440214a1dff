"""Check that epkit passes each case of the onnx package's backend suite that plain ONNX Runtime passes."""
