//! Runs small models made here, and the repository's fixtures, through the public functions.

mod canary;
mod engine;
mod engines;
mod fixtures;
mod group_query_attention;
mod models;
mod ort;
mod statistics;
mod streams;
