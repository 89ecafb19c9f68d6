use ndarray::{ArrayD, IxDyn};
use onnxquant_ir::onnx::AttributeProto;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Model, int_attribute, ints_attribute, tensor, text_attribute};
use onnxquant_quant::{Granularity, Padding};

use super::*;
use crate::decode::decode_weights::decode_weights;
use crate::find::sites::Site;
use crate::testing::{assert_valid, constant_named, floats, model, node, only_site, op_types, sites, solution};
use crate::write::weight_form::{Codes, WeightForm, write_weight};
use crate::write::write_codes::PackedWeight;

/// 6 channels to 2 a group.
fn transposed(attributes: Vec<AttributeProto>) -> Model {
    let constants = vec![("w", floats(&[6, 2, 3, 2], 1))];
    model("x", constants, vec![node("ConvTranspose", &["x", "w"], &["y"], attributes)], "y")
}

fn view_of(attributes: Vec<AttributeProto>) -> Result<MatrixView, SkipReason> {
    sites(&transposed(attributes)).remove(0).map(|site: Site| site.view)
}

#[test]
fn attributes_are_those_of_the_node() {
    let given = vec![
        int_attribute("group", 3),
        ints_attribute("strides", &[2, 3]),
        ints_attribute("dilations", &[1, 2]),
        ints_attribute("pads", &[1, 0, 2, 1]),
        ints_attribute("output_padding", &[1, 0]),
    ];
    let Ok(MatrixView::ConvTranspose(found)) = view_of(given) else { panic!("a transposed convolution") };
    assert_eq!((found.conv.groups, found.conv.in_channels, found.conv.out_channels), (3, 6, 6));
    assert_eq!((found.conv.kernel, found.conv.strides, found.conv.dilations), (vec![3, 2], vec![2, 3], vec![1, 2]));
    assert_eq!(found.conv.padding, Padding::Explicit { begin: vec![1, 0], end: vec![2, 1] });
    assert_eq!((found.output_padding, found.output_shape), (vec![1, 0], None));
    let given = vec![ints_attribute("output_shape", &[9, 8]), text_attribute("auto_pad", "SAME_LOWER")];
    let Ok(MatrixView::ConvTranspose(found)) = view_of(given) else { panic!("a transposed convolution") };
    assert_eq!((found.output_shape, found.conv.padding), (Some(vec![9, 8]), Padding::SameLower));
    for wrong in [int_attribute("group", 4), ints_attribute("output_shape", &[1, 2, 9, 8])] {
        let what = format!("{wrong:?}");
        assert!(matches!(view_of(vec![wrong]), Err(SkipReason::Geometry { .. })), "{what}");
    }
}

/// In every type, for groups that share scales with others and that do not.
#[test]
fn codes_decode_to_the_weights_of_the_solution() {
    let forms = [(DataType::Int8, -128, 127), (DataType::Uint8, 0, 255), (DataType::Int4, -8, 7)];
    for group in [1, 2, 6] {
        for granularity in [Granularity::Tensor, Granularity::Channel] {
            for (storage, low, high) in forms {
                let what = format!("{group} groups {granularity:?} {storage:?}");
                let mut written = transposed(vec![int_attribute("group", group)]);
                let site = only_site(&written);
                let solution = solution(&site, granularity, low, high);
                let weight = PackedWeight::new(&site, storage, granularity, &solution, vec![]).unwrap();
                let expected = site.view.from_matrix(solution.dequantize().view()).unwrap();
                let same = |tensor: &onnxquant_ir::onnx::TensorProto| {
                    let numbers = tensor::to_f32(tensor).unwrap().into_owned();
                    ArrayD::from_shape_vec(IxDyn(&[6, 2, 3, 2]), numbers).unwrap() == expected
                };
                assert!(same(&weight.decode(&site).unwrap()), "{what}");
                written.set_opset("", 21);
                let form = WeightForm::Folded(Codes::Native(storage));
                write_weight(written.graph_mut(), &site, &weight, form).unwrap();
                assert_valid(&written);
                let scale = tensor::shape(constant_named(written.graph(), "w_scale")).unwrap();
                let of_channels = if group == 1 { vec![1, 2, 1, 1] } else { vec![6, 2, 1, 1] };
                assert_eq!(scale, if granularity == Granularity::Tensor { vec![] } else { of_channels }, "{what}");
                assert_eq!(decode_weights(&mut written).unwrap(), 1, "{what}");
                assert_eq!(op_types(&written), ["ConvTranspose"], "{what}");
                let graph = written.graph();
                let (_, node) = graph.nodes().next().unwrap();
                assert!(same(graph.value(node.input(1).unwrap()).constant().unwrap()), "{what}");
            }
        }
    }
}
