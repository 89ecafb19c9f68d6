//! An ONNX model as a checked, editable graph.
