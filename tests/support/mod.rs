//! What the tests share.

mod agree;
pub mod bodies;
mod book;
mod chain;
mod failures;
mod fixture;
mod models;
mod net;
mod page;
mod prepared;
mod python;
mod schema;
mod tool;
mod web;

pub use agree::{Told, agree, check_told};
pub use book::{Block, Table, Text, code_spans};
pub use chain::{Chain, noise_samples};
pub use failures::Failures;
pub use fixture::Fixture;
pub use models::{
    MatMulModel, TiedModel, chain_around, external_tensor, float_tensor, float_value, forget_lengths, integers,
    model_of, node, noise, shadowing_loop, with_int, with_ints, write,
};
pub use net::{EMBEDDING_INPUT, Net, embedding};
pub use page::{Page, unescaped};
pub use prepared::check_prepared;
pub use python::{Job, Measured, measure, measure_without_vnni, node_models, python, python_code};
pub use schema::faults as schema_faults;
pub use tool::{Run, bounded, files_in, inspect, library, onnxquant, refused, report, try_report};
pub use web::{Fault, Web};

use std::path::PathBuf;

/// The repository.
pub fn root() -> PathBuf {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("the package lies in crates/cli").to_owned()
}

/// A folder that goes away with the value.
pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder can be made")
}
