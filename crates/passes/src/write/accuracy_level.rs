//! Whether a weight leaves room for the integer arithmetic inside ONNX Runtime's `MatMulNBits`.
//!
//! At accuracy level 4 the kernel rounds activations to int8 and computes, for codes `q` stored without a sign, their zero
//! point `z` and activations `a`
//!
//! ```text
//! scale * sum(q * a) - scale * z * sum(a)        instead of        sum(scale * (q - z) * a)
//! ```
//!
//! Both terms may be infinite where their difference is not, which gives a NaN or an infinity for a finite product: so does a
//! weight of 1.75e38 beside activations near 1. Level 1 computes the right side, in floats.

use onnxquant_ir::onnx::TensorProto;
use onnxquant_ir::tensor;

/// The kernel's arithmetic on integers.
const INTEGERS: usize = 4;
/// Its arithmetic on floats.
const FLOATS: usize = 1;

/// The largest scale with which the terms stay finite: times codes below 2^8 that is 2^60, and 2^68 are left for the number of
/// inputs times the largest of them.
const LARGEST_SCALE: f32 = (1u64 << 52) as f32;

/// The level at which the kernel computes with these scales; with scales that cannot be read that of floats.
pub(super) fn accuracy_level(scales: Option<&TensorProto>) -> usize {
    if scales.is_some_and(leave_room) { INTEGERS } else { FLOATS }
}

/// Whether sums of codes and integers stay finite with these scales.
pub(super) fn leave_room(scales: &TensorProto) -> bool {
    tensor::to_f32(scales).is_ok_and(|scales| scales.iter().all(|scale| scale.abs() <= LARGEST_SCALE))
}
