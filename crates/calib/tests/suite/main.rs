//! Runs small models made here, and the repository's fixtures, through the public functions.

mod canary;
mod engine;
mod fixtures;
mod models;
mod statistics;
mod streams;
