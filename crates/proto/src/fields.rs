// Made by `cargo xtask codegen` from proto/onnx.proto; do not edit.

//! Every message of the schema with its fields, ordered by number.

use crate::onnx;
use crate::schema::{Field, Kind, Message};

pub(crate) static ATTRIBUTE_PROTO: Message = Message {
    name: "AttributeProto",
    struct_bytes: size_of::<onnx::AttributeProto>(),
    fields: &[
        Field::one(1, "name", Kind::Text),
        Field::one(2, "f", Kind::Fixed32),
        Field::one(3, "i", Kind::Varint64),
        Field::one(4, "s", Kind::Bytes),
        Field::one(5, "t", Kind::Message(&TENSOR_PROTO)),
        Field::one(6, "g", Kind::Message(&GRAPH_PROTO)),
        Field::many(7, "floats", Kind::Fixed32),
        Field::many(8, "ints", Kind::Varint64),
        Field::many(9, "strings", Kind::Bytes),
        Field::many(10, "tensors", Kind::Message(&TENSOR_PROTO)),
        Field::many(11, "graphs", Kind::Message(&GRAPH_PROTO)),
        Field::one(13, "doc_string", Kind::Text),
        Field::one(14, "tp", Kind::Message(&TYPE_PROTO)),
        Field::many(15, "type_protos", Kind::Message(&TYPE_PROTO)),
        Field::one(20, "type", Kind::Varint32),
        Field::one(21, "ref_attr_name", Kind::Text),
        Field::one(22, "sparse_tensor", Kind::Message(&SPARSE_TENSOR_PROTO)),
        Field::many(23, "sparse_tensors", Kind::Message(&SPARSE_TENSOR_PROTO)),
    ],
};

pub(crate) static VALUE_INFO_PROTO: Message = Message {
    name: "ValueInfoProto",
    struct_bytes: size_of::<onnx::ValueInfoProto>(),
    fields: &[
        Field::one(1, "name", Kind::Text),
        Field::one(2, "type", Kind::Message(&TYPE_PROTO)),
        Field::one(3, "doc_string", Kind::Text),
        Field::many(4, "metadata_props", Kind::Message(&STRING_STRING_ENTRY_PROTO)),
    ],
};

pub(crate) static NODE_PROTO: Message = Message {
    name: "NodeProto",
    struct_bytes: size_of::<onnx::NodeProto>(),
    fields: &[
        Field::many(1, "input", Kind::Text),
        Field::many(2, "output", Kind::Text),
        Field::one(3, "name", Kind::Text),
        Field::one(4, "op_type", Kind::Text),
        Field::many(5, "attribute", Kind::Message(&ATTRIBUTE_PROTO)),
        Field::one(6, "doc_string", Kind::Text),
        Field::one(7, "domain", Kind::Text),
        Field::one(8, "overload", Kind::Text),
        Field::many(9, "metadata_props", Kind::Message(&STRING_STRING_ENTRY_PROTO)),
        Field::many(10, "device_configurations", Kind::Message(&NODE_DEVICE_CONFIGURATION_PROTO)),
    ],
};

pub(crate) static INT_INT_LIST_ENTRY_PROTO: Message = Message {
    name: "IntIntListEntryProto",
    struct_bytes: size_of::<onnx::IntIntListEntryProto>(),
    fields: &[Field::one(1, "key", Kind::Varint64), Field::many(2, "value", Kind::Varint64)],
};

pub(crate) static NODE_DEVICE_CONFIGURATION_PROTO: Message = Message {
    name: "NodeDeviceConfigurationProto",
    struct_bytes: size_of::<onnx::NodeDeviceConfigurationProto>(),
    fields: &[
        Field::one(1, "configuration_id", Kind::Text),
        Field::many(2, "sharding_spec", Kind::Message(&SHARDING_SPEC_PROTO)),
        Field::one(3, "pipeline_stage", Kind::Varint32),
    ],
};

pub(crate) static SHARDING_SPEC_PROTO: Message = Message {
    name: "ShardingSpecProto",
    struct_bytes: size_of::<onnx::ShardingSpecProto>(),
    fields: &[
        Field::one(1, "tensor_name", Kind::Text),
        Field::many(2, "device", Kind::Varint64),
        Field::many(3, "index_to_device_group_map", Kind::Message(&INT_INT_LIST_ENTRY_PROTO)),
        Field::many(4, "sharded_dim", Kind::Message(&SHARDED_DIM_PROTO)),
    ],
};

pub(crate) static SHARDED_DIM_PROTO: Message = Message {
    name: "ShardedDimProto",
    struct_bytes: size_of::<onnx::ShardedDimProto>(),
    fields: &[
        Field::one(1, "axis", Kind::Varint64),
        Field::many(2, "simple_sharding", Kind::Message(&SIMPLE_SHARDED_DIM_PROTO)),
    ],
};

pub(crate) static SIMPLE_SHARDED_DIM_PROTO: Message = Message {
    name: "SimpleShardedDimProto",
    struct_bytes: size_of::<onnx::SimpleShardedDimProto>(),
    fields: &[
        Field::one(1, "dim_value", Kind::Varint64),
        Field::one(2, "dim_param", Kind::Text),
        Field::one(3, "num_shards", Kind::Varint64),
    ],
};

pub(crate) static TRAINING_INFO_PROTO: Message = Message {
    name: "TrainingInfoProto",
    struct_bytes: size_of::<onnx::TrainingInfoProto>(),
    fields: &[
        Field::one(1, "initialization", Kind::Message(&GRAPH_PROTO)),
        Field::one(2, "algorithm", Kind::Message(&GRAPH_PROTO)),
        Field::many(3, "initialization_binding", Kind::Message(&STRING_STRING_ENTRY_PROTO)),
        Field::many(4, "update_binding", Kind::Message(&STRING_STRING_ENTRY_PROTO)),
    ],
};

pub(crate) static MODEL_PROTO: Message = Message {
    name: "ModelProto",
    struct_bytes: size_of::<onnx::ModelProto>(),
    fields: &[
        Field::one(1, "ir_version", Kind::Varint64),
        Field::one(2, "producer_name", Kind::Text),
        Field::one(3, "producer_version", Kind::Text),
        Field::one(4, "domain", Kind::Text),
        Field::one(5, "model_version", Kind::Varint64),
        Field::one(6, "doc_string", Kind::Text),
        Field::one(7, "graph", Kind::Message(&GRAPH_PROTO)),
        Field::many(8, "opset_import", Kind::Message(&OPERATOR_SET_ID_PROTO)),
        Field::many(14, "metadata_props", Kind::Message(&STRING_STRING_ENTRY_PROTO)),
        Field::many(20, "training_info", Kind::Message(&TRAINING_INFO_PROTO)),
        Field::many(25, "functions", Kind::Message(&FUNCTION_PROTO)),
        Field::many(26, "configuration", Kind::Message(&DEVICE_CONFIGURATION_PROTO)),
    ],
};

pub(crate) static DEVICE_CONFIGURATION_PROTO: Message = Message {
    name: "DeviceConfigurationProto",
    struct_bytes: size_of::<onnx::DeviceConfigurationProto>(),
    fields: &[
        Field::one(1, "name", Kind::Text),
        Field::one(2, "num_devices", Kind::Varint32),
        Field::many(3, "device", Kind::Text),
    ],
};

pub(crate) static STRING_STRING_ENTRY_PROTO: Message = Message {
    name: "StringStringEntryProto",
    struct_bytes: size_of::<onnx::StringStringEntryProto>(),
    fields: &[Field::one(1, "key", Kind::Text), Field::one(2, "value", Kind::Text)],
};

pub(crate) static TENSOR_ANNOTATION: Message = Message {
    name: "TensorAnnotation",
    struct_bytes: size_of::<onnx::TensorAnnotation>(),
    fields: &[
        Field::one(1, "tensor_name", Kind::Text),
        Field::many(2, "quant_parameter_tensor_names", Kind::Message(&STRING_STRING_ENTRY_PROTO)),
    ],
};

pub(crate) static GRAPH_PROTO: Message = Message {
    name: "GraphProto",
    struct_bytes: size_of::<onnx::GraphProto>(),
    fields: &[
        Field::many(1, "node", Kind::Message(&NODE_PROTO)),
        Field::one(2, "name", Kind::Text),
        Field::many(5, "initializer", Kind::Message(&TENSOR_PROTO)),
        Field::one(10, "doc_string", Kind::Text),
        Field::many(11, "input", Kind::Message(&VALUE_INFO_PROTO)),
        Field::many(12, "output", Kind::Message(&VALUE_INFO_PROTO)),
        Field::many(13, "value_info", Kind::Message(&VALUE_INFO_PROTO)),
        Field::many(14, "quantization_annotation", Kind::Message(&TENSOR_ANNOTATION)),
        Field::many(15, "sparse_initializer", Kind::Message(&SPARSE_TENSOR_PROTO)),
        Field::many(16, "metadata_props", Kind::Message(&STRING_STRING_ENTRY_PROTO)),
    ],
};

pub(crate) static TENSOR_PROTO: Message = Message {
    name: "TensorProto",
    struct_bytes: size_of::<onnx::TensorProto>(),
    fields: &[
        Field::many(1, "dims", Kind::Varint64),
        Field::one(2, "data_type", Kind::Varint32),
        Field::one(3, "segment", Kind::Message(&TENSOR_PROTO_SEGMENT)),
        Field::many(4, "float_data", Kind::Fixed32),
        Field::many(5, "int32_data", Kind::Varint32),
        Field::many(6, "string_data", Kind::Bytes),
        Field::many(7, "int64_data", Kind::Varint64),
        Field::one(8, "name", Kind::Text),
        Field::one(9, "raw_data", Kind::Slice),
        Field::many(10, "double_data", Kind::Fixed64),
        Field::many(11, "uint64_data", Kind::Varint64),
        Field::one(12, "doc_string", Kind::Text),
        Field::many(13, "external_data", Kind::Message(&STRING_STRING_ENTRY_PROTO)),
        Field::one(14, "data_location", Kind::Varint32),
        Field::many(16, "metadata_props", Kind::Message(&STRING_STRING_ENTRY_PROTO)),
    ],
};

pub(crate) static TENSOR_PROTO_SEGMENT: Message = Message {
    name: "TensorProto.Segment",
    struct_bytes: size_of::<onnx::tensor_proto::Segment>(),
    fields: &[Field::one(1, "begin", Kind::Varint64), Field::one(2, "end", Kind::Varint64)],
};

pub(crate) static SPARSE_TENSOR_PROTO: Message = Message {
    name: "SparseTensorProto",
    struct_bytes: size_of::<onnx::SparseTensorProto>(),
    fields: &[
        Field::one(1, "values", Kind::Message(&TENSOR_PROTO)),
        Field::one(2, "indices", Kind::Message(&TENSOR_PROTO)),
        Field::many(3, "dims", Kind::Varint64),
    ],
};

pub(crate) static TENSOR_SHAPE_PROTO: Message = Message {
    name: "TensorShapeProto",
    struct_bytes: size_of::<onnx::TensorShapeProto>(),
    fields: &[Field::many(1, "dim", Kind::Message(&TENSOR_SHAPE_PROTO_DIMENSION))],
};

pub(crate) static TENSOR_SHAPE_PROTO_DIMENSION: Message = Message {
    name: "TensorShapeProto.Dimension",
    struct_bytes: size_of::<onnx::tensor_shape_proto::Dimension>(),
    fields: &[
        Field::one(1, "dim_value", Kind::Varint64),
        Field::one(2, "dim_param", Kind::Text),
        Field::one(3, "denotation", Kind::Text),
    ],
};

pub(crate) static TYPE_PROTO: Message = Message {
    name: "TypeProto",
    struct_bytes: size_of::<onnx::TypeProto>(),
    fields: &[
        Field::one(1, "tensor_type", Kind::Message(&TYPE_PROTO_TENSOR)),
        Field::one(4, "sequence_type", Kind::Message(&TYPE_PROTO_SEQUENCE)),
        Field::one(5, "map_type", Kind::Message(&TYPE_PROTO_MAP)),
        Field::one(6, "denotation", Kind::Text),
        Field::one(7, "opaque_type", Kind::Message(&TYPE_PROTO_OPAQUE)),
        Field::one(8, "sparse_tensor_type", Kind::Message(&TYPE_PROTO_SPARSE_TENSOR)),
        Field::one(9, "optional_type", Kind::Message(&TYPE_PROTO_OPTIONAL)),
    ],
};

pub(crate) static TYPE_PROTO_TENSOR: Message = Message {
    name: "TypeProto.Tensor",
    struct_bytes: size_of::<onnx::type_proto::Tensor>(),
    fields: &[Field::one(1, "elem_type", Kind::Varint32), Field::one(2, "shape", Kind::Message(&TENSOR_SHAPE_PROTO))],
};

pub(crate) static TYPE_PROTO_SEQUENCE: Message = Message {
    name: "TypeProto.Sequence",
    struct_bytes: size_of::<onnx::type_proto::Sequence>(),
    fields: &[Field::one(1, "elem_type", Kind::Message(&TYPE_PROTO))],
};

pub(crate) static TYPE_PROTO_MAP: Message = Message {
    name: "TypeProto.Map",
    struct_bytes: size_of::<onnx::type_proto::Map>(),
    fields: &[Field::one(1, "key_type", Kind::Varint32), Field::one(2, "value_type", Kind::Message(&TYPE_PROTO))],
};

pub(crate) static TYPE_PROTO_OPTIONAL: Message = Message {
    name: "TypeProto.Optional",
    struct_bytes: size_of::<onnx::type_proto::Optional>(),
    fields: &[Field::one(1, "elem_type", Kind::Message(&TYPE_PROTO))],
};

pub(crate) static TYPE_PROTO_SPARSE_TENSOR: Message = Message {
    name: "TypeProto.SparseTensor",
    struct_bytes: size_of::<onnx::type_proto::SparseTensor>(),
    fields: &[Field::one(1, "elem_type", Kind::Varint32), Field::one(2, "shape", Kind::Message(&TENSOR_SHAPE_PROTO))],
};

pub(crate) static TYPE_PROTO_OPAQUE: Message = Message {
    name: "TypeProto.Opaque",
    struct_bytes: size_of::<onnx::type_proto::Opaque>(),
    fields: &[Field::one(1, "domain", Kind::Text), Field::one(2, "name", Kind::Text)],
};

pub(crate) static OPERATOR_SET_ID_PROTO: Message = Message {
    name: "OperatorSetIdProto",
    struct_bytes: size_of::<onnx::OperatorSetIdProto>(),
    fields: &[Field::one(1, "domain", Kind::Text), Field::one(2, "version", Kind::Varint64)],
};

pub(crate) static FUNCTION_PROTO: Message = Message {
    name: "FunctionProto",
    struct_bytes: size_of::<onnx::FunctionProto>(),
    fields: &[
        Field::one(1, "name", Kind::Text),
        Field::many(4, "input", Kind::Text),
        Field::many(5, "output", Kind::Text),
        Field::many(6, "attribute", Kind::Text),
        Field::many(7, "node", Kind::Message(&NODE_PROTO)),
        Field::one(8, "doc_string", Kind::Text),
        Field::many(9, "opset_import", Kind::Message(&OPERATOR_SET_ID_PROTO)),
        Field::one(10, "domain", Kind::Text),
        Field::many(11, "attribute_proto", Kind::Message(&ATTRIBUTE_PROTO)),
        Field::many(12, "value_info", Kind::Message(&VALUE_INFO_PROTO)),
        Field::one(13, "overload", Kind::Text),
        Field::many(14, "metadata_props", Kind::Message(&STRING_STRING_ENTRY_PROTO)),
    ],
};
