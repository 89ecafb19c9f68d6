//! A small model that uses every part of the format.

use onnxquant_proto::onnx::*;
use onnxquant_proto::onnx::{attribute_proto::AttributeType, tensor_proto::DataLocation};
use onnxquant_proto::{DataType, IR_VERSION, MAX_OPSET};

pub fn text(value: &str) -> Option<String> {
    Some(value.into())
}

/// The smallest model that is read: a version and a named graph.
pub fn smallest_model() -> ModelProto {
    let graph = GraphProto { name: text("g"), ..Default::default() };
    ModelProto { ir_version: Some(IR_VERSION), graph: Some(graph), ..Default::default() }
}

/// The sample without what it holds twice: a third of its bytes.
pub fn short_model() -> ModelProto {
    let mut model = sample_model();
    model.training_info.clear();
    model.functions.clear();
    if let Some(graph) = &mut model.graph {
        graph.node.truncate(1);
        graph.initializer.drain(3..28);
    }
    model
}

pub fn sample_model() -> ModelProto {
    ModelProto {
        ir_version: Some(IR_VERSION),
        opset_import: vec![opset("", MAX_OPSET), opset("ai.onnx.ml", 5)],
        producer_name: text("producer"),
        producer_version: text(""),
        domain: text("org.example"),
        model_version: Some(0),
        doc_string: text("süß"),
        graph: Some(main_graph()),
        metadata_props: props(),
        training_info: vec![training()],
        functions: vec![function()],
        configuration: vec![DeviceConfigurationProto {
            name: text("two"),
            num_devices: Some(2),
            device: vec!["cpu:0".into(), "cpu:1".into()],
        }],
    }
}

fn main_graph() -> GraphProto {
    let if_node =
        NodeProto { attribute: vec![graph_attribute("then_branch"), graph_attribute("else_branch")], ..node("If") };
    GraphProto {
        node: vec![node("Relu"), if_node, NodeProto::default()],
        name: text("main"),
        initializer: tensors(),
        sparse_initializer: vec![sparse()],
        doc_string: text("doc"),
        input: types().into_iter().enumerate().map(|(i, r#type)| value(&format!("in{i}"), r#type)).collect(),
        output: vec![value("out", tensor_type())],
        value_info: vec![ValueInfoProto { r#type: None, ..value("middle", tensor_type()) }],
        quantization_annotation: vec![TensorAnnotation {
            tensor_name: text("middle"),
            quant_parameter_tensor_names: vec![prop("SCALE_TENSOR", "scale")],
        }],
        metadata_props: props(),
    }
}

fn opset(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: text(domain), version: Some(version) }
}

fn prop(key: &str, value: &str) -> StringStringEntryProto {
    StringStringEntryProto { key: text(key), value: text(value) }
}

fn props() -> Vec<StringStringEntryProto> {
    vec![prop("key", "value"), prop("", ""), StringStringEntryProto::default()]
}

fn value(name: &str, r#type: TypeProto) -> ValueInfoProto {
    ValueInfoProto { name: text(name), r#type: Some(r#type), doc_string: text("v"), metadata_props: props() }
}

fn shape() -> TensorShapeProto {
    use tensor_shape_proto::{Dimension, dimension::Value};
    let known = Dimension { denotation: text("DATA_CHANNEL"), value: Some(Value::DimValue(0)) };
    let symbol = Dimension { denotation: None, value: Some(Value::DimParam("N".into())) };
    TensorShapeProto { dim: vec![known, symbol, Dimension::default()] }
}

fn any_type(value: type_proto::Value) -> TypeProto {
    TypeProto { denotation: text("IMAGE"), value: Some(value) }
}

fn tensor_type() -> TypeProto {
    any_type(type_proto::Value::TensorType(type_proto::Tensor {
        elem_type: Some(DataType::Float as i32),
        shape: Some(shape()),
    }))
}

/// One of each kind of type.
fn types() -> Vec<TypeProto> {
    use type_proto::{Map, Opaque, Optional, Sequence, SparseTensor, Value};
    let inner = || Some(Box::new(tensor_type()));
    let sparse = SparseTensor { elem_type: Some(DataType::Int2 as i32), shape: Some(shape()) };
    let map = Map { key_type: Some(DataType::String as i32), value_type: inner() };
    vec![
        tensor_type(),
        any_type(Value::SequenceType(Box::new(Sequence { elem_type: inner() }))),
        any_type(Value::MapType(Box::new(map))),
        any_type(Value::OptionalType(Box::new(Optional { elem_type: inner() }))),
        any_type(Value::SparseTensorType(sparse)),
        any_type(Value::OpaqueType(Opaque { domain: text("d"), name: text("n") })),
        TypeProto::default(),
    ]
}

fn tensor(name: &str, data_type: i32, dims: &[i64]) -> TensorProto {
    TensorProto { dims: dims.into(), data_type: Some(data_type), name: text(name), ..Default::default() }
}

/// A tensor of every type in `raw_data` (and one of a type from the future), then one for
/// each other way to store elements.
fn tensors() -> Vec<TensorProto> {
    let raw = |data_type: i32| TensorProto {
        raw_data: Some(vec![0x5a; 16].into()),
        ..tensor(&format!("raw{data_type}"), data_type, &[1])
    };
    let mut tensors: Vec<_> = (0..=28).chain([77]).map(raw).collect();
    tensors.extend([
        TensorProto { float_data: vec![0.0, -0.0, 1.5, f32::INFINITY], ..tensor("f", 1, &[2, 2]) },
        TensorProto { int32_data: vec![-1, 0, i32::MIN], ..tensor("i32", 6, &[3]) },
        TensorProto { int64_data: vec![i64::MIN, 0, 300], ..tensor("i64", 7, &[3]) },
        TensorProto { double_data: vec![-0.0, f64::MAX], ..tensor("d", 11, &[2]) },
        TensorProto { uint64_data: vec![u64::MAX, 0], ..tensor("u64", 13, &[2]) },
        TensorProto { string_data: vec![b"a".to_vec(), vec![], vec![0xff]], ..tensor("s", 8, &[3]) },
        TensorProto { raw_data: Some(Default::default()), ..tensor("empty", 1, &[0]) },
        TensorProto {
            external_data: vec![prop("location", "weights.bin"), prop("offset", "4096")],
            data_location: Some(DataLocation::External as i32),
            segment: Some(tensor_proto::Segment { begin: Some(0), end: Some(-1) }),
            doc_string: text("elsewhere"),
            metadata_props: props(),
            ..tensor("external", 1, &[1 << 40, -1])
        },
        TensorProto::default(),
    ]);
    tensors
}

fn sparse() -> SparseTensorProto {
    let values = TensorProto { float_data: vec![1.0], ..tensor("sparse", 1, &[1]) };
    let indices = TensorProto { int64_data: vec![7], ..tensor("", 7, &[1]) };
    SparseTensorProto { values: Some(values), indices: Some(indices), dims: vec![3, 4] }
}

fn attribute(name: &str, r#type: AttributeType) -> AttributeProto {
    AttributeProto { name: text(name), r#type: Some(r#type as i32), ..Default::default() }
}

fn graph_attribute(name: &str) -> AttributeProto {
    let graph = GraphProto { node: vec![node("Identity")], name: text("body"), ..Default::default() };
    AttributeProto { g: Some(Box::new(graph)), ..attribute(name, AttributeType::Graph) }
}

/// One of each kind of attribute; single values are those that proto3 would drop.
fn attributes() -> Vec<AttributeProto> {
    use AttributeType as A;
    let graphs = vec![GraphProto::default(), GraphProto { name: text("g"), ..Default::default() }];
    let t = Some(Box::new(TensorProto { int32_data: vec![1], ..tensor("t", DataType::Int4 as i32, &[1]) }));
    vec![
        AttributeProto { f: Some(0.0), doc_string: text(""), ..attribute("f", A::Float) },
        AttributeProto { i: Some(0), ..attribute("i", A::Int) },
        AttributeProto { s: Some(vec![]), ..attribute("s", A::String) },
        AttributeProto { t, ..attribute("t", A::Tensor) },
        AttributeProto { g: Some(Box::default()), ..attribute("g", A::Graph) },
        AttributeProto { sparse_tensor: Some(Box::new(sparse())), ..attribute("st", A::SparseTensor) },
        AttributeProto { tp: Some(Box::new(tensor_type())), ..attribute("tp", A::TypeProto) },
        AttributeProto { floats: vec![0.0, 1e-45], ..attribute("fs", A::Floats) },
        AttributeProto { ints: vec![0, -1], ..attribute("is", A::Ints) },
        AttributeProto { strings: vec![vec![], b"x".to_vec()], ..attribute("ss", A::Strings) },
        AttributeProto { tensors: vec![TensorProto::default()], ..attribute("ts", A::Tensors) },
        AttributeProto { graphs, ..attribute("gs", A::Graphs) },
        AttributeProto { sparse_tensors: vec![sparse()], ..attribute("sts", A::SparseTensors) },
        AttributeProto { type_protos: types(), ..attribute("tps", A::TypeProtos) },
        AttributeProto { ref_attr_name: text("alpha"), ..attribute("r", A::Undefined) },
    ]
}

fn node(op_type: &str) -> NodeProto {
    NodeProto {
        input: vec!["in0".into(), String::new()],
        output: vec!["out".into()],
        name: text("node"),
        op_type: text(op_type),
        domain: text(""),
        overload: text("o"),
        attribute: attributes(),
        doc_string: text("n"),
        metadata_props: props(),
        device_configurations: vec![device_configuration()],
    }
}

fn device_configuration() -> NodeDeviceConfigurationProto {
    use simple_sharded_dim_proto::Dim;
    let part = |dim| SimpleShardedDimProto { num_shards: Some(2), dim };
    let simple_sharding = vec![part(Some(Dim::DimValue(8))), part(Some(Dim::DimParam("N".into()))), part(None)];
    NodeDeviceConfigurationProto {
        configuration_id: text("two"),
        sharding_spec: vec![ShardingSpecProto {
            tensor_name: text("out"),
            device: vec![-1, 0],
            index_to_device_group_map: vec![IntIntListEntryProto { key: Some(-1), value: vec![0, 1] }],
            sharded_dim: vec![ShardedDimProto { axis: Some(0), simple_sharding }],
        }],
        pipeline_stage: Some(0),
    }
}

fn function() -> FunctionProto {
    FunctionProto {
        name: text("f"),
        input: vec!["a".into()],
        output: vec!["b".into()],
        attribute: vec!["alpha".into()],
        attribute_proto: vec![AttributeProto { f: Some(0.0), ..attribute("beta", AttributeType::Float) }],
        node: vec![node("Elu")],
        doc_string: text("fn"),
        opset_import: vec![opset("", 0)],
        domain: text("org.example"),
        overload: text(""),
        value_info: vec![value("b", tensor_type())],
        metadata_props: props(),
    }
}

fn training() -> TrainingInfoProto {
    TrainingInfoProto {
        initialization: Some(GraphProto { name: text("init"), ..Default::default() }),
        algorithm: Some(GraphProto { name: text("step"), initializer: tensors(), ..Default::default() }),
        initialization_binding: vec![prop("w", "w0")],
        update_binding: vec![prop("w", "w1")],
    }
}
