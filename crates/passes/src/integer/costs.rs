//! How long operators take in ONNX Runtime, in float and on codes: what the choice of regions weighs.
//!
//! Times are nanoseconds on one core, from the sizes of tensors alone, by tables for classes of processors (`costs/*.toml`).
//! Of each only the ratios matter, and those differ less between machines of a class than times do.
//!
//! A file that is served on several classes is judged by the worst of them: a choice is so many times as fast as it is on
//! the class where it gains least.

pub(crate) mod class;
pub(crate) mod times;

use std::collections::HashMap;

use onnxquant_ir::{Graph, NodeId, ValueId};

use self::class::{Choice, ClassCosts, Work};
use self::times::{Table, Times};
use super::kernels::Unit;
use crate::find::sites::Site;
use crate::runtime::cpu::Cpu;

pub use self::class::{Alternative, Served};

/// Times of the nodes of one graph, on every class of processors that counts.
#[derive(Clone, Debug, Default)]
pub struct Costs {
    work: Work,
    tables: Vec<Table>,
}

impl Costs {
    /// Times for tensors of these sizes (in elements, of one sample) where `cpu` says that the file is served.
    pub fn new(
        graph: &Graph,
        sites: &HashMap<NodeId, Site>,
        sizes: HashMap<ValueId, usize>,
        alternative: Alternative,
        cpu: Cpu,
    ) -> Costs {
        let tables = Times::of(cpu);
        Costs { work: Work::new(graph, sites, sizes, alternative, &tables), tables }
    }

    /// The times on each class that counts.
    pub(crate) fn classes(&self) -> impl Iterator<Item = ClassCosts<'_>> {
        self.tables.iter().map(|table| self.work.on(*table))
    }

    /// Whether this is a layer of known size.
    pub fn knows(&self, layer: NodeId) -> bool {
        self.work.knows(layer)
    }

    /// Whether a MatMul or Gemm is as fast with codes of 8 bits in `MatMulNBits` as in float, on every class; one of
    /// unknown size is.
    pub fn nbits_pays(&self, layer: NodeId) -> bool {
        self.work.nbits_pays(layer)
    }

    /// Whether quantizing the input of a MatMul or Gemm at run time takes less time than floats, on every class.
    pub fn dynamic_pays(&self, graph: &Graph, layer: NodeId) -> bool {
        !self.work.knows(layer) || self.saved_dynamic(graph, layer) > 0.0
    }

    /// Time that a MatMul or Gemm saves by quantizing its input at run time, in nanoseconds; 0 for a layer of unknown
    /// size.
    pub fn saved_dynamic(&self, graph: &Graph, layer: NodeId) -> f64 {
        saved_where_worst(self.classes().filter_map(|class| class.dynamic(graph, layer)))
    }

    /// Time that a unit saves on codes, in nanoseconds, without conversions.
    pub fn saved_on_codes(&self, graph: &Graph, unit: &Unit) -> f64 {
        saved_where_worst(self.classes().map(|class| class.unit(graph, unit)))
    }
}

/// What is saved where the choice gains least, by ratio.
fn saved_where_worst(choices: impl Iterator<Item = Choice>) -> f64 {
    choices.min_by(|a, b| a.ratio().total_cmp(&b.ratio())).map_or(0.0, |choice| choice.saved())
}

#[cfg(test)]
#[path = "costs_tests.rs"]
mod tests;
