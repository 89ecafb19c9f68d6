//! Static integer inference: regions of the graph whose tensors are stored as 8-bit codes.
//!
//! | file | what it does |
//! |---|---|
//! | [`kernels`] | says which nodes the runtime computes on codes, and in which form |
//! | [`costs`] | estimates how long nodes take in float and on codes |
//! | `convolution` | the same for a Conv without groups |
//! | [`regions`] | chooses the nodes that run on codes, by a minimum cut |
//! | [`keep_float`] | keeps the runtime from taking nodes on codes that are to stay in float |
//! | [`write_regions`] | puts `QuantizeLinear` and `DequantizeLinear` around them |

pub(crate) mod convolution;
pub mod costs;
pub mod keep_float;
pub mod kernels;
pub mod regions;
pub mod write_regions;
