//! ONNX protobuf messages: generated types, decoding, encoding.
