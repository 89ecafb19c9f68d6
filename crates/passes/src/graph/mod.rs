//! What passes share: where a constant comes from, who reads a value, and nodes put before and behind others.

pub mod constant_chain;
pub(crate) mod insert;
pub(crate) mod readers;
