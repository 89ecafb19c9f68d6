use ndarray::ArrayD;
use onnxquant_ir::onnx::{NodeProto, OperatorSetIdProto};
use onnxquant_ir::{Model, int_attribute};

use super::*;
use crate::runtime::nbits::MICROSOFT;
use crate::testing::{array, constant_named, floats, message, node, op_types, run};

fn bytes(dims: &[usize], bytes: &[u8]) -> TensorProto {
    tensor::from_raw(DataType::Uint8, dims, bytes.to_vec())
}

fn of(constants: Vec<(&str, TensorProto)>, node: NodeProto) -> Model {
    let mut proto = message("x", constants, vec![node], "y");
    proto.opset_import.push(OperatorSetIdProto { domain: Some(MICROSOFT.into()), version: Some(1) });
    Model::from_proto(proto).unwrap()
}

fn nbits(inputs: &[&str], bits: i64) -> NodeProto {
    let sizes = [("K", 16), ("N", 2), ("bits", bits), ("block_size", 16)];
    let attributes = sizes.iter().map(|(name, size)| int_attribute(name, *size)).collect();
    NodeProto { domain: Some(MICROSOFT.into()), ..node("MatMulNBits", inputs, &["y"], attributes) }
}

#[test]
fn codes_of_2_4_and_8_bits_are_decoded() {
    // The first output has code 1 everywhere, the second 3, in fields of any width.
    for (bits, low, high) in [(2, 0x55, 0xff), (4, 0x11, 0x33), (8, 1, 3)] {
        let row = 2 * bits as usize;
        let codes = [vec![low; row], vec![high; row]].concat();
        let scales = tensor::from_f32(&[2, 1], &[0.5, 2.0]);
        let constants = || {
            vec![
                ("b", bytes(&[2, 1, row], &codes)),
                ("s", scales.clone()),
                ("z", bytes(&[2, 1], &[1, 1])),
                ("a", floats(&[2], 3)),
            ]
        };
        let mut model = of(constants(), nbits(&["x", "b", "s", "z", "", "a"], bits));
        assert_eq!(decode_nbits(model.graph_mut()).unwrap(), 1);
        assert_eq!(op_types(&model), ["MatMul", "Add"]);
        let weight = array(constant_named(model.graph(), "node_y_weight"));
        assert_eq!(weight.shape(), [16, 2]);
        assert!(weight.column_iter().eq([0.0f32, 4.0].map(|real| vec![real; 16])), "{weight}");
        let bias = array(constant_named(model.graph(), "a"));
        assert_eq!(
            run(&model, &ArrayD::zeros(vec![1, 16]))[0].iter().collect::<Vec<_>>(),
            bias.iter().collect::<Vec<_>>()
        );
        let mut middle = of(constants(), nbits(&["x", "b", "s"], bits));
        decode_nbits(middle.graph_mut()).unwrap();
        let first = array(constant_named(middle.graph(), "node_y_weight"))[[0, 0]];
        assert_eq!(first, 0.5 * (1.0 - (1 << (bits - 1)) as f32));
    }
}

#[test]
fn what_is_not_constant_or_does_not_fit_is_left_or_refused() {
    let scales = tensor::from_f32(&[2, 1], &[0.5, 2.0]);
    let constants = |codes: TensorProto| vec![("b", codes), ("s", scales.clone()), ("g", bytes(&[1], &[0]))];
    let good = || bytes(&[2, 1, 8], &[0; 16]);
    for inputs in [&["x", "x", "s"][..], &["x", "b", "x"], &["x", "b", "s", "x"], &["x", "b", "s", "", "g"]] {
        let mut model = of(constants(good()), nbits(inputs, 4));
        assert_eq!(decode_nbits(model.graph_mut()).unwrap(), 0, "{inputs:?}");
    }
    assert_eq!(decode_nbits(of(constants(good()), nbits(&["x", "b", "s"], 3)).graph_mut()).unwrap(), 0);
    for bad in [bytes(&[2, 1, 7], &[0; 14]), tensor::from_i32(&[4], &[0; 4])] {
        let error = decode_nbits(of(constants(bad), nbits(&["x", "b", "s"], 4)).graph_mut()).unwrap_err();
        assert_eq!(error.tensor, "b");
    }
}

trait Columns {
    fn column_iter(&self) -> impl Iterator<Item = Vec<f32>>;
}

impl Columns for ArrayD<f32> {
    fn column_iter(&self) -> impl Iterator<Item = Vec<f32>> {
        self.axis_iter(ndarray::Axis(1)).map(|column| column.iter().copied().collect())
    }
}
