//! Objects behind addresses.

mod failure;
mod fetch;
mod held;
mod listing;
mod object;
mod reading;
mod spool;
mod store;
mod upload;
pub mod whole;

pub use fetch::{fetch, foresee};
pub use held::{Kept, keep};
pub(crate) use listing::{is_folder, list};
pub(crate) use reading::Reading;
pub use upload::Upload;
