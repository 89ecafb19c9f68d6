//! Puts codes into a model, and the model into a file.
//!
//! | file | what it does |
//! |---|---|
//! | `bodies` | puts codes into bodies |
//! | `codes` | what stands in the file instead of float weights |
//! | `evaluated` | a model for the engine that computes the same in floats |
//! | `written` | the model as it is written |
//! | `tables` | the same for tables of embeddings |
//! | `file` | the file, and what it says of how it was made |

pub(crate) mod bodies;
pub(crate) mod codes;
pub(crate) mod evaluated;
pub(crate) mod file;
pub(crate) mod tables;
pub(crate) mod written;
