//! Running a float model and observing values inside it.
//!
//! An [`Engine`] has a folder of its own, which alone knows what it is made of; [`engine()`] chooses one.

mod blocked;
mod contract;
mod cut;
mod failing;
mod observed;
mod open;
#[cfg(feature = "ort")]
mod ort;
mod tract;

pub use blocked::{BlockedNode, Fault};
pub use contract::{Engine, Feed, Given, SATURATE_PAIRS, Session, Shapes, SharedEngine};
pub use cut::{Cut, cut};
pub use failing::{failing_nodes, unknown_operators};
pub use open::{engine, open_session, open_session_for};
#[cfg(feature = "ort")]
pub use ort::{OrtEngine, OrtError, OrtLevel, OrtModel, OrtOptions, OrtPlaces};
