//! Why layers stay in float.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

/// Why a layer stays in float.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "reason")]
#[allow(missing_docs, reason = "the text of each is its documentation")]
pub enum SkipReason {
    NoConstantWeight,
    ConstantOnTheLeft,
    Computed {
        by: String,
    },
    Overridable,
    AlreadyQuantized,
    Rank {
        shape: Vec<usize>,
        expected: &'static str,
    },
    GemmForm {
        attribute: &'static str,
    },
    UnsupportedType {
        dtype: &'static str,
    },
    SharedWithOther {
        user: String,
    },
    Tied {
        reader: String,
        needs: &'static str,
    },
    WeightIsOutput,
    ReadBySubgraph,
    Empty,
    Geometry {
        problem: String,
    },
    InsideSubgraph {
        of: String,
    },
    InsideFunction {
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        because: Option<String>,
    },
    Excluded,
    CostsAccuracy,
    NoAxis,
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoConstantWeight => write!(f, "both operands are activations"),
            Self::ConstantOnTheLeft => write!(f, "the constant is the left operand"),
            Self::Computed { by } => write!(f, "the weight is computed from constants, by {by}"),
            Self::Overridable => write!(f, "the weight is a graph input that callers may override"),
            Self::AlreadyQuantized => write!(f, "the weight is quantized already"),
            Self::Rank { shape, expected } => write!(f, "the weight has shape {shape:?}, expected {expected}"),
            Self::GemmForm { attribute } => write!(f, "{attribute} of the Gemm is not the default"),
            Self::UnsupportedType { dtype } => write!(f, "the weight is of type {dtype}"),
            Self::SharedWithOther { user } => write!(f, "the weight is also read by {user}"),
            Self::Tied { reader, needs } => {
                write!(f, "the weight is the table of {reader}, and codes for both need {needs}")
            }
            Self::WeightIsOutput => write!(f, "the weight is a graph output"),
            Self::ReadBySubgraph => write!(f, "a subgraph reads the weight"),
            Self::Empty => write!(f, "the weight has no elements"),
            Self::Geometry { problem } => write!(f, "{problem}"),
            Self::InsideSubgraph { of } => write!(f, "inside a subgraph of {of}"),
            Self::InsideFunction { name, because } => {
                write!(f, "inside the local function `{name}`")?;
                because.as_ref().map_or(Ok(()), |because| write!(f, ": {because}"))
            }
            Self::Excluded => write!(f, "excluded by the settings"),
            Self::CostsAccuracy => write!(f, "codes of its weight cost the accuracy that is asked for"),
            Self::NoAxis => {
                write!(f, "its outputs in groups have no axis of their own, along which this target takes scales")
            }
        }
    }
}
