//! Which operators need a step on entering which opset.
//!
//! Every other change in the table only added types, optional attributes with the old meaning as default, or
//! optional inputs, or corrected the text; each was read in the operator changelog.

use onnxquant_ir::onnx::NodeProto;

use super::context::Context;
use super::error::Refusal;
use super::{arguments, attributes, broadcasting, normalization, resize, softmax};

/// Turns a node of the opset before into nodes of the opset being entered.
///
/// The last of them makes the outputs of the node, by the same names.
pub(super) type Step = fn(NodeProto, &mut Context<'_>) -> Result<Vec<NodeProto>, Refusal>;

/// The step for an operator on entering `opset`.
pub(super) fn find(op_type: &str, opset: i64) -> Option<Step> {
    let concerns = |&&(entered, operators, _): &&(i64, &[&str], Step)| entered == opset && operators.contains(&op_type);
    STEPS.iter().find(concerns).map(|&(_, _, step)| step)
}

/// Opset entered, operators, step; ascending.
#[rustfmt::skip]
pub(super) const STEPS: &[(i64, &[&str], Step)] = &[
    (2, &["GlobalLpPool", "LpPool"], attributes::integer_p),
    (2, &["Pad"], attributes::pads_renamed),
    (2, &["Split"], attributes::split_sizes_to_attribute),
    (4, &["Concat"], attributes::concat_axis_explicit),
    (5, &["Reshape"], arguments::reshape),
    (6, &["Cast"], attributes::cast_type_as_number),
    (6, &["Selu"], attributes::selu_defaults_explicit),
    (6, &["Tile"], attributes::tile_of_one_axis),
    (6, &[
        "Abs", "Add", "BatchNormalization", "Ceil", "Clip", "Div", "Dropout", "Elu", "Exp", "Floor", "HardSigmoid",
        "InstanceNormalization", "LeakyRelu", "Log", "Max", "Mean", "Min", "Mul", "Neg", "PRelu", "Reciprocal", "Relu",
        "Sigmoid", "Sqrt", "Sub", "Sum", "Tanh",
    ], attributes::no_consumed_inputs),
    (7, &["Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub", "Xor"], broadcasting::numpy_rules),
    (7, &["Gemm"], broadcasting::gemm),
    (7, &["PRelu"], broadcasting::prelu),
    (7, &["BatchNormalization", "Dropout"], normalization::inference_only),
    (7, &["GRU", "LSTM", "RNN"], attributes::no_output_sequence),
    (7, &["Upsample"], resize::upsample_scales_of_every_axis),
    (9, &["BatchNormalization"], normalization::per_channel_only),
    (9, &["Scan"], attributes::scan_with_batch),
    (9, &["Upsample"], resize::upsample_scales_to_input),
    (10, &["Dropout"], normalization::boolean_mask),
    (10, &["Slice"], arguments::slice),
    (10, &["TopK"], arguments::top_k),
    (10, &["Upsample"], resize::upsample_to_resize),
    (11, &["Clip"], arguments::clip),
    (11, &["Pad"], arguments::pad),
    (11, &["Resize"], resize::explicit_sampling),
    (11, &["Scatter"], attributes::scatter_renamed),
    (12, &["Dropout"], normalization::no_ratio),
    (13, &["Erf"], attributes::floats_only),
    (13, &["Hardmax", "LogSoftmax", "Softmax"], softmax::one_axis),
    (13, &["ReduceSum", "Squeeze"], arguments::optional_axes),
    (13, &["Resize"], resize::clean_inputs),
    (13, &["Split"], arguments::split_sizes),
    (13, &["Unsqueeze"], arguments::required_axes),
    (14, &["BatchNormalization"], normalization::one_output),
    (16, &["RoiAlign"], attributes::roi_align_mode_explicit),
    (18, &[
        "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
        "ReduceSumSquare",
    ], arguments::optional_axes),
    (18, &["Split"], arguments::split_count),
    (20, &["DFT"], arguments::dft_axis),
    (20, &["GridSample"], attributes::grid_sample_modes_renamed),
    (21, &["GroupNormalization"], normalization::scale_per_channel),
    (28, &["ReduceLogSum", "ReduceLogSumExp"], attributes::floats_only),
];
