"""Does epkit pass every case of the onnx package's backend suite that plain ONNX Runtime passes?"""
