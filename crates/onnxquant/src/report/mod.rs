//! What a run did, in the form in which it is printed and written as JSON.
//!
//! A report is made once, at the end, of the values that the floors below return: nothing there knows of it. Values that
//! are shown as they are, such as settings, can be serialized where they are defined.
//!
//! | file | what it is about |
//! |---|---|
//! | `run` | the whole report |
//! | `record` | how the run went, and its files |
//! | `outcome`, `advice` | whether that is what was asked for, and what to do next |
//! | `doubts` | what people hardly meant |
//! | `folder` | what was copied beside the model |
//! | `layers`, `weights` | every layer, and how its weights are spread |
//! | `skipped` | layers that stay in float |
//! | `spine` | the nodes in order, and on what they run |
//! | `curve` | what bits buy, where they were chosen |
//! | `tables` | tables of embeddings |
//! | `caches` | what a decoder keeps as codes |
//! | `integers` | what runs on integers |
//! | `outputs` | the outputs of held-out samples |
//! | `measured` | the same as ONNX Runtime computes them |
//! | `compared` | how two models differ |
//! | `metric` | how good the model is by a figure of the user's own |
//! | `not_run` | what the calibration engine could not run |
//! | `stored` | a report as it is stored, for the two below |
//! | `changes` | what is different in another report |
//! | `page` | the same as a page |
//! | `words` | numbers for people |
//! | `schema` | what all of that looks like as JSON |

mod advice;
pub(crate) mod caches;
pub(crate) mod changes;
pub(crate) mod compared;
pub(crate) mod curve;
mod doubts;
pub(crate) mod folder;
pub(crate) mod integers;
pub(crate) mod layers;
pub(crate) mod measured;
pub(crate) mod metric;
pub(crate) mod not_run;
pub(crate) mod outcome;
pub(crate) mod outputs;
pub(crate) mod page;
pub(crate) mod record;
pub(crate) mod run;
pub(crate) mod schema;
pub(crate) mod skipped;
pub(crate) mod spine;
pub(crate) mod stored;
pub(crate) mod tables;
pub(crate) mod weights;
pub mod words;
