//! Files of this machine and objects behind addresses (`s3://`, `gs://`, `az://`, `https://`, `http://`), read in one way.
//!
//! # Problem
//!
//! Models and samples lie in folders, or in object stores. A reader of a format should not know which.
//!
//! # Method
//!
//! An address is a path that begins with a scheme and `://`. [`open`] gives something to read and to seek in for both. Of
//! an object stretches are fetched where somebody reads them, in blocks of 256 KiB, more at a time while reading goes
//! straight on; what was fetched is kept in one temporary file without a name as long as somebody [keeps](keep) it, so
//! that nothing is fetched twice. All requests about an object name the entity tag that it had first: one that was changed
//! is an error. What is mapped must be a file: [`fetch`] makes one. [`Upload`] writes an object, whole or not at all; [`whole`]
//! is for small ones that others write meanwhile.
//!
//! # Secrets
//!
//! [`entered`] takes what may grant access, a query or a user, out of an address before anything else sees it. Credentials
//! come from the environment, as the crate `object_store` reads them. Words of servers are not passed on, for they may
//! repeat what was signed.
//!
//! Without the feature `remote` addresses are refused.

#![forbid(unsafe_code)]

mod address;
mod list;
mod open;
#[cfg(feature = "remote")]
mod remote;
#[cfg(not(feature = "remote"))]
#[path = "refused.rs"]
mod remote;

pub use address::{as_given, entered, is_address, note_copy, without_secrets};
pub use list::{MAX_DEPTH, Unlisted, is_file, is_folder, list};
pub use open::{Opened, open, read_at_most};
pub use remote::{Kept, Upload, fetch, foresee, keep, whole};
