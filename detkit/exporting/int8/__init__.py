"""Eight-bit integers in an ONNX graph, and which layers lose by them."""
