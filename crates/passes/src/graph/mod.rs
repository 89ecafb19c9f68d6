//! What passes share: where a constant comes from, what operators make of constants, who reads a value, and nodes put
//! before and behind others.

pub mod constant_chain;
pub(crate) mod evaluate;
pub(crate) mod insert;
pub(crate) mod readers;
