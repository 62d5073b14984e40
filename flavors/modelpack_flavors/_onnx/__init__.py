"""Parts of the onnx flavor."""
