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
//! | `cost` | what that takes |
//! | `gathered` | the moments of a stage that parts have left there |
//! | `state`, `parts` | keep solved layers, and what parts of the samples gave, in a folder |
//! | `shares` | the share of a process, where several solve the layers together |
//! | `waiting` | waits for what other processes do |
//! | `kept` | files in that folder |
//! | `solved` | what solving returns |
//! | `tables` | tables of embeddings |

pub(crate) mod bodies;
pub(crate) mod codes;
pub(crate) mod cost;
pub(crate) mod gathered;
pub(crate) mod job;
mod kept;
pub(crate) mod layers;
pub(crate) mod parts;
pub(crate) mod selected;
pub(crate) mod shares;
pub(crate) mod solved;
pub(crate) mod source;
pub(crate) mod state;
pub(crate) mod streams;
pub(crate) mod tables;
pub(crate) mod tied;
pub(crate) mod waiting;
pub(crate) mod weights;
