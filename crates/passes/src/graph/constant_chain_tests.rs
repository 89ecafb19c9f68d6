use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::onnx::{AttributeProto, NodeProto, TensorProto};
use onnxquant_ir::{int_attribute, ints_attribute, tensor};
use proptest::prelude::*;

use super::*;
use crate::testing::{array, floats, message, model, node, run};

/// `x` of `dims` through one link with a constant second input; what is resolved behind it.
fn through(
    dims: &[usize],
    op_type: &str,
    argument: Option<&[i64]>,
    attributes: Vec<AttributeProto>,
) -> Option<TensorProto> {
    let argument = argument.map(|numbers| ("a", tensor::from_i64(&[numbers.len()], numbers)));
    let inputs = if argument.is_some() { vec!["w", "a"] } else { vec!["w"] };
    let constants = std::iter::once(("w", floats(dims, 1))).chain(argument).collect();
    let model = model("x", constants, vec![node(op_type, &inputs, &["y"], attributes)], "y");
    let y = model.graph().find("y").unwrap();
    resolve(model.graph(), y).map(|resolved| resolved.tensor)
}

fn dims_through(
    dims: &[usize],
    op_type: &str,
    argument: Option<&[i64]>,
    attributes: Vec<AttributeProto>,
) -> Option<Vec<i64>> {
    through(dims, op_type, argument, attributes).map(|tensor| tensor.dims)
}

#[test]
fn link_with_legal_arguments_gives_the_shape_of_its_specification() {
    let axes = |list: &[i64]| vec![ints_attribute("axes", list)];
    let axis = |axis| vec![int_attribute("axis", axis)];
    let zero_allowed = vec![int_attribute("allowzero", 1)];
    type Row<'a> = (&'a [usize], &'a str, Option<&'a [i64]>, Vec<AttributeProto>, &'a [i64]);
    let table: Vec<Row<'_>> = vec![
        (&[2, 3], "Identity", None, vec![], &[2, 3]),
        (&[2, 3, 4], "Transpose", None, vec![], &[4, 3, 2]),
        (&[2, 3, 4], "Transpose", None, vec![ints_attribute("perm", &[1, 0, 2])], &[3, 2, 4]),
        (&[], "Transpose", None, vec![], &[]),
        (&[2, 3, 4], "Reshape", Some(&[0, -1]), vec![], &[2, 12]),
        (&[2, 3, 4], "Reshape", Some(&[6, 4]), vec![], &[6, 4]),
        (&[1], "Reshape", Some(&[]), vec![], &[]),
        (&[0, 3], "Reshape", Some(&[3, 0]), zero_allowed, &[3, 0]),
        (&[2, 3, 4], "Flatten", None, vec![], &[2, 12]),
        (&[2, 3, 4], "Flatten", None, axis(0), &[1, 24]),
        (&[2, 3, 4], "Flatten", None, axis(3), &[24, 1]),
        (&[2, 3, 4], "Flatten", None, axis(-1), &[6, 4]),
        (&[], "Flatten", None, axis(0), &[1, 1]),
        (&[1, 3, 1], "Squeeze", None, vec![], &[3]),
        (&[1, 3, 1], "Squeeze", None, axes(&[-1]), &[1, 3]),
        (&[1, 3, 1], "Squeeze", Some(&[0]), vec![], &[3, 1]),
        (&[], "Squeeze", None, vec![], &[]),
        (&[3], "Unsqueeze", None, axes(&[0, -1]), &[1, 3, 1]),
        (&[3], "Unsqueeze", Some(&[1]), vec![], &[3, 1]),
        (&[], "Unsqueeze", Some(&[0]), vec![], &[1]),
        (&[], "Unsqueeze", Some(&[]), vec![], &[]),
    ];
    for (dims, op_type, argument, attributes, expected) in table {
        let found = dims_through(dims, op_type, argument, attributes.clone());
        assert_eq!(found.as_deref(), Some(expected), "{op_type} of {dims:?} with {argument:?} {attributes:?}");
    }
}

#[test]
fn link_with_illegal_arguments_is_no_constant() {
    const FAR: i64 = i64::MAX;
    let axes = |list: &[i64]| vec![ints_attribute("axes", list)];
    let axis = |axis| vec![int_attribute("axis", axis)];
    let perm = |list: &[i64]| vec![ints_attribute("perm", list)];
    type Row<'a> = (&'a [usize], &'a str, Option<&'a [i64]>, Vec<AttributeProto>);
    let table: Vec<Row<'_>> = vec![
        (&[2, 3], "Transpose", None, perm(&[0])),
        (&[2, 3], "Transpose", None, perm(&[0, 0])),
        (&[2, 3], "Transpose", None, perm(&[0, 2])),
        (&[2, 3], "Transpose", None, perm(&[-1, 0])),
        (&[2, 3], "Transpose", None, perm(&[FAR, 0])),
        (&[2, 3], "Reshape", None, vec![]),
        (&[2, 3], "Reshape", Some(&[-1, -1]), vec![]),
        (&[2, 3], "Reshape", Some(&[2, 3, 0]), vec![]),
        (&[2, 3], "Reshape", Some(&[4, -1]), vec![]),
        (&[2, 3], "Reshape", Some(&[-2, -3]), vec![]),
        (&[2, 3], "Reshape", Some(&[FAR, FAR, -1]), vec![]),
        (&[2, 3], "Reshape", Some(&[FAR, FAR]), vec![]),
        (&[0, 3], "Reshape", Some(&[0, -1]), vec![]),
        (&[2, 3], "Flatten", None, axis(3)),
        (&[2, 3], "Flatten", None, axis(-3)),
        (&[2, 3], "Flatten", None, axis(i64::MIN)),
        (&[0, 1 << 40, 1 << 40], "Flatten", None, axis(1)),
        (&[1, 3], "Squeeze", None, axes(&[1])),
        (&[1, 3], "Squeeze", None, axes(&[2])),
        (&[1, 3], "Squeeze", None, axes(&[-3])),
        (&[1, 3], "Squeeze", None, axes(&[i64::MIN])),
        (&[], "Squeeze", None, axes(&[0])),
        (&[0, 3], "Squeeze", None, axes(&[1])),
        (&[3], "Unsqueeze", None, vec![]),
        (&[3], "Unsqueeze", None, axes(&[0, 0])),
        (&[3], "Unsqueeze", None, axes(&[0, -3])),
        (&[3], "Unsqueeze", None, axes(&[2])),
        (&[3], "Unsqueeze", Some(&[i64::MIN]), vec![]),
        (&[], "Unsqueeze", Some(&[1]), vec![]),
        (&[3], "Cast", None, vec![]),
        (&[3], "Cast", None, vec![int_attribute("to", FAR)]),
        (&[3], "Cast", None, vec![int_attribute("to", DataType::Int8 as i64)]),
        (&[3], "Relu", None, vec![]),
    ];
    for (dims, op_type, argument, attributes) in table {
        let found = dims_through(dims, op_type, argument, attributes.clone());
        assert_eq!(found, None, "{op_type} of {dims:?} with {argument:?} {attributes:?}");
    }
}

#[test]
fn squeeze_by_computed_axes_is_no_constant() {
    let model = model("x", vec![("w", floats(&[1, 3, 1], 1))], vec![node("Squeeze", &["w", "x"], &["y"], vec![])], "y");
    assert!(resolve(model.graph(), model.graph().find("y").unwrap()).is_none());
}

#[test]
fn cast_between_float_types_rounds_like_the_runtime() {
    let numbers = [1.0f32, -0.1, 65504.0, 1e-8];
    for (to, expected) in [
        (DataType::Float16, [1.0, -0.099_975_586, 65504.0, 0.0]),
        (DataType::Bfloat16, [1.0, -0.100_097_656, 65536.0, 1.001_172e-8]),
        (DataType::Double, numbers),
        (DataType::Float, numbers),
    ] {
        let to = vec![int_attribute("to", to as i64)];
        let model = model(
            "x",
            vec![("w", tensor::from_f32(&[4], &numbers))],
            vec![node("Cast", &["w"], &["y"], to.clone())],
            "y",
        );
        let found = resolve(model.graph(), model.graph().find("y").unwrap()).unwrap().tensor;
        assert_eq!(i64::from(found.data_type()), to[0].i());
        let close = |(a, b): (&f32, &f32)| (a - b).abs() <= b.abs() * 1e-6;
        let found = tensor::to_f32(&found).unwrap();
        assert!(found.iter().zip(&expected).all(close), "{found:?} {expected:?}");
    }
}

#[test]
fn chain_of_links_gives_what_the_nodes_would_compute() {
    let nodes = vec![
        node("Reshape", &["w", "s"], &["a"], vec![]),
        node("Transpose", &["a"], &["b"], vec![ints_attribute("perm", &[2, 0, 1])]),
        node("Identity", &["b"], &["c"], vec![]),
        node("Reshape", &["c", "t"], &["y"], vec![]),
    ];
    let constants = vec![
        ("w", floats(&[4, 6], 3)),
        ("s", tensor::from_i64(&[3], &[0, 2, -1])),
        ("t", tensor::from_i64(&[2], &[-1, 4])),
    ];
    let model = model("x", constants, nodes, "y");
    let found = resolve(model.graph(), model.graph().find("y").unwrap()).unwrap();
    assert_eq!(array(&found.tensor), run(&model, &ndarray::ArrayD::zeros(vec![1]))[0]);
    assert_eq!(model.graph().value(found.source).name(), "w");
}

#[test]
fn transpose_of_every_width_moves_whole_elements() {
    for dtype in [DataType::Float16, DataType::Bfloat16, DataType::Float, DataType::Double] {
        let numbers = crate::testing::numbers(6, 2);
        let w = tensor::from_f32_as(dtype, &[2, 3], &numbers);
        let model = model("x", vec![("w", w)], vec![node("Transpose", &["w"], &["y"], vec![])], "y");
        let found = resolve(model.graph(), model.graph().find("y").unwrap()).unwrap().tensor;
        let expected = [0, 3, 1, 4, 2, 5].map(|index| numbers[index]);
        assert_eq!(
            (found.dims.as_slice(), &*tensor::to_f32(&found).unwrap()),
            (&[3, 2][..], &expected[..]),
            "{dtype:?}"
        );
    }
}

/// A chain of transpositions and changes of shape, as nodes and as ndarray does it.
fn moved_about(
    dims: &[usize],
    moves: &[(bool, usize)],
) -> (Vec<(String, TensorProto)>, Vec<NodeProto>, ndarray::ArrayD<f32>) {
    let count = dims.iter().product::<usize>();
    let numbers: Vec<f32> = (0..count).map(|index| index as f32).collect();
    let mut expected = ndarray::ArrayD::from_shape_vec(dims, numbers.clone()).unwrap();
    let (mut nodes, mut shapes) = (Vec::new(), Vec::new());
    for (index, &(transposes, turn)) in moves.iter().enumerate() {
        let name = |index: usize| if index == 0 { "w".to_owned() } else { format!("v{index}") };
        if transposes {
            let mut perm: Vec<usize> = (0..expected.ndim()).collect();
            perm.rotate_left(turn % expected.ndim());
            perm.swap(0, expected.ndim() - 1);
            let list: Vec<i64> = perm.iter().map(|&axis| axis as i64).collect();
            nodes.push(node("Transpose", &[&name(index)], &[&name(index + 1)], vec![ints_attribute("perm", &list)]));
            expected = expected.permuted_axes(perm).as_standard_layout().into_owned();
        } else {
            let mut shape = expected.shape().to_vec();
            let count = shape.len();
            shape.rotate_left(turn % count);
            let wanted: Vec<i64> = shape.iter().map(|&dim| dim as i64).collect();
            shapes.push((format!("s{index}"), tensor::from_i64(&[wanted.len()], &wanted)));
            nodes.push(node("Reshape", &[&name(index), &format!("s{index}")], &[&name(index + 1)], vec![]));
            expected = expected.into_shape_with_order(shape).unwrap();
        }
    }
    (shapes, nodes, expected)
}

proptest! {
    #[test]
    fn any_chain_of_moves_gives_the_elements_that_one_move_after_the_other_gives(
        dims in prop::collection::vec(1usize..5, 1..5),
        moves in prop::collection::vec((any::<bool>(), 0usize..4), 1..7),
        typed in any::<bool>(),
        half in any::<bool>(),
    ) {
        let (shapes, mut nodes, expected) = moved_about(&dims, &moves);
        let mut end = format!("v{}", moves.len());
        if half {
            nodes.push(node("Cast", &[&end], &["end"], vec![int_attribute("to", DataType::Float16 as i64)]));
            end = "end".to_owned();
        }
        let numbers: Vec<f32> = (0..dims.iter().product::<usize>()).map(|index| index as f32).collect();
        let mut w = tensor::from_f32(&dims, &numbers);
        if typed {
            (w.raw_data, w.float_data) = (None, numbers);
        }
        let constants = shapes.iter().map(|(name, shape)| (name.as_str(), shape.clone())).chain([("w", w)]).collect();
        let model = model("x", constants, nodes, &end);
        let end = model.graph().find(&end).unwrap();
        let found = resolve(model.graph(), end).unwrap().tensor;
        prop_assert_eq!(declared(model.graph(), end).unwrap().shape, expected.shape());
        prop_assert_eq!(&*tensor::to_f32(&found).unwrap(), expected.as_slice().unwrap());
        prop_assert!(same_numbers(model.graph(), end, end));
    }
}

#[test]
fn numbers_are_the_same_where_two_transpositions_undo_each_other() {
    let transpose = |from: &str, to: &str| node("Transpose", &[from], &[to], vec![]);
    let nodes = vec![transpose("w", "a"), transpose("a", "b"), node("Identity", &["w"], &["c"], vec![])];
    let model = model("x", vec![("w", floats(&[3, 3], 1)), ("v", floats(&[3, 3], 2))], nodes, "b");
    let same = |a: &str, b: &str| {
        let value = |name| model.graph().find(name).unwrap();
        same_numbers(model.graph(), value(a), value(b))
    };
    assert!(same("w", "b") && same("w", "c") && !same("w", "a") && !same("w", "v") && !same("w", "x"));
}

#[test]
fn transpose_of_packed_codes_is_no_constant() {
    let w = tensor::from_codes(DataType::Int4, &[2, 2], [1, 2, 3, 4]);
    let model = model("x", vec![("w", w)], vec![node("Transpose", &["w"], &["y"], vec![])], "y");
    let y = model.graph().find("y").unwrap();
    assert!(resolve(model.graph(), y).is_none() && declared(model.graph(), y).is_none());
}

#[test]
fn overridable_initializer_is_a_source_but_no_constant() {
    let proto = message("x w", vec![("w", floats(&[2], 1))], vec![node("Identity", &["w"], &["y"], vec![])], "y");
    let model = onnxquant_ir::Model::from_proto(proto).unwrap();
    let (w, y) = (model.graph().find("w").unwrap(), model.graph().find("y").unwrap());
    assert_eq!(source(model.graph(), y), Some(w));
    assert!(resolve(model.graph(), y).is_none());
}

#[test]
fn chain_longer_than_the_limit_is_not_followed() {
    let chain = |links: usize| {
        let name = |index: usize| if index == 0 { "w".to_owned() } else { format!("v{index}") };
        let nodes: Vec<NodeProto> =
            (0..links).map(|i| node("Identity", &[&name(i)], &[&name(i + 1)], vec![])).collect();
        let model = model("x", vec![("w", floats(&[2], 1))], nodes, &name(links));
        let end = model.graph().find(&name(links)).unwrap();
        (source(model.graph(), end).is_some(), resolve(model.graph(), end).is_some())
    };
    assert_eq!(chain(MAX_LINKS - 1), (true, true));
    assert_eq!(chain(100), (false, false));
}

proptest! {
    #[test]
    fn link_with_any_arguments_keeps_the_number_of_elements_or_is_no_constant(
        dims in prop::collection::vec(0usize..4, 0..4),
        argument in prop::option::of(prop::collection::vec(prop_oneof![-4i64..5, Just(i64::MIN), Just(i64::MAX)], 0..4)),
        list in prop::collection::vec(prop_oneof![-4i64..5, Just(i64::MIN), Just(i64::MAX)], 0..4),
        op_type in prop::sample::select(vec!["Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze"]),
        name in prop::sample::select(vec!["perm", "axes", "allowzero", "axis"]),
    ) {
        let attribute = match name {
            "perm" | "axes" => ints_attribute(name, &list),
            _ => int_attribute(name, list.first().copied().unwrap_or(0)),
        };
        if let Some(found) = through(&dims, op_type, argument.as_deref(), vec![attribute]) {
            prop_assert!(tensor::check_payload(&found).is_ok());
            prop_assert_eq!(tensor::element_count(&found).unwrap(), dims.iter().product::<usize>());
        }
    }
}
