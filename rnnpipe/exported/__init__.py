"""An exported model, read and run without torch: ONNX Runtime and NumPy."""
