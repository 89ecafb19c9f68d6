//! Sessions: what they return, for which models, and what they say when they cannot.

use ndarray::{ArrayD, Ix2, array, s};
use onnxquant_calib::{
    BlockedNode, CalibError, CalibSet, Engine, Fault, Session, failing_nodes, inline_functions, open_session,
    unknown_operators,
};
use onnxquant_proto::onnx::attribute_proto::AttributeType;
use onnxquant_proto::onnx::{AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, ValueInfoProto};

use crate::engines::{engines, is_tract};
use crate::models::{self, body, data, input, model, node, noise, tensor, typed_input};

fn names(values: &[&str]) -> Vec<String> {
    values.iter().map(|v| (*v).into()).collect()
}

type Runs = Result<Vec<Vec<ArrayD<f32>>>, CalibError>;

fn run(engine: &dyn Engine, model: &ModelProto, data: &CalibSet, values: &[&str]) -> Runs {
    let session = open_session(engine, model, &names(values), data)?;
    let floats = |index| -> Result<Vec<ArrayD<f32>>, CalibError> {
        let captured = session.run(&data.load(index)?)?;
        Ok(captured.iter().map(|t| t.to_f32().expect("only floats are observed here")).collect())
    };
    (0..data.len()).map(floats).collect()
}

/// x [n, 16] -> y = x w -> z = relu(y)
fn dense() -> ModelProto {
    let nodes = vec![node("MatMul", &["x", "w"], &["y"]), node("Relu", &["y"], &["z"])];
    model(vec![input("x", &[-1, 16])], nodes, vec![tensor("w", &[16, 8], &noise(7, 128))])
}

fn expected_dense(x: &ArrayD<f32>) -> ArrayD<f32> {
    let w = models::array(7, &[16, 8]).into_dimensionality::<Ix2>().expect("two axes");
    let x = x.clone().into_dimensionality::<Ix2>().expect("two axes");
    x.dot(&w).into_dyn()
}

fn close(a: &ArrayD<f32>, b: &ArrayD<f32>) -> bool {
    a.shape() == b.shape() && a.iter().zip(b).all(|(x, y)| (x - y).abs() <= 1e-5 * (1.0 + y.abs()))
}

#[test]
fn inputs_inner_values_and_outputs_are_observed_in_the_order_asked() {
    let folder = tempfile::tempdir().unwrap();
    let x = models::array(1, &[3, 16]);
    let data = data(folder.path(), &dense(), &[vec![("x", x.clone())]]);
    for engine in engines() {
        let values = run(engine, &dense(), &data, &["z", "x", "y", "z"]).unwrap().remove(0);
        let y = expected_dense(&x);
        assert_eq!(values[1], x);
        assert!(close(&values[2], &y));
        assert!(close(&values[0], &y.mapv(|v| v.max(0.0))));
        assert_eq!(values[0], values[3]);
        assert_eq!(run(engine, &dense(), &data, &["x"]).unwrap()[0][0], x, "nothing to compute");
    }
}

#[test]
fn few_many_and_grouped_shapes_give_the_same_values() {
    for shapes in [3, 9] {
        let folder = tempfile::tempdir().unwrap();
        let samples: Vec<_> = (0..18).map(|i| vec![("x", models::array(i as u64, &[1 + i % shapes, 16]))]).collect();
        let data = data(folder.path(), &dense(), &samples);
        for engine in engines() {
            let runs = run(engine, &dense(), &data, &["y"]).unwrap();
            for (values, sample) in runs.iter().zip(&samples) {
                assert!(close(&values[0], &expected_dense(&sample[0].1)), "{} on {shapes} shapes", engine.name());
            }
        }
    }
}

/// Lengths of 1 are those of each sample, also where so many shapes are run that one plan would do for all.
#[test]
fn squeeze_without_axes_takes_out_what_has_one_element_in_every_opset() {
    let folder = tempfile::tempdir().unwrap();
    for (opset, shapes) in [(11, 1), (11, 3), (11, 9), (18, 9)] {
        let nodes = vec![node("Relu", &["x"], &["y"]), node("Squeeze", &["y"], &["z"])];
        let mut squeeze = model(vec![input("x", &[-1, 1, 4])], nodes, vec![]);
        squeeze.opset_import[0].version = Some(opset);
        let samples: Vec<_> = (0..18).map(|i| vec![("x", models::array(i as u64, &[1 + i % shapes, 1, 4]))]).collect();
        let data = data(folder.path(), &squeeze, &samples);
        for engine in engines() {
            for (values, sample) in run(engine, &squeeze, &data, &["z"]).unwrap().iter().zip(&samples) {
                let x = &sample[0].1;
                let shape: Vec<usize> = x.shape().iter().copied().filter(|&length| length != 1).collect();
                let expected = x.mapv(|v| v.max(0.0)).into_shape_with_order(shape).unwrap();
                assert_eq!(values[0], expected, "{} in opset {opset}, {shapes} shapes", engine.name());
            }
        }
    }
}

/// Exporters write the zeros of masks and first states so.
#[test]
fn constants_of_shape_without_a_value_are_zeros_in_single_precision() {
    let nodes = vec![
        node("Shape", &["x"], &["shape"]),
        node("ConstantOfShape", &["shape"], &["zeros"]),
        node("MatMul", &["x", "zeros"], &["y"]),
        node("Sub", &["y", "x"], &["z"]),
    ];
    let zeros = model(vec![input("x", &[4, 4])], nodes, vec![]);
    let folder = tempfile::tempdir().unwrap();
    let x = models::array(1, &[4, 4]);
    let data = data(folder.path(), &zeros, &[vec![("x", x.clone())]]);
    for engine in engines() {
        assert_eq!(run(engine, &zeros, &data, &["z"]).unwrap()[0][0], x.mapv(|v| -v), "{}", engine.name());
    }
}

/// A decoder's cache is empty before the first step.
#[test]
fn empty_cache_adds_nothing() {
    let axis = AttributeProto {
        name: Some("axis".into()),
        i: Some(1),
        r#type: Some(AttributeType::Int.into()),
        ..AttributeProto::default()
    };
    let join = NodeProto { attribute: vec![axis], ..node("Concat", &["past", "x"], &["present"]) };
    let nodes = vec![join, node("MatMul", &["present", "w"], &["y"])];
    let inputs = vec![input("x", &[1, -1, 4]), input("past", &[1, -2, 4])];
    let decoder = model(inputs, nodes, vec![tensor("w", &[4, 2], &noise(7, 8))]);
    let folder = tempfile::tempdir().unwrap();
    let (x, past) = (models::array(1, &[1, 3, 4]), models::array(2, &[1, 2, 4]));
    let samples = [vec![("x", x.clone()), ("past", past)], vec![("x", x), ("past", models::array(2, &[1, 0, 4]))]];
    let data = data(folder.path(), &decoder, &samples);
    for engine in engines() {
        let runs = run(engine, &decoder, &data, &["y"]).unwrap();
        let of_new = runs[0][0].slice(s![.., 2.., ..]).to_owned().into_dyn();
        assert_eq!(runs[1][0].shape(), [1, 3, 2], "{}", engine.name());
        assert!(close(&runs[1][0], &of_new), "{}", engine.name());
    }
}

#[test]
fn convolutions_over_many_shapes_run_in_tract_with_a_plan_for_each() {
    let conv = model(
        vec![input("x", &[1, 1, -1])],
        vec![node("Conv", &["x", "w"], &["y"])],
        vec![tensor("w", &[2, 1, 3], &noise(3, 6))],
    );
    let folder = tempfile::tempdir().unwrap();
    let samples: Vec<_> = (0..12).map(|i| vec![("x", models::array(i, &[1, 1, 4 + i as usize]))]).collect();
    let data = data(folder.path(), &conv, &samples);
    for engine in engines() {
        let session = open_session(engine, &conv, &names(&["y"]), &data).unwrap();
        assert_eq!(session.prefers_grouping(), is_tract(engine));
        let runs = run(engine, &conv, &data, &["y"]).unwrap();
        for (values, sample) in runs.iter().zip(&samples) {
            let (w, x) = (noise(3, 6), &sample[0].1);
            let expected = x[[0, 0, 1]] * w[3] + x[[0, 0, 2]] * w[4] + x[[0, 0, 3]] * w[5];
            assert_eq!(values[0].shape(), [1, 2, x.len() - 2]);
            assert!((values[0][[0, 1, 1]] - expected).abs() < 1e-6);
        }
    }
}

#[test]
fn an_overridable_weight_is_fed_if_the_data_have_it() {
    let mut model = dense();
    model.graph.as_mut().unwrap().input.push(input("w", &[16, 8]));
    let folder = tempfile::tempdir().unwrap();
    let x = models::array(1, &[2, 16]);
    for engine in engines() {
        let given = data(folder.path(), &model, &[vec![("x", x.clone())]]);
        assert!(close(&run(engine, &model, &given, &["y"]).unwrap()[0][0], &expected_dense(&x)));
        let given = data(folder.path(), &model, &[vec![("x", x.clone()), ("w", ArrayD::zeros(vec![16, 8]))]]);
        assert_eq!(run(engine, &model, &given, &["y"]).unwrap()[0][0], ArrayD::<f32>::zeros(vec![2, 8]));
    }
}

#[test]
fn operators_behind_the_last_value_do_not_matter_and_others_are_named() {
    let mut model = dense();
    model.graph.as_mut().unwrap().node.push(node("Unheard", &["z"], &["out"]));
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path(), &model, &[vec![("x", models::array(1, &[2, 16]))]]);
    for engine in engines() {
        assert!(run(engine, &model, &data, &["z"]).is_ok());
        let message = run(engine, &model, &data, &["out"]).unwrap_err().to_string();
        let parts = ["node_out", "Unheard", "--weights-only"];
        assert!(parts.iter().all(|part| message.contains(part)), "{}: {message}", engine.name());
    }
}

#[test]
fn a_failing_model_is_an_error_that_names_the_operator() {
    let bad = model(
        vec![input("x", &[-1, 16])],
        vec![node("MatMul", &["x", "w"], &["y"])],
        vec![tensor("w", &[15, 8], &noise(7, 120))],
    );
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path(), &bad, &[vec![("x", models::array(1, &[2, 16]))]]);
    for engine in engines() {
        let message = run(engine, &bad, &data, &["y"]).unwrap_err().to_string();
        assert!(message.contains("node_y"), "{}: {message}", engine.name());
    }
}

#[test]
fn local_functions_run_after_inlining() {
    let mut model = dense();
    model.graph.as_mut().unwrap().node[1] =
        onnxquant_proto::onnx::NodeProto { domain: Some("local".into()), ..node("Double", &["y"], &["z"]) };
    model.functions = vec![FunctionProto {
        name: Some("Double".into()),
        domain: Some("local".into()),
        input: vec!["a".into()],
        output: vec!["b".into()],
        node: vec![node("Add", &["a", "a"], &["b"])],
        opset_import: model.opset_import.clone(),
        ..FunctionProto::default()
    }];
    let folder = tempfile::tempdir().unwrap();
    let x = models::array(1, &[2, 16]);
    let data = data(folder.path(), &model, &[vec![("x", x.clone())]]);
    for engine in engines() {
        let message = run(engine, &model, &data, &["z"]).unwrap_err().to_string();
        assert!(message.contains("Double") && message.contains("local"), "{}: {message}", engine.name());
        let values = run(engine, &inline_functions(&model).unwrap(), &data, &["z"]).unwrap();
        assert!(close(&values[0][0], &expected_dense(&x).mapv(|v| 2.0 * v)));
    }
}

#[test]
fn branches_run_but_values_inside_them_are_refused() {
    let branch = |op: &str, inner: &str| GraphProto {
        name: Some("branch".into()),
        node: vec![node(op, &["y"], &[inner])],
        output: vec![ValueInfoProto { name: Some(inner.into()), ..ValueInfoProto::default() }],
        ..GraphProto::default()
    };
    let mut choice = node("If", &["flag"], &["z"]);
    choice.attribute = vec![body("then_branch", branch("Relu", "kept")), body("else_branch", branch("Neg", "turned"))];
    let mut model = dense();
    let graph = model.graph.as_mut().unwrap();
    graph.node[1] = choice;
    graph.input.push(typed_input("flag", &[], 9));
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path().join("test_data_set_0");
    std::fs::create_dir(&set).unwrap();
    let x = models::array(1, &[2, 16]);
    let values: Vec<f32> = x.iter().copied().collect();
    let flag = onnxquant_proto::onnx::TensorProto { data_type: Some(9), int32_data: vec![0], ..Default::default() };
    std::fs::write(set.join("input_0.pb"), prost::Message::encode_to_vec(&tensor("x", &[2, 16], &values))).unwrap();
    std::fs::write(set.join("input_1.pb"), prost::Message::encode_to_vec(&flag)).unwrap();
    let data = models::open(folder.path(), &model);
    for engine in engines() {
        let found = run(engine, &model, &data, &["z"]).unwrap();
        assert!(close(&found[0][0], &expected_dense(&x).mapv(|v| -v)));
        let message = run(engine, &model, &data, &["turned"]).unwrap_err().to_string();
        assert!(message.contains("`turned`") && message.contains("inside the body"), "{message}");
    }
}

#[test]
fn half_precision_models_run_and_are_observed() {
    let half = |values: &[f32]| values.iter().flat_map(|&x| half::f16::from_f32(x).to_le_bytes()).collect::<Vec<u8>>();
    let mut weight = tensor("w", &[16, 8], &[]);
    weight.data_type = Some(10);
    weight.raw_data = Some(half(&noise(7, 128)).into());
    let nodes = vec![node("MatMul", &["x", "w"], &["y"]), node("Relu", &["y"], &["z"])];
    let model = model(vec![typed_input("x", &[-1, 16], 10)], nodes, vec![weight]);
    let folder = tempfile::tempdir().unwrap();
    let x =
        array![[1.0_f32, 0.5, -0.25, 2.0, 1.0, 0.5, -0.25, 2.0, 1.0, 0.5, -0.25, 2.0, 1.0, 0.5, -0.25, 2.0]].into_dyn();
    let data = data(folder.path(), &model, &[vec![("x", x.clone())]]);
    for engine in engines() {
        let values = run(engine, &model, &data, &["x", "y", "z"]).unwrap().remove(0);
        assert_eq!(values[0], x);
        let difference = (&values[1] - &expected_dense(&x)).mapv(f32::abs).iter().copied().fold(0.0, f32::max);
        assert!(difference < 5e-3, "{}: {difference}", engine.name());
    }
}

#[test]
fn nodes_on_which_the_engine_fails_are_found_by_trying() {
    let mode = |value: &str| AttributeProto {
        name: Some("mode".into()),
        s: Some(value.into()),
        r#type: Some(AttributeType::String.into()),
        ..AttributeProto::default()
    };
    let pad = |input: &str, output: &str, value: &str| NodeProto {
        attribute: vec![mode(value)],
        ..node("Pad", &[input, "widths"], &[output])
    };
    let nodes = vec![
        node("Relu", &["x"], &["a"]),
        pad("a", "b", "wrap"),
        node("Relu", &["b"], &["c"]),
        pad("a", "d", "edge"),
        node("Sigmoid", &["d"], &["e"]),
        pad("e", "f", "wrap"),
        pad("f", "g", "wrap"),
        node("Odd", &["e"], &["h"]),
    ];
    let mut widths = tensor("widths", &[4], &[]);
    widths.data_type = Some(7);
    widths.raw_data = Some([0i64, 1, 0, 1].iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>().into());
    let model = model(vec![input("x", &[2, 4])], nodes, vec![widths]);
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path(), &model, &[vec![("x", models::array(3, &[2, 4]))]]);
    let label = |nodes: &[BlockedNode]| nodes.iter().map(|node| node.label.clone()).collect::<Vec<_>>();
    for engine in engines() {
        let known = unknown_operators(engine, &model);
        let found = failing_nodes(engine, &model, &known, &data, 0).unwrap();
        // ONNX Runtime does not tell which operators it has.
        let (not_known, fail) =
            if is_tract(engine) { (&["node_h"][..], &["node_b", "node_f"][..]) } else { (&[][..], &["node_h"][..]) };
        assert_eq!(label(&known), not_known, "{}", engine.name());
        assert_eq!(label(&found), fail, "{}", engine.name());
        assert!(found.iter().all(|node| !node.reason.is_empty()), "{found:?}");
        assert_eq!(failing_nodes(engine, &model, &[known, found].concat(), &data, 0).unwrap(), []);
    }
}

#[test]
fn trailing_empty_inputs_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let square = |name: &str| tensor(name, &[4, 4], &noise(3, 16));
    let cases: Vec<(NodeProto, Vec<onnxquant_proto::onnx::TensorProto>)> = vec![
        (node("Gemm", &["x", "w", ""], &["y"]), vec![square("w")]),
        (node("LayerNormalization", &["x", "v", ""], &["y", "", ""]), vec![tensor("v", &[4], &noise(4, 4))]),
        (node("ReduceSum", &["x", ""], &["y"]), vec![]),
        (node("Clip", &["x", "", ""], &["y"]), vec![]),
        (node("Squeeze", &["x", ""], &["y"]), vec![]),
        (node("Dropout", &["x", "", ""], &["y", ""]), vec![]),
    ];
    for (given, constants) in cases {
        let mut short = given.clone();
        short.input.retain(|name| !name.is_empty());
        short.output.retain(|name| !name.is_empty());
        let model_of = |node: NodeProto| {
            let mut model = model(vec![input("x", &[-1, 4])], vec![node], constants.clone());
            model.opset_import[0].version = Some(17);
            model
        };
        let data = data(folder.path(), &model_of(short.clone()), &[vec![("x", models::array(1, &[3, 4]))]]);
        for engine in engines() {
            let values = |node: &NodeProto| run(engine, &model_of(node.clone()), &data, &["y"]).unwrap();
            assert_eq!(values(&given), values(&short), "{} in {}", given.op_type(), engine.name());
        }
    }
}

#[test]
fn panics_and_refusals_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let ints = |name: &str, numbers: &[i64]| AttributeProto {
        name: Some(name.into()),
        ints: numbers.to_vec(),
        r#type: Some(AttributeType::Ints.into()),
        ..AttributeProto::default()
    };
    let with = |attribute: AttributeProto, node: NodeProto| NodeProto { attribute: vec![attribute], ..node };
    let panics = with(ints("perm", &[7, 9]), node("Transpose", &["x"], &["y"]));
    let short = tensor("v", &[3], &noise(4, 3));
    let refuses = node("MatMul", &["x", "w"], &["y"]);
    let few_axes = node("BatchNormalization", &["v", "v", "v", "v", "v"], &["y"]);
    let wide = tensor("w", &[5, 4], &noise(3, 20));
    for (node, constants, fault) in
        [(panics, vec![], Fault::Panic), (refuses, vec![wide], Fault::Error), (few_axes, vec![short], Fault::Error)]
    {
        let model = model(vec![input("x", &[-1, 4])], vec![node], constants);
        let data = data(folder.path(), &model, &[vec![("x", models::array(1, &[3, 4]))]]);
        for engine in engines() {
            let found = failing_nodes(engine, &model, &[], &data, 0).unwrap();
            // Nothing in ONNX Runtime panics.
            let fault = if is_tract(engine) { fault } else { Fault::Error };
            assert_eq!(found.iter().map(|node| node.fault).collect::<Vec<_>>(), [fault], "{found:?}");
        }
    }
}
