//! What passes share: where a constant comes from, what operators make of constants, how many dimensions and
//! which readers a value has, and nodes put before and behind others.

pub mod constant_chain;
pub(crate) mod evaluate;
pub(crate) mod insert;
pub(crate) mod rank;
pub(crate) mod readers;
