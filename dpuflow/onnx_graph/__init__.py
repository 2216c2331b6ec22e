"""ONNX files: opened, their constants folded by onnxruntime, read into a `Network`, run as they are."""
