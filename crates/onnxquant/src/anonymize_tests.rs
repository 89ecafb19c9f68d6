use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use onnxquant_ir::onnx::type_proto::Value;
use onnxquant_ir::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, tensor_shape_proto};
use onnxquant_proto::{DataType, bodies, read_model};

use super::anonymize;
use super::names::is_published;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

/// All models that are shipped, those with bodies, functions, sparse and external weights included.
fn models() -> Vec<PathBuf> {
    let mut folders = vec![fixtures()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "onnx") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Everything in a model that people named.
#[derive(Default)]
struct Named(BTreeSet<String>);

impl Named {
    fn add(&mut self, name: Option<&str>) {
        self.0.extend(name.map(str::to_owned));
    }

    fn of(model: &ModelProto) -> BTreeSet<String> {
        let mut named = Self::default();
        let texts = [&model.producer_name, &model.producer_version, &model.domain, &model.doc_string];
        texts.into_iter().for_each(|text| named.add(text.as_deref()));
        for function in &model.functions {
            named.add(function.name.as_deref());
            function.input.iter().chain(&function.output).chain(&function.attribute).for_each(|n| named.add(Some(n)));
            function.node.iter().for_each(|node| named.node(node));
        }
        for entry in &model.metadata_props {
            named.add(entry.key.as_deref());
            named.add(entry.value.as_deref());
        }
        model.graph.iter().for_each(|graph| named.graph(graph));
        named.0
    }

    fn graph(&mut self, graph: &GraphProto) {
        self.add(graph.name.as_deref());
        graph.initializer.iter().for_each(|tensor| self.add(tensor.name.as_deref()));
        graph.node.iter().for_each(|node| self.node(node));
        for value in graph.input.iter().chain(&graph.output).chain(&graph.value_info) {
            self.add(value.name.as_deref());
            let Some(Value::TensorType(tensor)) = value.r#type.as_ref().and_then(|found| found.value.as_ref()) else {
                continue;
            };
            for dim in tensor.shape.iter().flat_map(|shape| &shape.dim) {
                if let Some(tensor_shape_proto::dimension::Value::DimParam(name)) = &dim.value {
                    self.add(Some(name));
                }
            }
        }
    }

    fn node(&mut self, node: &NodeProto) {
        self.add(node.name.as_deref());
        self.add(node.doc_string.as_deref());
        node.input.iter().chain(&node.output).for_each(|name| self.add(Some(name)));
        if !is_published(node.domain()) {
            self.add(node.domain.as_deref());
            self.add(node.op_type.as_deref());
            node.attribute.iter().for_each(|attribute| self.attribute(attribute));
        }
        bodies(node).for_each(|body| self.graph(body));
    }

    fn attribute(&mut self, attribute: &AttributeProto) {
        self.add(attribute.name.as_deref());
        self.0.extend(attribute.s.iter().map(|text| String::from_utf8_lossy(text).into_owned()));
    }
}

fn is_number(name: &str) -> bool {
    let mut chars = name.chars();
    name.is_empty() || chars.next().is_some_and(|c| c.is_ascii_lowercase()) && chars.all(|c| c.is_ascii_digit())
}

/// The tensors of all graphs that hold more than structure.
fn weights(graph: &GraphProto) -> Vec<&TensorProto> {
    let inner = graph.node.iter().flat_map(bodies).flat_map(weights);
    let of_nodes = graph.node.iter().flat_map(|node| &node.attribute).filter_map(|attribute| attribute.t.as_deref());
    let tensors = graph.initializer.iter().chain(of_nodes);
    tensors.filter(|tensor| tensor.data_type() != DataType::Int64 as i32).chain(inner).collect()
}

#[test]
fn no_name_and_no_weight_is_left_of_any_model() {
    let folder = tempfile::tempdir().unwrap();
    let (mut checked, mut compared) = (0, 0);
    for path in models() {
        let Ok(before) = read_model(&path) else { continue };
        let out = folder.path().join(format!("{checked}.onnx"));
        let made = anonymize(&path, &out).unwrap();
        let after = read_model(&out).unwrap();
        let left: Vec<String> = Named::of(&after).into_iter().filter(|name| !is_number(name)).collect();
        assert!(left.is_empty(), "of {}: {left:?}", path.display());
        let bytes = std::fs::read(&out).unwrap();
        for tensor in before.graph.iter().flat_map(weights) {
            let held = tensor.raw_data();
            let part = &held[..held.len().min(16)];
            // Few bytes, or equal ones, are found anywhere.
            if part.len() == 16 && part.iter().collect::<BTreeSet<_>>().len() > 8 {
                compared += 1;
                assert!(!bytes.windows(16).any(|window| window == part), "of {}: {}", path.display(), tensor.name());
            }
        }
        if let Some((data, length)) = made.zeros {
            let mut zeros = std::fs::File::open(data).unwrap();
            assert_eq!(zeros.metadata().unwrap().len(), length);
            // What a trap declares may be longer than any disk.
            let mut begin = Vec::new();
            zeros.by_ref().take(1 << 20).read_to_end(&mut begin).unwrap();
            assert!(begin.iter().all(|byte| *byte == 0));
        }
        checked += 1;
    }
    assert!(checked > 40 && compared > 40, "{checked} models, {compared} weights");
}

#[test]
fn nodes_types_and_shapes_stay() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.onnx");
    let path = fixtures().join("digits_transformer/model.onnx");
    anonymize(&path, &out).unwrap();
    let shape = |path: &Path| -> Vec<String> {
        let graph = read_model(path).unwrap().graph.unwrap();
        let node = |node: &NodeProto| {
            let numbers = |a: &AttributeProto| format!("{} {:?} {:?} {:?} {:?}", a.name(), a.i, a.f, a.s, a.ints);
            let attributes: Vec<String> = node.attribute.iter().map(numbers).collect();
            format!("{} {} {} {attributes:?}", node.op_type(), node.input.len(), node.output.len())
        };
        let tensor = |tensor: &TensorProto| format!("{:?} {:?}", tensor.dims, tensor.data_type);
        graph.node.iter().map(node).chain(graph.initializer.iter().map(tensor)).collect()
    };
    assert_eq!(shape(&path), shape(&out));
}

#[test]
fn the_input_is_not_replaced() {
    let path = fixtures().join("digits_mlp/model.onnx");
    let before = std::fs::read(&path).unwrap();
    assert!(anonymize(&path, &path).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), before);
}
