"""Call ONNX Runtime: load it, run sessions, bind buffers, report what happens."""
