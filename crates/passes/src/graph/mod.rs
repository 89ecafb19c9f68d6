//! What passes share: where a constant comes from, what operators make of constants, how many dimensions, which type and
//! which readers a value has, values of bodies handed out, and nodes put before and behind others.

pub mod constant_chain;
pub(crate) mod declared;
pub(crate) mod element_type;
pub(crate) mod evaluate;
pub mod expose;
pub(crate) mod insert;
pub(crate) mod rank;
pub(crate) mod readers;
