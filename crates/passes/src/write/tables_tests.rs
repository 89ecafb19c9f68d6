use ndarray::ArrayD;
use onnxquant_ir::onnx::NodeProto;
use onnxquant_ir::{Model, float_attribute};

use super::*;
use crate::testing::{assert_valid, constant_named, find_node, floats, input_names, model, node, numbers, op_types};

const ROWS: usize = 128;
const COLUMNS: usize = 32;

fn gather(output: &str) -> NodeProto {
    node("Gather", &["w", "x"], &[output], vec![])
}

fn table_model(nodes: Vec<NodeProto>, outputs: &str) -> Model {
    model("x", vec![("w", floats(&[ROWS, COLUMNS], 1))], nodes, outputs)
}

fn coded(bits: u32) -> CodedTable {
    let codes =
        (0..ROWS * COLUMNS).map(|i| if bits == 4 { (i * 7 % 15) as i8 - 7 } else { (i * 31 % 255) as u8 as i8 });
    let scales = (0..ROWS).map(|row| (row + 1) as f32 / 8.0).collect();
    CodedTable { bits, columns: COLUMNS, block: COLUMNS, codes: codes.collect(), scales }
}

/// What the operators of a written table make of the rows `indices`, by their definition.
fn rows(graph: &Graph, bits: u32, indices: &[usize]) -> ArrayD<f32> {
    let scales = tensor::to_f32(constant_named(graph, "w_scale")).unwrap();
    let codes = constant_named(graph, "w_quantized");
    let width = codes.dims[1] as usize;
    let numbers = tensor::to_codes(codes).unwrap();
    let of_row = |&row: &usize| -> Vec<f32> {
        let stored = &numbers[row * width..][..width];
        let steps: Vec<i16> = match bits {
            4 => {
                stored.iter().map(|byte| byte & 15).chain(stored.iter().map(|byte| byte >> 4)).map(|u| u - 8).collect()
            }
            _ => stored.to_vec(),
        };
        steps.into_iter().map(|step| f32::from(step) * scales[row]).collect()
    };
    let numbers = indices.iter().flat_map(of_row).collect();
    ArrayD::from_shape_vec(vec![indices.len(), COLUMNS], numbers).unwrap()
}

#[test]
fn written_rows_are_those_that_the_codes_mean() {
    let eight = ["Gather", "Cast", "Gather", "Mul"];
    let four = ["Gather", "BitShift", "BitShift", "BitShift", "Concat", "Cast", "Sub", "Gather", "Mul"];
    for (bits, operators, bytes) in [(8, &eight[..], 4096 + 512), (4, &four, 2048 + 512)] {
        let mut model = table_model(vec![gather("y")], "y");
        let table = find_tables(model.graph()).remove(0);
        let coded = coded(bits);
        assert_eq!(write_table(model.graph_mut(), &table, &coded, TableForm::Rows).unwrap(), bytes);
        assert_valid(&model);
        assert_eq!(op_types(&model), operators);
        assert!(model.graph().find("w").is_none(), "the float table goes");
        let decoded = coded.decode();
        let indices = [5, 0, ROWS - 1];
        let expected: Vec<f32> = indices.iter().flat_map(|row| decoded[row * COLUMNS..][..COLUMNS].to_vec()).collect();
        assert_eq!(rows(model.graph(), bits, &indices).into_raw_vec_and_offset().0, expected, "{bits} bits");
        assert!(find_tables(model.graph()).is_empty(), "idempotent");
    }
}

#[test]
fn every_reader_gets_its_own_decoding() {
    let mut model = table_model(vec![gather("y"), gather("z")], "y z");
    let table = find_tables(model.graph()).remove(0);
    write_table(model.graph_mut(), &table, &coded(8), TableForm::Rows).unwrap();
    assert_valid(&model);
    assert_eq!(op_types(&model), ["Gather", "Cast", "Gather", "Mul", "Gather", "Cast", "Gather", "Mul"]);
}

#[test]
fn whole_table_is_dequantized_for_all_its_readers() {
    let mut model = table_model(vec![gather("y"), gather("z")], "y z");
    let table = find_tables(model.graph()).remove(0);
    let four = write_table(model.graph_mut(), &table, &coded(4), TableForm::Dequantize).unwrap_err();
    assert!(four.to_string().contains("8 bits"), "{four}");
    assert_eq!(write_table(model.graph_mut(), &table, &coded(8), TableForm::Dequantize).unwrap(), 4096 + 512 + 128);
    model.set_opset("", 13);
    assert_valid(&model);
    assert_eq!(op_types(&model), ["DequantizeLinear", "Gather", "Gather"]);
    let graph = model.graph();
    let decode = graph.node(find_node(graph, "DequantizeLinear").unwrap());
    assert_eq!(
        (decode.int("axis", 9), input_names(graph, decode)),
        (0, vec!["w_quantized", "w_scale", "w_zero_point"])
    );
    assert_eq!(tensor::shape(constant_named(graph, "w_scale")).unwrap(), [ROWS]);
    assert!(graph.find("w").is_none(), "the float table goes");
}

#[test]
fn what_is_no_table_is_left_alone() {
    let columns = node("Gather", &["w", "x"], &["y"], vec![int_attribute("axis", 1)]);
    let tied = vec![gather("y"), node("MatMul", &["x", "w"], &["z"], vec![])];
    for (what, nodes, outputs) in [
        ("columns", vec![columns], "y"),
        ("another reader", tied, "y z"),
        ("as indices", vec![node("Gather", &["x", "w"], &["y"], vec![])], "y"),
        ("graph output", vec![gather("y")], "y w"),
    ] {
        assert!(find_tables(table_model(nodes, outputs).graph()).is_empty(), "{what}");
    }
    let of = |tensor| model("x", vec![("w", tensor)], vec![gather("y")], "y");
    assert!(find_tables(of(floats(&[16, 16], 1)).graph()).is_empty(), "small");
    let of_columns = vec![node("Gather", &["w", "x"], &["y"], vec![int_attribute("axis", 1)])];
    let of_columns = model("x", vec![("w", floats(&[64, 8, 8], 1))], of_columns, "y");
    assert!(find_tables(of_columns.graph()).is_empty(), "other matrices");
    let odd = of(floats(&[512, 33], 1));
    assert_eq!(find_tables(odd.graph())[0].bits(4), 8);
}

/// Two directions, 4 gates of 16 and 32 inputs.
const OF_INPUT: [usize; 3] = [2, 64, 32];

fn recurrent(nodes: Vec<NodeProto>, outputs: &str) -> Model {
    let constants = vec![("w", floats(&OF_INPUT, 1)), ("r", floats(&[2, 64, 16], 2))];
    model("x", constants, nodes, outputs)
}

#[test]
fn weights_of_recurrent_layers_are_decoded_as_a_whole() {
    for op_type in ["LSTM", "GRU", "RNN"] {
        let mut model = recurrent(vec![node(op_type, &["x", "w", "r"], &["y"], vec![])], "y");
        // The other one is small.
        let table = find_tables(model.graph()).remove(0);
        assert_eq!((table.kind, table.dims, table.bits(4)), (TableKind::Whole, [128, 32], 8), "{op_type}");
        assert_eq!(find_tables(model.graph()).len(), 1, "{op_type}");
        let coded = coded(8);
        assert_eq!(write_table(model.graph_mut(), &table, &coded, TableForm::Rows).unwrap(), 4096 + 512, "{op_type}");
        assert_valid(&model);
        assert_eq!(op_types(&model), ["Cast", "Mul", op_type]);
        assert_eq!(constant_named(model.graph(), "w_quantized").dims, [2, 64, 32]);
        assert_eq!(constant_named(model.graph(), "w_scale").dims, [2, 64, 1]);
        assert!(find_tables(model.graph()).is_empty(), "{op_type}: idempotent");
        assert_eq!(crate::decode::decode_weights::decode_weights(&mut model).unwrap(), 1, "{op_type}");
        assert_eq!(op_types(&model), [op_type]);
        let weight = find_node(model.graph(), op_type).and_then(|id| model.graph().node(id).input(1)).unwrap();
        let decoded = tensor::from_f32(&OF_INPUT, &coded.decode());
        assert_eq!(model.graph().value(weight).constant().unwrap().raw_data, decoded.raw_data, "{op_type}");
    }
}

#[test]
fn weight_of_several_recurrent_layers_is_decoded_once() {
    let lstm = |x: &str, y: &str| node("LSTM", &[x, "w", "r"], &[y], vec![]);
    let mut model = recurrent(vec![lstm("x", "y"), lstm("x", "z")], "y z");
    let table = find_tables(model.graph()).remove(0);
    write_table(model.graph_mut(), &table, &coded(8), TableForm::Rows).unwrap();
    assert_valid(&model);
    assert_eq!(op_types(&model), ["Cast", "Mul", "LSTM", "LSTM"]);
}

#[test]
fn weights_of_products_that_are_no_layers_are_decoded_as_a_whole() {
    let einsum = vec![onnxquant_ir::text_attribute("equation", "abc,acd->abd")];
    let attention = onnxquant_ir::onnx::NodeProto {
        domain: Some("com.microsoft".to_owned()),
        ..node("Attention", &["x", "w"], &["y"], vec![int_attribute("num_heads", 2)])
    };
    let products = [
        (node("MatMul", &["x", "w"], &["y"], vec![]), vec![2, 64, 32]),
        (node("MatMul", &["w", "x"], &["y"], vec![]), vec![2, 64, 32]),
        (node("MatMul", &["w", "x"], &["y"], vec![]), vec![128, 32]),
        (node("Gemm", &["w", "x"], &["y"], vec![]), vec![128, 32]),
        (node("Einsum", &["x", "w"], &["y"], einsum), vec![2, 64, 32]),
        (attention, vec![128, 32]),
    ];
    for (product, dims) in products {
        let what = format!("{} {:?} {dims:?}", product.op_type(), product.input);
        let mut proto = crate::testing::message("x", vec![("w", floats(&dims, 1))], vec![product], "y");
        let other =
            onnxquant_ir::onnx::OperatorSetIdProto { domain: Some("com.microsoft".to_owned()), version: Some(1) };
        proto.opset_import.push(other);
        let mut model = Model::from_proto(proto).unwrap();
        let table = find_tables(model.graph()).remove(0);
        assert_eq!((table.kind, table.dims, table.bits(4)), (TableKind::Whole, [128, 32], 8), "{what}");
        assert_eq!(write_table(model.graph_mut(), &table, &coded(8), TableForm::Rows).unwrap(), 4096 + 512, "{what}");
        assert_valid(&model);
        assert_eq!(op_types(&model)[..2], ["Cast", "Mul"], "{what}");
        let scales: Vec<i64> = dims[..dims.len() - 1].iter().chain(&[1]).map(|&dim| dim as i64).collect();
        assert_eq!(constant_named(model.graph(), "w_scale").dims, scales, "{what}");
    }
    let layer = model("x", vec![("w", floats(&[128, 32], 1))], vec![node("MatMul", &["x", "w"], &["y"], vec![])], "y");
    assert!(find_tables(layer.graph()).is_empty());
}

#[test]
fn tables_of_matrices_have_scales_by_their_rows() {
    let mut model = model("x", vec![("w", floats(&[4, 32, 32], 1))], vec![gather("y")], "y");
    let table = find_tables(model.graph()).remove(0);
    assert_eq!((table.kind, table.dims, table.bits(4)), (TableKind::Embedding, [128, 32], 8));
    write_table(model.graph_mut(), &table, &coded(8), TableForm::Rows).unwrap();
    assert_valid(&model);
    assert_eq!(op_types(&model), ["Gather", "Cast", "Gather", "Mul"]);
    assert_eq!(constant_named(model.graph(), "w_scale").dims, [4, 32, 1]);
    assert_eq!(constant_named(model.graph(), "w_quantized").dims, [4, 32, 32]);
}

#[test]
fn other_weights_of_recurrent_layers_are_left_alone() {
    let lstm = |x: &str, w: &str, r: &str| node("LSTM", &[x, w, r], &["y"], vec![]);
    let relu = node("Relu", &["w"], &["z"], vec![]);
    for (what, nodes, outputs) in [
        ("another reader", vec![lstm("x", "w", "r"), relu], "y z"),
        ("as input", vec![lstm("w", "x", "r")], "y"),
        ("graph output", vec![lstm("x", "w", "r")], "y w"),
        ("a table, too", vec![lstm("x", "w", "r"), node("Gather", &["w", "x"], &["z"], vec![])], "y z"),
    ] {
        assert!(find_tables(recurrent(nodes, outputs).graph()).is_empty(), "{what}");
    }
    let halves = tensor::from_f32_as(DataType::Float16, &OF_INPUT, &[1.0; 4096]);
    let of_halves = model("x", vec![("w", halves), ("r", floats(&[2, 64, 16], 2))], vec![lstm("x", "w", "r")], "y");
    assert!(find_tables(of_halves.graph()).is_empty(), "f16");
}

/// The table as it is, or with its columns as rows.
fn stored(is_turned: bool) -> TensorProto {
    let numbers = numbers(ROWS * COLUMNS, 1);
    match is_turned {
        false => tensor::from_f32(&[ROWS, COLUMNS], &numbers),
        true => {
            let turned = (0..COLUMNS).flat_map(|column| (0..ROWS).map(move |row| row * COLUMNS + column));
            tensor::from_f32(&[COLUMNS, ROWS], &turned.map(|at| numbers[at]).collect::<Vec<f32>>())
        }
    }
}

/// A table and a head, `y` and `z`, in each form in which they can be one matrix.
fn tied_models() -> Vec<(&'static str, Model)> {
    let turned = |input: &str, output: &str| node("Transpose", &[input], &[output], vec![]);
    let gather = |table: &str| node("Gather", &[table, "ids"], &["y"], vec![]);
    let product = |weight: &str| node("MatMul", &["x", weight], &["z"], vec![]);
    let gemm = |weight: &str| node("Gemm", &["x", weight], &["z"], vec![int_attribute("transB", 1)]);
    let of = |constants, nodes| model("x ids", constants, nodes, "y z");
    let copy = vec![("w", stored(false)), ("v", stored(true))];
    vec![
        ("head turned", of(vec![("w", stored(false))], vec![gather("w"), turned("w", "t"), product("t")])),
        ("table turned", of(vec![("w", stored(true))], vec![turned("w", "t"), gather("t"), product("w")])),
        ("Gemm", of(vec![("w", stored(false))], vec![gather("w"), gemm("w")])),
        ("copy", of(copy, vec![gather("w"), product("v")])),
        ("the same", of(vec![("w", stored(false)), ("v", stored(false))], vec![gather("w"), gemm("v")])),
    ]
}

#[test]
fn table_and_head_become_one_tensor() {
    let block = 16;
    for (what, model) in tied_models() {
        for bits in [8, 4] {
            let mut model = model.clone();
            let table = find_tables(model.graph()).remove(0).with_copies(model.graph());
            assert_eq!((table.kind, table.dims, table.heads.len()), (TableKind::Tied, [ROWS, COLUMNS], 1), "{what}");
            let own = model.graph().value(table.value).constant().expect("it is a constant");
            assert_eq!(*table.rows(&tensor::to_f32(own).unwrap()), numbers(ROWS * COLUMNS, 1), "{what}");
            let scales = (0..ROWS * COLUMNS / block).map(|at| (at + 1) as f32 / 8.0).collect();
            let coded = CodedTable { block, scales, ..coded(bits) };
            let bytes = ROWS * COLUMNS * bits as usize / 8 + ROWS * COLUMNS / block * 4;
            assert_eq!(write_table(model.graph_mut(), &table, &coded, TableForm::Rows).unwrap(), bytes, "{what}");
            model.set_opset(crate::write::write_nbits::MICROSOFT, 1);
            assert_valid(&model);
            let graph = model.graph();
            let large =
                graph.initializers().iter().filter(|&&value| graph.value(value).constant().unwrap().dims.len() > 1);
            assert_eq!(large.count(), 2, "{what}: codes and scales");
            let kept = ["Transpose", "Gemm", "MatMul"].map(|op_type| find_node(graph, op_type));
            assert_eq!(kept, [None; 3], "{what}");
            assert!(find_tables(graph).is_empty(), "{what}: idempotent");
            let decoded = decoded_head(&mut model);
            let columns = (0..ROWS * COLUMNS).map(|at| coded.decode()[at % ROWS * COLUMNS + at / ROWS]);
            assert_eq!(decoded, columns.collect::<Vec<f32>>(), "{what} {bits}");
        }
    }
}

/// The weight `[K, M]` of the head.
fn decoded_head(model: &mut Model) -> Vec<f32> {
    crate::decode::decode_weights::decode_weights(model).unwrap();
    let graph = model.graph();
    let head = graph.node(find_node(graph, "MatMul").expect("the head is a MatMul again"));
    tensor::to_f32(graph.value(head.input(1).unwrap()).constant().unwrap()).unwrap().into_owned()
}

#[test]
fn what_the_codes_of_a_table_mean_has_the_form_of_each_initializer() {
    for (what, model) in tied_models() {
        let table = find_tables(model.graph()).remove(0).with_copies(model.graph());
        let coded = coded(8);
        for (value, decoded) in table.decoded(model.graph(), &coded).unwrap() {
            let is_turned = decoded.dims == [COLUMNS as i64, ROWS as i64];
            assert_eq!(model.graph().value(value).constant().unwrap().dims, decoded.dims, "{what}");
            let at = |row: usize, column: usize| if is_turned { column * ROWS + row } else { row * COLUMNS + column };
            let numbers = tensor::to_f32(&decoded).unwrap();
            let rows = (0..ROWS).flat_map(|row| (0..COLUMNS).map(move |column| (row, column)));
            let read: Vec<f32> = rows.map(|(row, column)| numbers[at(row, column)]).collect();
            assert_eq!(read, coded.decode(), "{what}");
        }
    }
}

#[test]
fn other_matrices_of_a_table_are_not_tied() {
    let gather = || node("Gather", &["w", "ids"], &["y"], vec![]);
    let of = |constants, node| model("x ids", constants, vec![gather(), node], "y z");
    let own = || vec![("w", stored(false))];
    let numbers = [&numbers(ROWS * COLUMNS - 1, 1)[..], &[9.0]].concat();
    let other = vec![("w", stored(false)), ("v", tensor::from_f32(&[COLUMNS, ROWS], &numbers))];
    let transposed = || vec![int_attribute("transB", 1)];
    for (what, model) in [
        ("rows as inputs", of(own(), node("MatMul", &["x", "w"], &["z"], vec![]))),
        ("another reader", of(own(), node("Relu", &["w"], &["z"], vec![]))),
        ("other numbers", of(other, node("MatMul", &["x", "v"], &["z"], vec![]))),
        (
            "a factor",
            of(own(), node("Gemm", &["x", "w"], &["z"], [transposed(), vec![float_attribute("alpha", 2.0)]].concat())),
        ),
    ] {
        let graph = model.graph();
        let tied =
            find_tables(graph).into_iter().filter(|table| table.clone().with_copies(graph).kind == TableKind::Tied);
        assert_eq!(tied.count(), 0, "{what}");
    }
    // Of a square matrix the orientation alone tells.
    let square = |transposed| {
        let attributes = if transposed { vec![int_attribute("transB", 1)] } else { vec![] };
        let nodes = vec![gather(), node("Gemm", &["x", "w"], &["z"], attributes)];
        find_tables(model("x ids", vec![("w", floats(&[64, 64], 1))], nodes, "y z").graph()).len()
    };
    assert_eq!((square(true), square(false)), (1, 0));
}
