//! What ONNX Runtime computes layers with.

use schemars::JsonSchema;
use serde::Serialize;

/// Operators of the optimized graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[allow(missing_docs, reason = "they are named as the runtime names them")]
pub enum Kernel {
    MatMulNBits,
    QLinearConv,
    QGemm,
    QLinearMatMul,
    MatMulIntegerToFloat,
    DynamicQuantizeMatMul,
    /// Conv, ConvTranspose, Gemm, MatMul, or what they are fused with.
    #[serde(rename = "float")]
    Float,
}

/// What a layer runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RunsAs {
    /// The operator.
    #[serde(rename = "runs_as")]
    pub kernel: Kernel,
    /// Why its weight is decoded at every run, which makes it slower than in float.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_because: Option<&'static str>,
}

impl RunsAs {
    pub(crate) fn fast(kernel: Kernel) -> Self {
        Self { kernel, slow_because: None }
    }

    pub(crate) fn slow(why: &'static str) -> Self {
        Self { kernel: Kernel::Float, slow_because: Some(why) }
    }
}

impl Kernel {
    /// Its name in the optimized graph and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::MatMulNBits => "MatMulNBits",
            Self::QLinearConv => "QLinearConv",
            Self::QGemm => "QGemm",
            Self::QLinearMatMul => "QLinearMatMul",
            Self::MatMulIntegerToFloat => "MatMulIntegerToFloat",
            Self::DynamicQuantizeMatMul => "DynamicQuantizeMatMul",
            Self::Float => "float",
        }
    }

    /// Whether an operator of the optimized graph is this one.
    pub fn is(self, op_type: &str) -> bool {
        const FLOAT: [&str; 8] =
            ["Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"];
        match self {
            Self::Float => FLOAT.contains(&op_type),
            other => other.name() == op_type,
        }
    }
}
