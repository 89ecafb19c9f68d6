//! Tests of the public interface: round trips, refused files, hostile bytes, a second reader.

mod errors;
mod files;
mod hostile;
mod round_trip;
mod sample;
mod second_reader;
