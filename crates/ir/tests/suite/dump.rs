//! The text form of two fixtures, word for word.

use onnxquant_ir::dump;

use super::trap;

#[test]
fn dump_of_a_folded_norm_is_golden() {
    insta::assert_snapshot!(dump(&trap("norm_after_conv_bias.onnx")));
}

#[test]
fn dump_of_a_nested_capture_is_golden() {
    insta::assert_snapshot!(dump(&trap("if_nested_capture.onnx")));
}
