//! Graph to graph rewrites and the search for layers to quantize.
