//! What an engine is, whichever it is.

use std::fmt;
use std::sync::Arc;

use onnxquant_proto::onnx::{ModelProto, NodeProto};

use crate::data::{CalibSet, Sample};
use crate::error::CalibError;
use crate::tensor::{ElementType, Tensor};

/// An operator that is no part of ONNX and that every engine has: what saturating sums of products do to a layer's
/// result. It stands in no file.
pub const SATURATE_PAIRS: &str = "onnxquant.SaturatePairs";

/// The shapes of what one sample gives, in the order of what is given.
pub type Shapes = Vec<Vec<usize>>;

/// Runs models.
pub trait Engine: Send + Sync {
    /// Name and version, on which every number depends that is observed.
    fn name(&self) -> &str;

    /// Why it cannot run the node, where it lacks the operator or would misread it.
    fn unknown(&self, node: &NodeProto) -> Option<&'static str>;

    /// Prepares `model` to compute `wanted` (ONNX names of values of the main graph: graph outputs and inputs as well as
    /// anything between) from what is given.
    ///
    /// Weights must be in the model (`raw_data` or the typed fields), not in external files,
    /// and local functions must have been inlined, see [`crate::inline_functions`].
    fn open(&self, model: &ModelProto, wanted: &[String], given: &Given) -> Result<Box<dyn Session>, CalibError>;
}

/// An engine that several users have.
pub type SharedEngine = Arc<dyn Engine>;

impl fmt::Debug for dyn Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl<E: Engine + ?Sized> Engine for &E {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn unknown(&self, node: &NodeProto) -> Option<&'static str> {
        (**self).unknown(node)
    }

    fn open(&self, model: &ModelProto, wanted: &[String], given: &Given) -> Result<Box<dyn Session>, CalibError> {
        (**self).open(model, wanted, given)
    }
}

/// A model, or a part of it, that is ready to be run on samples, with values inside it observed.
///
/// The results do not depend on which thread runs a sample or how many do.
pub trait Session: Send + Sync {
    /// The ONNX names of the values that [`Session::run`] returns, in that order.
    fn values(&self) -> &[String];

    /// Runs one sample.
    fn run(&self, sample: &Sample) -> Result<Vec<Tensor>, CalibError>;

    /// Whether running a sample needs its value of this name.
    fn reads(&self, _value: &str) -> bool {
        true
    }

    /// Whether samples of one shape should be run one after the other, because every shape
    /// needs a preparation of its own that is not kept for long.
    fn prefers_grouping(&self) -> bool {
        false
    }
}

/// What the samples of a session hold: the inputs of the network or, where it is cut, values inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The values, in the order in which a sample holds them.
    pub feeds: Vec<Feed>,
    /// Their shapes, by sample: a session may be prepared for these alone.
    pub shapes: Vec<Shapes>,
}

/// A value that a session is given: an input of the graph, or any value inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feed {
    /// Its ONNX name.
    pub name: String,
    /// Its type; inputs of the graph declare theirs.
    pub element_type: Option<ElementType>,
}

impl Given {
    /// The inputs of a network, on these samples.
    pub fn inputs(data: &CalibSet, samples: &[usize]) -> Self {
        let feed = |name: &String| Feed { name: name.clone(), element_type: None };
        Self {
            feeds: data.inputs().iter().map(|input| feed(&input.name)).collect(),
            shapes: samples.iter().map(|&sample| data.shapes(sample).to_vec()).collect(),
        }
    }
}

impl<S: Session + ?Sized> Session for &S {
    fn values(&self) -> &[String] {
        (**self).values()
    }

    fn run(&self, sample: &Sample) -> Result<Vec<Tensor>, CalibError> {
        (**self).run(sample)
    }

    fn reads(&self, value: &str) -> bool {
        (**self).reads(value)
    }

    fn prefers_grouping(&self) -> bool {
        (**self).prefers_grouping()
    }
}

impl<S: Session + ?Sized> Session for Box<S> {
    fn values(&self) -> &[String] {
        (**self).values()
    }

    fn run(&self, sample: &Sample) -> Result<Vec<Tensor>, CalibError> {
        (**self).run(sample)
    }

    fn reads(&self, value: &str) -> bool {
        (**self).reads(value)
    }

    fn prefers_grouping(&self) -> bool {
        (**self).prefers_grouping()
    }
}
