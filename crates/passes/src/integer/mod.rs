//! Integer inference: regions of the graph whose tensors are stored as 8-bit codes, and layers that quantize their input
//! as they run.
//!
//! | file | what it does |
//! |---|---|
//! | [`kernels`] | says which nodes the runtime computes on codes, and in which form |
//! | [`costs`] | estimates how long nodes take in float and on codes |
//! | [`regions`] | chooses the nodes that run on codes, by a minimum cut |
//! | [`speed`] | estimates how many times as fast the whole graph is then |
//! | [`write_regions`], [`fake_quantize`] | rounds their tensors, with codes or with the same arithmetic in floats |
//! | [`write_static`] | writes weight and bias of a layer inside a region |
//! | [`write_dynamic`] | writes a layer that quantizes its input as it runs |
//! | [`keep_float`] | keeps the runtime from taking nodes on codes that are to stay in float |
//! | [`align_channels`] | brings a Conv on codes to the fast kernel |
//! | [`saturate_pairs`] | adds what saturating sums of products change, for evaluation |

pub mod align_channels;
pub mod costs;
pub mod fake_quantize;
pub mod keep_float;
pub mod kernels;
#[cfg(test)]
mod pair_rule_tests;
pub mod regions;
pub mod saturate_pairs;
pub mod speed;
pub mod write_dynamic;
pub mod write_regions;
pub mod write_static;
