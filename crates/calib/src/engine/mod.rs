//! Running a float model and observing values inside it.

#[cfg(feature = "tract")]
mod adapt;
#[cfg(feature = "tract")]
mod blocked;
#[cfg(feature = "tract")]
mod convert;
#[cfg(feature = "tract")]
pub(crate) mod graph;
#[cfg(feature = "tract")]
mod plan;
#[cfg(feature = "tract")]
mod round_to_grid;
#[cfg(feature = "tract")]
mod saturate_pairs;
#[cfg(feature = "tract")]
mod session;
#[cfg(feature = "tract")]
mod shapes;

#[cfg(feature = "tract")]
pub use blocked::{BlockedNode, failing_nodes, unknown_operators};
#[cfg(feature = "tract")]
pub use graph::graph_outputs;
#[cfg(feature = "tract")]
pub use saturate_pairs::SATURATE_PAIRS;
#[cfg(feature = "tract")]
pub use session::Session;

use crate::data::Sample;
use crate::error::CalibError;
use crate::tensor::Tensor;

/// Something that runs a model on samples and returns the values it was made to observe.
///
/// The results do not depend on which thread runs a sample or how many do.
pub trait Engine: Send + Sync {
    /// The ONNX names of the values that [`Engine::run`] returns, in that order.
    fn values(&self) -> &[String];

    /// Runs one sample.
    fn run(&self, sample: &Sample) -> Result<Vec<Tensor>, CalibError>;

    /// Whether samples of one shape should be run one after the other, because every shape
    /// needs a preparation of its own that is not kept for long.
    fn prefers_grouping(&self) -> bool {
        false
    }
}

impl<E: Engine + ?Sized> Engine for &E {
    fn values(&self) -> &[String] {
        (**self).values()
    }

    fn run(&self, sample: &Sample) -> Result<Vec<Tensor>, CalibError> {
        (**self).run(sample)
    }

    fn prefers_grouping(&self) -> bool {
        (**self).prefers_grouping()
    }
}
