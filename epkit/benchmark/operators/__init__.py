"""Measure operators with ONNX Runtime's profiler."""
