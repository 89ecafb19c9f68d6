//! What a run did, in the form in which it is printed and written as JSON.
//!
//! A report is made once, at the end, of the values that the floors below return: nothing there knows of it. Values that
//! are shown as they are, such as settings, can be serialized where they are defined.
//!
//! | file | what it is about |
//! |---|---|
//! | `run` | the whole report |
//! | `doubts` | what people hardly meant |
//! | `folder` | what was copied beside the model |
//! | `layers` | every layer |
//! | `tables` | tables of embeddings |
//! | `integers` | what runs on integers |
//! | `outputs` | the outputs of held-out samples |
//! | `measured` | the same as ONNX Runtime computes them |
//! | `metric` | how good the model is by a figure of the user's own |
//! | `not_run` | what the calibration engine could not run |

mod doubts;
pub(crate) mod folder;
pub(crate) mod integers;
pub(crate) mod layers;
pub(crate) mod measured;
pub(crate) mod metric;
pub(crate) mod not_run;
pub(crate) mod outputs;
pub(crate) mod run;
pub(crate) mod tables;
