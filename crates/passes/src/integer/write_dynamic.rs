//! Replaces MatMul and Gemm by integer products that quantize their input as they run.
//!
//! ```text
//! DynamicQuantizeLinear(x) -> codes, x_scale, x_zero_point
//! MatMulInteger(codes, w_quantized, x_zero_point) -> Cast -> Mul(x_scale * w_scale) [-> Add(bias)]
//! ```
//!
//! This is what ONNX Runtime's own tool writes, and what the runtime fuses: to `DynamicQuantizeMatMul` where one layer
//! reads `x`, and to `MatMulIntegerToFloat` where several do and share its codes. Separate `DynamicQuantizeLinear` of the
//! same value it would merge by itself.
//!
//! Weights are symmetric, per tensor or per channel, stored `[K, M]` as int8 or, of few bits, in planes. The bias of a Gemm becomes an `Add`, which is
//! fused too where it holds one number an output; one that follows a MatMul stays as it is. The layer's node becomes
//! the `MatMulInteger`, and what it made keeps its name and readers. A correction of the layer's mean output goes into
//! its bias (see [`crate::add_to_bias`]).
//!
//! Not written ([`is_supported`] says so): Conv, for which the runtime has no such kernel; weights that are not f32;
//! so many inputs that the integer sum could overflow.

use std::collections::HashMap;

use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, NewNode, NodeId, TensorError, ValueId, int_attribute};

use crate::find::sites::Site;
use crate::graph::constant_chain;
use crate::graph::insert::{append, insert};
use crate::integer::write_static::integer_codes;
use crate::write::add_to_bias::add_to_bias;
use crate::write::codes::Codes;
use crate::write::packed_weight::PackedWeight;

/// What `DynamicQuantizeLinear` needs of the default opset.
pub const DYNAMIC_OPSET: i64 = 11;

/// So many products of steps from -255 to 255 and codes from -128 to 127 fit a sum of 32 bits.
const MAX_INPUTS: usize = (i32::MAX / (255 * 128)) as usize;

/// Whether `site` can become an integer product; others are left to the caller.
pub fn is_supported(site: &Site) -> bool {
    site.view.is_dense() && site.view.inputs() <= MAX_INPUTS && site.dtype == DataType::Float
}

/// Writes `layers` into the graph as integer products; those that read the same value share its codes.
///
/// Returns the initializers that hold the weights, in the order of `layers`.
///
/// # Panics
/// When a weight is not symmetric, per tensor or per channel ([`PackedWeight::is_plain`]).
pub fn write_dynamic(
    graph: &mut Graph,
    layers: Vec<(Site, PackedWeight, Codes)>,
) -> Result<Vec<Vec<ValueId>>, TensorError> {
    assert!(layers.iter().all(|(_, weight, _)| weight.is_plain()), "integer products take symmetric weights");
    let mut inputs = HashMap::new();
    for (site, ..) in &layers {
        inputs.entry(site.input).or_insert_with(|| Quantized::insert(graph, site.input, &layers));
    }
    layers
        .into_iter()
        .map(|(site, weight, codes)| write_layer(graph, &site, &weight, codes, &inputs[&site.input]))
        .collect()
}

/// What `DynamicQuantizeLinear` makes of a value.
struct Quantized {
    codes: ValueId,
    scale: ValueId,
    zero_point: ValueId,
}

impl Quantized {
    /// Inserts the node before the first of `layers` that reads `value`.
    fn insert(graph: &mut Graph, value: ValueId, layers: &[(Site, PackedWeight, Codes)]) -> Self {
        let reads = |id: &NodeId| layers.iter().any(|(site, ..)| site.node == *id && site.input == value);
        let first = graph.order().iter().copied().find(reads).expect("every layer is in the graph");
        let base = graph.value(value).name();
        let new = NewNode {
            op_type: "DynamicQuantizeLinear",
            name: format!("{base}_DynamicQuantizeLinear"),
            inputs: vec![Some(value)],
            outputs: ["quantized", "scale", "zero_point"].map(|what| format!("{base}_{what}")).to_vec(),
            attributes: vec![],
        };
        let node = graph.insert_before(first, new);
        let output = |slot| graph.node(node).output(slot).expect("the node was made with three outputs");
        Self { codes: output(0), scale: output(1), zero_point: output(2) }
    }
}

fn write_layer(
    graph: &mut Graph,
    site: &Site,
    weight: &PackedWeight,
    stored: Codes,
    input: &Quantized,
) -> Result<Vec<ValueId>, TensorError> {
    if weight.correction.iter().any(|&c| c != 0.0) {
        add_to_bias(graph, site, &weight.correction);
    }
    let source = constant_chain::source(graph, site.weight).unwrap_or(site.weight);
    let name = graph.value(source).name().to_owned();
    let (codes, mut held) = integer_codes(graph, site.node, &name, weight, weight.codes.clone(), stored)?;
    let scale = graph.add_constant(&format!("{name}_scale"), weight.scale.clone());
    held.push(scale);
    let base = graph.label(site.node).to_owned();
    let bias = graph.node(site.node).input(2);
    to_integer_product(graph, site, [input.codes, codes, input.zero_point]);
    let scales = insert(graph, site.node, "Mul", &[input.scale, scale], format!("{base}_scales"), vec![]);
    let cast = append(graph, site.node, "Cast", format!("{base}_integers"));
    graph.set_attribute(cast, int_attribute("to", i64::from(DataType::Float as i32)));
    let product = append(graph, cast, "Mul", format!("{base}_floats"));
    graph.set_input(product, 1, Some(scales));
    if let Some(bias) = bias {
        let add = append(graph, product, "Add", format!("{base}_before_bias"));
        graph.set_input(add, 1, Some(bias));
    }
    Ok(held)
}

/// Turns the layer's own node into a `MatMulInteger` of `inputs`.
fn to_integer_product(graph: &mut Graph, site: &Site, inputs: [ValueId; 3]) {
    let node = site.node;
    graph.set_op_type(node, "MatMulInteger");
    ["alpha", "beta", "transA", "transB"].iter().for_each(|name| drop(graph.remove_attribute(node, name)));
    inputs.into_iter().enumerate().for_each(|(slot, value)| graph.set_input(node, slot, Some(value)));
    graph.remove_if_unused(site.weight);
}

#[cfg(test)]
#[path = "write_dynamic_tests.rs"]
mod tests;
