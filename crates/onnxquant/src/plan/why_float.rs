//! Why the activations of a layer stay floats although integers were asked for.

use std::fmt;

use onnxquant_ir::Graph;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_passes::add_to_bias::has_bias;
use onnxquant_passes::layers::Bias;
use onnxquant_passes::write_dynamic::is_supported;

use crate::config::Activations;
use crate::plan::assignment::{Assignment, Form};
use crate::plan::layers::PlannedLayer;

/// Why the activations of a layer stay floats although integers were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhyFloat {
    /// They are of another type than f32.
    Type(DataType),
    /// There is no kernel on codes.
    NoKernel,
    /// There is none that quantizes its input.
    NoDynamicKernel,
    /// The integer bias holds one number an output.
    Bias,
    /// Its samples are not known.
    NotComputed,
    /// What it reads or makes cannot be codes.
    Beside,
    /// The outputs were not exact enough.
    Accuracy,
}

impl WhyFloat {
    /// Of a layer of the float model with this graph, whose input the engine computes or not. Nothing of layers on codes,
    /// and where the program was free to choose.
    pub(crate) fn of(
        graph: &Graph,
        layer: &PlannedLayer,
        assignment: &Assignment,
        activations: Activations,
        is_computed: bool,
    ) -> Option<Self> {
        let site = &layer.site;
        if assignment.form(site.id()) != Form::WeightOnly {
            return None;
        }
        let is_type = site.dtype == DataType::Float;
        match activations {
            Activations::Float | Activations::Auto => None,
            _ if !is_type => Some(Self::Type(site.dtype)),
            Activations::Dynamic if !is_supported(site) => Some(Self::NoDynamicKernel),
            Activations::Static if site.layer.on_codes().is_none() => Some(Self::NoKernel),
            Activations::Static if site.layer.bias() != Bias::AddBehind && !has_bias(graph, site) => Some(Self::Bias),
            _ if !is_computed => Some(Self::NotComputed),
            Activations::Static if !assignment.could_run(site.node) => Some(Self::Beside),
            _ => Some(Self::Accuracy),
        }
    }
}

impl fmt::Display for WhyFloat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Type(dtype) => {
                write!(f, "its activations are of type {}, and kernels on codes take FLOAT", dtype.as_str_name())
            }
            Self::NoKernel => write!(f, "there is no kernel for it on codes"),
            Self::NoDynamicKernel => write!(f, "no kernel quantizes its input at run time"),
            Self::Bias => write!(f, "its bias is not one number an output"),
            Self::NotComputed => write!(f, "the calibration engine does not compute its input"),
            Self::Beside => {
                write!(f, "a subgraph or an output reads what it makes, or it reads or makes codes already")
            }
            Self::Accuracy => write!(f, "on codes the outputs would be less exact than wanted"),
        }
    }
}

#[cfg(test)]
#[path = "why_float_tests.rs"]
mod tests;
