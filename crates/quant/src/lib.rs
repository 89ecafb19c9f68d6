//! The mathematics of weight quantization: matrices in, codes and certificates out.
