//! What is found in a graph of nodes, and local functions expanded.

mod inline;
mod walk;

pub use inline::inline_functions;
pub use walk::graph_outputs;
pub(crate) use walk::{all_nodes, drop_trailing_empty, label, needed_nodes, reads, subgraphs_mut};
