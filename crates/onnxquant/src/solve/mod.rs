//! Finds the codes of layers and tables.
//!
//! | file | what it does |
//! |---|---|
//! | `layers` | all layers, stage by stage |
//! | `bodies` | the layers inside bodies |
//! | `codes` | the codes of one layer, by the method that is asked for or by the best of several |
//! | `tied` | one set of codes for layers that read one weight |
//! | `source`, `streams` | where statistics come from: the float network, or both networks side by side |
//! | `job`, `weights` | what is to be solved for a layer |
//! | `state` | keeps solved layers in a folder |
//! | `solved` | what solving returns |
//! | `tables` | tables of embeddings |

pub(crate) mod bodies;
pub(crate) mod codes;
pub(crate) mod job;
pub(crate) mod layers;
pub(crate) mod selected;
pub(crate) mod solved;
pub(crate) mod source;
pub(crate) mod state;
pub(crate) mod streams;
pub(crate) mod tables;
pub(crate) mod tied;
pub(crate) mod weights;
