"""Export a PyTorch module to one ONNX file, and prove that the file computes what the module does."""
