//! Runs small models made here, and the repository's fixtures, through the public functions.

mod canary;
mod engine;
mod engines;
mod fixtures;
mod models;
mod ort;
mod statistics;
mod streams;
