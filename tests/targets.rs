//! What is written for compilers, by what each of them takes: found by walking the graph, and run in ONNX Runtime.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::onnx::{GraphProto, NodeProto, TensorProto};
use onnxquant_ir::{ints_attribute, tensor};
use serde_json::Value;

use crate::support::{
    EMBEDDING_INPUT, Failures, Fixture, Job, Net, Run, embedding, folder, measure, noise_samples, onnxquant, refused,
    report, with_int, write,
};

/// A target, and what it takes.
struct Target {
    name: &'static str,
    /// The type of activations.
    activations: DataType,
    /// Zero points are all 0.
    is_symmetric: bool,
    /// MatMul and Gemm have one scale an output.
    dense_by_channel: bool,
    int32_biases: bool,
    tables: bool,
    /// What `--target qdq-strict` needs to write as coarse codes.
    alike: &'static [&'static str],
}

const TARGETS: [Target; 4] = [
    Target {
        name: "qdq-strict",
        activations: DataType::Uint8,
        is_symmetric: false,
        dense_by_channel: true,
        int32_biases: true,
        tables: true,
        alike: &[],
    },
    Target {
        name: "tensorrt",
        activations: DataType::Int8,
        is_symmetric: true,
        dense_by_channel: true,
        int32_biases: false,
        tables: false,
        alike: &["--activation-type", "s8"],
    },
    Target {
        name: "openvino",
        activations: DataType::Uint8,
        is_symmetric: false,
        dense_by_channel: true,
        int32_biases: false,
        tables: true,
        alike: &[],
    },
    Target {
        name: "qnn",
        activations: DataType::Uint8,
        is_symmetric: false,
        dense_by_channel: false,
        int32_biases: true,
        tables: false,
        alike: &["--granularity", "tensor"],
    },
];

/// How much worse than what is alike a file may be.
const MARGIN_DB: f64 = 1.0;
const FAST: [&str; 4] = ["--method", "msq", "--range", "mse"];

/// Convolutions, of which a grouped ConvTranspose has no scales along one axis; it stays in float between codes.
fn upsampling(path: &Path) {
    let mut net = Net::default();
    net.random("w0", &[16, 8, 3, 3], 0.2).random("b0", &[16], 0.2).random("w1", &[16, 8, 2, 2], 0.2);
    net.random("w2", &[6, 16, 1, 1], 0.3);
    net.node("Conv", &["x", "w0", "b0"], "first", &[ints_attribute("pads", &[1; 4])]).node(
        "Relu",
        &["first"],
        "r0",
        &[],
    );
    let node =
        NodeProto { name: Some("up".to_owned()), ..crate::support::node("ConvTranspose", &["r0", "w1"], &["up"]) };
    net.push(with_int(node, "group", 2)).node("Relu", &["up"], "r1", &[]).node("Conv", &["r1", "w2"], "y", &[]);
    write(&net.model(17, &[1, 8, 11, 11], 4), path);
}

/// A model, its samples, and those on which it is measured.
struct Case {
    name: String,
    model: PathBuf,
    calib: PathBuf,
    samples: Vec<PathBuf>,
}

fn cases(folder: &Path) -> Vec<Case> {
    let of_fixture = |fixture: Fixture| Case {
        name: fixture.name.to_owned(),
        model: fixture.model(),
        calib: fixture.calib(),
        samples: fixture.held_out(),
    };
    let made = |name: &str, shape: &[i64], make: &dyn Fn(&Path)| {
        let (model, calib) = (folder.join(format!("{name}.onnx")), folder.join(name));
        make(&model);
        let samples = noise_samples(&calib, shape, 16);
        Case { name: name.to_owned(), model, calib, samples }
    };
    let fixtures = [Fixture::CNN, Fixture::CONV1D, Fixture::MLP, Fixture::TRANSFORMER];
    let made = [made("upsampling", &[1, 8, 11, 11], &upsampling), made("embedding", &EMBEDDING_INPUT, &embedding)];
    fixtures.map(of_fixture).into_iter().chain(made).collect()
}

/// The constants of a graph, and who reads what.
struct Walk<'a> {
    graph: &'a GraphProto,
    constants: BTreeMap<&'a str, &'a TensorProto>,
}

impl<'a> Walk<'a> {
    fn new(graph: &'a GraphProto) -> Self {
        let constants = graph.initializer.iter().map(|tensor| (tensor.name(), tensor)).collect();
        Self { graph, constants }
    }

    fn constant(&self, node: &NodeProto, slot: usize) -> Option<&'a TensorProto> {
        self.constants.get(node.input.get(slot)?.as_str()).copied()
    }

    /// What is wrong with the graph for this target.
    fn faults(&self, target: &Target) -> Vec<String> {
        let mut found = Vec::new();
        for node in &self.graph.node {
            if !node.domain().is_empty() {
                found.push(format!("`{}` is of domain {}", node.name(), node.domain()));
            }
            for slot in 0..node.input.len() {
                found.extend(self.fault_of_input(node, slot, target));
            }
            if node.op_type() == "QuantizeLinear" {
                found.extend(self.fault_of_codes(node, target));
            }
        }
        found
    }

    /// Integer constants are read by a DequantizeLinear, or are zero points; biases are as the target takes them.
    fn fault_of_input(&self, node: &NodeProto, slot: usize, target: &Target) -> Option<String> {
        let constant = self.constant(node, slot)?;
        let dtype = tensor::data_type(constant).ok()?;
        let name = constant.name();
        let is_conversion = ["DequantizeLinear", "QuantizeLinear"].contains(&node.op_type());
        match (dtype, slot) {
            (DataType::Int8, 0) if node.op_type() == "DequantizeLinear" => self.fault_of_weight(node, target),
            (DataType::Int32, 0) if node.op_type() == "DequantizeLinear" => {
                (!target.int32_biases).then(|| format!("bias `{name}` on codes"))
            }
            (DataType::Int8 | DataType::Uint8, 2) if is_conversion => {
                let is_zero = tensor::to_codes(constant).is_ok_and(|codes| codes.iter().all(|&code| code == 0));
                let is_free = dtype == DataType::Uint8 && !target.is_symmetric;
                (!is_zero && !is_free).then(|| format!("zero point `{name}` is not 0"))
            }
            // Constants between activations have codes like these.
            (DataType::Uint8, 0) if node.op_type() == "DequantizeLinear" && !target.is_symmetric => None,
            (DataType::Int8 | DataType::Uint8 | DataType::Int4 | DataType::Uint4 | DataType::Int32, _) => {
                Some(format!("`{name}` of {dtype:?} is read by {} `{}`", node.op_type(), node.name()))
            }
            _ => None,
        }
    }

    /// Scales of weights are positive and along one axis, or one where the target wants that.
    fn fault_of_weight(&self, decode: &NodeProto, target: &Target) -> Option<String> {
        let output = decode.output.first()?;
        let is_read = |node: &&NodeProto| node.input.contains(output);
        let readers: Vec<&str> = self.graph.node.iter().filter(is_read).map(NodeProto::op_type).collect();
        let scale = self.constant(decode, 1)?;
        let positive = tensor::to_f32(scale).is_ok_and(|scales| scales.iter().all(|&scale| scale > 0.0));
        let is_dense = readers.iter().any(|reader| ["MatMul", "Gemm"].contains(reader));
        let is_plain = scale.dims.len() < 2 && (scale.dims.is_empty() || target.dense_by_channel || !is_dense);
        let is_table = readers.contains(&"Gather");
        let fine = positive && is_plain && (target.tables || !is_table);
        (!fine).then(|| format!("scale {:?} of `{}`, read by {readers:?}", scale.dims, decode.input[0]))
    }

    fn fault_of_codes(&self, encode: &NodeProto, target: &Target) -> Option<String> {
        let zero_point = self.constant(encode, 2);
        let dtype = zero_point.and_then(|zero_point| tensor::data_type(zero_point).ok());
        (dtype != Some(target.activations)).then(|| format!("`{}` makes {dtype:?}", encode.name()))
    }

    /// How many nodes of this kind read a decoded constant of this type at `slot`.
    fn decoded(&self, op_type: &str, slot: usize, dtype: DataType) -> usize {
        let makes = |name: &str| {
            let maker = self.graph.node.iter().find(|node| node.output.iter().any(|output| output == name));
            let codes = maker.filter(|maker| maker.op_type() == "DequantizeLinear");
            codes.and_then(|maker| self.constant(maker, 0)).is_some_and(|found| found.data_type() == dtype as i32)
        };
        let nodes = self.graph.node.iter().filter(|node| node.op_type() == op_type);
        nodes.filter(|node| node.input.get(slot).is_some_and(|name| makes(name))).count()
    }
}

#[test]
fn files_for_compilers_hold_what_these_take_and_run_in_onnx_runtime() {
    let folder = folder();
    let (mut failures, mut jobs, mut found) = (Failures::default(), Vec::new(), Vec::new());
    for case in cases(folder.path()) {
        for target in &TARGETS {
            let strict: &[&str] = &["--scheme", "w8a8", "--target", "qdq-strict"];
            let own = ["--scheme", "w8a8", "--target", target.name];
            let [output, alike] =
                ["own", "alike"].map(|what| folder.path().join(format!("{}_{}_{what}.onnx", case.name, target.name)));
            let told = report(&case.model, &output, &[&own[..], &FAST].concat(), Some(&case.calib));
            report(&case.model, &alike, &[strict, target.alike, &FAST].concat(), Some(&case.calib));
            let name = format!("{} --target {}", case.name, target.name);
            let model = onnxquant::read(&output).expect("it can be read").to_proto();
            let domains: Vec<&str> = model.opset_import.iter().map(|import| import.domain()).collect();
            failures.check(domains == [""], || format!("{name}: domains {domains:?}"));
            let graph = model.graph.expect("it has a graph");
            let walk = Walk::new(&graph);
            let faults = walk.faults(target);
            failures.check(faults.is_empty(), || format!("{name}: {faults:?}"));
            check_layers(&name, &case, target, &walk, &told, &mut failures);
            for file in [&output, &alike] {
                jobs.push(Job::compare(file, &case.model, &case.samples));
            }
            found.push(name);
        }
    }
    for (name, measured) in found.iter().zip(measure(&jobs).chunks(2)) {
        let faults = measured[0].faults();
        failures.check(faults.is_empty(), || format!("{name}: {faults}"));
        let [own, alike] = [&measured[0], &measured[1]].map(|found| found.sqnr_db.unwrap_or(f64::NEG_INFINITY));
        failures.check(own >= alike - MARGIN_DB && own > 10.0, || format!("{name}: {own:.1} dB, alike {alike:.1}"));
    }
    failures.finish();
}

/// Every weight and bias is there, in the form that the target takes.
fn check_layers(name: &str, case: &Case, target: &Target, walk: &Walk<'_>, told: &Value, failures: &mut Failures) {
    let layers = told["layers"].as_array().expect("it lists layers");
    let decoded = |slot, dtype| {
        let kinds = ["Conv", "ConvTranspose", "Gemm", "MatMul"];
        kinds.iter().map(|kind| walk.decoded(kind, slot, dtype)).sum::<usize>()
    };
    let weights = decoded(1, DataType::Int8);
    let skipped = told["skipped"].as_array().map_or(0, |skipped| {
        skipped.iter().filter(|layer| layer["reason"] == "no-axis" && layer["label"] == "up").count()
    });
    let in_groups = usize::from(case.name == "upsampling");
    failures.check(skipped == in_groups, || format!("{name}: skipped {}", told["skipped"]));
    failures.check(weights == layers.len(), || format!("{name}: {weights} of {} weights on codes", layers.len()));
    let has_bias = case.name == "mnist_cnn" || case.name == "digits_conv1d";
    let biases = decoded(2, DataType::Int32);
    let as_taken = if target.int32_biases && has_bias { biases > 0 } else { target.int32_biases || biases == 0 };
    failures.check(as_taken, || format!("{name}: {biases} biases on codes"));
    let tables = walk.decoded("Gather", 0, DataType::Int8);
    let expected = usize::from(case.name == "embedding" && target.tables);
    failures.check(tables == expected, || format!("{name}: {tables} tables on codes"));
    let is_told = |weight: &Value| {
        weight["name"] == "table" && weight["reason"].as_str().is_some_and(|why| why.contains(target.name))
    };
    let listed = told["float_weights"].as_array().is_some_and(|weights| weights.iter().any(is_told));
    let left = case.name == "embedding" && !target.tables;
    failures.check(listed == left, || format!("{name}: {}", told["float_weights"]));
}

#[test]
fn options_that_contradict_a_target_are_refused() {
    let folder = folder();
    let (fixture, output) = (Fixture::MLP, folder.path().join("out.onnx"));
    let table: [(&str, &[&str], &str); 9] = [
        ("tensorrt", &["--scheme", "w8a8-dynamic"], "fixed scales"),
        ("qdq-strict", &["--scheme", "w8a8-dynamic"], "fixed scales"),
        ("tensorrt", &["--activation-type", "u8"], "--activation-type"),
        ("tensorrt", &["--activation-bits", "16"], "8 bits"),
        ("openvino", &["--activation-bits", "mixed"], "8 bits"),
        ("qnn", &["--activation-type", "s8"], "without a sign"),
        ("openvino", &["--embeddings", "4"], "tables of 8 bits"),
        ("qnn", &["--format", "matmulnbits"], "--format"),
        ("tensorrt", &["--scheme", "fp8"], "FP8"),
    ];
    let mut failures = Failures::default();
    for (target, args, text) in table {
        let mut command = onnxquant(&[fixture.model(), output.clone()]);
        let run = Run::of(command.args(["--target", target]).args(args).arg("--calib").arg(fixture.calib()));
        let problem = refused(&run, &[text]);
        failures.check(problem.is_none(), || format!("{target} {args:?}: {problem:?}"));
    }
    failures.check(!output.exists(), || "something was written".to_owned());
    failures.finish();
}

/// Targets that take 16 bits write them, and `auto` keeps its floor where the target takes its choice away.
#[test]
fn sixteen_bits_and_auto_go_with_targets() {
    let folder = folder();
    let (fixture, output) = (Fixture::CNN, folder.path().join("out.onnx"));
    let args = ["--scheme", "auto", "--target", "qnn", "--activation-bits", "16", "--method", "msq", "--range", "mse"];
    let found = report(&fixture.model(), &output, &args, Some(&fixture.calib()));
    assert_eq!((&found["integers"]["wanted_sqnr_db"], &found["integers"]["dynamic_layers"]), (&20.0.into(), &0.into()));
    let graph = onnxquant::read(&output).expect("it can be read").to_proto().graph.expect("it has a graph");
    let walk = Walk::new(&graph);
    let encodes = graph.node.iter().filter(|node| node.op_type() == "QuantizeLinear");
    let types: Vec<i32> = encodes.filter_map(|node| walk.constant(node, 2)).map(TensorProto::data_type).collect();
    assert!(!types.is_empty() && types.iter().all(|&dtype| dtype == DataType::Uint16 as i32), "{types:?}");
}
